// SPDX-License-Identifier: Apache-2.0
#include "format/data_label.h"

#include <gtest/gtest.h>

#include "format/block_table.h"
#include "format/format_test_util.h"

namespace firn::format {
namespace {

DataLabel random_label(Prng& prng) {
  DataLabel label;
  label.uuid = random_uuid(prng);
  label.blocks = 1 + prng.below(kBlocksMax);
  label.created_ns = prng.next();
  return label;
}

TEST(DataLabel, what_is_encoded_is_decoded) {
  Prng prng(1);
  for (int i = 0; i < 1000; ++i) {
    const DataLabel label = random_label(prng);
    const auto bytes = encode(label);
    const auto decoded = decode_data_label(bytes);
    ASSERT_TRUE(decoded) << text_of(decoded.error());
    EXPECT_TRUE(same(view_of(*decoded), bytes));
    EXPECT_EQ(decoded->uuid, label.uuid);
    EXPECT_EQ(decoded->blocks, label.blocks);
    EXPECT_EQ(decoded->created_ns, label.created_ns);
  }
}

TEST(DataLabel, every_flipped_bit_is_detected) {
  Prng prng(2);
  auto bytes = encode(random_label(prng));
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    flip(bytes, bit);
    EXPECT_FALSE(decode_data_label(bytes)) << bit;
    flip(bytes, bit);
  }
  EXPECT_TRUE(decode_data_label(bytes));
}

TEST(DataLabel, what_cannot_be_is_refused_under_a_right_checksum) {
  struct Case {
    const char* text;
    Errc code;
    void (*change)(DataLabel&);
  };
  using L = DataLabel;
  for (const Case& one : {
           Case{"no magic", Errc::not_found, [](L& l) { l.magic[7] = 'B'; }},
           Case{"version 2", Errc::too_new, [](L& l) { l.version = 2; }},
           Case{"version 0", Errc::corrupt, [](L& l) { l.version = 0; }},
           Case{"0 blocks", Errc::corrupt, [](L& l) { l.blocks = 0; }},
           Case{"blocks", Errc::corrupt, [](L& l) { l.blocks = kBlocksMax + 1; }},
           Case{"reserved", Errc::corrupt, [](L& l) { l.reserved0 = 1; }},
           Case{"reserved", Errc::corrupt, [](L& l) { l.reserved[0] = std::byte{1}; }},
           Case{"reserved", Errc::corrupt, [](L& l) { l.reserved[463] = std::byte{1}; }},
       }) {
    Prng prng(3);
    DataLabel label = random_label(prng);
    one.change(label);
    label.crc = crc32c(view_of(label).subspan(12));
    expect_error(decode_data_label(view_of(label)), one.code, one.text);
  }
  expect_error(decode_data_label({}), Errc::corrupt, "0 bytes");
}

}  // namespace
}  // namespace firn::format
