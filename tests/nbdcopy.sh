#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nbdcopy, over several connections, in and out; what was sparse outside is sparse inside, and again outside.
source "$(dirname -- "$0")/lib.sh"
requires nbdcopy nbdinfo jq

truncate -s 1G "$tmp/in.raw"
for place in 0 3 500 1020; do
  some_bytes 2000000 "$place" | dd of="$tmp/in.raw" bs=1M seek="$place" conv=notrunc iflag=fullblock status=none
done
start_firn
make_disk d 1G
nbdcopy --flush "$tmp/in.raw" "$(uri d)"
mapped=$(mapped_bytes d)
((mapped < 16 << 20)) || fail "$mapped bytes mapped for 8 MB of data"
kill_firn
start_firn
nbdcopy "$(uri d)" "$tmp/out.raw"
cmp "$tmp/in.raw" "$tmp/out.raw"
(($(du -k "$tmp/out.raw" | cut -f1) < 32 << 10)) || fail "what came out is not sparse"
stop_firn
pool_is_clean
