# SPDX-License-Identifier: Apache-2.0
# Sourced by fs_*.sh: a file system on the disk d, through nbdfuse and a loop device; kill -9 of the server in the middle
# of writes; afterwards every file whose fsync had returned is whole. The caller defines check_file_system.
loop=
fuse_pid=

# attach: the disk d as a loop device, its name in $loop.
attach() {
  mkdir -p "$tmp/fuse" "$tmp/mnt"
  nbdfuse "$tmp/fuse" "$(uri d)" 2>>"$tmp/nbdfuse.log" &
  fuse_pid=$!
  eventually "nbdfuse shows the disk" test -s "$tmp/fuse/nbd"
  loop=$(losetup --find --show "$tmp/fuse/nbd")
}
detach() {
  # Not mountpoint(1): a file system that has shut itself down cannot be asked.
  ! grep -q " $tmp/mnt " /proc/mounts || umount "$tmp/mnt" 2>/dev/null || umount -l "$tmp/mnt" || true
  [[ -z $loop ]] || losetup -d "$loop" || true
  loop=
  [[ -z $fuse_pid ]] || fusermount3 -u "$tmp/fuse" 2>/dev/null || fusermount3 -uz "$tmp/fuse" || true
  [[ -z $fuse_pid ]] || wait "$fuse_pid" 2>/dev/null || true
  fuse_pid=
}
at_exit detach

# write_files ROUND: files with fsync, one after the other, until an error; each is noted once its fsync has returned.
write_files() {
  python3 - "$tmp/mnt" "$1" >>"$tmp/fsynced" 2>/dev/null <<'PY'
import hashlib, os, random, sys
place, run = sys.argv[1], sys.argv[2]
dice = random.Random(int(run))
directory = os.open(place, os.O_RDONLY)
for number in range(100000):
    data = dice.randbytes(dice.choice((100, 4096, 70000, 300000)))
    file = os.open(f"{place}/{run}-{number}", os.O_CREAT | os.O_WRONLY | os.O_EXCL)
    os.write(file, data)
    os.fsync(file)
    os.fsync(directory)
    print(hashlib.sha256(data).hexdigest(), f"{run}-{number}", flush=True)
    os.close(file)
PY
}
enough_files() { (($(wc -l <"$tmp/fsynced") >= $1)); }

check_files() {
  (cd "$tmp/mnt" && sha256sum --quiet -c) <"$tmp/expected" >"$tmp/sums" 2>&1 ||
    fail "what was fsynced is not whole: $(head -n 3 "$tmp/sums")"
}

# crash_rounds: three times a crash in the middle of writes, then a check of all that was fsynced before it.
crash_rounds() {
  local round writer
  : >"$tmp/expected"
  for round in 1 2 3; do
    attach
    mount "$loop" "$tmp/mnt"
    : >"$tmp/fsynced"
    write_files "$round" &
    writer=$!
    eventually "100 files are fsynced" enough_files 100
    kill_firn
    wait "$writer" || true
    detach
    sed 's/ /  /' "$tmp/fsynced" >>"$tmp/expected"
    pool_is_clean
    start_firn
    attach
    mount "$loop" "$tmp/mnt" # Replays the file system's own journal.
    check_files
    umount "$tmp/mnt"
    check_file_system >"$tmp/fsck" 2>&1 || fail "round $round: $(tail -n 5 "$tmp/fsck")"
    detach
  done
}
