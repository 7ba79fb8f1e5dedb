#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Thousands of snapshots of one disk: made through the control socket, listed, served, counted, opened, and deleted again.
source "$(dirname -- "$0")/lib.sh"
requires nbdinfo qemu-io jq curl python3
count=2000

answers() { kill -0 "$firn_pid" 2>/dev/null || fail "the server ended"; nbdinfo "$(uri d)" >/dev/null 2>&1; }
serve() { # As start_firn, which would ask about each export.
  "$firn" serve "$pool" --nbd "unix:$sock" >>"$tmp/firn.log" 2>&1 &
  firn_pid=$!
  eventually "the server answers" answers
}
# exports: how many NBD lists; one connection, as `nbdinfo --list` would open one for each.
exports() {
  python3 - "$sock" <<'PY'
import socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); f = s.makefile("rwb")
f.read(18); f.write(struct.pack(">I", 3)); f.write(struct.pack(">QII", 0x49484156454F5054, 3, 0)); f.flush()
names = []
while True:
    _, _, kind, length = struct.unpack(">QIII", f.read(20)); data = f.read(length)
    if kind == 1: break
    assert kind == 2, kind
    size = struct.unpack(">I", data[:4])[0]; names.append(data[4:4 + size].decode())
assert names[0] == "d" and names[1] == "d@s0" and len(set(names)) == len(names), names[:3]
print(len(names))
PY
}

make_pool
make_disk d 1G
serve
must d 'write -P 1 0 1M' flush
# One connection each, as the control socket has it; a curl each would take the longest.
python3 - "$pool/firn.sock" "$count" <<'PY'
import socket, sys
for i in range(int(sys.argv[2])):
    body = b'{"name":"d@s%d"}' % i
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
    s.sendall(b"POST /api/v1/snapshots HTTP/1.1\r\nHost: firn\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answer = b""
    while part := s.recv(65536): answer += part
    assert answer.startswith(b"HTTP/1.1 200 "), answer
PY
must d 'write -P 2 0 64k' flush
same "$(f snapshot list d --json | jq length)" "$count" "snapshots listed"
same "$(f snapshot list d | tail -n 1 | cut -d' ' -f1)" "s$((count - 1))" "the newest"
same "$(f disk info d --json | jq -c '[.snapshots, .layers]')" "[$count,$((count + 1))]" "of the disk"
same "$(metric 'firn_disk_snapshots{disk="d"}')" "$count" "in the metrics"
same "$(exports)" $((count + 1)) "exports listed"
qemu-io -r -f raw -c 'read -P 1 0 1M' "$(uri d@s7)" >"$tmp/io" 2>&1 && ! grep -qi failed "$tmp/io" || fail "an old snapshot: $(cat "$tmp/io")"
disk_io d 'read -P 2 0 64k' 'read -P 1 64k 64k' || fail "the disk at depth $count"
same "$(f changes diff d@s0 d --json | jq -c .)" '[{"offset":0,"length":65536,"kind":"data"}]' "a diff across all of them"
kill_firn
started=$(date +%s%N)
serve
say "opened with $count snapshots after $((($(date +%s%N) - started) / 1000000)) ms"
f disk clone d@s1000 c
must c 'read -P 1 0 1M'
started=$(date +%s%N)
f disk consolidate d --keep 2 >"$tmp/deleted"
say "deleted $((count - 2)) of them in $((($(date +%s%N) - started) / 1000000)) ms"
same "$(f snapshot list d --json | jq -r '.[].name' | xargs)" "s$((count - 2)) s$((count - 1))" "what is left"
same "$(f jobs --json)" "[]" "jobs"
# The clone stands on one of the deleted: that layer, and those of the two that are left, and the live one.
same "$(f disk info d --json | jq .layers)" 4 "layers of the disk"
must d 'read -P 2 0 64k' 'read -P 1 64k 64k'
must c 'read -P 1 0 1M'
f disk delete c
f disk delete d --snapshots
same "$(used_bytes)" 0 "what is left"
stop_firn
pool_is_clean
