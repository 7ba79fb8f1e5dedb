#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# XFS on a firn disk keeps every fsynced file over kill -9 of the server.
source "$(dirname -- "$0")/lib.sh"
requires nbdfuse nbdinfo fusermount3 mkfs.xfs xfs_repair losetup python3 /dev/fuse /dev/loop-control
requires_root
source "$source_dir/tests/fs_crash.bash"
check_file_system() { xfs_repair -n "$loop"; }

start_firn
make_disk d 2G
attach
mkfs.xfs -q "$loop"
detach
crash_rounds
stop_firn
pool_is_clean
