//! IPFIX (RFC 7011) with both directions of a flow in one record (RFC 5103): what records look like on the wire, and how
//! they get to a collector. Written here, because of the libraries that write IPFIX one needs an HTTP client to be built
//! and the others do not write what is needed: docs/decisions has the reasons.

pub(super) mod collector;
mod message;
mod template;
