#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# seSparse images come in as qemu-img reads them, and what goes out qemu-img reads back; what is unclean, cut short,
# half of a disk or a lie is refused by name.
source "$(dirname -- "$0")/lib.sh"
requires qemu-img qemu-io nbdinfo jq python3 md5sum

# An extent of 64 MiB in the tightest layout there can be: all four types of entries, two grain tables in the wrong
# order, grains in reverse, one of number 4,999, which is rotated; then what is wrong with copies of it.
python3 - "$tmp" <<'PY'
import pathlib, random, struct, sys
place = pathlib.Path(sys.argv[1])
chance = random.Random(7)
SECTOR, GRAIN, TABLE = 512, 4096, 64 * 512
DIRECTORY, TABLES, GRAINS = 2, 3, 3 + 2 * 64 + 5  # Sectors; what follows the tables is nobody's.
MARK = {0: 0, 1: 1 << 60, 2: 2 << 60}

def data(n): return 3 << 60 | (n & 0xfff) << 48 | n >> 12

def header(capacity, **other):
    regions = dict(volatile=(1, 1), journal_header=(0, 0), journal=(0, 0), directory=(DIRECTORY, 1),
                   tables=(TABLES, 128), bitmap=(0, 0), back=(0, 0), grains=(GRAINS, 5000 * 8))
    regions.update(other)
    head = struct.pack("<10Q", 0xcafebabe, 0x200000001, capacity, 8, 64, 0, 0, 0, 0, 0)
    return (head + b"".join(struct.pack("<2Q", *r) for r in regions.values())).ljust(512, b"\0")

def volatile(replay=0): return struct.pack("<4Q", 0xcafecafe, 2, 5, replay).ljust(512, b"\0")

# No empty line before the extents: qemu-img would count the next line twice.
def describe(name, extent, capacity=131072, extra=""):
    text = f'# Disk DescriptorFile\nversion=1\nCID=00001234\nparentCID=ffffffff\ncreateType="seSparse"\n{extra}\n# Extents\n'
    (place / f"{name}.vmdk").write_text(text + f'RW {capacity} SESPARSE "{extent}"\n')

def extent(name, capacity=131072, replay=0, entries=None, directory=None, head=None, cut=None):
    with open(place / f"{name}-sesparse.vmdk", "wb") as file:
        file.write((head or header(capacity)) + volatile(replay))
        file.seek(DIRECTORY * SECTOR)
        file.write(struct.pack("<4Q", *(directory or (0x10000000 << 32 | 1, 0, 0x10000000 << 32, 0))))
        for table, grains in (entries or mapped).items():
            for at, entry in grains.items():
                file.seek(TABLES * SECTOR + table * TABLE + at * 8)
                file.write(struct.pack("<Q", entry))
        for n in used:
            file.seek(GRAINS * SECTOR + n * GRAIN)
            file.write(chance.randbytes(GRAIN))
        file.truncate(cut or (GRAINS * SECTOR + 5000 * GRAIN))

used = sorted(chance.sample(range(4090), 700)) + [4096, 4999]
left = list(reversed(used))
mapped = {0: {}, 1: {}}
for table in (0, 1):
    for at in sorted(chance.sample(range(4096), 500)) + [4095]:
        kind = chance.choice([0, 1, 2, 3, 3, 3, 3])
        if kind == 3 and left: mapped[table][at] = data(left.pop(0))
        elif kind != 3: mapped[table][at] = MARK[kind] | (5 if kind == 1 else 0)
run = range(1000, 1000 + len(left))  # The rest follows itself, both here and there.
mapped[0].update({at: data(n) for at, n in zip(run, sorted(left))})
(place / "grains").write_text(str(sum(entry >> 60 == 3 for grains in mapped.values() for entry in grains.values())))
first = {0: {0: data(used[0])}, 1: {}}

extent("good"); describe("good", "good-sesparse.vmdk")
odd = 65536 + 3  # The last grain reaches over the end of the disk; the second table begins with it.
extent("odd", odd, entries={0: {8191 - 4096: data(4999), 1: data(1)}, 1: {0: data(used[3])}},
       directory=(0x10000000 << 32, 0x10000000 << 32 | 1, 0, 0), head=header(32768 + 3))
