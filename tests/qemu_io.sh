#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sectors, grains and runs across both, written, zeroed and discarded by qemu-io; what is read is what was written last.
source "$(dirname -- "$0")/lib.sh"
requires qemu-io nbdinfo

verify() {
  must d 'read -P 1 0 512' 'read -P 2 512 512' 'read -P 1 1k 3k' 'read -P 3 1048064 2k' 'read -P 0 1050112 512' \
    'read -P 4 5M 1M' 'read -P 0 6M 64k' 'read -P 4 6356992 4k' 'read -P 0 8M 1M' 'read -P 6 16M 512'
}

start_firn
make_disk d 64M
must d 'write -P 1 0 4k' 'write -P 2 512 512' 'write -P 3 1048064 2k' 'write -P 4 5M 3M' 'write -z 6M 64k' \
  'write -P 5 8M 1M' 'discard 8M 1M' 'write -z -u 7M 64k' 'write -f -P 6 16M 512'
verify
must d flush
kill_firn
start_firn
verify
stop_firn
pool_is_clean
