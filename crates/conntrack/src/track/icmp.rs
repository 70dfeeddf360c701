//! ICMP and ICMPv6 queries.
