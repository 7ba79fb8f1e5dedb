#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# P7: guests and front ends that mean harm, for STORM_SECONDS (3), beside a guest whose every block is verified and who
# gets all its answers. Under ASan with script/storm.
source "$(dirname -- "$0")/lib.sh"
requires jq curl
storm=${FIRN_BUILD:-$(dirname -- "$firn")}/vhost_storm
[[ -x $storm ]] || fail "no program at $storm"
seconds=${STORM_SECONDS:-3}

start_firn --vhost-user-dir "$tmp/v" --log-level error
make_disk good 256M
make_disk bad 64M
"$firn" bench "$tmp/v/good.sock" --rw randrw --depth 8 --bytes 32M --seconds "$seconds" --verify --json >"$tmp/good" 2>"$tmp/wrong" &
good=$!
"$storm" "$tmp/v/bad.sock" "$seconds" "${STORM_SEED:-$RANDOM}" >"$tmp/storm" 2>&1 || fail "the storm: $(cat "$tmp/storm")"
wait "$good" || fail "the other guest: $(cat "$tmp/good" "$tmp/wrong")"
same "$(jq .wrong,.errors,.reconnects "$tmp/good" | xargs)" "0 0 0" "wrong, errors and reconnects of the other guest"
say "$(cat "$tmp/storm"); beside them $(jq '.reads + .writes' "$tmp/good") requests, p99 $(jq .p99_us "$tmp/good") us"
stop_firn
! grep -E 'Sanitizer|runtime error|CHECK failed' "$tmp/firn.log" || fail "the server's words"
pool_is_clean
