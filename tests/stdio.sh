#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `firn nbd DISK --stdio`: whoever has a pipe to it has the disk, with no daemon anywhere.
source "$(dirname -- "$0")/lib.sh"
requires qemu-img nbdinfo python3

make_pool
make_disk d 64M
some_bytes 67108864 3 >"$tmp/in.raw"
export FIRN_POOL=$pool
# with_stdio COMMAND...: the first connection to $sock starts a server, whose standard input and output it is.
with_stdio() {
  python3 - "$sock" "$firn" nbd d --stdio 2>>"$tmp/firn.log" <<'PY' &
import socket, subprocess, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
connection = listener.accept()[0]
sys.exit(subprocess.run(sys.argv[2:], stdin=connection, stdout=connection).returncode)
PY
  local server=$! status=0
  eventually "somebody listens" test -S "$sock"
  "$@" || fail "$*"
  wait "$server" || status=$?
  same "$status" 0 "exit status of the server"
  rm -f "$sock"
}
with_stdio nbdinfo --size "$(uri d)" >"$tmp/size"
same "$(cat "$tmp/size")" 67108864 "size"
with_stdio qemu-img convert -n -f raw -O raw "$tmp/in.raw" "$(uri d)"
with_stdio qemu-img compare -q -f raw -F raw "$tmp/in.raw" "$(uri d)"
pool_is_clean
