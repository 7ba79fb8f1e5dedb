#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A disk grows while it is served; new connections see the new size; 64 TiB cost nothing.
source "$(dirname -- "$0")/lib.sh"
requires nbdinfo qemu-io jq

start_firn
make_disk d 64M
must d 'write -P 1 0 64M' flush
"$firn" --pool "$pool" disk resize d --size 1G >/dev/null
same "$(nbdinfo --size "$(uri d)")" $((1 << 30)) "size"
must d 'read -P 1 0 64M' 'read -P 0 64M 1M' 'write -P 2 1023M 1M' flush
make_disk huge 64T
must huge 'write -P 3 70368744177152 512' 'read -P 3 70368744177152 512'
refuses 1 "size|64" "$firn" --pool "$pool" disk create larger --size 65T
kill_firn
start_firn
same "$(nbdinfo --size "$(uri d)")" $((1 << 30)) "size after a crash"
stop_firn
pool_is_clean
