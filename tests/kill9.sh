#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# P1, P2: after kill -9 everything flushed is there, the disk opens by itself, and space is neither lost nor owned twice.
source "$(dirname -- "$0")/lib.sh"
requires qemu-io nbdcopy nbdinfo jq

some_bytes 100000000 9 >"$tmp/noise"
start_firn
make_disk d 512M
make_disk noise 128M
for round in 1 2 3 4 5; do
  words=()
  for i in {0..19}; do words+=("write -P $((round * 20 + i)) $((i * 5))M 600k"); done
  must d "${words[@]}" flush
  # Unflushed writes of somebody else are in flight while the plug is pulled.
  "$firn" --pool "$pool" disk delete noise >/dev/null
  make_disk noise 128M
  nbdcopy "$tmp/noise" "$(uri noise)" >/dev/null 2>&1 &
  copier=$!
  eventually "the copy is under way" has_data noise
  kill_firn
  wait "$copier" 2>/dev/null || true
  pool_is_clean
  start_firn
  must d "${words[@]//write/read}"
done
stop_firn
pool_is_clean
