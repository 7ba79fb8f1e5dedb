// SPDX-License-Identifier: Apache-2.0
#include "format/grain_map.h"

#include <gtest/gtest.h>

#include "format/format_test_util.h"

namespace firn::format {
namespace {

constexpr GrainNo kGrains = 1000 * kBlockGrains;
constexpr uint64_t kOwn = uint64_t{1} << 63;

GrainEntry random_entry(Prng& prng) {
  switch (prng.below(3)) {
    case 0:
      return {};
    case 1:
      return {GrainType::zero, prng.one_in(2), 0};
    default:
      return {GrainType::data, prng.one_in(2), prng.below(kGrains)};
  }
}

Blob page_with(size_t at, uint64_t raw) {
  Blob page(kPageBytes);
  put(Bytes(page), at * 8, le64(raw));
  return page;
}

TEST(GrainMap, entries_make_the_round_trip) {
  Prng prng(1);
  for (int i = 0; i < 20000; ++i) {
    const GrainEntry entry = random_entry(prng);
    EXPECT_EQ(grain_entry_of(encode(entry)), entry);
  }
  const GrainEntry last{GrainType::data, true, kGrainNoMax};
  EXPECT_EQ(grain_entry_of(encode(last)), last);
  EXPECT_EQ(encode(GrainEntry{}), 0U) << "a page of zeroes maps nothing";
}

TEST(GrainMap, pages_of_possible_entries_pass) {
  Prng prng(2);
  for (int i = 0; i < 500; ++i) {
    Blob page(kPageBytes);
    for (size_t at = 0; at < 512; ++at) put(Bytes(page), at * 8, le64(encode(random_entry(prng))));
    const auto checked = check_map_page(page, kGrains);
    EXPECT_TRUE(checked) << text_of(checked.error());
  }
}

TEST(GrainMap, impossible_entries_are_refused_wherever_they_are) {
  const uint64_t data = uint64_t{2} << 60;
  const uint64_t zero = uint64_t{1} << 60;
  std::vector<uint64_t> impossible{
      1,                               // Absent, but somewhere.
      kOwn,                            // Absent, but own.
      zero | 5,                        // Zero, but somewhere.
      data | kGrains,                  // Beyond the pool.
      data | kOwn | kGrainNoMax,       //
      uint64_t{3} << 60,               // Shared: reserved.
      (uint64_t{3} << 60) | kOwn | 7,  //
      uint64_t{4} << 60,
      uint64_t{7} << 60,  // No types yet.
      UINT64_MAX,
  };
  for (int bit = 44; bit < 60; ++bit) {  // Stray bits.
    impossible.push_back(data | 5 | (uint64_t{1} << bit));
    impossible.push_back(zero | (uint64_t{1} << bit));
    impossible.push_back(uint64_t{1} << bit);
  }
  for (const uint64_t raw : impossible) {
    for (const size_t at : {0U, 255U, 511U}) {
      expect_error(check_map_page(page_with(at, raw), kGrains), Errc::corrupt,
                   fmt::format("map entry {} is {:016x}", at, raw));
    }
  }
}

TEST(GrainMap, the_last_grain_of_the_pool_is_inside_and_the_next_is_not) {
  const auto at = [](GrainNo grain) {
    return page_with(9, encode(GrainEntry{GrainType::data, true, grain}));
  };
  EXPECT_TRUE(check_map_page(at(kGrains - 1), kGrains));
  EXPECT_FALSE(check_map_page(at(kGrains), kGrains));
  EXPECT_TRUE(check_map_page(at(kGrainNoMax), kGrainNoMax + 1));
  EXPECT_FALSE(check_map_page(at(0), 0));
}

TEST(GrainMap, what_passes_decodes_and_encodes_to_itself) {
  Prng prng(3);
  for (int i = 0; i < 50000; ++i) {
    uint64_t raw = prng.next();
    if (prng.one_in(2)) raw &= kOwn | (uint64_t{7} << 60) | 0xffff;
    if (!check_map_page(page_with(prng.below(512), raw), kGrains)) continue;
    const GrainEntry entry = grain_entry_of(raw);
    EXPECT_EQ(encode(entry), raw);
    EXPECT_TRUE(entry.type != GrainType::data || entry.grain < kGrains);
    EXPECT_NE(entry.type, GrainType::shared);
  }
}

}  // namespace
}  // namespace firn::format
