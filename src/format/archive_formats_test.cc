// SPDX-License-Identifier: Apache-2.0
// The formats of the archive: what is written is read; what is broken is refused by name; the
// golden files.
#include <gtest/gtest.h>

#include <numeric>

#include "format/archive_golden_test.h"
#include "format/archive_rows.h"
#include "format/format_test_util.h"

namespace firn::format {
namespace {

TEST(ArchiveLabel, golden) {
  const Blob bytes = golden("archive_label-v1.bin", kArchiveLabelBytes);
  const auto label = decode_archive_label(bytes);
  ASSERT_TRUE(label) << text_of(label.error());
  EXPECT_EQ(label->uuid, archive_sample_uuid(0x10));
  EXPECT_EQ(label->segment_bytes, 16 * kMiB);
  EXPECT_TRUE(same(encode(archive_sample_label()), bytes)) << "written as it was read";
  const auto bad = [](const char* name) {
    return decode_archive_label(
        golden(fmt::format("archive_label-v1-bad-{}.bin", name), kArchiveLabelBytes));
  };
  expect_error(bad("rot"), Errc::corrupt, "crc");
  expect_error(bad("version"), Errc::too_new, "version 2");
  expect_error(bad("incompat"), Errc::too_new, "0x4");
  expect_error(bad("reserved"), Errc::corrupt, "reserved");
  expect_error(bad("segment"), Errc::corrupt, "segments of 4096");
  expect_error(bad("scrypt"), Errc::corrupt, "scrypt");
}

TEST(Segment, golden) {
  const Blob bytes = golden("segment-v1.bin", 14000);
  const auto header = decode_segment_header(bytes);
  ASSERT_TRUE(header) << text_of(header.error());
  EXPECT_EQ(header->segment_id, 7U);
  EXPECT_EQ(header->generation, 1U);
  const SegmentShape shape = shape_of(*header);
  const auto groups = decode_group_table(*header, View(bytes).subspan(kSegmentTableAt));
  ASSERT_TRUE(groups) << text_of(groups.error());
  const auto blocks =
      decode_block_index(*header, View(bytes).subspan(shape.index_at, header->index_bytes));
  ASSERT_TRUE(blocks) << text_of(blocks.error());
  EXPECT_EQ(*blocks, segment_sample_blocks());
  EXPECT_EQ(crc32c(View(bytes).subspan(shape.payload_at, header->payload_bytes)),
            groups->front().crc);
  const auto bad = [](const char* name) {
    return decode_segment_header(golden(fmt::format("segment-v1-bad-{}.bin", name), 14000));
  };
  expect_error(bad("magic"), Errc::not_found, "no magic");
  expect_error(bad("rot"), Errc::corrupt, "crc");
  expect_error(bad("version"), Errc::too_new, "version 2");
  expect_error(bad("kind"), Errc::too_new, "kind 3");
  expect_error(bad("slots"), Errc::corrupt, "3 blocks in 2 slots");
  expect_error(bad("groups"), Errc::corrupt, "number of groups");
  const Blob torn = golden("segment-v1-bad-table.bin", 14000);
  const auto torn_header = decode_segment_header(torn);
  ASSERT_TRUE(torn_header);
  expect_error(decode_group_table(*torn_header, View(torn).subspan(kSegmentTableAt)), Errc::corrupt,
               "table of groups");
}

TEST(Segment, impossible_indexes_are_refused) {
  SegmentHeader header = segment_sample_header();
  header.index_bytes = 3 * kBlockIndexBytes;
  const auto refused = [&](auto&& change) {
    std::vector<SegmentBlock> blocks = segment_sample_blocks();
    change(blocks);
    expect_error(decode_block_index(header, encode_block_index(blocks)), Errc::corrupt, "slot");
  };
  refused([](auto& blocks) { blocks[2].slot = 5; });
  refused([](auto& blocks) { blocks[1].slot = 0; });
  refused([](auto& blocks) { blocks[0].chunk = 0; });
  refused([](auto& blocks) { blocks[0].grain = kArchiveGrainsMax; });
  refused([](auto& blocks) { blocks[1].seq = 9; });
}

TEST(Segment, every_flipped_bit_of_the_head_is_detected) {
  Blob bytes = segment_sample(segment_sample_header());
  const SegmentShape shape = shape_of(*decode_segment_header(bytes));
  for (size_t bit = 0; bit < shape.index_at * 8; ++bit) {
    if (bit / 8 >= kSegmentHeaderBytes && bit / 8 < kSegmentTableAt) continue;  // The label's own.
    flip(bytes, bit);
    const auto header = decode_segment_header(bytes);
    EXPECT_FALSE(header && decode_group_table(*header, View(bytes).subspan(kSegmentTableAt)))
        << bit;
    flip(bytes, bit);
  }
}

TEST(Manifest, impossible_extents_are_refused) {
  const auto check = [](std::vector<ManifestExtent> extents) { return check_extents(extents); };
  EXPECT_TRUE(check({{0, 5, 7}, {5, 1, 0}, {9, 3, 100}}));
  expect_error(check({{0, 5, 7}, {4, 1, 0}}), Errc::corrupt, "at 4");
  expect_error(check({{0, 0, 7}}), Errc::corrupt, "0 grains");
  expect_error(check({{kArchiveGrainsMax, 1, 7}}), Errc::corrupt, "1 grains");
  expect_error(check({{0, 1, UINT64_MAX}}), Errc::corrupt, "1 grains");
}

TEST(ArchiveRows, what_is_encoded_is_decoded) {
  const DiskRow disk{archive_sample_uuid(1), 9, 77, "web"};
  EXPECT_EQ(*decode_disk_row(encode(disk)), disk);
  SnapshotRow snapshot;
  snapshot.seq = 5;
  snapshot.disk = "web";
  snapshot.name = "monday";
  snapshot.holder = "host /pool";
  snapshot.segment_end = 1 << 20;
  EXPECT_EQ(*decode_snapshot_row(encode(snapshot)), snapshot);
  RegionRow region{{{0, 4, 9}, {7, 1, 0}}, std::vector<RegionExtent>{{0, 1024, 1}}};
  EXPECT_EQ(*decode_region_row(encode(region)), region);
  const ChunkRow chunk{4, 1, 2, 3, 5};
  EXPECT_EQ(*decode_chunk_row(chunk_key(10), encode(chunk)), chunk);
}

TEST(ArchiveRows, usage_is_a_list_or_a_bitmap_whichever_is_smaller) {
  SegmentRow row;
  row.slots = 1024;
  row.live_count = 1024;
  EXPECT_EQ(form_of(row), UsageForm::full);
  for (const uint32_t count : {1000U, 64U, 63U, 1U, 0U}) {
    row.live.emplace(count);
    std::iota(row.live->begin(), row.live->end(), uint16_t{3});
    row.live_count = count;
    EXPECT_EQ(form_of(row), count >= 64 ? UsageForm::bitmap : UsageForm::list) << count;
    const auto again = decode_segment_row(encode(row));
    ASSERT_TRUE(again) << text_of(again.error());
    EXPECT_EQ(*again, row);
  }
}

TEST(ArchiveRows, keys_ascend_as_they_should) {
  EXPECT_LT(region_key(1, 5, 9), region_key(1, 5, 8)) << "the newest first";
  EXPECT_LT(region_key(1, 5, 1), region_key(1, 6, 9));
  EXPECT_LT(chunk_key(255), chunk_key(256));
  EXPECT_EQ(end_of("ab"), "ac");
  EXPECT_EQ(end_of(std::string("a\xff")), "b");
  const auto address = decode_region_key(region_key(3, 4, 5));
  ASSERT_TRUE(address);
  EXPECT_EQ(address->seq, 5U);
  expect_error(decode_region_key("l"), Errc::corrupt, "key of 1 bytes");
  expect_error(decode_chunk_key(chunk_key(0)), Errc::corrupt, "chunk 0");
}

}  // namespace
}  // namespace firn::format
