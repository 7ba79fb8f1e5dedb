#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A guest on vhost-user-blk: it makes a file system, finds 64 MiB as it wrote them, gives space back, sees its disk
# grow, and does not notice that the server is killed and started again while it writes, with a write-back cache.
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/guest.bash"
requires jq

make_initrd <<'INIT'
big() { for i in 1 2 3 4 5 6 7 8; do echo $i; cat /seed; done; }
dd if=/dev/urandom of=/seed bs=1M count=8 2>/dev/null
[ -s /sys/block/vda/serial ] && [ "$(cat /sys/block/vda/serial)" = d ] || failed serial
[ "$(ls /sys/block/vda/mq | wc -l)" = 2 ] || failed queues
/bin/make-ext4 -q -t ext4 /dev/vda && mount -t ext4 /dev/vda /mnt || failed mount
big >/mnt/big || failed write
sum=$(big | md5sum)
sync
echo 3 >/proc/sys/vm/drop_caches
[ "$(md5sum </mnt/big)" = "$sum" ] || failed "64 MiB are not what was written"
echo FIRN-STORED
rm /mnt/big && sync && fstrim /mnt || failed fstrim
echo FIRN-TRIMMED
while [ "$(cat /sys/block/vda/size)" != $((768 * 2048)) ]; do usleep 20000; done
echo FIRN-GROWN
# Most of what is written from here on is answered long before it is flushed.
[ "$(cat /sys/block/vda/cache_type)" = "write back" ] || failed "there is no write cache"
echo 20 >/proc/sys/vm/dirty_writeback_centisecs
echo 1 >/proc/sys/vm/dirty_expire_centisecs
i=0
while [ $i -lt 24 ]; do
  i=$((i + 1))
  { echo $i; dd if=/seed bs=64k count=16 2>/dev/null; } >/mnt/file$i || failed "file $i"
  usleep 50000
  [ $i = 8 ] && echo FIRN-LOADING
  [ $i = 16 ] && echo FIRN-LOADING-ON
done
sync
echo 3 >/proc/sys/vm/drop_caches
while [ $i -gt 0 ]; do
  [ "$(md5sum </mnt/file$i)" = "$({ echo $i; dd if=/seed bs=64k count=16 2>/dev/null; } | md5sum)" ] || failed "file $i is not what was written"
  i=$((i - 1))
done
dmesg | grep -iE 'I/O error|EXT4-fs error' && failed "an error reached the guest"
umount /mnt || failed umount
echo FIRN-WHOLE
poweroff -f
INIT

released() { [[ $(mapped_bytes d) -lt $((40 << 20)) ]]; }
serve() { start_firn --vhost-user-dir "$tmp/vhost" --vhost-user-mode 0600; }
serve
make_disk d 512M
[[ $(stat -c %a "$tmp/vhost/d.sock") == 600 ]] || fail "the socket has mode $(stat -c %a "$tmp/vhost/d.sock")"
mapfile -t disk < <(vhost_disk d ,num-queues=2)
boot "${disk[@]}"
eventually "the guest has stored 64 MiB" says FIRN-STORED
[[ $(mapped_bytes d) -ge $((64 << 20)) ]] || fail "64 MiB were stored, and $(mapped_bytes d) bytes are mapped"
eventually "the guest has trimmed" says FIRN-TRIMMED
eventually "discard gives space back" released
"$firn" --pool "$pool" disk resize d --size 768M >/dev/null
eventually "the guest sees its disk grow" says FIRN-GROWN
eventually "the guest writes" says FIRN-LOADING
kill_firn
serve
eventually "the guest writes on" says FIRN-LOADING-ON
kill_firn
serve
eventually "the guest has found all it wrote" says FIRN-WHOLE
wait "$qemu"
stop_firn
[[ ! -e $tmp/vhost/d.sock ]] || fail "the socket is still there"
pool_is_clean
