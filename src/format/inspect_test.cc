// SPDX-License-Identifier: Apache-2.0
#include "format/inspect.h"

#include <gtest/gtest.h>

#include "format/format_test_util.h"

namespace firn::format {
namespace {

Uuid golden_uuid() {
  Uuid uuid;
  for (size_t i = 0; i < uuid.size(); ++i) uuid[i] = static_cast<std::byte>(0x10 + i);
  return uuid;
}

constexpr Artifact kAll[] = {Artifact::superblock, Artifact::info_page,    Artifact::pool_root,
                             Artifact::index_page, Artifact::block_page,   Artifact::catalog_page,
                             Artifact::map_page,   Artifact::journal_slot, Artifact::data_label,
                             Artifact::change_log_page, Artifact::intent_page};

TEST(Inspect, names) {
  for (const Artifact artifact : kAll) {
    EXPECT_EQ(artifact_named(name_of(artifact)), artifact);
    EXPECT_GE(size_of(artifact), 64U);
  }
  EXPECT_EQ(artifact_named("map"), Artifact::map_page);
  EXPECT_EQ(artifact_named(""), std::nullopt);
}

TEST(Inspect, what_has_a_magic_is_recognised) {
  EXPECT_EQ(recognise(golden("superblock-v1.bin", 512)), Artifact::superblock);
  EXPECT_EQ(recognise(golden("page_info-v1.bin", 4096)), Artifact::info_page);
  EXPECT_EQ(recognise(golden("pool_root-v1.bin", 4096)), Artifact::pool_root);
  EXPECT_EQ(recognise(golden("micro_journal-v1.bin", 512)), Artifact::journal_slot);
  EXPECT_EQ(recognise(golden("grain_map-v1.bin", 4096)), std::nullopt);
  EXPECT_EQ(recognise({}), std::nullopt);
}

TEST(Inspect, superblock) {
  EXPECT_EQ(inspect(Artifact::superblock, golden("superblock-v1.bin", 512)),
            R"(superblock copy 0: good
  version          1
  copy             0
  incompat         0x0
  ro_compat        0x0
  compat           0x0
  autoclear        0x0
  uuid             10111213-1415-1617-1819-1a1b1c1d1e1f
  sequence         5
  epoch            7
  created          1700000000123456789 ns
  journal          4096 slots of 4096 bytes on file
  shifts           block 20, grain 12, page 12
  reserved         zero
)");
  const std::string bad =
      inspect(Artifact::superblock, golden("superblock-v1-bad-version.bin", 512));
  EXPECT_TRUE(bad.starts_with("superblock copy 0: BAD (too_new): superblock copy 0: format"))
      << bad;
}

TEST(Inspect, pages) {
  EXPECT_EQ(inspect(Artifact::info_page, golden("page_info-v1.bin", 4096),
                    {.uuid = golden_uuid(), .place = 256}),
            R"(page-info page 256: good
  magic            49504e46
  crc              )" +
                fmt::format("{:08x}",
                            load<le32>(View(golden("page_info-v1.bin", 4096)).subspan(4)).get()) +
                R"(
  page             256
  entry 0          block table, level 0, family 0, crc 11111111
  entry 1          catalog, level 0, family 0, crc 22222222
  entry 2          index, level 1, family 3, crc 33333333
  entry 4          map, level 0, family 3, crc 44444444
  free             251 of 255
)");
  EXPECT_EQ(inspect(Artifact::pool_root, golden("pool_root-v1.bin", 4096)), R"(pool root: good
  blocks           64
  groups           2
  block table      page 257, level 0
  catalog          page 2, level 1
  catalog records  9
  next family      4
  next layer       6
)");
  EXPECT_EQ(inspect(Artifact::index_page, golden("page_index-v1.bin", 4096)), R"(index page: good
  entry 0          page 261, own
  entry 1          page 259, inherited
  entry 3          page 17592186044415, own
)");
  EXPECT_EQ(
      inspect(Artifact::map_page, golden("grain_map-v1-bad-beyond.bin", 4096), {.grains = 16384}),
      R"(map page: BAD (corrupt): map entry 5 is a000000000004000, which is impossible
  grain +0         grain 300 (block 1 +44), own
  grain +1         grain 16383 (block 63 +255), inherited
  grain +3         zero, own
  grain +4         zero, inherited
  grain +5         a000000000004000, impossible
)");
}

TEST(Inspect, tables) {
  EXPECT_EQ(inspect(Artifact::block_page, golden("block_table-v1.bin", 4096)),
            R"(block table page: good
  block +0         allocated, family 3, generation 1, 8 used: 00000000000000ff )"
            R"(0000000000000000 0000000000000000 0000000000000000
  block +1         ready, family 0, generation 2, 0 used: 0000000000000000 )"
            R"(0000000000000000 0000000000000000 0000000000000000
  block +3         bad, family 0, generation 0, 0 used: 0000000000000000 )"
            R"(0000000000000000 0000000000000000 0000000000000000
)");
  EXPECT_EQ(inspect(Artifact::catalog_page, golden("catalog-v1.bin", 4096)),
            R"(catalog page: 8 records
record +0: good (disk)
  name             web-01
  layer            5
  uuid             10111213-1415-1617-1819-1a1b1c1d1e1f
  created          1700000000123456789 ns
  setting          description = the first
  setting          serve = off
  unknown fields   7 bytes
record +1: good (layer)
  layer            5, live
  family           3
  parent           4
  bytes            10737418240
  root             page 259, own, level 1
  own              8 grains, 2 pages
  created          1700000000123456789 ns
  open block       0
  unknown fields   7 bytes
record +3: good (layer)
  layer            4, frozen
  family           3
  parent           0
  bytes            8589934592
  root             page 0, inherited, level 0
  own              0 grains, 0 pages
  created          0 ns
)");
}

