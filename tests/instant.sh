#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A disk is served at once while it is fetched from an archive: what is read is right from the beginning, what is written
# stays, kill -9 and a bucket that is gone for a while change nothing.
source "$(dirname -- "$0")/lib.sh"
requires jq qemu-io qemu-img nbdcopy cmp

bucket=$tmp/bucket url=file://$tmp/bucket
arriving() { f disk info "$1" --json | jq -e '.settings | has("base.url")' >/dev/null; }
arrived() { ! arriving "$1"; }
# is DISK IMAGE: read through NBD.
is() {
  nbdcopy "$(uri "$1")" "$tmp/now" || fail "$1 cannot be read"
  cmp "$2" "$tmp/now" || fail "$1 is not what it should be"
  rm -f "$tmp/now"
}

# --- a snapshot: data, zeroes, data at the end
truncate -s 200M "$tmp/image"
some_bytes $((60 << 20)) 1 | dd of="$tmp/image" bs=1M seek=10 conv=notrunc iflag=fullblock status=none
some_bytes $((20 << 20)) 2 | dd of="$tmp/image" bs=1M seek=180 conv=notrunc iflag=fullblock status=none
start_firn
make_disk web 200M
qemu-img convert -n -f raw -O raw "$tmp/image" "$(uri web)"
f snapshot create web@one >/dev/null
"$firn" archive create "$url" >/dev/null
f archive push web@one "$url" >/dev/null
stop_firn
rm -rf "$pool"

# --- another host
make_pool
refuses 1 "start .firn serve" f restore "$url" web@one new --instant
start_firn
refuses 1 "no snapshot" f restore "$url" web@none new --instant
refuses 1 "no such disk|no disk" f disk info new
f restore "$url" web@one new --instant >/dev/null
must new "read 10M 64k" "read 100M 1M"
is new "$tmp/image"

# --- written, zeroed and discarded while it is fetched
f restore "$url" web@one work --instant >/dev/null
refuses 1 "exists" f restore "$url" web@one work --instant
must work "write -P 7 12M 1M" "write -P 9 30000 5000" "write -z 20M 1M" "discard 40M 4M" "write -P 5 100M 3M" flush
cp --sparse=always "$tmp/image" "$tmp/worked"
qemu-io -f raw -c "write -P 7 12M 1M" -c "write -P 9 30000 5000" -c "write -z 20M 1M" -c "write -z 40M 4M" \
  -c "write -P 5 100M 3M" "$tmp/worked" >/dev/null
is work "$tmp/worked"

# --- killed, and started where the bucket is gone: what is missing fails, and never reads as zeroes
f restore "$url" web@one third --instant >/dev/null
must third "write -P 1 0 1M" flush
kill_firn
mv "$bucket" "$bucket.gone"
start_firn
if arriving third; then
  must third "read -P 1 0 1M"
  refuses 1 "still being fetched" f snapshot create third@no
  refuses 1 "still being fetched" f disk resize third --size 400M
  must third "write -P 3 70M 1M" flush
  if nbdcopy "$(uri third)" "$tmp/now" 2>/dev/null; then fail "what is not there was read"; fi
  stop_firn
  if f disk export third "$tmp/no.img" --format raw 2>"$tmp/refusal"; then fail "exported without the daemon"; fi
  grep -q "still being fetched" "$tmp/refusal" || fail "what was said: $(cat "$tmp/refusal")"
  mv "$bucket.gone" "$bucket"
  start_firn
else
  mv "$bucket.gone" "$bucket"
  must third "write -P 3 70M 1M" flush
fi
cp --sparse=always "$tmp/image" "$tmp/thirds"
qemu-io -f raw -c "write -P 1 0 1M" -c "write -P 3 70M 1M" "$tmp/thirds" >/dev/null
is third "$tmp/thirds"
for disk in new work third; do eventually "$disk is here" arrived "$disk"; done

# --- all is here: no bucket is needed any more
rm -rf "$bucket"
is new "$tmp/image"
is work "$tmp/worked"
f snapshot create third@yes >/dev/null
stop_firn
pool_is_clean
start_firn
is work "$tmp/worked"
is third "$tmp/thirds"

# --- one that is on its way can be deleted
for disk in new work third; do f disk delete "$disk" --snapshots >/dev/null; done
same "$(f disk list --json | jq length)" 0 "disks left"
stop_firn
pool_is_clean
