#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Images of other people's tools come in and go out unchanged: raw, qcow2 (compressed too), vmdk; sparse both ways.
source "$(dirname -- "$0")/lib.sh"
requires qemu-img jq nbdinfo

truncate -s 300M "$tmp/in.raw"
some_bytes 9000000 4 | dd of="$tmp/in.raw" bs=1M seek=7 conv=notrunc iflag=fullblock status=none
some_bytes 700 5 | dd of="$tmp/in.raw" bs=512 seek=614399 conv=notrunc iflag=fullblock status=none
truncate -s 300M "$tmp/in.raw"
qemu-img convert -f raw -O qcow2 -c "$tmp/in.raw" "$tmp/in.qcow2"
qemu-img convert -f raw -O vmdk -o subformat=streamOptimized "$tmp/in.raw" "$tmp/in.vmdk"

f() { "$firn" --pool "$pool" "$@"; }
round_trip() {
  local format
  for format in raw qcow2 vmdk; do
    f disk import "$1-$format" "$tmp/in.$format" --format "$format" >/dev/null
    (($(f disk info "$1-$format" --json | jq .mapped_bytes) < 16 << 20)) || fail "the import of $format is not sparse"
    f disk export "$1-$format" "$tmp/out.raw" --format raw >/dev/null
    cmp "$tmp/in.raw" "$tmp/out.raw"
    (($(du -k "$tmp/out.raw" | cut -f1) < 16 << 10)) || fail "the export of $format is not sparse"
    rm "$tmp/out.raw"
  done
  f disk export "$1-raw" "$tmp/out.qcow2" --format qcow2 >/dev/null
  qemu-img compare -f raw -F qcow2 "$tmp/in.raw" "$tmp/out.qcow2" >/dev/null
  rm "$tmp/out.qcow2"
  f disk import "$1-guessed" "$tmp/in.qcow2" >/dev/null
  same "$(f disk info "$1-guessed" --json | jq .bytes)" $((300 << 20)) "size of an image whose format was guessed"
  refuses 1 "$1-raw" f disk import "$1-raw" "$tmp/in.raw"
  refuses 1 "none.raw" f disk import other "$tmp/none.raw"
  refuses 1 "none" f disk export none "$tmp/out.raw"
}

make_pool
round_trip alone
start_firn
round_trip served
stop_firn
pool_is_clean
