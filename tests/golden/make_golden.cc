// SPDX-License-Identifier: Apache-2.0
// Makes the golden files and the seeds of the format fuzzers, the same bytes on every machine.
//
//   make_golden GOLDEN_DIR CORPUS_DIR            writes what README.md lists
//   make_golden --check GOLDEN_DIR CORPUS_DIR    compares instead; exit status 1 names what differs
//
// A golden file of a released version never changes: a new version gets new files. The generator
// stays able to make the old ones for as long as the code can encode them.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/units.h"
#include "format/block_table.h"
#include "format/catalog.h"
#include "format/changes.h"
#include "format/data_label.h"
#include "format/grain_map.h"
#include "format/micro_journal.h"
#include "format/page.h"
#include "format/sesparse.h"
#include "format/shadow.h"
#include "format/superblock.h"
#include "golden_files.h"

namespace {

using namespace firn;
using namespace firn::format;
using namespace firn::golden;

// --- superblock

Superblock superblock() {
  Superblock superblock;
  superblock.uuid = kUuid;
  superblock.sequence = 5;
  superblock.epoch = 7;
  superblock.created_ns = kCreated;
  superblock.journal_slot_bytes = 4096;
  superblock.journal_slots = 4096;
  superblock.journal_medium = static_cast<std::byte>(JournalMedium::file);
  return superblock;
}

void make_superblocks() {
  const auto good = encode(superblock(), 0);
  keep("superblock-v1", blob_of(good), "superblock");
  keep("superblock-v1-copy1", blob_of(encode(superblock(), 1)), "superblock");
  Superblock hinted = superblock();
  hinted.compat = 1;
  hinted.reserved[0] = std::byte{0x2a};
  keep("superblock-v1-compat", blob_of(encode(hinted, 0)), "superblock");

  const auto bad = [](const std::string& name, const std::function<void(Superblock&)>& change) {
    Superblock changed = superblock();
    change(changed);
    changed.crc = crc32c(view_of(changed).subspan(12));
    keep("superblock-v1-bad-" + name, blob_of(view_of(changed)), "superblock");
  };
  bad("place", [](Superblock& s) { s.slot = 1; });
  bad("version", [](Superblock& s) { s.version = 2; });
  bad("incompat", [](Superblock& s) { s.incompat = 1; });
  bad("reserved", [](Superblock& s) { s.reserved[403] = std::byte{1}; });
  bad("journal", [](Superblock& s) { s.journal_slot_bytes = 4097; });
  bad("medium", [](Superblock& s) { s.journal_medium = std::byte{3}; });
  bad("grain", [](Superblock& s) { s.grain_shift = std::byte{9}; });
  auto rotten = good;
  rotten[72] ^= std::byte{0x10};  // One bit of the epoch.
  keep("superblock-v1-bad-rot", blob_of(rotten), "superblock");
}

// --- data label

void make_labels() {
  DataLabel label;
  label.uuid = kUuid;
  label.blocks = 64;
  label.created_ns = kCreated;
  const auto good = encode(label);
  keep("data_label-v1", blob_of(good), "data_label");
  const auto bad = [&](const std::string& name, const std::function<void(DataLabel&)>& change) {
    DataLabel changed = label;
    change(changed);
    changed.crc = crc32c(view_of(changed).subspan(12));
    keep("data_label-v1-bad-" + name, blob_of(view_of(changed)), "data_label");
  };
  bad("version", [](DataLabel& l) { l.version = 2; });
  bad("blocks", [](DataLabel& l) { l.blocks = kBlocksMax + 1; });
  bad("reserved", [](DataLabel& l) { l.reserved[463] = std::byte{1}; });
  auto rotten = good;
  rotten[16] ^= std::byte{0x10};  // One bit of the uuid.
  keep("data_label-v1-bad-rot", blob_of(rotten), "data_label");
}

// --- shadow

void make_shadows() {
  ShadowHeader header;
  header.uuid = kUuid;
  header.epoch = 7;
  header.half_bytes = kShadowHalfBytes;
  header.boot = shadow_boot("5c1e4b7e-0001-4000-8000-0123456789ab");
  header.carried_after = 41;
  header.carried = 8;
  const auto good = encode(header);
  keep("shadow-v1", blob_of(good), "shadow", 0);
  const auto bad = [&](const std::string& name, const std::function<void(ShadowHeader&)>& change) {
    ShadowHeader changed = header;
    change(changed);
    changed.crc = crc32c(view_of(changed).first(480).subspan(12));
    keep("shadow-v1-bad-" + name, blob_of(view_of(changed)), "shadow", 0);
  };
  bad("version", [](ShadowHeader& h) { h.version = 2; });
  bad("half", [](ShadowHeader& h) { h.half_bytes = 4097; });
  bad("reserved", [](ShadowHeader& h) { h.reserved[391] = std::byte{1}; });
  auto rotten = good;
  rotten[32] ^= std::byte{0x10};  // One bit of the epoch.
  keep("shadow-v1-bad-rot", blob_of(rotten), "shadow", 0);

  // A half for commit 42, closed: a span that makes page 3 anew, and one that changes a word of it.
  ShadowHalf half;
  half.id = 42;
  half.closed = 1;
  Blob blob = blob_of(view_of(half));
  const auto span = [&](const PageRecord& record, std::optional<uint64_t> word) {
    Blob records = blob_of(view_of(record));
    if (word) append(records, WordRun{uint16_t{5}, uint16_t{1}, {}});
    if (word) append(records, le64(*word));
    ShadowSpan head;
    head.bytes = static_cast<uint32_t>(records.size());
    head.crc = span_crc(kUuid, 42, blob.size(), records);
    append(blob, head);
    blob.insert(blob.end(), records.begin(), records.end());
  };
  PageRecord record;
  record.page = 3;
  record.flags = kRecordFresh;
  span(record, {});
  record.flags = 0;
  record.runs = 1;
  span(record, 0x8000000000000123);
  append(blob, le64(0));
  keep("shadow-v1-half", blob, "shadow", 1);
  blob[blob.size() - 16] ^= std::byte{1};  // In the word: the second span is not whole.
  keep("shadow-v1-half-torn", blob, "shadow", 1);
}

// --- page-info and index pages

InfoPage info_page() {
  InfoPage info;
  info.magic = kInfoMagic;
  info.page = 256;
  const auto entry = [&](size_t at, PageKind kind, int level, uint32_t family, uint32_t crc) {
    info.entries[at].kind = static_cast<std::byte>(kind);
    info.entries[at].level = static_cast<std::byte>(level);
    info.entries[at].family = family;
    info.entries[at].crc = crc;
  };
  entry(0, PageKind::block_table, 0, 0, 0x11111111);
  entry(1, PageKind::catalog, 0, 0, 0x22222222);
  entry(2, PageKind::index, 1, 3, 0x33333333);
  entry(4, PageKind::map, 0, 3, 0x44444444);  // Entry 3 is free.
  return info;
}

void make_pages() {
  const auto sealed = [](InfoPage info, PageNo page) {
    info.crc = info_crc(kUuid, page, view_of(info));
    return blob_of(view_of(info));
  };
  constexpr int kInfo = 0;
  keep("page_info-v1", sealed(info_page(), 256), "page", kInfo);
  keep("page_info-v1-bad-place", sealed(info_page(), 512), "page", kInfo);
  InfoPage info = info_page();
  info.entries[3].crc = 1;
  keep("page_info-v1-bad-free", sealed(info, 256), "page", kInfo);
  info = info_page();
  info.entries[3].kind = std::byte{0xf0};
  keep("page_info-v1-bad-kind", sealed(info, 256), "page", kInfo);
  Blob rotten = sealed(info_page(), 256);
  rotten[80] ^= std::byte{1};
  keep("page_info-v1-bad-rot", rotten, "page", kInfo);

  constexpr int kIndex = 1;
  Blob index;
  append(index, le64(encode(IndexEntry{261, true})));
  append(index, le64(encode(IndexEntry{259, false})));
  append(index, le64(0));
  append(index, le64(encode(IndexEntry{kPageNoMax, true})));
  keep("page_index-v1", index, "page", kIndex);
  append(index, le64(uint64_t{1} << 50 | 261));
  keep("page_index-v1-bad-bits", index, "page", kIndex);
  Blob to_info;
  append(to_info, le64(uint64_t{1} << 63 | 256));
  keep("page_index-v1-bad-info", to_info, "page", kIndex);
}

// --- grain map

void make_maps() {
  Blob map;
  append(map, le64(encode(GrainEntry{GrainType::data, true, 300})));
  append(map, le64(encode(GrainEntry{GrainType::data, false, 16383})));
  append(map, le64(encode(GrainEntry{})));
  append(map, le64(encode(GrainEntry{GrainType::zero, true, 0})));
  append(map, le64(encode(GrainEntry{GrainType::zero, false, 0})));
  keep("grain_map-v1", map, "grain_map");
  const auto bad = [&](const std::string& name, uint64_t raw) {
    Blob page = map;
    append(page, le64(raw));
    keep("grain_map-v1-bad-" + name, page, "grain_map");
  };
  bad("beyond", encode(GrainEntry{GrainType::data, true, 16384}));
  bad("shared", encode(GrainEntry{GrainType::shared, false, 5}));
  bad("type", encode(GrainEntry{static_cast<GrainType>(7), true, 5}));
  bad("stray", encode(GrainEntry{GrainType::data, true, 5}) | uint64_t{1} << 44);
  bad("absent", encode(GrainEntry{GrainType::absent, true, 0}));
}

// --- block table and pool root

BlockEntry block(BlockState state, uint32_t family, uint32_t generation, uint64_t bits) {
  BlockEntry entry;
  entry.state = static_cast<std::byte>(state);
  entry.family = family;
  entry.generation = generation;
  entry.bitmap[0] = bits;
  entry.used = static_cast<uint16_t>(__builtin_popcountll(bits));
  return entry;
}

PoolRoot pool_root() {
  PoolRoot root;
  root.magic = kPoolRootMagic;
  root.blocks = 64;
  root.groups = 2;
  root.tree(Tree::block_table).page = 257;
  root.tree(Tree::catalog).page = 2;
  root.tree(Tree::catalog).level = std::byte{1};
  root.catalog_records = 9;
  root.next_family = 4;
  root.next_layer = 6;
  return root;
}

void make_tables() {
  constexpr int kTable = 0;
  Blob table;
  append(table, block(BlockState::allocated, 3, 1, 0x00000000000000ff));
  append(table, block(BlockState::ready, 0, 2, 0));
  append(table, block(BlockState::raw, 0, 0, 0));
  append(table, block(BlockState::bad, 0, 0, 0));
  keep("block_table-v1", table, "block_table", kTable);
  const auto bad = [&](const std::string& name, const BlockEntry& entry) {
    Blob page = table;
    append(page, entry);
    keep("block_table-v1-bad-" + name, page, "block_table", kTable);
  };
  BlockEntry miscounted = block(BlockState::allocated, 3, 1, 7);
  miscounted.used = 4;
  bad("used", miscounted);
  bad("owner", block(BlockState::allocated, 0, 1, 7));
  bad("empty", block(BlockState::allocated, 3, 1, 0));
  bad("raw", block(BlockState::raw, 0, 1, 7));
  bad("state", block(static_cast<BlockState>(4), 0, 1, 0));

  constexpr int kRoot = 1;
  keep("pool_root-v1", blob_of(view_of(pool_root())), "block_table", kRoot);
  const auto bad_root = [](const std::string& name, const std::function<void(PoolRoot&)>& change) {
    PoolRoot root = pool_root();
    change(root);
    keep("pool_root-v1-bad-" + name, blob_of(view_of(root)), "block_table", kRoot);
  };
  bad_root("magic", [](PoolRoot& r) { r.magic = kPoolRootMagic + 1; });
  bad_root("blocks", [](PoolRoot& r) { r.blocks = kBlocksMax + 1; });
  bad_root("tree", [](PoolRoot& r) { r.tree(Tree::block_table).page = 512; });
  bad_root("too-new", [](PoolRoot& r) { r.trees[2].page = 3; });
  bad_root("reserved", [](PoolRoot& r) { r.reserved[0] = std::byte{1}; });
}

// --- micro-journal

constexpr size_t kSlotBytes = 512;

void append_record(Blob& payload, PageNo page, uint32_t crc, bool fresh, uint16_t first,
                   const std::vector<uint64_t>& words) {
  PageRecord record;
  record.page = page;
  record.crc = crc;
  record.runs = 1;
  record.flags = fresh ? kRecordFresh : uint16_t{0};
  append(payload, record);
  append(payload, WordRun{first, static_cast<uint16_t>(words.size()), 0});
  for (const uint64_t word : words) append(payload, le64(word));
}

SlotHeader slot_header(uint64_t id, uint16_t part, uint16_t parts) {
  SlotHeader header;
  header.commit_id = id;
  header.epoch = 7;
  header.part = part;
  header.parts = parts;
  header.flags = kSlotDense;
  header.oldest_needed = 39;
  return header;
}

Blob slot(SlotHeader header, View payload) {
  seal(kUuid, header, payload);
  Blob bytes = blob_of(view_of(header));
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  bytes.resize(kSlotBytes);
  return bytes;
}

void make_journal() {
  constexpr int kSlot = 0;
  constexpr int kRecords = 1;
  Blob payload;
  append_record(payload, 261, 0x44444444, false, 9,
                {encode(GrainEntry{GrainType::data, true, 300})});
  append_record(payload, 258, 0x55555555, true, 510, {1, 2});
  const Blob good = slot(slot_header(41, 0, 1), payload);
  keep("micro_journal-v1", good, "micro_journal", kSlot);
  seeds["micro_journal/records"] = payload;
  seeds["micro_journal/records"].insert(seeds["micro_journal/records"].begin(),
                                        static_cast<std::byte>(kRecords));

  // A chain of two slots, one transaction: 504 bytes do not fit into the 448 of a slot.
  Blob longer;
  append_record(longer, 261, 0x66666666, true, 0, std::vector<uint64_t>(60, 0x0123456789abcdef));
  Blob chain = slot(slot_header(42, 0, 2), View(longer).first(448));
  const Blob tail = slot(slot_header(42, 1, 2), View(longer).subspan(448));
  chain.insert(chain.end(), tail.begin(), tail.end());
  keep("micro_journal-v1-chain", chain, "micro_journal", kSlot);

  const auto bad = [&](const std::string& name, const std::function<void(SlotHeader&)>& change) {
    Blob bytes = good;
    auto header = load<SlotHeader>(bytes);
    change(header);
    header.header_crc = crc32c(view_of(header).first(60), crc32c(kUuid));
    std::copy_n(view_of(header).begin(), sizeof header, bytes.begin());
    keep("micro_journal-v1-bad-" + name, bytes, "micro_journal", kSlot);
  };
  bad("version", [](SlotHeader& h) { h.version = 2; });
  bad("length", [](SlotHeader& h) { h.payload_bytes = 449; });
  bad("part", [](SlotHeader& h) { h.part = 1; });
  bad("epoch", [](SlotHeader& h) { h.epoch = 6; });
  bad("flags", [](SlotHeader& h) { h.flags = 2; });
  bad("needed", [](SlotHeader& h) { h.oldest_needed = 42; });
  Blob torn = good;
  std::fill(torn.begin() + 96, torn.end(), std::byte{});
  keep("micro_journal-v1-bad-torn", torn, "micro_journal", kSlot);
  Blob hostile = payload;
  hostile[16 + 2] = std::byte{0xff};  // A run of 255 words where 6 are left.
  Blob typed = payload;
  typed[7] = std::byte{1};  // Of the first record.
  keep("micro_journal-v1-bad-type", slot(slot_header(43, 0, 1), typed), "micro_journal", kSlot);
  keep("micro_journal-v1-bad-run", slot(slot_header(43, 0, 1), hostile), "micro_journal", kSlot);
}

// --- catalog

Named disk() {
  Named named;
  named.kind = RecordKind::disk;
  named.name = "web-01";
  named.layer = 5;
  named.uuid = kUuid;
  named.created_ns = kCreated;
  named.settings = {{"description", "the first"}, {"serve", "off"}};
  named.unknown = std::string("\x08\x00\x03\x00new", 7);
  return named;
}

LayerRecord layer() {
  LayerRecord layer;
  layer.state = static_cast<std::byte>(LayerState::live);
  layer.root_level = std::byte{1};
  layer.layer = 5;
  layer.family = 3;
  layer.parent = 4;
  layer.bytes = 10 * kGiB;
  layer.root = encode(IndexEntry{259, true});
  layer.own_grains = 8;
  layer.own_pages = 2;
  layer.created_ns = kCreated;
  layer.open_block = 1;
  const std::string_view unknown("\x08\x00\x03\x00new", 7);
  layer.tail_bytes = static_cast<uint16_t>(unknown.size());
  std::memcpy(layer.tail.data(), unknown.data(), unknown.size());
  return layer;
}

void make_catalog() {
  const Result<NameRecord> encoded = encode(disk());
  CHECK(encoded);
  const NameRecord& name = *encoded;
  LayerRecord frozen;
  frozen.state = static_cast<std::byte>(LayerState::frozen);
  frozen.layer = 4;
  frozen.family = 3;
  frozen.bytes = 8 * kGiB;
  Blob page;
  append(page, name);
  append(page, layer());
  page.resize(2 * kRecordBytes + kRecordBytes);  // Record 2 is free.
  append(page, frozen);
  keep("catalog-v1", page, "catalog");

  Named snapshot;
  snapshot.kind = RecordKind::snapshot;
  snapshot.name = "before-upgrade";
  snapshot.layer = 4;
  snapshot.uuid.fill(std::byte{0x5a});
  snapshot.created_ns = kCreated;
  snapshot.disk = kUuid;
  const Result<NameRecord> of_disk = encode(snapshot);
  CHECK(of_disk);
  keep("catalog-v1-snapshot", blob_of(view_of(*of_disk)), "catalog");
  NameRecord orphan = *of_disk;
  orphan.tail_bytes = 0;
  orphan.tail = {};
  keep("catalog-v1-bad-snapshot", blob_of(view_of(orphan)), "catalog");

  const auto bad_name = [&](const std::string& what,
                            const std::function<void(NameRecord&)>& change) {
    NameRecord record = name;
    change(record);
    keep("catalog-v1-bad-" + what, blob_of(view_of(record)), "catalog");
  };
  bad_name("name", [](NameRecord& r) { r.name[3] = '/'; });
  bad_name("length", [](NameRecord& r) { r.name_bytes = std::byte{200}; });
  bad_name("odd", [](NameRecord& r) { r.tail[0] = std::byte{3}; });  // Tag 2 becomes 3.
  bad_name("field", [](NameRecord& r) { r.tail[2] = std::byte{0xff}; });
  bad_name("reserved", [](NameRecord& r) { r.reserved[0] = std::byte{1}; });
  bad_name("continuation", [](NameRecord& r) { r.continuation = 12; });
  bad_name("kind", [](NameRecord& r) { r.kind = std::byte{0xf0}; });
  const auto bad_layer = [&](const std::string& what,
                             const std::function<void(LayerRecord&)>& change) {
    LayerRecord record = layer();
    change(record);
    keep("catalog-v1-bad-" + what, blob_of(view_of(record)), "catalog");
  };
  bad_layer("layer", [](LayerRecord& r) { r.family = 0; });
  bad_layer("state", [](LayerRecord& r) { r.state = std::byte{4}; });
  bad_layer("layer-odd", [](LayerRecord& r) { r.tail[0] = std::byte{3}; });
  bad_layer("family", [](LayerRecord& r) { r.family = kFamiliesReserved; });
  bad_layer("version", [](LayerRecord& r) { r.version = std::byte{2}; });
}

// --- change tracking

ChangesRecord changes() {
  ChangesRecord record;
  record.state = static_cast<std::byte>(ChangesState::open);
  record.block_shift = std::byte{16};
  record.disk = kUuid;
  record.branch.fill(std::byte{0xb0});
  record.event_counter = 9;
  record.valid_from = 0;
  record.bytes = 10 * kGiB;
  record.created_ns = kCreated;
  record.log.page = 261;
  record.log.level = std::byte{1};
  record.intents.page = 262;
  add_growth(record, 131072, 4);  // From 8 GiB.
  add_growth(record, 147456, 10);
  const std::string_view unknown("\x08\x00\x03\x00new", 7);
  record.tail_bytes = static_cast<uint16_t>(unknown.size());
  std::memcpy(record.tail.data(), unknown.data(), unknown.size());
  return record;
}

ApplicationRecord application() {
  ApplicationRecord record;
  const std::string_view name = "borg-nightly";
  record.name_bytes = static_cast<std::byte>(name.size());
  std::ranges::copy(name, record.name.begin());
  record.disk = kUuid;
  record.branch.fill(std::byte{0xb0});
  record.counter = 9;
  record.previous = 5;
  record.has_previous = std::byte{1};
  record.began_ns = kCreated;
  return record;
}

void make_changes() {
  Blob page;
  append(page, changes());
  append(page, application());
  keep("changes-v1", page, "changes", 0);
  const auto bad = [](const std::string& what, const std::function<void(ChangesRecord&)>& change) {
    ChangesRecord record = changes();
    change(record);
    keep("changes-v1-bad-" + what, blob_of(view_of(record)), "changes", 0);
  };
  bad("version", [](ChangesRecord& r) { r.version = std::byte{2}; });
  bad("state", [](ChangesRecord& r) { r.state = std::byte{4}; });
  bad("shift", [](ChangesRecord& r) { r.block_shift = std::byte{64}; });
  bad("counter", [](ChangesRecord& r) { r.event_counter = kEventMax + 1; });
  bad("valid", [](ChangesRecord& r) { r.valid_from = 10; });
  bad("root", [](ChangesRecord& r) { r.log.page = 512; });
  bad("growth", [](ChangesRecord& r) { r.growths[1].first_block = 5; });
  bad("odd", [](ChangesRecord& r) { r.tail[0] = std::byte{3}; });
  bad("reserved", [](ChangesRecord& r) { r.reserved0[3] = std::byte{1}; });
  const auto bad_application = [](const std::string& what,
                                  const std::function<void(ApplicationRecord&)>& change) {
    ApplicationRecord record = application();
    change(record);
    keep("changes-v1-bad-" + what, blob_of(view_of(record)), "changes", 0);
  };
  bad_application("name", [](ApplicationRecord& r) { r.name[0] = '-'; });
  bad_application("length", [](ApplicationRecord& r) { r.name_bytes = std::byte{129}; });
  bad_application("previous", [](ApplicationRecord& r) { r.previous = 9; });
  bad_application("flag", [](ApplicationRecord& r) { r.has_previous = std::byte{2}; });

  const std::string id = text_of(ChangeId{kUuid, changes().branch, 9});
  Blob seed = blob_of(std::as_bytes(std::span(id)));
  seed.insert(seed.begin(), std::byte{1});
  seeds["changes/change_id"] = seed;

  Blob log;
  for (const uint32_t counter : {9U, 9U, 0U, 1U}) append(log, le32(counter));
  keep("changes-v1-log", log, "changes", 2);
  Blob intents;
  append(intents, le64(0x8000000000000003));
  keep("changes-v1-intents", intents, "changes", 3);
}

// --- seSparse, which is not ours

constexpr uint64_t kSesparseFile = 8 * kMiB;  // As large as whoever decodes the headers says it is.

// Seeds of the fuzzer's five decoders: a header has the size of its file in front.
enum SesparseSeed { kSizedHeader, kVolatileHeader, kSesparseEntries, kDescriptorText, kWholeFile };

void keep_header(const std::string& name, const sesparse::ConstHeader& header) {
  keep("sesparse-v1" + name, blob_of(view_of(header)), "sesparse", kSizedHeader);
  Blob& seed = seeds["sesparse/sesparse-v1" + name];
  const le64 size = kSesparseFile;
  seed.insert(seed.begin() + 1, view_of(size).begin(), view_of(size).end());
}

void keep_entries(const std::string& name, const std::vector<uint64_t>& raws) {
  Blob blob;
  for (const uint64_t raw : raws) append(blob, le64(raw));
  keep("sesparse-v1-" + name, blob, "sesparse", kSesparseEntries);
}

void make_sesparse_headers() {
  const sesparse::ConstHeader good = sesparse::header_for(64 * kMiB);
  keep_header("", good);
  const auto bad = [&](const std::string& name,
                       const std::function<void(sesparse::ConstHeader&)>& change) {
    sesparse::ConstHeader changed = good;
    change(changed);
    keep_header("-bad-" + name, changed);
  };
  using Header = sesparse::ConstHeader;
  bad("magic", [](Header& h) { h.magic = 0xcafebabf; });
  bad("version", [](Header& h) { h.version = 0x0000000300000000; });
  bad("grain", [](Header& h) { h.grain_size = 128; });
  bad("flags", [](Header& h) { h.flags = 1; });
  bad("reserved", [](Header& h) { h.padding[303] = std::byte{1}; });
  bad("capacity", [](Header& h) { h.capacity = (uint64_t{1} << 37) + 1; });
  bad("directory", [](Header& h) { h.grain_directory.size = 0; });
  bad("tables", [](Header& h) { h.grain_tables.offset = UINT64_MAX - 63; });
  bad("grains", [](Header& h) { h.grains.offset = kSesparseFile / 512 + 1; });

  sesparse::VolatileHeader closed;
  closed.free_table = 2;
  keep("sesparse-v1-volatile", blob_of(view_of(closed)), "sesparse", kVolatileHeader);
  closed.replay_journal = 1;
  keep("sesparse-v1-volatile-bad-unclean", blob_of(view_of(closed)), "sesparse", kVolatileHeader);
  closed.replay_journal = 0;
  closed.magic = sesparse::kMagic;
  keep("sesparse-v1-volatile-bad-magic", blob_of(view_of(closed)), "sesparse", kVolatileHeader);
}

void make_sesparse_maps() {
  using sesparse::Entry;
  using sesparse::EntryType;
  const auto data = [](uint64_t grain) { return encode(Entry{EntryType::data, grain}); };
  keep_entries("table", {data(0), 0, encode(Entry{EntryType::unmapped, 0}),
                         encode(Entry{EntryType::zero, 0}), data(4095), data(4096), data(4999)});
  keep_entries("table-bad-beyond", {data(5000)});
  keep_entries("table-bad-type", {uint64_t{4} << 60});
  keep_entries("table-bad-stray", {7});
  keep_entries("directory",
               {sesparse::encode_directory_entry(1), 0, sesparse::encode_directory_entry(0)});
  keep_entries("directory-bad-beyond", {sesparse::encode_directory_entry(5000)});
  keep_entries("directory-bad-tag", {uint64_t{0x20000000} << 32});

  sesparse::Descriptor descriptor;
  descriptor.extent = "web-sesparse.vmdk";
  descriptor.sectors = 64 * kMiB / 512;
  descriptor.content_id = 0x12345678;
  const std::string text = encode(descriptor);
  const auto keep_text = [](const std::string& name, const std::string& words) {
    keep("sesparse-v1-descriptor" + name, blob_of(std::as_bytes(std::span(words))), "sesparse",
         kDescriptorText);
  };
  keep_text("", text);
  keep_text("-bad-extents", text + "RW 8 SESPARSE \"more\"\n");
  keep_text("-bad-line", "createType=\"seSparse\"\nRW many SESPARSE \"x\"\n");
  keep_text("-bad-type", "createType=\"monolithicSparse\"\nRW 8 SPARSE \"x\"\n");
}

// A whole extent, as small as one can be: a seed alone, the fuzzer's way into the map.
void make_sesparse_file() {
  constexpr uint64_t kSectors = 2 + 1 + 64 + 8;
  sesparse::ConstHeader header;
  header.capacity = 16;
  header.volatile_header = {1, 1};
  header.grain_directory = {2, 1};
  header.grain_tables = {3, 64};
  header.grains = {67, 8};
  Blob file(kSectors * 512);
  const auto put = [&file](size_t at, View bytes) {
    std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<ptrdiff_t>(at));
  };
  put(0, view_of(header));
  put(512, view_of(sesparse::VolatileHeader()));
  put(1024, view_of(le64(sesparse::encode_directory_entry(0))));
  put(1536, view_of(le64(encode(sesparse::Entry{sesparse::EntryType::data, 0}))));
  std::fill(file.end() - 4096, file.end(), std::byte{0x5a});
  file.insert(file.begin(), static_cast<std::byte>(kWholeFile));
  seeds["sesparse/whole"] = file;
}

