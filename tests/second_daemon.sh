#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# P8: two daemons never write one pool. The second is refused with the holder's pid; the first does not notice.
source "$(dirname -- "$0")/lib.sh"
requires qemu-io nbdinfo

start_firn
make_disk d 64M
refuses 1 "\\b$firn_pid\\b" "$firn" serve "$pool" --nbd "unix:$tmp/other.sock"
must d 'write -P 7 0 64k' flush
kill_firn
start_firn # What a killed holder left behind does not keep the next one out.
must d 'read -P 7 0 64k'
stop_firn
pool_is_clean
