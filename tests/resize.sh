#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A disk grows while it is served; new connections see the new size; 64 TiB cost nothing.
source "$(dirname -- "$0")/lib.sh"
requires nbdinfo qemu-io jq

start_firn
make_disk d 64M
qemu-io -f raw -c 'write -P 1 0 64M' -c flush "$(uri d)" >/dev/null
"$firn" --pool "$pool" disk resize d --size 1G >/dev/null
same "$(nbdinfo --size "$(uri d)")" $((1 << 30)) "size"
qemu-io -f raw -c 'read -P 1 0 64M' -c 'read -P 0 64M 1M' -c 'write -P 2 1023M 1M' -c flush "$(uri d)" >"$tmp/io" 2>&1
! grep -qi 'failed\|error' "$tmp/io" || fail "$(cat "$tmp/io")"
make_disk huge 64T
qemu-io -f raw -c 'write -P 3 70368744177152 512' -c 'read -P 3 70368744177152 512' "$(uri huge)" | grep -qi 'failed\|error' &&
  fail "the last sector of 64 TiB"
refuses 1 "size|64" "$firn" --pool "$pool" disk create larger --size 65T
kill_firn
start_firn
same "$(nbdinfo --size "$(uri d)")" $((1 << 30)) "size after a crash"
stop_firn
pool_is_clean
