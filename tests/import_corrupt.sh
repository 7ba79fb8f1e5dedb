#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# P7: an image that is damaged, or cut short, is refused by name, and no half of it stays behind as a disk.
source "$(dirname -- "$0")/lib.sh"
requires qemu-img jq python3

truncate -s 64M "$tmp/in.raw"
some_bytes 30000000 6 | dd of="$tmp/in.raw" conv=notrunc status=none
qemu-img convert -f raw -O qcow2 "$tmp/in.raw" "$tmp/good.qcow2"
# The L1 table points nowhere; the file ends early; the header lies about its size.
python3 - "$tmp" <<'PY'
import pathlib, struct, sys
place = pathlib.Path(sys.argv[1])
good = (place / "good.qcow2").read_bytes()
at, = struct.unpack(">Q", good[40:48])
bad = bytearray(good)
bad[at:at + 8] = struct.pack(">Q", 0x00ffffffffffff00)
(place / "table.qcow2").write_bytes(bad)
(place / "short.qcow2").write_bytes(good[:len(good) // 3])
bad = bytearray(good)
bad[24:32] = struct.pack(">Q", 1 << 62)
(place / "size.qcow2").write_bytes(bad)
(place / "noise.qcow2").write_bytes(b"QFI\xfb" + bytes(range(256)) * 100)
PY

f() { "$firn" --pool "$pool" "$@"; }
tries() {
  local image
  for image in table short size noise; do
    refuses 1 "$image" f disk import "d-$image" "$tmp/$image.qcow2" --format qcow2
  done
  refuses 1 "in.raw" f disk import d-raw "$tmp/in.raw" --format qcow2
  same "$(f disk list --json | jq length)" 0 "disks left behind"
}
make_pool
tries
start_firn
tries
f disk import d "$tmp/good.qcow2" >/dev/null # And it goes on working.
qemu-img compare -f raw -F raw "$tmp/in.raw" "$(uri d)" >/dev/null
stop_firn
pool_is_clean