describe("odd", "odd-sesparse.vmdk", 32768 + 3)

extent("unclean", replay=1); describe("unclean", "unclean-sesparse.vmdk")
whole = GRAINS * SECTOR + 5000 * GRAIN
for name, cut in dict(cut_grain=whole - 1, cut_data=whole // 2, cut_map=TABLES * SECTOR + TABLE, cut_head=700).items():
    extent(name, cut=cut); describe(name, f"{name}-sesparse.vmdk")
(place / "cut_all-sesparse.vmdk").write_bytes(header(131072)[:100])
bad = {
    "bad_type": dict(entries={0: {7: 5 << 60}}), "bad_stray": dict(entries={1: {9: 77}}),
    "bad_twice": dict(entries={0: {i: data(0) for i in range(4096)}, 1: {i: data(0) for i in range(4096)}}),
    "bad_tag": dict(directory=(7, 0, 0, 0)), "bad_table": dict(directory=(0x10000000 << 32 | 2, 0, 0, 0)),
    "bad_tables": dict(directory=(0x10000000 << 32,) * 4, entries=first),
    "bad_capacity": dict(head=header(1 << 60)), "bad_directory": dict(head=header(1 << 30)),
    "bad_wrap": dict(head=header(131072, tables=(2**64 - 64, 128))),
    "bad_region": dict(head=header(131072, bitmap=(1, 1 << 50))),
}
for name, how in bad.items():
    extent(name, **how); describe(name, f"{name}-sesparse.vmdk")
describe("size", "good-sesparse.vmdk", 131073)
describe("two", "good-sesparse.vmdk", extra='RW 131072 SESPARSE "good-sesparse.vmdk"')
describe("none", "none-sesparse.vmdk")
describe("delta", "delta-sesparse.vmdk", extra='parentCID=00001234\nparentFileNameHint="base.vmdk"'); extent("delta")
(place / "sub").mkdir(); (place / "images").mkdir()
for name, path in {"up": "../good-sesparse.vmdk", "root": str(place / "good-sesparse.vmdk"), "url": "nbd://h/x"}.items():
    describe(f"images/{name}", path)
describe("sub", "sub/x-sesparse.vmdk")
PY

grains=$(<"$tmp/grains")
((grains > 600)) || fail "the generator maps $grains grains only"
f() { "$firn" --pool "$pool" "$@"; }
md5_of() { md5sum <"$1" | cut -d' ' -f1; }
raw_of() { # raw_of IMAGE OUT: as qemu-img reads it.
  qemu-img convert -f vmdk -O raw "$1" "$2"
}

comes_in() { # comes_in FILE NAME OPTIONS...: imported, and the same bytes as in $tmp/want.raw.
  local file=$1 name=$2
  shift 2
  f disk import "$name" "$tmp/$file" "$@" >"$tmp/said"
  grep -q "(sesparse)" "$tmp/said" || fail "not read as seSparse: $(cat "$tmp/said")"
  f disk export "$name" "$tmp/got.raw" --format raw
  same "$(md5_of "$tmp/got.raw")" "$(md5_of "$tmp/want.raw")" "md5 of $file"
  rm "$tmp/got.raw"
}

imports() {
  raw_of "$tmp/good.vmdk" "$tmp/want.raw"
  comes_in good.vmdk "$1-descriptor"
  comes_in good.vmdk "$1-vmdk" --format vmdk
  comes_in good.vmdk "$1-told" --format sesparse
  comes_in good-sesparse.vmdk "$1-extent"
  comes_in images/up.vmdk "$1-followed" --follow-references
  (($(f disk info "$1-told" --json | jq .mapped_bytes) == grains * 4096)) || fail "the import is not sparse"
  raw_of "$tmp/odd.vmdk" "$tmp/want.raw"
  comes_in odd.vmdk "$1-odd"
  same "$(f disk info "$1-odd" --json | jq .bytes)" $(((32768 + 3) * 512)) "size of the odd disk"
}

# types FILE: how many grains of each type an extent maps, and whether bitmap and back map say the same.
types() {
  python3 - "$1" <<'PY'
import struct, sys
file = open(sys.argv[1], "rb")
def at(offset, count): file.seek(offset); return struct.unpack(f"<{count}Q", file.read(8 * count).ljust(8 * count, b"\0"))
head = at(0, 26)
capacity, directory, tables, bitmap, back, grains = head[2], *(head[i] * 512 for i in (16, 18, 20, 22, 24))
count, named = [0] * 4, {}
for place, raw in enumerate(at(directory, -(-capacity // 32768))):
    if raw == 0: continue
    table = raw & 0xffffffff
    for i, entry in enumerate(at(tables + table * 32768, 4096)):
        count[entry >> 60] += 1
        if entry >> 60 == 3: named[(entry >> 48 & 0xfff) | (entry & (1 << 48) - 1) << 12] = table * 4096 + i
n = len(named)
assert n == count[3] and sorted(named) == list(range(n)), "grains are not given out one by one"
file.seek(bitmap); bits = int.from_bytes(file.read(back - bitmap), "little")
assert bits == (1 << n) - 1, "the bitmap differs"
assert list(at(back, n + 1)) == [named[i] for i in range(n)] + [0], "the back map differs"
file.seek(0, 2); assert file.tell() == grains + n * 4096, "the file is longer than its grains"
print(*count[1:])
PY
}

exports() {
  mkdir "$tmp/out"
  f disk export "$1-told" "$tmp/out/told.vmdk" --format sesparse
  same "$(cd "$tmp/out" && ls -A | xargs)" "told-sesparse.vmdk told.vmdk" "files of an export"
  qemu-img info -f vmdk --output=json "$tmp/out/told.vmdk" >"$tmp/info"
  same "$(jq -r '.["format-specific"].data["create-type"]' "$tmp/info")" seSparse "type of the export"
  same "$(jq .\"virtual-size\" "$tmp/info")" $((64 << 20)) "size of the export"
  qemu-img compare -f vmdk -F vmdk "$tmp/good.vmdk" "$tmp/out/told.vmdk" >/dev/null
  same "$(types "$tmp/out/told-sesparse.vmdk")" "0 0 $grains" "grains of the export"
  same "$(qemu-img map -f vmdk --output=json "$tmp/out/told.vmdk" | jq '[.[] | select(.data) | .length] | add')" \
    $((grains * 4096)) "data in the map"
  f disk export "$1-odd" "$tmp/out/odd" --format sesparse # A name without a suffix.
  raw_of "$tmp/odd.vmdk" "$tmp/want.raw"
  raw_of "$tmp/out/odd" "$tmp/got.raw"
  same "$(md5_of "$tmp/got.raw")" "$(md5_of "$tmp/want.raw")" "md5 of the odd disk"
  rm "$tmp/got.raw"
  f disk import "$1-again" "$tmp/out/odd-sesparse.vmdk" >/dev/null # And so do we.

  refuses 1 "told.vmdk exists" f disk export "$1-told" "$tmp/out/told.vmdk" --format sesparse
  rm "$tmp/out/told.vmdk"
  refuses 1 "told-sesparse.vmdk exists" f disk export "$1-told" "$tmp/out/told.vmdk" --format sesparse
  f disk export "$1-told" "$tmp/out/told.vmdk" --format sesparse --force
  qemu-img compare -f vmdk -F vmdk "$tmp/good.vmdk" "$tmp/out/told.vmdk" >/dev/null
  refuses 1 'cannot name' f disk export "$1-told" "$tmp/out/a:b.vmdk" --format sesparse
  refuses 1 "none" f disk export none "$tmp/out/none.vmdk" --format sesparse
  same "$(cd "$tmp/out" && ls -A | xargs)" "odd odd-sesparse.vmdk told-sesparse.vmdk told.vmdk" "files in the end"
  rm -r "$tmp/out"
}

refusals() {
  local name before
  before=$(f disk list --json | jq length)
  refuses 1 "unclean-sesparse.vmdk.*unclean.*open and close it in its hypervisor" f disk import x "$tmp/unclean.vmdk"
  refuses 1 "unclean" f disk import x "$tmp/unclean-sesparse.vmdk" --format sesparse
  for name in cut_grain cut_data cut_map cut_head bad_type bad_stray bad_twice bad_tag bad_table bad_tables \
    bad_capacity bad_directory bad_wrap bad_region; do
    refuses 1 "$name.*seSparse" f disk import x "$tmp/$name.vmdk"
  done
  refuses 1 "cut_data.*cut short" f disk import x "$tmp/cut_data-sesparse.vmdk" --format sesparse
  refuses 1 "100 bytes where 512" f disk import x "$tmp/cut_all-sesparse.vmdk"
  refuses 1 "has a parent .*base.vmdk.*only full disks" f disk import x "$tmp/delta.vmdk"
  refuses 1 "has a parent .*base.vmdk.*only full disks" f disk import x "$tmp/delta-sesparse.vmdk"
  refuses 1 "131073 sectors.*131072" f disk import x "$tmp/size.vmdk"
  refuses 1 "more than one extent" f disk import x "$tmp/two.vmdk"
  refuses 1 "none-sesparse.vmdk" f disk import x "$tmp/none.vmdk"
  for name in up root url; do
    refuses 1 "$name.vmdk refers to.*--follow-references" f disk import x "$tmp/images/$name.vmdk"
  done
  refuses 1 "sub.vmdk refers to" f disk import x "$tmp/sub.vmdk" --format vmdk
  refuses 1 "no seSparse image" f disk import x "$tmp/want.raw" --format sesparse
  refuses 1 "neither a file" f disk import x /dev/null --format sesparse
  refuses 1 "missing" f disk import x "$tmp/missing.vmdk" --format sesparse
  same "$(f disk list --json | jq length)" "$before" "disks left behind"
}

make_pool
imports alone
exports alone
start_firn
imports served
exports served
refusals

# A disk in use can be exported, with what was zeroed in it and what was given back.
make_disk mixed 40M
must mixed "write -P 7 1M 3M" "write -z 20M 64k" "write -P 9 0 512" "discard 2M 8k" "write -P 3 41942528 512"
f disk export mixed "$tmp/mixed.vmdk" --format sesparse
same "$(types "$tmp/mixed-sesparse.vmdk")" "0 0 784" "grains of a mixed disk"
qemu-img compare -f raw -F vmdk "$(uri mixed)" "$tmp/mixed.vmdk" >/dev/null
make_disk empty 64G
f disk export empty "$tmp/empty.vmdk" --format sesparse
same "$(qemu-img map -f vmdk --output=json "$tmp/empty.vmdk" | jq -c '[.[] | select(.data)]')" "[]" "data in an empty disk"
(($(du -k "$tmp/empty-sesparse.vmdk" | cut -f1) < 1024)) || fail "the export of an empty disk is not sparse"
f disk import empty-again "$tmp/empty.vmdk" >/dev/null
same "$(mapped_bytes empty-again)" 0 "data of an empty disk"

# Interrupted at any moment: all of it, or nothing.
mkdir "$tmp/cut"
for pause in 0 0.01 0.02 0.04 0.08; do
  status=0
  timeout -s INT "$pause" "$firn" --pool "$pool" disk export served-told "$tmp/cut/x.vmdk" --format sesparse 2>/dev/null || status=$?
  case $(cd "$tmp/cut" && ls -A | xargs) in
  "") ;;
  "x-sesparse.vmdk x.vmdk") qemu-img compare -f vmdk -F vmdk "$tmp/good.vmdk" "$tmp/cut/x.vmdk" >/dev/null ;;
  *) fail "half an export after $pause s, status $status: $(ls -A "$tmp/cut")" ;;
  esac
  rm -rf "$tmp/cut/x.vmdk" "$tmp/cut/x-sesparse.vmdk"
done
stop_firn
pool_is_clean
