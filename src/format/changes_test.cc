// SPDX-License-Identifier: Apache-2.0
#include "format/changes.h"

#include <gtest/gtest.h>

#include "format/format_test_util.h"

namespace firn::format {
namespace {

TEST(Changes, ids_have_one_text) {
  Prng prng(1);
  for (int i = 0; i < 1000; ++i) {
    const ChangeId id{random_uuid(prng), random_uuid(prng), prng.next() >> prng.below(64)};
    const auto parsed = parse_change_id(text_of(id));
    ASSERT_TRUE(parsed) << text_of(id);
    EXPECT_EQ(*parsed, id);
  }
  const std::string uuid = "10111213-1415-1617-1819-1a1b1c1d1e1f";
  EXPECT_EQ(parse_change_id(uuid + "/" + uuid + "/7")->counter, 7U);
  for (const std::string& bad :
       {std::string(), uuid, uuid + "/" + uuid, uuid + "/" + uuid + "/", uuid + "/" + uuid + "/-1",
        uuid + "/" + uuid + "/07", uuid + "/" + uuid + "/7 ", uuid + "/" + uuid + "/7/",
        uuid + "/" + uuid + "/18446744073709551616", "X" + uuid.substr(1) + "/" + uuid + "/7",
        uuid + "/" + uuid.substr(0, 35) + "G/7", uuid + "-" + uuid + "/7", std::string(5000, '/'),
        "10111213-1415-1617-1819-1A1B1C1D1E1F/" + uuid + "/7"}) {
    expect_error(parse_change_id(bad), Errc::invalid, "is not a change id");
  }
}

TEST(Changes, blocks_grow_with_the_disk_so_that_the_log_stays_bounded) {
  EXPECT_EQ(change_block_shift(0), 16U);
  EXPECT_EQ(change_block_shift(kTiB), 16U);
  EXPECT_EQ(change_block_shift(4 * kTiB), 16U);
  EXPECT_EQ(change_block_shift(8 * kTiB), 17U);
  EXPECT_EQ(change_block_shift(kDiskBytesMax), 20U);
}

TEST(Changes, growths_forget_nothing_when_they_are_many) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Prng prng(seed);
    ChangesRecord record;
    record.state = static_cast<std::byte>(ChangesState::clean);
    record.block_shift = std::byte{16};
    std::vector<uint64_t> blocks(1 + prng.below(10));  // The model: the counter of each.
    for (int step = 0; step < 40; ++step) {
      record.event_counter = record.event_counter + prng.below(3);
      if (prng.one_in(3)) {
        blocks.resize(1 + prng.below(blocks.size()));
        cut_growths(record, blocks.size());
      } else {
        add_growth(record, blocks.size(), record.event_counter + 1);
        blocks.resize(blocks.size() + 1 + prng.below(20), record.event_counter + 1);
      }
      ASSERT_TRUE(decode_changes(view_of(record))) << "seed " << seed << " step " << step;
      for (size_t i = 0; i < blocks.size(); ++i) {
        EXPECT_GE(grown_counter(record, i), blocks[i]) << "seed " << seed << " block " << i;
        EXPECT_LE(grown_counter(record, i), record.event_counter + 1);
      }
    }
  }
}

TEST(Changes, any_flipped_byte_gives_a_record_that_is_possible_or_an_error) {
  const Blob good = golden("changes-v1.bin", 2 * kRecordBytes);
  Prng prng(3);
  for (int i = 0; i < 20000; ++i) {
    Blob record = blob_of(View(good).subspan(prng.below(2) * kRecordBytes, kRecordBytes));
    for (uint64_t n = 1 + prng.below(3); n > 0; --n) {
      record[prng.below(record.size())] = static_cast<std::byte>(prng.next());
    }
    if (const auto changes = decode_changes(record)) {
      EXPECT_LE(changes->valid_from, changes->event_counter);
      EXPECT_LE(changes->bytes, kDiskBytesMax);
    }
    if (const auto application = decode_application(record)) {
      EXPECT_TRUE(name_is_valid(name_of(*application)));
    }
  }
}

}  // namespace
}  // namespace firn::format