void make_sesparse() {
  make_sesparse_headers();
  make_sesparse_maps();
  make_sesparse_file();
}

// --- files

bool write(const std::filesystem::path& path, const Blob& bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  for (const std::byte byte : bytes) file.put(static_cast<char>(byte));
  file.close();
  return file.good();
}

bool is_as_made(const std::filesystem::path& path, const Blob& bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return false;
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return std::ranges::equal(std::as_bytes(std::span(text)), bytes);
}

}  // namespace

int main(int count, char** arguments) {
  const bool check = count == 4 && std::string(arguments[1]) == "--check";
  if (count != 3 && !check) {
    std::fprintf(stderr, "usage: %s [--check] GOLDEN_DIR CORPUS_DIR\n", arguments[0]);
    return 2;
  }
  make_superblocks();
  make_labels();
  make_shadows();
  make_pages();
  make_maps();
  make_tables();
  make_journal();
  make_catalog();
  make_bucket_files();
  make_changes();
  make_sesparse();
  bool good = true;
  const auto each = [&](const std::string& directory, const std::map<std::string, Blob>& files) {
    for (const auto& [name, bytes] : files) {
      const std::filesystem::path path = std::filesystem::path(directory) / name;
      if (check ? is_as_made(path, bytes) : write(path, bytes)) continue;
      std::fprintf(stderr, "%s %s\n", path.c_str(),
                   check ? "is not what make_golden makes" : "cannot be written");
      good = false;
    }
  };
  each(arguments[count - 2], golden_files);
  each(arguments[count - 1], seeds);
  return good ? 0 : 1;
}
