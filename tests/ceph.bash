# SPDX-License-Identifier: Apache-2.0
# Sourced by tests that want a real S3 server: Ceph's radosgw with one monitor and one OSD in memory, from Debian's
# packages, on loopback, with all its state in one directory. Up in about two seconds.
#
# ceph_start DIR: returns when it answers; $ceph_endpoint, $ceph_key and $ceph_secret say how to reach it.
# ceph_stop DIR:  ends what ceph_start began, by process id. Safe to call at any time, and twice.
# ceph_admin DIR ARGUMENTS...: radosgw-admin on it.
# FIRN_CEPH_DAY=SECONDS makes a day of lifecycle rules so short. FIRN_CEPH_CLASSES="A B" adds storage classes.

ceph_requires() { requires ceph ceph-mon ceph-osd radosgw radosgw-admin monmaptool ceph-authtool; }

free_ports() {
  python3 - "$1" <<'P'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in held])
P
}

ceph_write_conf() {
  local dir=$1 fsid=$2 mon_port=$3 s3_port=$4
  cat >"$dir/ceph.conf" <<C
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$mon_port]
mon initial members = a
public network = 127.0.0.0/8
keyring = $dir/keyring
auth allow insecure global id reclaim = false
run dir = $dir/run
admin socket = $dir/run/\$name.asok
pid file = $dir/run/\$name.pid
log file = $dir/log/\$name.log
mon cluster log file = $dir/log/cluster.log
crash dir = $dir/log
# One of everything, and nobody to warn about it.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 1
# A monitor without peers has nobody to wait for.
paxos propose interval = 0.02
paxos min wait = 0.01
[mon.a]
mon data = $dir/mon
mon osd crush smoke test = false
[osd.0]
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = ${FIRN_CEPH_BYTES:-4294967296}
osd op num shards = 2
osd op num threads per shard = 1
[client.rgw.a]
rgw data = $dir/rgw
rgw frontends = beast endpoint=127.0.0.1:$s3_port tcp_nodelay=1
rgw thread pool size = 64
rgw dns name = localhost
rgw lc debug interval = ${FIRN_CEPH_DAY:--1}
C
}

ceph_keys() {
  local dir=$1 name
  ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
  for name in client.admin client.rgw.a osd.0; do
    ceph-authtool "$dir/keyring" --gen-key -n "$name" --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' >/dev/null
  done
}

ceph_daemon() {
  local dir=$1 program=$2
  shift 2
  "$program" -c "$dir/ceph.conf" "$@" >>"$dir/log/starts" 2>&1
}
ceph_cli() { timeout 60 ceph -c "$1/ceph.conf" "${@:2}" >>"$1/log/starts" 2>&1; }
ceph_admin() { radosgw-admin -c "$1/ceph.conf" "${@:2}" 2>>"$1/log/starts"; }
ceph_osd_is_up() { timeout 60 ceph -c "$1/ceph.conf" osd stat 2>/dev/null | grep -q '1 up'; }
ceph_answers() { curl -s -o "$1/log/answer" "$ceph_endpoint/"; }

ceph_start_gateway() {
  ceph_daemon "$1" radosgw -n client.rgw.a
  eventually "radosgw answers" ceph_answers "$1"
}

ceph_start() {
  local dir=$1 fsid osd_id ports
  fsid=$(cat /proc/sys/kernel/random/uuid)
  osd_id=$(cat /proc/sys/kernel/random/uuid)
  read -r -a ports < <(free_ports 2)
  export LC_ALL=C
  unset CEPH_CONF CEPH_ARGS
  mkdir -p "$dir"/{mon,osd,rgw,run,log}
  at_exit ceph_stop "$dir"
  ceph_write_conf "$dir" "$fsid" "${ports[0]}" "${ports[1]}"
  ceph_keys "$dir"
  ceph_endpoint=http://127.0.0.1:${ports[1]} ceph_key=FIRNKEY ceph_secret=firn+secret/of=tests

  monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:${ports[0]}]" "$dir/monmap" >/dev/null
  ceph_daemon "$dir" ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/keyring"
  ceph_daemon "$dir" ceph-mon -i a
  ceph_cli "$dir" mon versions
  ceph_daemon "$dir" ceph-osd -i 0 --mkfs --osd-uuid "$osd_id"
  ceph_cli "$dir" osd new "$osd_id" 0
  ceph_cli "$dir" osd crush add osd.0 1.0 root=default host=h
  ceph_daemon "$dir" ceph-osd -i 0
  eventually "the OSD is up" ceph_osd_is_up "$dir"
  ceph_add_classes "$dir"
  ceph_start_gateway "$dir"
  ceph_admin "$dir" user create --uid=firn --display-name=firn --access-key="$ceph_key" --secret="$ceph_secret" >/dev/null
}

# Before the first gateway: one that dies by force is waited for, 30 s long, by whoever changes buckets afterwards.
ceph_add_classes() {
  local dir=$1 class
  [[ -n ${FIRN_CEPH_CLASSES:-} ]] || return 0
  ceph_admin "$dir" user list >/dev/null # Makes the default zone.
  for class in $FIRN_CEPH_CLASSES; do
    ceph_admin "$dir" zonegroup placement add --rgw-zonegroup default --placement-id default-placement --storage-class "$class" >/dev/null
    ceph_admin "$dir" zone placement add --rgw-zone default --placement-id default-placement --storage-class "$class" \
      --data-pool "default.rgw.$class.data" >/dev/null
  done
}

# A daemon that this directory began, and no other: a process id may have been given to somebody else meanwhile.
ceph_end_one() {
  local dir=$1 pid
  pid=$(cat "$dir/run/$2.pid" 2>/dev/null) || return 0
  [[ -n $pid ]] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$dir/ceph.conf" || return 0
  kill -9 "$pid" 2>/dev/null || return 0
  while [[ -d /proc/$pid ]] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do read -r -t 0.02 <> <(:) || true; done
  rm -f "$dir/run/$2.pid"
}
ceph_stop() {
  local name
  for name in client.rgw.a osd.0 mon.a; do ceph_end_one "$1" "$name"; done
}
