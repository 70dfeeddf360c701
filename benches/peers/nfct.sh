#!/usr/bin/env bash
# Linux's own connection tracking. afgen (namespace ctbench-gen) -> veth -> forwarding namespace ctbench-fwd -> veth without
# carrier (dropped after POSTROUTING): the whole path runs on one core, in the sender's softirq. The cost of conntrack is the
# difference between a rule that asks for the state (ct) and one that does not (base).
set -euo pipefail
usage() {
  cat <<'U'
usage: nfct.sh start CORE              makes both namespaces
       nfct.sh fill FLOWS udp|tcp      one packet for each flow, with conntrack
       nfct.sh base|ct FLOWS PACKETS udp|tcp   packets of random flows, without or with conntrack
       nfct.sh bytes                   bytes of one entry in the kernel's slab, and buckets
       nfct.sh stop                    takes both away and gives the kernel its limits back
BENCH_DIR is where afgen was built.
U
}
dir=${BENCH_DIR:-$PWD}
gen=ctbench-gen fwd=ctbench-fwd state=/run/ctbench-nfct
hashsize=/sys/module/nf_conntrack/parameters/hashsize

stop() {
  ip netns del $gen 2>/dev/null || true
  ip netns del $fwd 2>/dev/null || true
  if [ -r $state ]; then
    . $state
    sysctl -qw net.netfilter.nf_conntrack_max="$max" || true
    echo "$buckets" >$hashsize || true
    rm -f $state
  fi
}

start() {
  stop
  modprobe nf_conntrack 2>/dev/null || true
  ip netns add $gen
  ip netns add $fwd
  ip link add pg0 netns $gen type veth peer name pf0 netns $fwd
  ip link add pf1 netns $fwd type veth peer name pf2 netns $fwd
  ip -n $gen link set pg0 up
  ip -n $fwd link set pf0 up
  ip -n $fwd link set pf1 up # pf2 stays down: no carrier
  ip -n $fwd link set lo up
  ip -n $fwd addr add 10.0.0.1/8 dev pf0
  ip -n $fwd addr add 192.168.77.1/24 dev pf1
  ip netns exec $fwd sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.pf0.rp_filter=0
  ip -n $fwd neigh add 192.168.77.2 lladdr 02:00:00:00:00:99 nud permanent dev pf1
  ip -n $fwd route add 172.16.0.0/12 via 192.168.77.2 dev pf1
  ct
  { echo "max=$(sysctl -n net.netfilter.nf_conntrack_max)"; echo "buckets=$(cat $hashsize)"; echo "core=$1"; } >$state
  sysctl -qw net.netfilter.nf_conntrack_max=5000000
  echo 1048576 >$hashsize
  ip netns exec $fwd sysctl -qw net.netfilter.nf_conntrack_checksum=0 net.netfilter.nf_conntrack_udp_timeout=600 \
    net.netfilter.nf_conntrack_udp_timeout_stream=600
}

base() {
  ip netns exec $fwd nft -f - <<'E2'
flush ruleset
table ip t {
  chain f {
    type filter hook forward priority 0;
    counter accept;
  }
}
E2
}

ct() {
  ip netns exec $fwd nft -f - <<'E2'
flush ruleset
table ip t {
  chain f {
    type filter hook forward priority 0;
    ct state established,new counter accept;
  }
}
E2
}

# FLOWS PACKETS PROTO SEQUENTIAL
generate() {
  local mac
  . $state
  mac=$(ip -n $fwd -o link show pf0 | sed 's/.*ether \([0-9a-f:]*\).*/\1/')
  ip netns exec $gen taskset -c "$core" "$dir/afgen" pg0 "$1" "$2" "$3" "$4" "$mac"
}

case ${1:-} in
  start) [ $# = 2 ] || { usage >&2; exit 2; }; start "$2" ;;
  fill) ct; ip netns exec $fwd conntrack -F >/dev/null 2>&1; generate "$2" "$2" "$3" 1; ip netns exec $fwd sysctl -n net.netfilter.nf_conntrack_count ;;
  # Entries outlast the change of the rules: the hooks go, the table stays.
  base) base; generate "$2" "$3" "$4" 0 ;;
  ct) ct; generate "$2" "$3" "$4" 0 ;;
  bytes) awk '$1 == "nf_conntrack" { print $4 }' /proc/slabinfo; cat $hashsize ;;
  stop) stop ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
