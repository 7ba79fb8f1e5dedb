#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Snapshots as a user has them: made under load and at rest, with a daemon and without; each shows for ever what the disk
# showed when it was made, over NBD, in a clone, in an export and after a revert; and a diff names exactly what differs.
source "$(dirname -- "$0")/lib.sh"
requires fio nbdcopy nbdinfo qemu-img qemu-io jq curl python3
fio --enghelp | grep -qw nbd || { say "skipped: this fio has no nbd engine"; exit 77; }

copy_of() { nbdcopy "$(uri "$1")" "$2"; }
shows() { qemu-img compare -q -f raw -F raw "$(uri "$1")" "$2" || fail "$1 does not show what it should: ${2##*/}"; }
snapshots_of() { f snapshot list "$1" --json | jq -r '.[].name' | xargs; }

# extents_are_exact A B COPY-A COPY-B: every grain that differs is named, as data or as zero, and no other.
extents_are_exact() {
  f changes diff "$1" "$2" --json >"$tmp/diff.json"
  f snapshot diff "$1" "$2" --json | cmp - "$tmp/diff.json" || fail "snapshot diff and changes diff say different things"
  f changes allocated "$2" --json >"$tmp/allocated.json"
  python3 - "$tmp/diff.json" "$tmp/allocated.json" "$3" "$4" <<'PY'
import json, sys
diff, allocated = (json.load(open(path)) for path in sys.argv[1:3])
a, b = (open(path, "rb").read() for path in sys.argv[3:5])
said, data, end = {}, set(), 0
for each in diff:
    assert set(each) == {"offset", "length", "kind"} and each["offset"] >= end, each
    end = each["offset"] + each["length"]
    for at in range(each["offset"], end, 4096):
        said[at] = each["kind"]
for each in allocated:
    assert each["kind"] == "data", each
    data |= set(range(each["offset"], each["offset"] + each["length"], 4096))
for at in range(0, len(b), 4096):
    old, new = a[at:at + 4096], b[at:at + 4096]
    assert old == new or at in said, f"grain at {at} differs and is not named"
    assert at not in said or (said[at] == "data") == (at in data), f"grain at {at}: {said[at]}"
    assert at in data or not any(new), f"grain at {at} holds data and is not named as allocated"
assert said, "nothing differs"
PY
}

bad_input() {
  refuses 1 'no snapshot.*DISK@SNAPSHOT' f snapshot create d
  refuses 1 "holds '/'" f snapshot create d@a/b
  refuses 1 "holds '@'" f snapshot create d@a@b
  refuses 1 "begins with '-'" f snapshot create d@-x
  refuses 1 "name is empty" f snapshot create d@
  refuses 1 "'one' already" f snapshot create d@one
  refuses 1 "no disk 'none'" f snapshot create none@x
  refuses 1 "no disk 'none'" f snapshot list none
  refuses 1 "no snapshot 'none'" f snapshot delete d@none
  refuses 1 "no snapshot 'none'" f snapshot revert d@none
  refuses 1 "no snapshot 'none'" f disk clone d@none new
  refuses 1 "no snapshot 'none'" f disk export d@none "$tmp/no.raw"
  refuses 1 "no snapshot 'none'" f changes diff d@one d@none
  refuses 1 "no snapshot 'none'" f changes allocated d@none
  refuses 1 "no snapshot 'none'" f nbd d@none --stdio
  refuses 1 "'d' exists" f disk clone d@one d
  refuses 1 "holds '@'" f disk clone d@one c@x
  refuses 1 "suffix .importing" f disk clone d@one c.importing
  refuses 1 "snapshot.*--snapshots" f disk delete d
  refuses 1 "snapshot '[a-z0-9]*' is larger" f disk resize d --size 1M
  refuses 2 "DISK@SNAPSHOT" f snapshot create
  refuses 2 "keep" f disk consolidate d --keep some
  refuses 2 "limit" f changes diff d@one d@two --limit 0
}

cd "$tmp" # fio leaves files where it runs.
some_bytes 12000000 1 >"$tmp/content"
start_firn
make_disk d 32M
nbdcopy "$tmp/content" "$(uri d)"
copy_of d "$tmp/one.raw"
f snapshot create d@one

# Under load: whoever writes meanwhile changes the disk, never a snapshot.
fio --thread --name=load --ioengine=nbd --uri="$(uri d)" --rw=randwrite --bsrange=4k-32k --iodepth=8 --size=32M --time_based --runtime=600 \
  --minimal >"$tmp/fio.out" 2>&1 &
load=$!
at_exit kill "$load"
wrote() { [[ $(metric 'firn_nbd_written_bytes_total{transport="unix",disk="d"}') -gt $1 ]]; }
eventually "fio writes" wrote 10000000
for i in 1 2 3; do
  f snapshot create "d@live$i"
  copy_of "d@live$i" "$tmp/live$i.raw"
