#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# P5: snapshots are deleted from the middle, the bottom and the top of a chain while a guest writes; no guest data is moved,
# the space comes back, and a server that is killed in the middle of it goes on by itself.
source "$(dirname -- "$0")/lib.sh"
requires fio nbdcopy nbdinfo qemu-img qemu-io jq curl
fio --enghelp | grep -qw nbd || { say "skipped: this fio has no nbd engine"; exit 77; }

# What a disk shows, as a sparse file; and whether it shows that. Both skip what is not allocated.
copy_of() { qemu-img convert -f raw -O raw "$(uri "$1")" "$tmp/$2"; }
shows() { qemu-img compare -q -f raw -F raw "$(uri "$1")" "$tmp/$2" || fail "$1 does not show what it should: $3"; }
no_jobs() { [[ $(f jobs --json) == "[]" ]]; }
# sparse DISK SEED: 4 KiB in each 2 MiB, so that every page of the map is touched: long work for little data.
sparse() {
  fio --name=sparse --ioengine=nbd --uri="$(uri "$1")" --rw=write:2044k --bs=4k --iodepth=16 --size="$span" --io_size=$((${span%G} * 2))M \
    --randseed="$2" --refill_buffers --minimal >"$tmp/fio.out" 2>&1 || fail "fio: $(tail -n 5 "$tmp/fio.out")"
}
load() { # load DISK: in the background, until the end of the test.
  # A thread and no process of its own: what is killed is gone, also while its server is not there.
  fio --thread --name=load --ioengine=nbd --uri="$(uri "$1")" --rw=randwrite --bs=4k --iodepth=4 --size=32M --time_based --runtime=600 \
    --rate_iops=2000 --minimal >"$tmp/load.out" 2>&1 &
  loader=$!
  at_exit kill -9 "$loader"
}
data_moved() {
  printf '%s ' "$(metric 'firn_pool_data_read_bytes_total{by="'"$1"'"}')" "$(metric 'firn_pool_data_written_bytes_total{by="'"$1"'"}')"
}
cd "$tmp" # fio leaves files where it runs.

# --- nothing is moved, and everything comes back
start_firn
make_disk d 512M
some_bytes 40000000 1 >"$tmp/base"
nbdcopy "$tmp/base" "$(uri d)"
for i in 1 2 3 4 5; do
  f snapshot create "d@s$i"
  must d "write -P $i ${i}M 8M" "write -P $((i + 10)) $((i * 100))M 4M" "discard $((i * 3))M 1M" flush
done
copy_of d live
copy_of d@s2 s2
before_guest=$(data_moved guest)
f snapshot delete d@s3 # From the middle,
f snapshot delete d@s1 # from the base,
f snapshot delete d@s5 # and next to the live layer.
f disk consolidate d --keep 2
same "$(f snapshot list d --json | jq -r '.[].name' | xargs)" "s2 s4" "what is left"
f snapshot delete d@s4
same "$(data_moved consolidate)" "0 0 " "guest data read and written to take layers out"
same "$(data_moved guest)" "$before_guest" "guest data read and written for guests, who were silent"
same "$(metric 'firn_jobs_ended_total{how="consolidated"}')" 4 "layers consolidated"
(($(metric firn_job_steps_total) > 0)) || fail "no steps were counted"
shows d live "after the deletions"
shows d@s2 s2 "between those that were deleted"
same "$(f disk info d --json | jq -c '[.layers, .snapshots]')" "[2,1]" "the chain"
f disk consolidate d --keep 0 | grep -q "deleted: s2" || fail "no word on what was deleted"
shows d live "alone"
same "$(f disk info d --json | jq .mapped_bytes)" "$(used_bytes)" "all that is used is the disk's"

# --- under load, with progress for programs, and a client in the way
load d
f snapshot create d@a
f snapshot create d@b
f snapshot create d@c
qemu-io -r -f raw -c 'read 0 4k' -c 'sleep 60000' "$(uri d@b)" >"$tmp/hold" 2>&1 &
holder=$!
at_exit kill "$holder"
held() { [[ $(f snapshot list d --json | jq '.[] | select(.name == "b").attached') -eq 1 ]]; }
eventually "a client holds a snapshot" held
refuses 1 "not deleted: 'd@b' \(1 client\)" f disk consolidate d --keep 1
same "$(f snapshot list d --json | jq -r '.[].name' | xargs)" "b c" "what could not go, and what may stay"
kill "$holder"
eventually "it is let go" eval '! held'
f snapshot delete d@b
f snapshot delete d@c
kill "$loader" && wait "$loader" || true
f disk set d keep=2 chain=8 >/dev/null
for i in 1 2 3 4; do f snapshot create "d@k$i" >>"$tmp/kept"; done
same "$(f snapshot list d --json | jq -r '.[].name' | xargs)" "k3 k4" "snapshots of a disk that keeps two"
same "$(cat "$tmp/kept")" "deleted by the settings of the disk: k1"$'\n'"deleted by the settings of the disk: k2" "what it says"
f disk set d keep= chain= >/dev/null
f disk delete d --snapshots --background
eventually "the space is back" eval '[[ $(used_bytes) -eq 0 ]]'
stop_firn
pool_is_clean

# --- the plug is pulled in the middle, again and again
span=12G
start_firn
make_disk big 12G
make_disk busy 32M
sparse big 1
f snapshot create big@old
sparse big 2
f snapshot create big@mid
sparse big 3
copy_of big content
kills=0
load busy
f snapshot delete big@mid --background
f snapshot delete big@old --background
under_way() { [[ $(f jobs --json | jq '[.[].done] | add // 0') -gt 20 ]] || no_jobs; }
while eventually "a job is under way, or all are done" under_way; ! no_jobs; do
  kill_firn
  kills=$((kills + 1))
  ((kills < 6)) || break
  wait "$loader" 2>/dev/null || true
  [[ $kills -ne 2 ]] || pool_is_clean
  start_firn
  load busy
done
[[ -n $firn_pid ]] || start_firn
eventually "what was begun has gone on by itself" no_jobs
shows big content "after $kills kills"
same "$(f disk info big --json | jq -c '[.layers, .snapshots]')" "[1,0]" "its chain"
kill "$loader" 2>/dev/null || true
stop_firn
pool_is_clean
say "killed $kills times in the middle of it"
f disk delete busy
same "$(f disk info big --json | jq .mapped_bytes)" "$(used_bytes)" "what is used in the end"

# --- offline, and killed offline
f snapshot create big@x
f disk delete big --snapshots
same "$(used_bytes)" 0 "what is left"
pool_is_clean
