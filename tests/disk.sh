#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The verbs of a disk, without a daemon and with one: the same answers, and JSON with stable keys.
source "$(dirname -- "$0")/lib.sh"
requires jq nbdinfo

f() { "$firn" --pool "$pool" "$@"; }
names() { f disk list --json | jq -r '.[].name' | xargs; }

verbs() {
  f disk create a --size 1G >/dev/null
  f disk create b.2 --size 512M >/dev/null
  same "$(names)" "a b.2" "the list"
  same "$(f disk info a --json | jq -r '.bytes')" $((1 << 30)) "size of a"
  refuses 1 "'?a'?" f disk create a --size 1G
  refuses 1 "'?none'?" f disk info none
  refuses 1 "name" f disk create 'with@at' --size 1G
  refuses 1 "name" f disk create '../escape' --size 1G
  f disk rename b.2 c >/dev/null
  f disk resize a --size 2G >/dev/null
  same "$(f disk info a --json | jq -r '.bytes')" $((2 << 30)) "size of a after growing"
  f disk set a description='a disk' >/dev/null
  same "$(f disk info a --json | jq -r '.settings.description')" "a disk" "a setting"
  refuses 1 "coalescence" f disk set a coalescence=wild
  f disk delete a >/dev/null
  f disk delete c >/dev/null
  same "$(names)" "" "the list at the end"
}

make_pool
verbs
start_firn
verbs
stop_firn
pool_is_clean
FIRN_POOL=$pool "$firn" disk list --json | jq -e 'type == "array"' >/dev/null
