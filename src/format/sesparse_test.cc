// SPDX-License-Identifier: Apache-2.0
#include "format/sesparse.h"

#include <gtest/gtest.h>

#include <functional>

#include "format/format_test_util.h"

namespace firn::format::sesparse {
namespace {

constexpr uint64_t kBytes = 64 * kMiB;

// The end of the metadata of an extent that we make, in bytes.
uint64_t metadata_of(const ConstHeader& header) { return header.grains.offset * kSectorBytes; }

Result<Layout> decode_changed(const std::function<void(ConstHeader&)>& change) {
  ConstHeader header = header_for(kBytes);
  const uint64_t file_bytes = metadata_of(header) + kMiB;
  change(header);
  return decode_header(view_of(header), file_bytes);
}

TEST(Sesparse, our_headers_are_good_for_every_size) {
  for (const uint64_t bytes : {uint64_t{512}, uint64_t{4096}, kTableReach, kTableReach + 512,
                               100 * kMiB, 3 * kTiB + 512, kDiskBytesMax}) {
    const ConstHeader header = header_for(bytes);
    const uint64_t metadata = metadata_of(header);
    const Result<Layout> layout = decode_header(view_of(header), metadata + 2 * kGrainBytes + 511);
    ASSERT_TRUE(layout) << bytes << ": " << text_of(layout.error());
    EXPECT_EQ(layout->bytes, bytes);
    EXPECT_GE(layout->table_count, layout->directory_entries());
    EXPECT_EQ(layout->grain_count, std::min<uint64_t>(2, layout->grains_mapped()));
    EXPECT_GE((layout->grains - layout->back_map) / 8, layout->grains_mapped());
    EXPECT_GE((layout->back_map - layout->free_bitmap) * 8, layout->grains_mapped());
    EXPECT_LE(metadata - 6 * kMiB, bytes / 250) << "about 0.4 percent";
    expect_error(decode_header(view_of(header), metadata - 1), Errc::corrupt, "is not inside");
  }
}

TEST(Sesparse, the_layout_is_what_a_hypervisor_logs_for_100_MiB) {
  const ConstHeader header = header_for(100 * kMiB);
  const auto expect = [](const Region& region, uint64_t offset, uint64_t size) {
    EXPECT_EQ(region.offset, offset);
    EXPECT_EQ(region.size, size);
  };
  expect(header.volatile_header, 1, 1);
  expect(header.journal_header, 2, 2);
  expect(header.journal, 2048, 2048);
  expect(header.grain_directory, 4096, 2048);
  expect(header.grain_tables, 6144, 2048);
  expect(header.free_bitmap, 8192, 2048);
  expect(header.back_map, 10240, 2048);
  expect(header.grains, 12288, 204800);
}

TEST(Sesparse, headers_are_refused_for_what_is_wrong_with_them) {
  struct Case {
    std::function<void(ConstHeader&)> change;
    Errc code;
    const char* text;
  };
  const std::vector<Case> cases{
      {[](ConstHeader& h) { h.magic = 0xcafebabf; }, Errc::not_found, "no magic"},
      {[](ConstHeader& h) { h.version = 0x0000000300000000; }, Errc::unsupported, "version 3.0"},
      {[](ConstHeader& h) { h.grain_size = 16; }, Errc::unsupported, "grains of 16"},
      {[](ConstHeader& h) { h.grain_table_size = 0; }, Errc::unsupported, "tables of 0"},
      {[](ConstHeader& h) { h.flags = 4; }, Errc::unsupported, "flags 0x4"},
      {[](ConstHeader& h) { h.reserved[3] = 1; }, Errc::unsupported, "reserved"},
      {[](ConstHeader& h) { h.padding[303] = std::byte{1}; }, Errc::unsupported, "reserved"},
      {[](ConstHeader& h) { h.capacity = 0; }, Errc::corrupt, "capacity of 0"},
      {[](ConstHeader& h) { h.capacity = UINT64_MAX; }, Errc::corrupt, "capacity of 18446"},
      {[](ConstHeader& h) { h.capacity = (uint64_t{1} << 37) + 1; }, Errc::corrupt, "capacity"},
      {[](ConstHeader& h) { h.capacity = uint64_t{1} << 37; }, Errc::corrupt, "needs 65536"},
      {[](ConstHeader& h) {
         h.volatile_header = {0, 1};
       },
       Errc::corrupt, "volatile header"},
      {[](ConstHeader& h) { h.volatile_header.size = 0; }, Errc::corrupt, "needs 1"},
      {[](ConstHeader& h) { h.volatile_header.offset = UINT64_MAX; }, Errc::corrupt, "not inside"},
      {[](ConstHeader& h) { h.journal.size = UINT64_MAX; }, Errc::corrupt, "journal"},
      {[](ConstHeader& h) { h.grain_directory.size = 0; }, Errc::corrupt, "grain directory"},
      {[](ConstHeader& h) { h.grain_directory.offset = 1 << 20; }, Errc::corrupt, "directory"},
      {[](ConstHeader& h) {
         h.grain_tables = {2, UINT64_MAX - 1};
       },
       Errc::corrupt, "tables"},
      {[](ConstHeader& h) { h.free_bitmap.size = 1 << 20; }, Errc::corrupt, "free bitmap"},
      {[](ConstHeader& h) { h.back_map.offset = UINT64_MAX; }, Errc::corrupt, "back map"},
      {[](ConstHeader& h) { h.grains.offset = UINT64_MAX; }, Errc::corrupt, "grains begin"},
      {[](ConstHeader& h) { h.grains.offset = 0; }, Errc::corrupt, "grains begin"},
  };
  for (const Case& each : cases) {
    expect_error(decode_changed(each.change), each.code, each.text);
  }
  const ConstHeader header = header_for(kBytes);
  expect_error(decode_header(view_of(header).first(511), kGiB), Errc::corrupt, "511 bytes");
  EXPECT_TRUE(is_extent(view_of(header)));
  EXPECT_FALSE(is_extent(view_of(header).first(7)));
}

TEST(Sesparse, grains_are_bounded_by_the_file_and_by_their_region) {
  const auto larger = decode_changed([](ConstHeader& h) { h.grains.size = UINT64_MAX; });
  ASSERT_TRUE(larger);
  EXPECT_EQ(larger->grain_count, kMiB / kGrainBytes);
  const auto smaller = decode_changed([](ConstHeader& h) { h.grains.size = 23; });
  ASSERT_TRUE(smaller);
  EXPECT_EQ(smaller->grain_count, 2u) << "whole ones";
}

TEST(Sesparse, S2_an_unclean_image_is_refused_with_advice) {
  VolatileHeader header;
  header.free_table = 7;
  const auto good = decode_volatile_header(view_of(header));
  ASSERT_TRUE(good);
  EXPECT_EQ(good->free_table, 7u);
  header.replay_journal = 1;
  expect_error(decode_volatile_header(view_of(header)), Errc::busy,
               "unclean, its journal waits to be replayed; open and close it in its hypervisor");
  header.replay_journal = 0;
  header.padding[0] = std::byte{1};
  expect_error(decode_volatile_header(view_of(header)), Errc::unsupported, "reserved");
  header.magic = kMagic;
  expect_error(decode_volatile_header(view_of(header)), Errc::corrupt, "0xcafebabe");
  expect_error(decode_volatile_header({}), Errc::corrupt, "0 bytes");
}

TEST(Sesparse, S3_entries_make_the_round_trip_rotated) {
  EXPECT_EQ(encode(Entry{EntryType::data, 0}), uint64_t{3} << 60);
  EXPECT_EQ(encode(Entry{EntryType::data, 1}), 0x3001000000000000u);
  EXPECT_EQ(encode(Entry{EntryType::data, 4095}), 0x3fff000000000000u);
  EXPECT_EQ(encode(Entry{EntryType::data, 4096}), 0x3000000000000001u);
  EXPECT_EQ(encode(Entry{EntryType::data, 0x12345}), 0x3345000000000012u);
  EXPECT_EQ(encode(Entry{EntryType::zero, 0}), uint64_t{2} << 60);
  EXPECT_EQ(encode(Entry{}), 0u);
  Prng prng(1);
  for (int i = 0; i < 20000; ++i) {
    const Entry entry{EntryType::data, prng.next() >> (4 + prng.below(60))};
    const auto back = decode_entry(encode(entry), 1, kGrainMax + 1);
    ASSERT_TRUE(back);
    EXPECT_EQ(*back, entry);
  }
}

TEST(Sesparse, entries_that_cannot_be_are_refused_by_number_and_value) {
  expect_error(decode_entry(1, 9, 100), Errc::corrupt, "grain 9: its entry is 0000000000000001");
  for (uint64_t type = 4; type < 16; ++type) {
    expect_error(decode_entry(type << 60, 9, 100), Errc::corrupt, "impossible");
  }
  EXPECT_TRUE(decode_entry(encode(Entry{EntryType::data, 99}), 9, 100));
  expect_error(decode_entry(encode(Entry{EntryType::data, 100}), 9, 100), Errc::corrupt,
               "place 100 of an extent that has 100");
  expect_error(decode_entry(uint64_t{3} << 60, 9, 0), Errc::corrupt, "cut short");
  const auto unmapped = decode_entry(0x1fff000000000001, 9, 100);
  ASSERT_TRUE(unmapped) << "an unmapped entry may remember its grain";
  EXPECT_EQ(*unmapped, (Entry{EntryType::unmapped, 0}));
}

TEST(Sesparse, directory_entries) {
  const auto none = decode_directory_entry(0, 1, 5);
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->has_value());
  const auto last = decode_directory_entry(0x1000000000000004, 1, 5);
  ASSERT_TRUE(last);
  EXPECT_EQ(*last, 4u);
  expect_error(decode_directory_entry(0x1000000000000005, 1, 5), Errc::corrupt, "table 5 of 5");
  for (const uint64_t raw :
       {uint64_t{1}, uint64_t{0x1000000100000000}, uint64_t{0x2000000000000000}, UINT64_MAX}) {
    expect_error(decode_directory_entry(raw, 3, 5), Errc::corrupt, "entry 3 is");
  }
}

TEST(Sesparse, descriptors) {
  Descriptor descriptor;
  descriptor.extent = "a disk-sesparse.vmdk";
  descriptor.sectors = 131072;
  descriptor.content_id = 0x1234;
  const std::string text = encode(descriptor);
  const auto back = decode_descriptor(text);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->extent, descriptor.extent);
  EXPECT_EQ(back->sectors, 131072u);
  EXPECT_EQ(back->content_id, 0x1234u);
  EXPECT_FALSE(back->has_parent());

