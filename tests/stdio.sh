#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `firn nbd DISK --stdio`: whoever has a pipe to it has the disk, with no daemon anywhere.
source "$(dirname -- "$0")/lib.sh"
requires qemu-img nbdinfo socat

make_pool
make_disk d 64M
some_bytes 67108864 3 >"$tmp/in.raw"
export FIRN_POOL=$pool
# with_stdio COMMAND...: a connection to $sock starts a server of its own, whose standard input and output it is.
with_stdio() {
  socat "UNIX-LISTEN:$sock" "EXEC:$firn nbd d --stdio" 2>>"$tmp/firn.log" &
  local server=$!
  eventually "socat listens" test -S "$sock"
  "$@" || fail "$*"
  wait "$server"
  rm -f "$sock"
}
with_stdio nbdinfo --size "$(uri d)" >"$tmp/size"
same "$(cat "$tmp/size")" 67108864 "size"
with_stdio qemu-img convert -n -f raw -O raw "$tmp/in.raw" "$(uri d)"
with_stdio qemu-img compare -q -f raw -F raw "$tmp/in.raw" "$(uri d)"
pool_is_clean
