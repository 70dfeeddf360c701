#!/usr/bin/env bash
# Open vSwitch on DPDK (Debian's packages, unpacked, not installed): net_pcap infinite_rx in, net_null out, one PMD thread,
# with and without ct().
set -euo pipefail
usage() {
  cat <<'U'
usage: ovsdpdk.sh start PCAP CORE MIB [CONTROL_CORE]   starts it in namespace ctbench-ovs
       ovsdpdk.sh no-ct|ct           which flows the bridge has from now on
       ovsdpdk.sh packets            packets that the PMD thread has received since the start
       ovsdpdk.sh connections        connections in its table
       ovsdpdk.sh stop
BENCH_DIR holds ovsdpdk/root, the unpacked packages, and ovsdpdk/run, all that a run leaves.
U
}
dir=${BENCH_DIR:-$PWD}/ovsdpdk
R=$dir/root RUN=$dir/run ns=ctbench-ovs
export OVS_RUNDIR=$RUN OVS_LOGDIR=$RUN OVS_DBDIR=$RUN OVS_SYSCONFDIR=$RUN OVS_PKGDATADIR=$R/usr/share/openvswitch
export LD_LIBRARY_PATH=$R/usr/lib/x86_64-linux-gnu:$R/lib/x86_64-linux-gnu
VS="$R/usr/bin/ovs-vsctl --db=unix:$RUN/db.sock --timeout=20"
OF="$R/usr/bin/ovs-ofctl -O OpenFlow13"
CTL="$R/usr/bin/ovs-appctl -t $RUN/vs.ctl"
BR=unix:$RUN/br0.mgmt

stop() {
  local file pid
  for file in vs db; do
    [ -r $RUN/$file.pid ] || continue
    pid=$(cat $RUN/$file.pid)
    # The number may have gone to another program since.
    case $(readlink "/proc/$pid/exe" 2>/dev/null) in "$R"/*) kill -CONT "$pid"; kill "$pid" ;; esac
    for _ in $(seq 50); do [ -e "/proc/$pid" ] || break; sleep 0.1; done
  done
  ip netns del $ns 2>/dev/null || true
}

start() {
  local pcap=$1 core=$2 mib=$3 control=$4
  stop
  rm -rf "$RUN"
  mkdir -p "$RUN"
  $R/usr/bin/ovsdb-tool create $RUN/conf.db $R/usr/share/openvswitch/vswitch.ovsschema
  ip netns add $ns
  ip netns exec $ns $R/usr/sbin/ovsdb-server $RUN/conf.db --remote=punix:$RUN/db.sock --pidfile=$RUN/db.pid --detach --no-chdir \
    --unixctl=$RUN/db.ctl -vconsole:off
  $VS --no-wait init
  $VS --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:dpdk-extra="--no-pci --in-memory --file-prefix ctbench-ovs" \
    other_config:dpdk-socket-mem="$mib" other_config:pmd-cpu-mask="$(printf '0x%x' $((1 << core)))" \
    other_config:dpdk-lcore-mask="$(printf '0x%x' $((1 << control)))" other_config:userspace-tso-enable=false
  ip netns exec $ns $R/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk unix:$RUN/db.sock --pidfile=$RUN/vs.pid --detach --no-chdir \
    --log-file=$RUN/vs.log --unixctl=$RUN/vs.ctl -vconsole:off 2>$RUN/vs.err
  sleep 2
  $VS add-br br0 -- set bridge br0 datapath_type=netdev
  $VS add-port br0 p0 -- set Interface p0 type=dpdk options:dpdk-devargs="net_pcap0,rx_pcap=$pcap,infinite_rx=1" ofport_request=1
  $VS add-port br0 p1 -- set Interface p1 type=dpdk options:dpdk-devargs="net_null0,no-rx=1" ofport_request=2
  sleep 1
  for port in p0 p1; do
    error=$($VS get Interface $port error)
    [ "$error" = '[]' ] || [ "$error" = '""' ] || { echo "port $port: $error" >&2; exit 1; }
  done
}

case ${1:-} in
  start) [ $# -ge 4 ] || { usage >&2; exit 2; }; start "$2" "$3" "$4" "${5:-0}" ;;
  no-ct | ct)
    $OF del-flows $BR
    $OF add-flow $BR "in_port=2,priority=100,actions=drop"
    if [ "$1" = ct ]; then
      $OF add-flow $BR "table=0,in_port=1,ip,ct_state=-trk,actions=ct(table=1)"
      $OF add-flow $BR "table=1,in_port=1,ip,ct_state=+trk+new,actions=ct(commit),output:2"
      $OF add-flow $BR "table=1,in_port=1,ip,ct_state=+trk+est,actions=output:2"
    else
      $OF add-flow $BR "in_port=1,actions=output:2"
    fi
    ;;
  packets) $CTL dpif-netdev/pmd-stats-show | awk '/pmd thread/ { f = 1 } /main thread/ { f = 0 } f && /packets received/ { print $3 }' ;;
  connections) $CTL dpctl/ct-get-nconns ;;
  stop) stop ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
