#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Snapshots go to a bucket and come back bit for bit: first ones and differences, whatever is deleted in whatever
# order, cleaned, damaged, or made again from the segments alone.
source "$(dirname -- "$0")/lib.sh"
requires jq python3 cmp

bucket=$tmp/bucket url=file://$tmp/bucket
# write_some IMAGE SEED COUNT: so many runs of random blocks, some of zeroes, some copies of others.
write_some() {
  python3 - "$@" <<'PY'
import random, sys
path, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
with open(path, "r+b") as file:
    for _ in range(count):
        at, blocks, kind = chance.randrange(16384 - 64), chance.randrange(1, 64), chance.randrange(5)
        file.seek(at * 4096)
        if kind == 0: file.write(bytes(4096 * blocks))
        elif kind == 1: file.write((b"all work and no play %d\n" % chance.randrange(9) * 200)[:4096] * blocks)
        elif kind == 2:
            file.seek(chance.randrange(16384 - 64) * 4096)
            data = file.read(4096 * blocks)
            file.seek(at * 4096)
            file.write(data)
        else: file.write(chance.randbytes(4096 * blocks))
PY
}
# The image becomes the disk: what differs is written.
load_disk() { qemu-img convert -n -f raw -O raw "$2" "$(uri "$1")"; }
push() { f archive push "$@" "$url" --json; }
clean() { "$firn" archive clean "$url" --grace 0 --min-age 0 --garbage --json; }
audit() { "$firn" archive check "$url" >"$tmp/audit" || fail "the counters are wrong: $(cat "$tmp/audit")"; }
# restores SNAPSHOT IMAGE: it is the image, bit for bit.
restores() {
  f restore "$url" "$1" back >/dev/null || fail "restore of $1"
  f disk export back "$tmp/back.img" --format raw --force 2>/dev/null
  cmp -s "$2" "$tmp/back.img" || fail "$1 came back different: $(cmp "$2" "$tmp/back.img")"
  f disk delete back
}
stored() { find "$bucket/d" -type f -printf '%s\n' | awk '{sum += $1} END {print sum + 0}'; }

requires qemu-img
start_firn
refuses 1 "no archive|No such file" "$firn" archive list "$url"
"$firn" archive create "$url" --segment 4M >/dev/null
refuses 1 "already" "$firn" archive create "$url"

# --- eight snapshots, each a difference
truncate -s 64M "$tmp/now"
make_disk web 64M
for i in 1 2 3 4 5 6 7 8; do
  write_some "$tmp/now" $i $((i == 1 ? 200 : 20))
  load_disk web "$tmp/now"
  cp --sparse=always "$tmp/now" "$tmp/s$i"
  f snapshot create "web@s$i" >/dev/null
  push "web@s$i" >"$tmp/pushed"
done
same "$(jq -r .base "$tmp/pushed")" web@s7 "what the last push is based on"
refuses 1 "there already" f archive push web@s8 "$url"
same "$("$firn" archive list "$url" --json | jq length)" 8 "snapshots listed"
audit
for i in 1 4 8; do restores "web@s$i" "$tmp/s$i"; done

# --- a change of one block sends one block
qemu-io -f raw -c "write -P 77 8M 4k" "$(uri web)" >/dev/null
printf '%4096s' '' | tr ' ' '\115' | dd of="$tmp/now" bs=4096 seek=2048 conv=notrunc 2>/dev/null
f snapshot create web@one >/dev/null
same "$(push web@one | jq .read_bytes)" 4096 "bytes read for one changed block"
restores web@one "$tmp/now"

# --- the pool's base is older than the archive's newest: both differences count
f snapshot delete web@one
f snapshot delete web@s8
write_some "$tmp/now" 99 10
load_disk web "$tmp/now"
f snapshot create web@late >/dev/null
same "$(push web@late | jq -r .base)" web@s7 "the newest that both have"
restores web@late "$tmp/now"
audit

# --- no common base at all: by identities
for i in 1 2 3 4 5 6 7; do f snapshot delete "web@s$i"; done
f snapshot delete web@late
f snapshot create web@scan >/dev/null
push web@scan >"$tmp/pushed"
same "$(jq -r .base "$tmp/pushed")" null "base"
same "$(jq .new_bytes "$tmp/pushed")" 0 "new bytes of what the archive has"
restores web@scan "$tmp/now"

