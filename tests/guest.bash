# SPDX-License-Identifier: Apache-2.0
# Sourced by tests that boot a guest: Debian's kernel, an initrd of busybox and mke2fs, QEMU without acceleration.
# The guest says FIRN-... on its console, and FIRN-FAILED when something is wrong.
requires qemu-system-x86_64 busybox cpio nbdinfo mke2fs
kernel=$("$source_dir/tools/guest_kernel" 2>"$tmp/why") || { say "skipped: $(cat "$tmp/why")"; exit 77; }

# make_initrd <INIT: what the guest does once its modules are there, as a shell script.
make_initrd() {
  local root=$tmp/initrd file
  mkdir -p "$root"/{bin,dev,proc,sys,mnt,modules}
  cp "$(command -v busybox)" "$root/bin/busybox"
  cp "$kernel"/modules/*.ko "$root/modules/"
  for file in "$(command -v mke2fs)" $(ldd "$(command -v mke2fs)" | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
  done
  ln -s "$(command -v mke2fs)" "$root/bin/make-ext4" # Not under the name of an applet of busybox.
  cat - >"$root/init.tail"
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
failed() { echo "FIRN-FAILED $*"; dmesg | tail -n 15; poweroff -f; }
INIT
  cat "$root/init.tail" >>"$root/init"
  rm "$root/init.tail"
  chmod +x "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet) >"$tmp/initrd.img"
}

console=$tmp/console
# boot QEMU-OPTIONS...: the guest's console is $console, QEMU's pid $qemu. Its memory is shared, as vhost-user wants.
boot() {
  : >"$console"
  qemu-system-x86_64 -machine accel=tcg,memory-backend=mem -object memory-backend-memfd,id=mem,size=256M,share=on \
    -m 256 -smp 2 -nographic -nodefaults -serial stdio -no-reboot -kernel "$kernel/vmlinuz" \
    -initrd "$tmp/initrd.img" -append "console=ttyS0 quiet panic=-1" "$@" >"$console" 2>&1 </dev/null &
  qemu=$!
  at_exit kill -9 "$qemu"
}
# vhost_disk DISK [DEVICE-OPTIONS]: for boot; a front end that comes back when the server does.
vhost_disk() {
  printf '%s\n' -chardev "socket,id=c$1,path=$tmp/vhost/$1.sock,reconnect=1" -device "vhost-user-blk-pci,chardev=c$1${2:-}"
}
says() {
  ! grep -aq FIRN-FAILED "$console" || fail "the guest: $(tail -n 20 "$console")"
  grep -aq "$1" "$console" || { kill -0 "$qemu" 2>/dev/null || fail "QEMU ended: $(tail -n 20 "$console")"; false; }
}
