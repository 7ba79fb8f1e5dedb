#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fio writes blocks of many sizes that carry their own checksums, and finds each again: at once, and after a restart.
source "$(dirname -- "$0")/lib.sh"
requires fio nbdinfo
fio --enghelp | grep -qw nbd || { say "skipped: this fio has no nbd engine"; exit 77; }

work() {
  fio --name=verify --ioengine=nbd --uri="$(uri d)" --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --blockalign=512 \
    --iodepth=32 --size=256M --io_size=128M --fsync=64 --verify=crc32c --verify_fatal=1 --randseed=7 --minimal "$@" \
    >"$tmp/fio.out" 2>&1 || fail "fio: $(tail -n 5 "$tmp/fio.out")"
}
cd "$tmp" # fio leaves its state of verification where it runs.
start_firn
make_disk d 256M
work --do_verify=1
stop_firn
start_firn
work --verify_only=1
stop_firn
pool_is_clean