  const auto dos = decode_descriptor(
      "version=1\r\n createType = \"seSparse\" \r\nparentCID=0badcafe\r\n"
      "parentFileNameHint=\"base.vmdk\"\r\nRW\t8  SESPARSE   \"../x\"\r\n");
  ASSERT_TRUE(dos) << text_of(dos.error());
  EXPECT_EQ(dos->extent, "../x") << "whether it may be followed is not decided here";
  EXPECT_EQ(dos->parent_id, 0x0badcafeu);
  EXPECT_EQ(dos->parent, "base.vmdk");
  EXPECT_TRUE(dos->has_parent());
}

TEST(Sesparse, descriptors_are_refused_for_what_is_wrong_with_them) {
  const std::string type = "createType=\"seSparse\"\n";
  const std::string extent = "RW 8 SESPARSE \"x\"\n";
  for (const std::string& other :
       {std::string(), std::string("createType=\"monolithicFlat\"\nRW nonsense\n"), extent,
        "#" + type + extent, type + extent + std::string(1, '\0'),
        type + std::string(kDescriptorBytesMax, ' ')}) {
    expect_error(decode_descriptor(other), Errc::not_found, "createType");
  }
  expect_error(decode_descriptor(type), Errc::corrupt, "names no extent");
  expect_error(decode_descriptor(type + extent + extent), Errc::unsupported, "more than one");
  expect_error(decode_descriptor(type + "RW 8 FLAT \"x\" 0\n"), Errc::unsupported, "another kind");
  expect_error(decode_descriptor(type + "RDONLY 8 SESPARSE \"x\"\n"), Errc::unsupported, "kind");
  expect_error(decode_descriptor(type + extent + "parentCID=xyz\n"), Errc::corrupt, "parentCID");
  for (const char* line :
       {"RW 0 SESPARSE \"x\"", "RW -1 SESPARSE \"x\"", "RW 99999999999999999999 SESPARSE \"x\"",
        "RW 8 SESPARSE x", "RW 8 SESPARSE \"\"", "RW 8 SESPARSE", "RW 8 SESPARSE \"x\" 0",
        "RW 8 SESPARSE \"x\"y\""}) {
    expect_error(decode_descriptor(type + line), Errc::corrupt, "extent line");
  }
  for (const char* name : {"", "a\"b", "a:b", "a/b", "a\nb"}) EXPECT_FALSE(can_be_named(name));
  EXPECT_TRUE(can_be_named("web 01-sesparse.vmdk"));
}

// What is accepted of random changes leads nowhere outside of the file.
TEST(Sesparse, S1_flipped_headers_stay_inside) {
  Prng prng(2);
  const uint64_t file_bytes = metadata_of(header_for(kBytes)) + kMiB;
  for (int i = 0; i < 50000; ++i) {
    ConstHeader header = header_for(kBytes);
    for (uint64_t flips = prng.below(3) + 1; flips > 0; --flips) {
      flip(bytes_of(header), 16 * 8 + prng.below(192 * 8));
    }
    const Result<Layout> layout = decode_header(view_of(header), file_bytes);
    if (!layout) continue;
    EXPECT_TRUE(Range({layout->directory, layout->directory_entries() * 8}).within(file_bytes));
    EXPECT_TRUE(Range({layout->tables, layout->table_count * kTableBytes}).within(file_bytes));
    EXPECT_TRUE(Range({layout->grains, layout->grain_count * kGrainBytes}).within(file_bytes));
  }
}

}  // namespace
}  // namespace firn::format::sesparse
