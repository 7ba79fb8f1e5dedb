#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Change tracking by the command line and by NBD's dirty bitmaps: events, errors, restarts, and kill -9 under load,
# after which the list is compared with every byte that differs: more may be told, never less.
source "$(dirname -- "$0")/lib.sh"
requires qemu-io nbdcopy nbdinfo qemu-img jq cmp curl

changes() { "$firn" --pool "$pool" changes "$@"; }
# covers LIST OLD NEW: with the "OFFSET LENGTH" lines of LIST taken from NEW, OLD becomes the same.
covers() {
  local from length
  while read -r from length; do
    dd if="$3" of="$2" bs=65536 skip=$((from / 65536)) seek=$((from / 65536)) count=$((length / 65536)) conv=notrunc status=none
  done <"$1"
  cmp "$2" "$3" || fail "a block differs and is not listed"
}
# changed_since ID BYTES: at least so many are listed.
changed_since() { [[ $(changes list d --since "$1" | awk '{ s += $2 } END { print s + 0 }') -ge $2 ]]; }

start_firn
make_disk d 64M
must d 'write -P 1 0 8M' 'write -P 1 20M 1M' flush
refuses 1 'full copy needed because its changes are not tracked' changes list d --since \
  "$(printf '%s/%s/1' 10111213-1415-1617-1819-1a1b1c1d1e1f 10111213-1415-1617-1819-1a1b1c1d1e1f)"
one=$(changes begin d --app nightly)
[[ $one == */*/2 ]] || fail "not a change id: $one"
same "$(changes list d --since "$one")" "" "nothing has changed yet"
must d 'write -P 2 64k 4k' 'write -P 2 40M 128k' 'discard 20M 64k' flush
same "$(changes list d --since "$one" | xargs)" "65536 65536 20971520 65536 41943040 131072" "what changed"
same "$(changes list d --since "$one" --offset 1048576 --limit 1 | xargs)" "20971520 65536" "a page of it"
same "$(changes list d --since "$one" --json --limit 1 | jq .next_offset)" 20971520 "where the next begins"
same "$(changes list d --since "${one%/*}/0" | awk '{ s += $2 } END { print s }')" $((9 * 1048576 + 131072)) "all that holds data"

# Stock tools see the same.
nbdinfo --list --json "$(uri d)" >/dev/null
nbdinfo --map=qemu:dirty-bitmap:nightly --json "$(uri d)" |
  jq -r '.[] | select(.type == 1) | "\(.offset) \(.length)"' >"$tmp/by_nbd"
same "$(xargs <"$tmp/by_nbd")" "$(changes list d --since "$one" | xargs)" "nbdinfo's map"
qemu-img map --output=json --image-opts \
  "driver=nbd,server.type=unix,server.path=$sock,export=d,x-dirty-bitmap=qemu:dirty-bitmap:nightly" |
  jq -r '.[] | select(.data == false) | "\(.start) \(.length)"' >"$tmp/by_qemu"
same "$(xargs <"$tmp/by_qemu")" "$(xargs <"$tmp/by_nbd")" "qemu-img's map"

# Two applications; the snapshot of a begin has what changed since the one before.
two=$(changes begin d --app weekly)
must d 'write -P 3 1M 4k' flush
three=$(changes begin d --app nightly --snapshot s3)
same "$(nbdinfo --map=qemu:dirty-bitmap:nightly --json "$(uri d@s3)" | jq -r '[.[] | select(.type == 1) | .offset] | join(" ")')" \
  "65536 1048576 20971520 41943040" "between the two begins of nightly"
must d 'write -P 4 2M 4k' flush
same "$(changes list d --since "$two" | xargs)" "1048576 65536 2097152 65536" "since weekly"
same "$(changes list d --since "$three" | xargs)" "2097152 65536" "since nightly"
same "$(changes apps d --json | jq -r '[.[].name] | join(" ")')" "nightly weekly" "the applications"

# What is wrong is said.
refuses 1 "no disk 'none'" changes begin none --app x
refuses 1 'not a change id' changes list d --since 7
refuses 1 'has not happened here' changes list d --since "${one%/*}/99"
refuses 1 'of another disk' changes list d --since "00000000-0000-0000-0000-000000000000/${one#*/}"
refuses 1 "no application 'x'" changes end d --app x
refuses 2 'app' changes begin d
changes end d --app weekly
changes list d --since "$two" >/dev/null

# A clean restart keeps every id exact.
stop_firn
same "$(changes list d --since "$three" | xargs)" "2097152 65536" "offline"
start_firn
same "$(changes list d --since "$three" | xargs)" "2097152 65536" "after a restart"

for round in $(seq "${FIRN_KILLS:-5}"); do
  nbdcopy "$(uri d)" "$tmp/before"
  id=$(changes begin d --app killer)
  some_bytes 67108864 "$round" >"$tmp/noise"
  qemu-io -f raw -c "write -P $((round + 10)) $((round * 3))M 100k" -c flush "$(uri d)" >/dev/null
  nbdcopy --connections=1 "$tmp/noise" "$(uri d)" >/dev/null 2>&1 &
  copier=$!
  eventually "the copy is under way" changed_since "$id" $((8 << 20))
  kill_firn
  wait "$copier" 2>/dev/null || true
  start_firn
  nbdcopy "$(uri d)" "$tmp/after"
  changes list d --since "$id" >"$tmp/list"
  covers "$tmp/list" "$tmp/before" "$tmp/after"
  say "round $round: $(awk '{ s += $2 } END { print s }' "$tmp/list") bytes listed"
done
(($(metric 'firn_changes_recovered_bytes{disk="d"}') > 0)) || fail "the metric of recovered bytes is missing"
changes off d
refuses 1 'not tracked' changes list d --since "$id"
stop_firn
pool_is_clean
