#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Clients that start their own server: libnbd runs `firn nbd DISK --stdio`, with no daemon anywhere.
source "$(dirname -- "$0")/lib.sh"
requires nbdcopy nbdinfo

make_pool
make_disk d 64M
some_bytes 67108864 3 >"$tmp/in.raw"
export FIRN_POOL=$pool
same "$(nbdinfo --size -- [ "$firn" nbd d --stdio ])" 67108864 "size"
nbdcopy --flush "$tmp/in.raw" -- [ "$firn" nbd d --stdio ]
nbdcopy -- [ "$firn" nbd d --stdio ] "$tmp/out.raw"
cmp "$tmp/in.raw" "$tmp/out.raw"
pool_is_clean
