#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# qemu-img writes an image into a disk, reads it back the same, sees its holes, and runs its own benchmark with flushes.
source "$(dirname -- "$0")/lib.sh"
requires qemu-img jq nbdinfo

truncate -s 256M "$tmp/in.raw"
some_bytes 20000000 1 | dd of="$tmp/in.raw" bs=1M seek=10 conv=notrunc iflag=fullblock status=none
some_bytes 5000 2 | dd of="$tmp/in.raw" bs=512 seek=400001 conv=notrunc status=none

start_firn
make_disk d 256M
qemu-img convert -n -f raw -O raw "$tmp/in.raw" "$(uri d)"
qemu-img compare -f raw -F raw "$tmp/in.raw" "$(uri d)" >/dev/null
data=$(qemu-img map --output=json -f raw "$(uri d)" | jq '[.[] | select(.data) | .length] | add')
((data < 24 << 20)) || fail "qemu-img sees $data bytes of data; 20 MB were written"
qemu-img bench -w -c 5000 -d 32 -s 4k --flush-interval=32 -f raw "$(uri d)" >/dev/null
stop_firn

start_firn # And after a restart.
qemu-img convert -f raw -O qcow2 "$(uri d)" "$tmp/out.qcow2"
qemu-img compare -f raw -F qcow2 "$(uri d)" "$tmp/out.qcow2" >/dev/null
stop_firn
pool_is_clean
