#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# docs/operating/backup.md, step by step with stock tools: a full copy, then increments of what NBD's dirty bitmap says;
# two applications with rhythms of their own. Each image is compared with its snapshot, byte for byte.
source "$(dirname -- "$0")/lib.sh"
requires nbdcopy nbdinfo qemu-io qemu-img jq cmp

firn_() { "$firn" --pool "$pool" "$@"; }
# guest SEED: writes and discards that nobody told us of.
guest() {
  local i words=()
  for i in 1 2 3 4 5 6; do
    words+=("write -P $((($1 * 7 + i) % 250 + 1)) $((($1 * 7919 + i * 104729) % 63000))k $((i * 37))k")
  done
  must disk "${words[@]}" "discard $((($1 * 31) % 60))M 512k" flush
}
# full APP IMAGE, increment APP IMAGE: as the page says.
full() {
  firn_ changes begin disk --app "$1" --snapshot "$1-0" >/dev/null
  nbdcopy "$(uri "disk@$1-0")" "$2"
}
increment() {
  local app=$1 image=$2 snap=$1-$3 from length source
  firn_ changes begin disk --app "$app" --snapshot "$snap" >/dev/null
  source=$(uri "disk@$snap")
  nbdinfo --map="qemu:dirty-bitmap:$app" --json "$source" |
    jq -r '.[] | select(.type % 2 == 1) | "\(.offset) \(.length)"' >"$tmp/dirty"
  copied=0
  while read -r from length; do
    qemu-img convert -n \
      --image-opts "driver=raw,offset=$from,size=$length,file.driver=nbd,file.server.type=unix,file.server.path=$sock,file.export=disk@$snap" \
      --target-image-opts "driver=raw,offset=$from,size=$length,file.driver=file,file.filename=$image"
    copied=$((copied + length))
  done <"$tmp/dirty"
  nbdcopy "$source" "$tmp/whole"
  cmp "$tmp/whole" "$image" || fail "$snap is not what the image holds"
  firn_ changes apps disk >/dev/null
}

start_firn
make_disk disk 64M
guest 1
full nightly "$tmp/nightly.img"
guest 2
full hourly "$tmp/hourly.img"
for round in 1 2 3 4 5 6; do
  guest $((round + 2))
  increment hourly "$tmp/hourly.img" "$round"
  ((copied < 24 << 20)) || fail "an increment of $copied bytes is no increment"
  ((round % 3)) || increment nightly "$tmp/nightly.img" "$round"
  ((round != 4)) || { kill_firn; start_firn; } # Whatever happens to the server: never less than what changed.
done
stop_firn
pool_is_clean
