#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A full pool: ENOSPC on the write that needs space, on nothing else; what was acknowledged stays; a discard makes room.
source "$(dirname -- "$0")/lib.sh"
requires qemu-io nbdinfo

make_pool 256M
start_firn
make_disk big 1G
make_disk small 16M
must small 'write -P 9 0 16M' flush

# Fill by MiB until the first refusal.
written=0
while disk_io big "write -P $((written % 250 + 1)) ${written}M 1M"; do
  written=$((written + 1))
  ((written < 256)) || fail "a pool of 256 MiB took all of that and more"
done
grep -qi 'no space left' "$tmp/io" || fail "refused, but not for lack of space: $(cat "$tmp/io")"
((written >= 128)) || fail "a pool of 256 MiB with 16 MiB in use took only $written MiB more"

# Everybody else goes on: overwrites of mapped grains, reads, flushes, the other disk.
must small 'write -P 8 0 16M' flush 'read -P 8 0 16M'
must big 'write -P 77 0 1M' flush
everything_is_there() {
  local i words=('read -P 77 0 1M')
  for ((i = 1; i < written; i++)); do words+=("read -P $((i % 250 + 1)) ${i}M 1M"); done
  must big "${words[@]}"
}
everything_is_there

# Space comes back, at once or soon: freed blocks must be durably free before they are given out again.
written=$((written - 40))
must big "discard ${written}M 40M" flush
eventually "20 MiB can be written after 40 MiB were discarded" disk_io big 'write -P 5 700M 20M' flush
everything_is_there
kill_firn
pool_is_clean
start_firn
everything_is_there
must big 'read -P 5 700M 20M'
stop_firn
pool_is_clean
