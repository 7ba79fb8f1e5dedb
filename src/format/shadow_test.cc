// SPDX-License-Identifier: Apache-2.0
#include "format/shadow.h"

#include <gtest/gtest.h>

#include "format/format_test_util.h"

namespace firn::format {
namespace {

TEST(Shadow, every_flipped_bit_under_the_checksum_is_detected) {
  Prng prng(2);
  ShadowHeader header;
  header.uuid = random_uuid(prng);
  header.epoch = prng.next();
  header.half_bytes = kShadowHalfBytes;
  header.boot = shadow_boot("boot");
  auto bytes = encode(header);
  for (size_t bit = 0; bit < 480 * 8; ++bit) {
    flip(bytes, bit);
    EXPECT_FALSE(decode_shadow_header(bytes)) << bit;
    flip(bytes, bit);
  }
  EXPECT_TRUE(decode_shadow_header(bytes));
}

TEST(Shadow, a_boot_of_any_length_fits) {
  EXPECT_EQ(shadow_boot("")[0], 0);
  EXPECT_EQ(shadow_boot(std::string(60, 'x'))[39], 'x');
}

TEST(Shadow, a_span_counts_only_where_and_for_what_it_was_written) {
  Prng prng(3);
  const Uuid uuid = random_uuid(prng);
  std::vector<std::byte> half(4096);
  const size_t at = sizeof(ShadowHalf);
  ShadowSpan span;
  span.bytes = 16;
  span.crc = span_crc(uuid, 9, at, View(half).subspan(at + 8, 16));
  std::ranges::copy(view_of(span), half.begin() + at);
  EXPECT_EQ(read_half(uuid, 9, half).size(), 16U);
  EXPECT_TRUE(read_half(uuid, 8, half).empty());
  EXPECT_TRUE(read_half(random_uuid(prng), 9, half).empty());
  // The same bytes at another place, behind an empty span that ends the row anyway.
  std::vector<std::byte> moved(4096);
  std::ranges::copy(View(half).first(at + 24), moved.begin() + 8);
  EXPECT_TRUE(read_half(uuid, 9, moved).empty());
}

}  // namespace
}  // namespace firn::format
