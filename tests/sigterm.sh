#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SIGTERM under load drains: what was acknowledged is kept, the exit status is 0, the next open replays nothing.
source "$(dirname -- "$0")/lib.sh"
requires fio nbdinfo qemu-io jq
fio --enghelp | grep -qw nbd || { say "skipped: this fio has no nbd engine"; exit 77; }

start_firn
make_disk d 256M
make_disk e 256M
must e 'write -P 3 0 1M' # Not flushed by anybody but the drain.
(cd "$tmp" && exec fio --name=load --ioengine=nbd --uri="$(uri d)" --rw=randwrite --bs=4k --iodepth=32 --size=256M \
  --time_based --runtime=60) >/dev/null 2>&1 &
load=$!
eventually "the load is under way" has_data d
stop_firn
wait "$load" 2>/dev/null || true
same "$("$firn" pool info "$pool" --json | jq .replayed_transactions)" 0 "transactions replayed after a clean stop"
start_firn
must e 'read -P 3 0 1M'
stop_firn
pool_is_clean
