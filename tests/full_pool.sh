#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A full pool: ENOSPC on the write that needs space, on nothing else; what was acknowledged stays; a discard makes room.
source "$(dirname -- "$0")/lib.sh"
requires qemu-io nbdinfo python3

io() { qemu-io -f raw "$@" 2>&1; }
make_pool 256M
start_firn
make_disk big 1G
make_disk small 16M
io -c 'write -P 9 0 16M' -c flush "$(uri small)" >/dev/null

# Fill by MiB until the first refusal.
written=0
while ((written < 1024)); do
  io -c "write -P $((written % 250 + 1)) ${written}M 1M" "$(uri big)" >"$tmp/io"
  if grep -qi 'no space left' "$tmp/io"; then break; fi
  grep -q 'wrote 1048576/1048576' "$tmp/io" || fail "neither written nor 'no space left': $(cat "$tmp/io")"
  written=$((written + 1))
done
((written >= 128 && written < 256)) || fail "a pool of 256 MiB with 16 MiB in use took $written MiB more"

# Everybody else goes on: overwrites of mapped grains, reads, flushes, the other disk.
io -c 'write -P 8 0 16M' -c flush -c 'read -P 8 0 16M' "$(uri small)" | grep -qi 'failed\|error' && fail "the other disk suffers"
io -c 'write -P 77 0 1M' -c flush "$(uri big)" | grep -qi 'failed\|error' && fail "an overwrite needs no space, and failed"
check() {
  io -c 'read -P 77 0 1M' "$(uri big)" | grep -qi 'failed\|error' && fail "MiB 0 is lost"
  for ((i = 1; i < written; i += 9)); do
    io -c "read -P $((i % 250 + 1)) ${i}M 1M" "$(uri big)" | grep -qi 'failed\|error' && fail "MiB $i is lost"
  done
  return 0
}
check
# Space comes back, at once or soon: the freed blocks must be durably free before they are given out again.
io -c 'discard 900M 64M' -c "discard $((written - 40))M 40M" -c flush "$(uri big)" >/dev/null
written=$((written - 40))
writes_again() { io -c 'write -P 5 700M 20M' -c flush "$(uri big)" | grep -q 'wrote 20971520/20971520'; }
eventually "20 MiB can be written after 40 MiB were discarded" writes_again
check
kill_firn
pool_is_clean
start_firn
check
io -c 'read -P 5 700M 20M' "$(uri big)" | grep -qi 'failed\|error' && fail "what was written after the discard is lost"
stop_firn
pool_is_clean
