#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nbdinfo lists the exports, reads sizes and abilities, and maps base:allocation; a name that is none is refused.
source "$(dirname -- "$0")/lib.sh"
requires nbdinfo qemu-io jq

start_firn
make_disk one 64M
make_disk two 1G
same "$(nbdinfo --list --json "nbd+unix://?socket=$sock" | jq -r '.exports[]."export-name"' | sort | xargs)" "one two" "exports"
same "$(nbdinfo --size "$(uri two)")" $((1 << 30)) "size"
nbdinfo --json "$(uri one)" >"$tmp/one"
jq -e '.protocol == "newstyle-fixed" and .structured == true' "$tmp/one" >/dev/null || fail "$(cat "$tmp/one")"
jq -e '.exports[0] | .can_flush and .can_fua and .can_trim and .can_zero and .can_multi_conn and .can_cache and .can_df
       and (.is_read_only | not) and (.contexts | index("base:allocation"))' "$tmp/one" >/dev/null || fail "$(cat "$tmp/one")"
must one 'write -P 1 1M 1M'
same "$(nbdinfo --map --json "$(uri one)" | jq '[.[] | select(.type == 0) | .length] | add')" $((1 << 20)) "bytes of data in the map"
same "$(nbdinfo --map --json "$(uri one)" | jq '[.[].length] | add')" $((64 << 20)) "length of the map"
! nbdinfo "$(uri three)" >/dev/null 2>"$tmp/error" || fail "an export that is none was offered"
grep -q three "$tmp/error" || fail "the refusal does not name the export: $(cat "$tmp/error")"
stop_firn
