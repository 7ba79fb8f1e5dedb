// SPDX-License-Identifier: Apache-2.0
// The golden files: what version 1 wrote is read for ever, field by field, and the bad ones are
// refused for the reason in their name. tests/golden/README.md says how each was made.
#include <gtest/gtest.h>

#include "format/block_table.h"
#include "format/catalog.h"
#include "format/changes.h"
#include "format/data_label.h"
#include "format/format_test_util.h"
#include "format/grain_map.h"
#include "format/micro_journal.h"
#include "format/sesparse.h"
#include "format/shadow.h"
#include "format/superblock.h"

namespace firn::format {
namespace {

constexpr uint64_t kCreated = 1700000000123456789;

Uuid golden_uuid() {
  Uuid uuid;
  for (size_t i = 0; i < uuid.size(); ++i) uuid[i] = static_cast<std::byte>(0x10 + i);
  return uuid;
}
const Uuid kUuid = golden_uuid();

struct Bad {
  const char* name;
  Errc code;
  const char* text;
};

TEST(Golden, superblock) {
  for (const uint16_t copy : {uint16_t{0}, uint16_t{1}}) {
    const Blob bytes = golden(copy == 0 ? "superblock-v1.bin" : "superblock-v1-copy1.bin", 512);
    const auto superblock = decode_superblock(bytes, copy);
    ASSERT_TRUE(superblock) << text_of(superblock.error());
    EXPECT_EQ(superblock->magic, kSuperblockMagic);
    EXPECT_EQ(superblock->version, 1);
    EXPECT_EQ(superblock->slot, copy);
    EXPECT_EQ(superblock->incompat, 0U);
    EXPECT_EQ(superblock->ro_compat, 0U);
    EXPECT_EQ(superblock->compat, 0U);
    EXPECT_EQ(superblock->autoclear, 0U);
    EXPECT_EQ(superblock->uuid, kUuid);
    EXPECT_EQ(superblock->sequence, 5U);
    EXPECT_EQ(superblock->epoch, 7U);
    EXPECT_EQ(superblock->created_ns, kCreated);
    EXPECT_EQ(superblock->journal_slot_bytes, 4096U);
    EXPECT_EQ(superblock->journal_slots, 4096U);
    EXPECT_EQ(superblock->journal_medium, static_cast<std::byte>(JournalMedium::file));
    EXPECT_EQ(superblock->block_shift, std::byte{20});
    EXPECT_EQ(superblock->grain_shift, std::byte{12});
    EXPECT_EQ(superblock->page_shift, std::byte{12});
    EXPECT_TRUE(all_zero(superblock->reserved));
    EXPECT_TRUE(same(encode(*superblock, copy), bytes)) << "written as it was read";
  }
  const Blob hinted = golden("superblock-v1-compat.bin", 512);
  const auto superblock = decode_superblock(hinted, 0);
  ASSERT_TRUE(superblock) << text_of(superblock.error());
  EXPECT_EQ(superblock->compat, 1U);
  EXPECT_EQ(superblock->reserved[0], std::byte{0x2a});
  EXPECT_TRUE(same(encode(*superblock, 0), hinted));
}

TEST(Golden, bad_superblocks) {
  for (const Bad& bad : {
           Bad{"place", Errc::corrupt, "copy 1"},
           Bad{"version", Errc::too_new, "format version 2"},
           Bad{"incompat", Errc::too_new, "features 0x1"},
           Bad{"reserved", Errc::corrupt, "reserved"},
           Bad{"journal", Errc::corrupt, "slots of 4097 bytes"},
           Bad{"medium", Errc::too_new, "medium 3"},
           Bad{"grain", Errc::unsupported, "size"},
           Bad{"rot", Errc::corrupt, "crc"},
       }) {
    const Blob bytes = golden(fmt::format("superblock-v1-bad-{}.bin", bad.name), 512);
    expect_error(decode_superblock(bytes, 0), bad.code, bad.text);
  }
}

TEST(Golden, shadow) {
  const Blob bytes = golden("shadow-v1.bin", 512);
  const auto header = decode_shadow_header(bytes);
  ASSERT_TRUE(header) << text_of(header.error());
  EXPECT_EQ(header->magic, kShadowMagic);
  EXPECT_EQ(header->version, 1);
  EXPECT_EQ(header->uuid, kUuid);
  EXPECT_EQ(header->epoch, 7U);
  EXPECT_EQ(header->half_bytes, 4U << 20);
  EXPECT_EQ(header->boot, shadow_boot("5c1e4b7e-0001-4000-8000-0123456789ab"));
  EXPECT_EQ(header->carried_after, 41U);
  EXPECT_EQ(header->carried, 8U);
  EXPECT_TRUE(same(encode(*header), bytes)) << "written as it was read";
  for (const Bad& bad : {
           Bad{"version", Errc::too_new, "version 2"},
           Bad{"half", Errc::corrupt, "halves of 4097 bytes"},
           Bad{"reserved", Errc::corrupt, "reserved"},
           Bad{"rot", Errc::corrupt, "crc"},
       }) {
    const Blob page = golden(fmt::format("shadow-v1-bad-{}.bin", bad.name), 512);
    expect_error(decode_shadow_header(page), bad.code, bad.text);
  }
  const Blob half = golden("shadow-v1-half.bin", 4096);
  const auto records = read_half(kUuid, 42, half);
  ASSERT_EQ(records.size(), 16U + 32U);
  EXPECT_EQ(load<PageRecord>(records).page, 3U);
  EXPECT_EQ(load<PageRecord>(records).flags, kRecordFresh);
  EXPECT_EQ(load<le64>(View(records).subspan(40)), 0x8000000000000123U);
  EXPECT_TRUE(read_half(kUuid, 43, half).empty()) << "another commit's";
  EXPECT_EQ(read_half(kUuid, 42, golden("shadow-v1-half-torn.bin", 4096)).size(), 16U);
}

TEST(Golden, data_label) {
  const Blob bytes = golden("data_label-v1.bin", 512);
  const auto label = decode_data_label(bytes);
  ASSERT_TRUE(label) << text_of(label.error());
  EXPECT_EQ(label->magic, kDataLabelMagic);
  EXPECT_EQ(label->version, 1);
  EXPECT_EQ(label->uuid, kUuid);
  EXPECT_EQ(label->blocks, 64U);
  EXPECT_EQ(label->created_ns, kCreated);
  EXPECT_TRUE(same(encode(*label), bytes)) << "written as it was read";
  for (const Bad& bad : {
           Bad{"version", Errc::too_new, "version 2"},
           Bad{"blocks", Errc::corrupt, "68719476737 blocks"},
           Bad{"reserved", Errc::corrupt, "reserved"},
           Bad{"rot", Errc::corrupt, "crc"},
       }) {
    const Blob page = golden(fmt::format("data_label-v1-bad-{}.bin", bad.name), 512);
    expect_error(decode_data_label(page), bad.code, bad.text);
  }
}

TEST(Golden, page_info) {
  const Blob bytes = golden("page_info-v1.bin", kPageBytes);
  const auto checked = check_info_page(kUuid, 256, bytes);
  ASSERT_TRUE(checked) << text_of(checked.error());
  const auto info = load<InfoPage>(bytes);
  EXPECT_EQ(info.magic, kInfoMagic);
  EXPECT_EQ(info.page, 256U);
  struct Entry {
    size_t at;
    PageKind kind;
    uint8_t level;
    uint32_t family, crc;
  };
  for (const Entry& entry : {
           Entry{0, PageKind::block_table, 0, 0, 0x11111111},
           Entry{1, PageKind::catalog, 0, 0, 0x22222222},
           Entry{2, PageKind::index, 1, 3, 0x33333333},
           Entry{3, PageKind::free, 0, 0, 0},
           Entry{4, PageKind::map, 0, 3, 0x44444444},
       }) {
    const PageInfo& read = info.entries[entry.at];
    EXPECT_EQ(read.kind, static_cast<std::byte>(entry.kind)) << entry.at;
    EXPECT_EQ(read.level, static_cast<std::byte>(entry.level)) << entry.at;
    EXPECT_EQ(read.family, entry.family) << entry.at;
    EXPECT_EQ(read.crc, entry.crc) << entry.at;
    EXPECT_EQ(read.flags, 0) << entry.at;
    EXPECT_EQ(read.reserved, 0U) << entry.at;
  }
  for (size_t i = 5; i < kGroupEntries; ++i) EXPECT_TRUE(all_zero(view_of(info.entries[i]))) << i;
  for (const Bad& bad : {
           Bad{"place", Errc::corrupt, "crc"},
           Bad{"free", Errc::corrupt, "page 260: its entry is impossible"},
           Bad{"kind", Errc::too_new, "page 260: its kind, 240"},
           Bad{"rot", Errc::corrupt, "crc"},
       }) {
    const Blob page = golden(fmt::format("page_info-v1-bad-{}.bin", bad.name), kPageBytes);
    expect_error(check_info_page(kUuid, 256, page), bad.code, bad.text);
  }
}

TEST(Golden, page_index) {
  const Blob bytes = golden("page_index-v1.bin", kPageBytes);
  const IndexEntry expected[] = {{261, true}, {259, false}, {}, {kPageNoMax, true}};
  for (size_t i = 0; i < kFanout; ++i) {
    const auto entry = decode_index_entry(load<le64>(View(bytes).subspan(i * 8)));
    ASSERT_TRUE(entry) << i;
    EXPECT_EQ(*entry, i < std::size(expected) ? expected[i] : IndexEntry{}) << i;
  }
  expect_error(decode_index_entry(
                   load<le64>(View(golden("page_index-v1-bad-bits.bin", kPageBytes)).subspan(32))),
               Errc::corrupt, "0004000000000105");
  expect_error(decode_index_entry(load<le64>(golden("page_index-v1-bad-info.bin", kPageBytes))),
               Errc::corrupt, "8000000000000100");
}

TEST(Golden, grain_map) {
  constexpr GrainNo kGrains = 64 * kBlockGrains;
  const Blob bytes = golden("grain_map-v1.bin", kPageBytes);
  ASSERT_TRUE(check_map_page(bytes, kGrains));
  const GrainEntry expected[] = {{GrainType::data, true, 300},
                                 {GrainType::data, false, 16383},
                                 {},
                                 {GrainType::zero, true, 0},
                                 {GrainType::zero, false, 0}};
  for (size_t i = 0; i < kFanout; ++i) {
    const GrainEntry entry = grain_entry_of(load<le64>(View(bytes).subspan(i * 8)));
    EXPECT_EQ(entry, i < std::size(expected) ? expected[i] : GrainEntry{}) << i;
  }
  for (const Bad& bad : {
           Bad{"beyond", Errc::corrupt, "a000000000004000"},
           Bad{"shared", Errc::corrupt, "3000000000000005"},
           Bad{"type", Errc::corrupt, "f000000000000005"},
           Bad{"stray", Errc::corrupt, "a000100000000005"},
           Bad{"absent", Errc::corrupt, "8000000000000000"},
       }) {
    const Blob page = golden(fmt::format("grain_map-v1-bad-{}.bin", bad.name), kPageBytes);
    expect_error(check_map_page(page, kGrains), bad.code, fmt::format("entry 5 is {}", bad.text));
  }
}

TEST(Golden, block_table) {
  const Blob bytes = golden("block_table-v1.bin", kPageBytes);
  ASSERT_TRUE(check_block_page(bytes));
  struct Expected {
    BlockState state;
    uint16_t used;
    uint32_t family, generation;
    uint64_t bits;
  };
  const Expected expected[] = {{BlockState::allocated, 8, 3, 1, 0xff},
                               {BlockState::ready, 0, 0, 2, 0},
                               {BlockState::raw, 0, 0, 0, 0},
                               {BlockState::bad, 0, 0, 0, 0}};
  for (size_t i = 0; i < kBlocksPerPage; ++i) {
    const auto entry = load<BlockEntry>(View(bytes).subspan(i * 64));
    const Expected& want = i < std::size(expected) ? expected[i] : expected[2];
    EXPECT_EQ(entry.state, static_cast<std::byte>(want.state)) << i;
    EXPECT_EQ(entry.used, want.used) << i;
    EXPECT_EQ(entry.family, want.family) << i;
    EXPECT_EQ(entry.generation, want.generation) << i;
    EXPECT_EQ(entry.bitmap[0], want.bits) << i;
    EXPECT_EQ(entry.bitmap[1] | entry.bitmap[2] | entry.bitmap[3], 0U) << i;
  }
  for (const Bad& bad : {
           Bad{"used", Errc::corrupt, "state 2 with 4 grains of family 3"},
           Bad{"owner", Errc::corrupt, "state 2 with 3 grains of family 0"},
           Bad{"empty", Errc::corrupt, "state 2 with 0 grains of family 3"},
           Bad{"raw", Errc::corrupt, "state 0 with 3 grains of family 0"},
           Bad{"state", Errc::corrupt, "state 4 with 0 grains of family 0"},
       }) {
    const Blob page = golden(fmt::format("block_table-v1-bad-{}.bin", bad.name), kPageBytes);
    expect_error(check_block_page(page), bad.code, fmt::format("entry 4: {}", bad.text));
  }
}

TEST(Golden, pool_root) {
  const auto root = decode_pool_root(golden("pool_root-v1.bin", kPageBytes));
  ASSERT_TRUE(root) << text_of(root.error());
  EXPECT_EQ(root->magic, kPoolRootMagic);
  EXPECT_EQ(root->blocks, 64U);
  EXPECT_EQ(root->groups, 2U);
  EXPECT_EQ(root->tree(Tree::block_table).page, 257U);
  EXPECT_EQ(root->tree(Tree::block_table).level, std::byte{0});
  EXPECT_EQ(root->tree(Tree::catalog).page, 2U);
  EXPECT_EQ(root->tree(Tree::catalog).level, std::byte{1});
  EXPECT_EQ(root->catalog_records, 9U);
  EXPECT_EQ(root->next_family, 4U);
  EXPECT_EQ(root->next_layer, 6U);
  for (const Bad& bad : {
           Bad{"magic", Errc::corrupt, "magic"},
           Bad{"blocks", Errc::corrupt, "blocks"},
           Bad{"tree", Errc::corrupt, "at page 512"},
           Bad{"too-new", Errc::too_new, "tree 2"},
           Bad{"reserved", Errc::corrupt, "reserved"},
       }) {
    const Blob page = golden(fmt::format("pool_root-v1-bad-{}.bin", bad.name), kPageBytes);
    expect_error(decode_pool_root(page), bad.code, bad.text);
  }
}

// Writes down what a walk says.
class Lines final : public RecordSink {
 public:
  Result<void> page(PageNo page, uint32_t crc, bool fresh) override {
    text += fmt::format("page {} {:08x} {};", page, crc, fresh ? "fresh" : "home");
    return ok;
  }
  Result<void> words(size_t first, View words) override {
    text += fmt::format(" {}+{}={:x};", first, words.size() / 8, load<le64>(words).get());
    return ok;
  }
  std::string text;
};

TEST(Golden, micro_journal) {
  const Blob slot = golden("micro_journal-v1.bin", 512);
  SlotHeader header;
  ASSERT_EQ(read_slot(kUuid, 7, slot, header), SlotState::valid);
  EXPECT_EQ(header.magic, kSlotMagic);
  EXPECT_EQ(header.version, 1);
  EXPECT_EQ(header.part, 0);
  EXPECT_EQ(header.parts, 1);
  EXPECT_EQ(header.commit_id, 41U);
  EXPECT_EQ(header.epoch, 7U);
  EXPECT_EQ(header.flags, kSlotDense);
  EXPECT_EQ(header.oldest_needed, 39U);
  EXPECT_EQ(header.payload_bytes, 72U);
  Lines lines;
  ASSERT_TRUE(walk_records(View(slot).subspan(64, header.payload_bytes), lines));
  EXPECT_EQ(lines.text,
            "page 261 44444444 home; 9+1=a00000000000012c;page 258 55555555 fresh; 510+2=1;");

  const Blob chain = golden("micro_journal-v1-chain.bin", 1024);
  Blob joined;
  for (uint16_t part = 0; part < 2; ++part) {
    const View one = View(chain).subspan(part * size_t{512}, 512);
    ASSERT_EQ(read_slot(kUuid, 7, one, header), SlotState::valid);
    EXPECT_EQ(header.commit_id, 42U);
    EXPECT_EQ(header.part, part);
    EXPECT_EQ(header.parts, 2);
    const View payload = one.subspan(64, header.payload_bytes);
    joined.insert(joined.end(), payload.begin(), payload.end());
  }
  lines.text.clear();
  ASSERT_TRUE(walk_records(joined, lines));
  EXPECT_EQ(lines.text, "page 261 66666666 fresh; 0+60=123456789abcdef;");
}

TEST(Golden, bad_micro_journals) {
  SlotHeader header;
  const auto state_of = [&](const std::string& name) {
    return read_slot(kUuid, 7, golden("micro_journal-v1-bad-" + name + ".bin", 512), header);
  };
  EXPECT_EQ(state_of("version"), SlotState::too_new);
  EXPECT_EQ(state_of("length"), SlotState::nothing);
  EXPECT_EQ(state_of("part"), SlotState::nothing);
  EXPECT_EQ(state_of("epoch"), SlotState::nothing);
  EXPECT_EQ(state_of("flags"), SlotState::too_new);
  EXPECT_EQ(state_of("needed"), SlotState::nothing);
  EXPECT_EQ(state_of("torn"), SlotState::nothing);
  ASSERT_EQ(state_of("run"), SlotState::valid) << "its seal is right, its records are not";
  Lines lines;
  expect_error(
      walk_records(
          View(golden("micro_journal-v1-bad-run.bin", 512)).subspan(64, header.payload_bytes),
          lines),
      Errc::corrupt, "page 261: a run of 255 words at 9");
  ASSERT_EQ(state_of("type"), SlotState::valid);
  expect_error(
      walk_records(
          View(golden("micro_journal-v1-bad-type.bin", 512)).subspan(64, header.payload_bytes),
          lines),
      Errc::too_new, "type 1");
}

TEST(Golden, catalog) {
  const Blob page = golden("catalog-v1.bin", kPageBytes);
  const auto record = [&](size_t i) { return View(page).subspan(i * kRecordBytes, kRecordBytes); };
  const RecordKind kinds[] = {RecordKind::disk, RecordKind::layer, RecordKind::free,
                              RecordKind::layer};
  for (size_t i = 0; i < kRecordsPerPage; ++i) {
    const auto kind = kind_of_record(record(i));
    ASSERT_TRUE(kind) << i;
    EXPECT_EQ(*kind, i < std::size(kinds) ? kinds[i] : RecordKind::free) << i;
  }
  const auto named = decode_name(record(0));
  ASSERT_TRUE(named) << text_of(named.error());
  EXPECT_EQ(named->kind, RecordKind::disk);
  EXPECT_EQ(named->name, "web-01");
  EXPECT_EQ(named->layer, 5U);
  EXPECT_EQ(named->uuid, kUuid);
  EXPECT_EQ(named->created_ns, kCreated);
  EXPECT_EQ(named->settings,
            (std::map<std::string, std::string>{{"description", "the first"}, {"serve", "off"}}));
  EXPECT_EQ(named->unknown, std::string("\x08\x00\x03\x00new", 7));
  EXPECT_TRUE(same(view_of(*encode(*named)), record(0))) << "written as it was read";

  const auto live = decode_layer(record(1));
  ASSERT_TRUE(live) << text_of(live.error());
  EXPECT_EQ(live->state, static_cast<std::byte>(LayerState::live));
  EXPECT_EQ(live->root_level, std::byte{1});
  EXPECT_EQ(live->layer, 5U);
  EXPECT_EQ(live->family, 3U);
  EXPECT_EQ(live->parent, 4U);
  EXPECT_EQ(live->bytes, 10 * kGiB);
  EXPECT_EQ(*decode_index_entry(live->root), (IndexEntry{259, true}));
  EXPECT_EQ(live->own_grains, 8U);
  EXPECT_EQ(live->own_pages, 2U);
  EXPECT_EQ(live->created_ns, kCreated);
  EXPECT_EQ(live->open_block, 1U);
  EXPECT_EQ(live->tail_bytes, 7U);
  EXPECT_TRUE(same(view_of(*live), record(1))) << "with the field that nobody knows";
  const auto frozen = decode_layer(record(3));
  ASSERT_TRUE(frozen) << text_of(frozen.error());
  EXPECT_EQ(frozen->state, static_cast<std::byte>(LayerState::frozen));
  EXPECT_EQ(frozen->layer, 4U);
  EXPECT_EQ(frozen->parent, 0U);
  EXPECT_EQ(frozen->root, 0U);
}

TEST(Golden, a_snapshot_in_the_catalog) {
  const Blob record = golden("catalog-v1-snapshot.bin", kRecordBytes);
  const auto snapshot = decode_name(record);
  ASSERT_TRUE(snapshot) << text_of(snapshot.error());
  EXPECT_EQ(snapshot->kind, RecordKind::snapshot);
  EXPECT_EQ(snapshot->name, "before-upgrade");
  EXPECT_EQ(snapshot->layer, 4U);
  EXPECT_EQ(snapshot->uuid[15], std::byte{0x5a});
  EXPECT_EQ(snapshot->disk, kUuid);
  EXPECT_TRUE(same(view_of(*encode(*snapshot)), record)) << "written as it was read";
}

TEST(Golden, bad_catalog_records) {
  const auto record = [](const std::string& name) {
    return golden("catalog-v1-bad-" + name + ".bin", kRecordBytes);
  };
  for (const Bad& bad : {
           Bad{"name", Errc::corrupt, "bad name"},
           Bad{"length", Errc::corrupt, "a name of 200 bytes"},
           Bad{"odd", Errc::too_new, "field 3"},
           Bad{"field", Errc::corrupt, "tag 2 is longer"},
           Bad{"reserved", Errc::corrupt, "'web-01' is impossible"},
           Bad{"continuation", Errc::too_new, "goes on elsewhere"},
           Bad{"snapshot", Errc::corrupt, "does not say of which disk"},
       }) {
    expect_error(decode_name(record(bad.name)), bad.code, bad.text);
  }
  expect_error(kind_of_record(record("kind")), Errc::too_new, "kind 240");
  expect_error(decode_layer(record("layer")), Errc::corrupt, "family 0");
  expect_error(decode_layer(record("layer-odd")), Errc::too_new, "field 3");
  expect_error(decode_layer(record("family")), Errc::corrupt, "family 4294967040");
  expect_error(decode_layer(record("state")), Errc::corrupt, "layer 5");
  expect_error(decode_layer(record("version")), Errc::too_new, "version 2");
}

TEST(Golden, changes) {
  const Blob page = golden("changes-v1.bin", 2 * kRecordBytes);
  EXPECT_EQ(*kind_of_record(View(page)), RecordKind::changes);
  const auto record = decode_changes(View(page).first(kRecordBytes));
  ASSERT_TRUE(record) << text_of(record.error());
  Uuid branch;
  branch.fill(std::byte{0xb0});
  EXPECT_EQ(record->state, static_cast<std::byte>(ChangesState::open));
  EXPECT_EQ(record->block_shift, std::byte{16});
  EXPECT_EQ(record->disk, kUuid);
  EXPECT_EQ(record->branch, branch);
  EXPECT_EQ(record->event_counter, 9U);
  EXPECT_EQ(record->valid_from, 0U);
  EXPECT_EQ(record->bytes, 10 * kGiB);
  EXPECT_EQ(record->created_ns, kCreated);
  EXPECT_EQ(record->log.page, 261U);
  EXPECT_EQ(record->log.level, std::byte{1});
  EXPECT_EQ(record->intents.page, 262U);
  EXPECT_EQ(record->intents.level, std::byte{0});
  EXPECT_EQ(grown_counter(*record, 131071), 0U);
  EXPECT_EQ(grown_counter(*record, 131072), 4U);
  EXPECT_EQ(grown_counter(*record, 147456), 10U);
  EXPECT_EQ(record->tail_bytes, 7U);

  EXPECT_EQ(*kind_of_record(View(page).subspan(kRecordBytes)), RecordKind::application);
  const auto application = decode_application(View(page).subspan(kRecordBytes));
  ASSERT_TRUE(application) << text_of(application.error());
  EXPECT_EQ(name_of(*application), "borg-nightly");
  EXPECT_EQ(application->disk, kUuid);
  EXPECT_EQ(application->branch, branch);
  EXPECT_EQ(application->counter, 9U);
  EXPECT_EQ(application->previous, 5U);
  EXPECT_EQ(application->has_previous, std::byte{1});
  EXPECT_EQ(application->began_ns, kCreated);

  const Blob log = golden("changes-v1-log.bin", kPageBytes);
  for (const auto& [at, counter] : {std::pair{0, 9U}, {1, 9U}, {2, 0U}, {3, 1U}, {1023, 0U}}) {
    EXPECT_EQ(load<le32>(View(log).subspan(static_cast<size_t>(at) * 4)), counter) << at;
  }
  EXPECT_EQ(load<le64>(golden("changes-v1-intents.bin", kPageBytes)), 0x8000000000000003U);
}

TEST(Golden, bad_changes) {
  const auto record = [](const std::string& name) {
    return golden("changes-v1-bad-" + name + ".bin", kRecordBytes);
  };
  for (const Bad& bad : {
           Bad{"version", Errc::too_new, "version 2"},
           Bad{"state", Errc::corrupt, "impossible"},
           Bad{"shift", Errc::corrupt, "impossible"},
           Bad{"counter", Errc::corrupt, "impossible"},
           Bad{"valid", Errc::corrupt, "impossible"},
           Bad{"root", Errc::corrupt, "impossible"},
           Bad{"growth", Errc::corrupt, "impossible"},
           Bad{"odd", Errc::too_new, "field 3"},
           Bad{"reserved", Errc::corrupt, "its tail is impossible"},
       }) {
    expect_error(decode_changes(record(bad.name)), bad.code, bad.text);
  }
  for (const Bad& bad : {
           Bad{"name", Errc::corrupt, "bad name"},
           Bad{"length", Errc::corrupt, "bad name"},
           Bad{"previous", Errc::corrupt, "'borg-nightly' is impossible"},
           Bad{"flag", Errc::corrupt, "'borg-nightly' is impossible"},
       }) {
    expect_error(decode_application(record(bad.name)), bad.code, bad.text);
  }
}

TEST(Golden, sesparse_headers) {
  constexpr uint64_t kFileBytes = 8 * kMiB;
  const Blob bytes = golden("sesparse-v1.bin", 512);
  const auto layout = sesparse::decode_header(bytes, kFileBytes);
  ASSERT_TRUE(layout) << text_of(layout.error());
  EXPECT_EQ(layout->bytes, 64 * kMiB);
  EXPECT_EQ(layout->volatile_header, 512U);
  EXPECT_EQ(layout->directory, 2 * kMiB);
  EXPECT_EQ(layout->tables, 3 * kMiB);
  EXPECT_EQ(layout->table_count, 32U);
  EXPECT_EQ(layout->free_bitmap, 4 * kMiB);
  EXPECT_EQ(layout->back_map, 5 * kMiB);
  EXPECT_EQ(layout->grains, 6 * kMiB);
  EXPECT_EQ(layout->grain_count, 512U) << "as many as a file of 8 MiB holds";
  EXPECT_TRUE(same(view_of(sesparse::header_for(64 * kMiB)), bytes)) << "written as it was read";
  for (const Bad& bad : {
           Bad{"magic", Errc::not_found, "no magic"},
           Bad{"version", Errc::unsupported, "version 3.0"},
           Bad{"grain", Errc::unsupported, "grains of 128"},
           Bad{"flags", Errc::unsupported, "flags 0x1"},
           Bad{"reserved", Errc::unsupported, "reserved"},
           Bad{"capacity", Errc::corrupt, "capacity of 137438953473"},
           Bad{"directory", Errc::corrupt, "grain directory of 0 sectors"},
           Bad{"tables", Errc::corrupt, "the grain tables at sector 18446744073709551552"},
           Bad{"grains", Errc::corrupt, "the grains begin at sector 16385"},
       }) {
    const Blob header = golden(fmt::format("sesparse-v1-bad-{}.bin", bad.name), 512);
    expect_error(sesparse::decode_header(header, kFileBytes), bad.code, bad.text);
  }
  const auto closed = sesparse::decode_volatile_header(golden("sesparse-v1-volatile.bin", 512));
  ASSERT_TRUE(closed) << text_of(closed.error());
  EXPECT_EQ(closed->free_table, 2U);
  for (const Bad& bad :
       {Bad{"unclean", Errc::busy, "unclean"}, Bad{"magic", Errc::corrupt, "magic 0xcafebabe"}}) {
    const Blob header = golden(fmt::format("sesparse-v1-volatile-bad-{}.bin", bad.name), 512);
    expect_error(sesparse::decode_volatile_header(header), bad.code, bad.text);
  }
}

TEST(Golden, sesparse_map) {
  using sesparse::Entry;
  using sesparse::EntryType;
  constexpr uint64_t kPlaces = 5000;
  const Blob table = golden("sesparse-v1-table.bin", 56);
  const Entry expected[] = {{EntryType::data, 0},     {EntryType::unallocated, 0},
                            {EntryType::unmapped, 0}, {EntryType::zero, 0},
                            {EntryType::data, 4095},  {EntryType::data, 4096},
                            {EntryType::data, 4999}};
  for (size_t i = 0; i < std::size(expected); ++i) {
    const uint64_t raw = load<le64>(View(table).subspan(i * 8));
    const auto entry = sesparse::decode_entry(raw, i, kPlaces);
    ASSERT_TRUE(entry) << text_of(entry.error());
    EXPECT_EQ(*entry, expected[i]) << i;
    EXPECT_EQ(encode(*entry), raw);
  }
  for (const Bad& bad : {Bad{"beyond", Errc::corrupt, "place 5000 of an extent that has 5000"},
                         Bad{"type", Errc::corrupt, "impossible"},
                         Bad{"stray", Errc::corrupt, "0000000000000007"}}) {
    const Blob entry = golden(fmt::format("sesparse-v1-table-bad-{}.bin", bad.name), 8);
    expect_error(sesparse::decode_entry(load<le64>(entry), 0, kPlaces), bad.code, bad.text);
  }
  const Blob directory = golden("sesparse-v1-directory.bin", 24);
  const std::optional<uint64_t> tables[] = {1, std::nullopt, 0};
  for (size_t i = 0; i < std::size(tables); ++i) {
    const auto entry =
        sesparse::decode_directory_entry(load<le64>(View(directory).subspan(i * 8)), i, kPlaces);
    ASSERT_TRUE(entry) << text_of(entry.error());
    EXPECT_EQ(*entry, tables[i]) << i;
  }
  for (const Bad& bad : {Bad{"beyond", Errc::corrupt, "table 5000 of 5000"},
                         Bad{"tag", Errc::corrupt, "2000000000000000"}}) {
    const Blob entry = golden(fmt::format("sesparse-v1-directory-bad-{}.bin", bad.name), 8);
    expect_error(sesparse::decode_directory_entry(load<le64>(entry), 0, kPlaces), bad.code,
                 bad.text);
  }
}

TEST(Golden, sesparse_descriptors) {
  const auto text_in = [](const std::string& name) {
    constexpr size_t kRoom = 4096;
    std::string text;
    for (const std::byte byte : golden("sesparse-v1-descriptor" + name + ".bin", kRoom)) {
      if (byte != std::byte{}) text.push_back(static_cast<char>(byte));
    }
    return text;
  };
  const auto descriptor = sesparse::decode_descriptor(text_in(""));
  ASSERT_TRUE(descriptor) << text_of(descriptor.error());
  EXPECT_EQ(descriptor->extent, "web-sesparse.vmdk");
  EXPECT_EQ(descriptor->sectors, 131072U);
  EXPECT_EQ(descriptor->content_id, 0x12345678U);
  EXPECT_FALSE(descriptor->has_parent());
  EXPECT_EQ(encode(*descriptor), text_in("")) << "written as it was read";
  expect_error(sesparse::decode_descriptor(text_in("-bad-extents")), Errc::unsupported, "than one");
  expect_error(sesparse::decode_descriptor(text_in("-bad-line")), Errc::corrupt, "extent line");
  expect_error(sesparse::decode_descriptor(text_in("-bad-type")), Errc::not_found, "createType");
}

}  // namespace
}  // namespace firn::format
