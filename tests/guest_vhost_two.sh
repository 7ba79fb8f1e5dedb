#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two disks with two queues each, one of them with packed rings: a guest writes to both at once and finds both.
# The sockets follow the disks: a new one, another name, none for what is not served.
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/guest.bash"
requires jq curl

make_initrd <<'INIT'
while [ ! -b /dev/vdb ]; do usleep 10000; done
dd if=/dev/urandom of=/seed bs=1M count=1 2>/dev/null
work() {
  for i in 1 2 3 4; do
    { echo $1 $i; cat /seed; } | dd of=/dev/$1 bs=64k seek=$((i * 100)) conv=notrunc 2>/dev/null || echo FIRN-FAILED write $1
  done
}
work vda & work vdb &
wait
sync
echo 3 >/proc/sys/vm/drop_caches
size=$( { echo vda 1; cat /seed; } | wc -c)
for disk in vda vdb; do
  for i in 1 2 3 4; do
    found=$(dd if=/dev/$disk bs=64k skip=$((i * 100)) count=17 2>/dev/null | head -c $size | md5sum)
    [ "$found" = "$({ echo $disk $i; cat /seed; } | md5sum)" ] || failed "$disk, piece $i"
  done
  [ "$(ls /sys/block/$disk/mq | wc -l)" = 2 ] || failed "queues of $disk"
done
echo FIRN-WHOLE
poweroff -f
INIT

start_firn --vhost-user-dir "$tmp/vhost"
make_disk a 128M
make_disk other 128M
[[ -S $tmp/vhost/a.sock && -S $tmp/vhost/other.sock ]] || fail "a new disk has no socket"
"$firn" --pool "$pool" disk rename other b >/dev/null
[[ ! -e $tmp/vhost/other.sock && -S $tmp/vhost/b.sock ]] || fail "the socket did not follow the name"
"$firn" --pool "$pool" disk set b serve=off >/dev/null
[[ ! -e $tmp/vhost/b.sock ]] || fail "a disk that is not served has a socket"
"$firn" --pool "$pool" disk set b serve=on >/dev/null
mapfile -t disks < <(vhost_disk a ,num-queues=2,packed=on; vhost_disk b ,num-queues=2)
boot "${disks[@]}"
eventually "the guest has found what it wrote on both disks" says FIRN-WHOLE
wait "$qemu"
curl -s --unix-socket "$pool/firn.sock" http://firn/metrics >"$tmp/metrics"
for disk in a b; do
  grep -q "^firn_vhost_requests_total{disk=\"$disk\",op=\"write\"} [1-9]" "$tmp/metrics" || fail "no writes counted on $disk"
done
stop_firn
pool_is_clean
