#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A Debian guest in QEMU (TCG) has its disk on NBD: it makes a file system, writes and syncs; the server and QEMU are
# killed; the guest boots again on the same disk and finds every synced byte.
source "$(dirname -- "$0")/lib.sh"
requires qemu-system-x86_64 busybox cpio nbdinfo mke2fs
kernel=$("$source_dir/tools/guest_kernel" 2>"$tmp/why") || { say "skipped: $(cat "$tmp/why")"; exit 77; }

# An initrd of busybox, the disk's modules, and mke2fs with its libraries.
root=$tmp/initrd
mkdir -p "$root"/{bin,dev,proc,sys,mnt,modules}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$kernel"/modules/*.ko "$root/modules/"
for file in "$(command -v mke2fs)" $(ldd "$(command -v mke2fs)" | grep -o '/[^ ]*'); do
  mkdir -p "$root$(dirname "$file")"
  cp -L "$file" "$root$file"
done
ln -s "$(command -v mke2fs)" "$root/bin/make-ext4" # Not under the name of an applet of busybox.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  [ -e /modules/$module.ko ] && insmod /modules/$module.ko
done
while [ ! -b /dev/vda ]; do usleep 10000; done
if grep -q firn.step=write /proc/cmdline; then
  /bin/make-ext4 -q -t ext4 /dev/vda && mount -t ext4 /dev/vda /mnt || echo FIRN-FAILED mount
  for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/mnt/file$i bs=64k count=32 2>/dev/null; done
  (cd /mnt && md5sum file* >sums)
  sync
  echo FIRN-SYNCED
  while :; do dd if=/dev/urandom of=/mnt/noise bs=64k count=64 2>/dev/null; done
else
  mount -t ext4 /dev/vda /mnt || echo FIRN-FAILED mount
  cd /mnt && [ "$(wc -l <sums)" = 8 ] && md5sum -c -s sums && echo FIRN-WHOLE || echo FIRN-FAILED sums
  cd / && umount /mnt
  poweroff -f
fi
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$tmp/initrd.img"

# boot STEP: the guest's console is $tmp/console.STEP, QEMU's pid $qemu.
boot() {
  : >"$tmp/console.$1"
  qemu-system-x86_64 -machine accel=tcg -m 256 -nographic -nodefaults -serial stdio -no-reboot \
    -kernel "$kernel/vmlinuz" -initrd "$tmp/initrd.img" -append "console=ttyS0 quiet panic=-1 firn.step=$1" \
    -drive "file=$(uri d),format=raw,if=virtio,cache=none,discard=unmap" >"$tmp/console.$1" 2>&1 </dev/null &
  qemu=$!
}
says() {
  ! grep -q FIRN-FAILED "$tmp/console.$1" || fail "the guest: $(tail -n 20 "$tmp/console.$1")"
  grep -q "$2" "$tmp/console.$1" || { kill -0 "$qemu" 2>/dev/null || fail "QEMU ended: $(tail -n 20 "$tmp/console.$1")"; false; }
}
written() { says write FIRN-SYNCED; }
checked() { says check FIRN-WHOLE; }

start_firn
make_disk d 512M
boot write
at_exit kill -9 "$qemu"
eventually "the guest has synced" written
kill_firn
kill -9 "$qemu"
wait "$qemu" 2>/dev/null || true
pool_is_clean
start_firn
boot check
at_exit kill -9 "$qemu"
eventually "the guest has checked" checked
wait "$qemu"
stop_firn
pool_is_clean