done
shows d@one "$tmp/one.raw"
for i in 1 3; do shows "d@live$i" "$tmp/live$i.raw"; done
same "$(snapshots_of d)" "one live1 live2 live3" "the list"
refuses 1 "'d' is in use by 1 client.*revert" f snapshot revert d@one
[[ -n $(nbdinfo --map "$(uri d@live3)") ]] || fail "no map of a snapshot"
same "$(nbdinfo --json "$(uri d@one)" | jq -c '.exports[0] | [.is_read_only, .can_multi_conn]')" "[true,true]" "what a snapshot may"
qemu-io -f raw -c 'write 0 4k' "$(uri d@one)" >"$tmp/io" 2>&1 && fail "a snapshot was written to"
same "$(nbdinfo --list --json "nbd+unix://?socket=$sock" | jq -r '.exports[]."export-name"' | head -n 3 | xargs)" "d d@one d@live1" "exports"
f disk delete d >"$tmp/out" 2>&1 && fail "a disk in use was deleted"
kill "$load" && wait "$load" || true

# Held open, it stays: named, with how many hold it.
hold() { qemu-io -r -f raw -c 'read 0 4k' -c 'sleep 60000' "$(uri d@live2)" >"$tmp/hold.$1" 2>&1 & at_exit kill $!; }
attached_to() { [[ $(f snapshot list d --json | jq ".[] | select(.name == \"$1\").attached") -eq $2 ]]; }
hold 1
first=$!
hold 2
second=$!
eventually "two clients hold a snapshot" attached_to live2 2
refuses 1 "'d@live2' is in use by 2 client" f snapshot delete d@live2
kill "$first" "$second"
eventually "nobody holds it" attached_to live2 0

# Where they differ: exactly there, in pages of any size.
must d 'discard 1M 3M' 'write -z 8M 1M' 'write -P 7 20M 4k' flush
copy_of d "$tmp/two.raw"
f snapshot create d@two
extents_are_exact d@live3 d@two "$tmp/live3.raw" "$tmp/two.raw"
extents_are_exact d@one d@two "$tmp/one.raw" "$tmp/two.raw"
whole=$(jq -c . "$tmp/diff.json") parts='[]' at=0
while page=$(f changes diff d@one d@two --json --limit 40 --offset "$at") && [[ $(jq length <<<"$page") -gt 0 ]]; do
  parts=$(jq -c --argjson more "$page" '. + $more' <<<"$parts")
  at=$(jq '.[-1] | .offset + .length' <<<"$page")
done
same "$parts" "$whole" "a diff in pages"
f snapshot diff d@one d@two --limit 2 | tail -n 1 | grep -q -- "--offset" || fail "no word on where to go on"
bad_input

# A clone begins as the snapshot and goes its own way; so does the disk after a revert.
f disk clone d@live3 c
shows c "$tmp/live3.raw"
must c 'write -P 3 0 1M' flush
f snapshot create c@deep
f disk clone c@deep cc
same "$(f disk info cc --json | jq -r '[.origin, .layers] | join(" ")')" "c@deep 6" "a clone of a clone"
shows d@live3 "$tmp/live3.raw"
f snapshot revert d@one
shows d "$tmp/one.raw"
same "$(f snapshot list d --json | jq -c '[.[].current]')" "[true,false,false,false,false]" "what the disk rests on"
must d 'write -P 9 0 64k' flush
held() { [[ $(f disk info d --json | jq .attached) -eq 1 ]]; }
qemu-io -f raw -c 'read 0 4k' -c 'sleep 60000' "$(uri d)" >"$tmp/hold" 2>&1 &
holder=$!
at_exit kill "$holder"
eventually "a client holds the disk" held
f snapshot revert d@live2 --force
shows d "$tmp/live2.raw"
kill "$holder"
f disk export d@one "$tmp/one.qcow2"
qemu-img compare -q "$tmp/one.qcow2" "$tmp/one.raw" || fail "the export of a snapshot"
stop_firn
pool_is_clean

# The same without a daemon.
bad_input
f snapshot create d@off
f snapshot revert d@two
f disk export d@off "$tmp/off.raw"
f disk export d "$tmp/d.raw"
cmp "$tmp/off.raw" "$tmp/live2.raw" || fail "a snapshot made offline"
cmp "$tmp/d.raw" "$tmp/two.raw" || fail "a revert made offline"
extents_are_exact d@one d@two "$tmp/one.raw" "$tmp/two.raw"
f disk clone d@off offline
f snapshot delete d@off
same "$(f jobs --json)" "[]" "jobs after a deletion offline"
f disk delete d --snapshots
f disk export offline "$tmp/offline.raw"
cmp "$tmp/offline.raw" "$tmp/live2.raw" || fail "a clone after its origin is gone"
f disk delete offline
f disk delete c --snapshots
f disk delete cc
same "$(used_bytes)" 0 "what is left"
pool_is_clean
