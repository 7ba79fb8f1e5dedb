#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A pool is created, described, checked and grown; what is not a pool, or is one already, is refused by name.
source "$(dirname -- "$0")/lib.sh"
requires jq

make_pool 4G
same "$("$firn" pool info "$pool" --json | jq -r '.capacity_bytes')" $((4 << 30)) "capacity"
pool_is_clean
"$firn" pool grow "$pool" --size 6G >/dev/null
same "$("$firn" pool info "$pool" --json | jq -r '.capacity_bytes')" $((6 << 30)) "capacity after growing"
pool_is_clean

refuses 1 "$pool" "$firn" pool create "$pool" --size 1G
refuses 1 "$tmp/none" "$firn" pool info "$tmp/none"
mkdir "$tmp/other"
echo precious >"$tmp/other/file"
refuses 1 "$tmp/other" "$firn" pool info "$tmp/other"
refuses 1 "$tmp/other" "$firn" serve "$tmp/other" --nbd "unix:$sock"
refuses 1 "$tmp/other" "$firn" pool create "$tmp/other"
same "$(cat "$tmp/other/file")" precious "a bystander's file"
refuses 1 "$tmp/other/file" "$firn" pool info "$tmp/other/file"
refuses 2 . "$firn" pool create "$tmp/p2" --size 12parsecs
refuses 2 . "$firn" frobnicate