TEST(Inspect, journal_slots) {
  const Blob slot = golden("micro_journal-v1.bin", 512);
  const std::string text = inspect(Artifact::journal_slot, slot, {.uuid = golden_uuid()});
  EXPECT_TRUE(text.starts_with("journal slot: good\n")) << text;
  EXPECT_TRUE(text.ends_with(R"(  page             261, crc 44444444
                   words 9 to 9
  page             258, crc 55555555, fresh
                   words 510 to 511
)")) << text;
  EXPECT_TRUE(inspect(Artifact::journal_slot, slot).starts_with("journal slot: not verified"));
  const auto begins = [&](const char* name, const char* line) {
    const std::string told =
        inspect(Artifact::journal_slot, golden(name, 512), {.uuid = golden_uuid()});
    EXPECT_TRUE(told.starts_with(line)) << told;
  };
  begins("micro_journal-v1-bad-version.bin", "journal slot: BAD (too_new)\n");
  begins("micro_journal-v1-bad-torn.bin", "journal slot: nothing");
}

TEST(Inspect, I3_missing_bytes_count_as_zeroes) {
  const std::string text = inspect(Artifact::map_page, View(golden("grain_map-v1.bin", 40)));
  EXPECT_TRUE(
      text.starts_with("40 bytes were given, the 4056 up to 4096 count as zeroes\n"
                       "map page: good\n"))
      << text;
}

TEST(Inspect, I1_any_bytes_get_a_printable_text) {
  Prng prng(1);
  for (uint64_t i = 0; i < 60; ++i) {
    Blob bytes(prng.below(5000));
    fill(prng, bytes);
    for (const Artifact artifact : kAll) {
      const std::string text = inspect(artifact, bytes, {.uuid = golden_uuid(), .place = i});
      ASSERT_FALSE(text.empty());
      ASSERT_TRUE(std::ranges::all_of(text, [](char c) {
        return c == '\n' || (c >= ' ' && c <= '~');
      })) << text;
    }
  }
}

}  // namespace
}  // namespace firn::format