# --- a second disk with the same content is stored once
make_disk copy 64M
load_disk copy "$tmp/now"
f snapshot create copy@a >/dev/null
push copy@a >"$tmp/pushed"
[[ $(jq .new_bytes "$tmp/pushed") -le $((4096 * 200)) ]] || fail "a copy stored much: $(cat "$tmp/pushed")"
restores copy@a "$tmp/now"
audit

# --- scrub, then deletion in an order of its own, cleaned each time
"$firn" archive scrub "$url" >/dev/null || fail "scrub finds fault with a good archive"
before=$(stored)
left=(1 2 3 4 5 6 7 8)
for gone in 4 1 8 6 2; do
  "$firn" archive delete "$url" "web@s$gone"
  left=("${left[@]/$gone/}")
  audit
  clean >"$tmp/cleaned"
  audit
  for i in ${left[@]}; do restores "web@s$i" "$tmp/s$i"; done
done
restores web@late "$tmp/now"
restores copy@a "$tmp/now"
[[ $(stored) -lt $before ]] || fail "deleting five snapshots freed nothing"
refuses 1 "no snapshot" f restore "$url" web@s4 back
refuses 1 "no snapshot" "$firn" archive delete "$url" web@s4

# --- everything but the segments is gone
rm -rf "$bucket/m" "$bucket/archive"
"$firn" archive rebuild "$url" >"$tmp/rebuilt" || fail "rebuild: $(cat "$tmp/rebuilt")"
audit
for i in ${left[@]}; do restores "web@s$i" "$tmp/s$i"; done
restores copy@a "$tmp/now"
write_some "$tmp/now" 100 5
load_disk web "$tmp/now"
f snapshot create web@more >/dev/null
push web@more >/dev/null
restores web@more "$tmp/now"
audit

# --- a flipped bit is named, with whom it hurts; the rest comes back
victim=$(find "$bucket/d" -type f -size +200k | head -n 1)
cp "$victim" "$tmp/kept"
python3 - "$victim" <<'PY'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(-1000, 2); byte = file.read(1)[0]
    file.seek(-1000, 2); file.write(bytes([byte ^ 4]))
PY
"$firn" archive scrub "$url" --json >"$tmp/scrub" && fail "scrub saw no flipped bit"
same "$(jq '.damaged | length' "$tmp/scrub")" 1 "damaged objects"
hurt=$(jq -r '.damaged[0].hurts[0].snapshot' "$tmp/scrub")
offset=$(jq -r '.damaged[0].hurts[0].ranges[0].offset' "$tmp/scrub")
refuses 1 "damaged.*crc" f restore "$url" "$hurt" back
refuses 1 "was made.*$offset" f restore "$url" "$hurt" back --salvage
f disk delete back
rm "$victim"
refuses 1 "damaged" f restore "$url" "$hurt" back
"$firn" archive scrub "$url" --json >"$tmp/scrub" && fail "scrub misses no object"
cp "$tmp/kept" "$victim"
"$firn" archive scrub "$url" >/dev/null || fail "scrub of what was mended"

# --- keep by schedule
same "$("$firn" archive keep "$url" web --last 2 --dry-run --json | jq .kept)" 2 "kept"
"$firn" archive keep "$url" web --last 2 >/dev/null
same "$("$firn" archive list "$url" web --json | jq length)" 2 "snapshots after keep"
restores web@more "$tmp/now"
audit

# --- encrypted: nothing in it is readable, the wrong key opens nothing, scrub needs none
head -c 48 /dev/urandom >"$tmp/key"
head -c 48 /dev/urandom >"$tmp/wrong"
url=file://$tmp/sealed bucket=$tmp/sealed
"$firn" archive create "$url" --key-file "$tmp/key" >/dev/null
refuses 1 "encrypted" f archive push web@more "$url"
refuses 1 "does not open" f archive push web@more "$url" --key-file "$tmp/wrong"
push web@more --key-file "$tmp/key" >/dev/null
f restore "$url" web@more back --key-file "$tmp/key" >/dev/null
f disk export back "$tmp/back.img" --format raw --force 2>/dev/null
cmp -s "$tmp/now" "$tmp/back.img" || fail "the encrypted one came back different"
f disk delete back
"$firn" archive scrub "$url" >/dev/null || fail "scrub without a key"
! grep -rqa "all work and no play" "$bucket" || fail "plain text in an encrypted archive"
rm -rf "$bucket/m" "$bucket/archive"
"$firn" archive rebuild "$url" --key-file "$tmp/key" >/dev/null || fail "rebuild of an encrypted archive"
f restore "$url" web@more back --key-file "$tmp/key" >/dev/null || fail "restore after that"
stop_firn
pool_is_clean
