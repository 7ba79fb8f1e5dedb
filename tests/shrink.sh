#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Discarded grains come back one by one; `disk shrink` gathers what is left, so that whole storage blocks come back to the
# pool and to the host. What disks and snapshots show stays the same, also when the daemon is killed in the middle.
source "$(dirname -- "$0")/lib.sh"
requires nbdcopy nbdinfo qemu-img qemu-io jq

allocated() { "$firn" pool info "$pool" --json | jq .allocated_bytes; }
shows() { qemu-img compare -q -f raw -F raw "$(uri "$1")" "$2" || fail "$1 does not show what it should"; }

make_pool 512M
start_firn
make_disk d 128M
qemu-io -f raw -c 'write -P 7 0 128M' -c flush "$(uri d)" >/dev/null
f snapshot create d@before
commands=()
for ((i = 0; i < 128; i++)); do # Of each MiB of the disk 12 KiB are written anew, and of each other one the rest is discarded.
  commands+=(-c "write -P $((i % 200 + 1)) $((i * 1024 + 64))k 12k")
done
qemu-io -f raw "${commands[@]}" -c flush "$(uri d)" >/dev/null
f snapshot delete d@before
commands=()
for ((i = 0; i < 128; i += 2)); do
  commands+=(-c "discard $((i * 1024 + 256))k 768k")
done
qemu-io -f raw "${commands[@]}" -c flush "$(uri d)" >/dev/null
f snapshot create d@kept
nbdcopy "$(uri d)" "$tmp/before.raw"
before=$(allocated)

f disk shrink d --json >"$tmp/shrunk.json"
emptied=$(jq .emptied_bytes "$tmp/shrunk.json")
((emptied >= 32 << 20)) || fail "only $emptied bytes came back"
(($(jq .returned_bytes "$tmp/shrunk.json") >= emptied)) || fail "the host got less than the pool"
(($(allocated) <= before - emptied)) || fail "the pool says otherwise: $(allocated) of $before"
shows d "$tmp/before.raw"
shows d@kept "$tmp/before.raw"
[[ $(f disk shrink d --json | jq .moved_bytes) == 0 ]] || fail "a second run finds something to move"

# Killed in the middle: nothing is lost, nothing is owned twice, and it can be done again.
commands=()
for ((i = 0; i < 128; i += 3)); do commands+=(-c "discard $((i * 1024))k 200k"); done
qemu-io -f raw "${commands[@]}" -c flush "$(uri d)" >/dev/null
nbdcopy "$(uri d)" "$tmp/after.raw"
f disk shrink d >/dev/null 2>&1 &
shrinking=$!
kill_firn
wait "$shrinking" || true
pool_is_clean
start_firn
shows d "$tmp/after.raw"
shows d@kept "$tmp/before.raw"
f disk shrink d >/dev/null
shows d "$tmp/after.raw"
shows d@kept "$tmp/before.raw"
stop_firn
pool_is_clean
