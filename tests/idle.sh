#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A server that nobody asks uses no CPU, with a client connected or not, and little memory.
source "$(dirname -- "$0")/lib.sh"
requires nbdinfo qemu-io python3

start_firn
make_disk d 1G
must d 'write -P 1 0 256M' flush
ticks() { awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$firn_pid/stat"; }
# At rest: two whole seconds without a tick of CPU. What works behind (formatting) may finish first.
at_rest() {
  local before
  before=$(ticks)
  sleep 2 # The measuring interval, not a wait.
  (($(ticks) - before <= 0))
}
eventually "two seconds without CPU" at_rest
# A client that is connected and silent changes nothing.
mkfifo "$tmp/hold"
python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(18); print("connected", flush=True); sys.stdin.read()
' "$sock" <>"$tmp/hold" >"$tmp/client" &
client=$!
at_exit kill "$client"
eventually "the client is connected" grep -q connected "$tmp/client"
eventually "two seconds without CPU, a client connected" at_rest
rss=$(awk '/^VmRSS/ {print $2}' "/proc/$firn_pid/status")
((rss < (64 + 64) << 10)) || fail "$rss KiB resident; 64 MiB and the cache of 64 MiB are allowed"
stop_firn
