// SPDX-License-Identifier: Apache-2.0
#include "sim/pages.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/prng.h"

namespace firn::sim {
namespace {

std::vector<std::byte> all_of(const Image& image) {
  std::vector<std::byte> bytes(image.size());
  image.read(0, bytes);
  return bytes;
}

TEST(Image, behaves_like_an_array_under_random_changes_and_copies) {
  Prng prng(7);
  struct Pair {
    Image image;
    std::vector<std::byte> model;
  };
  std::vector<Pair> worlds(1);
  for (int step = 0; step < 3000; ++step) {
    Pair& at = worlds[prng.below(worlds.size())];
    const uint64_t where = prng.below(300000);
    switch (prng.below(6)) {
      case 0:
        at.image.resize(where);
        at.model.resize(where);
        break;
      case 1: {
        const uint64_t length = prng.below(100000);
        at.image.punch(where, length);
        for (uint64_t i = where; i < std::min(where + length, at.model.size()); ++i) {
          at.model[i] = std::byte{0};
        }
        break;
      }
      case 2:
        if (worlds.size() < 5) {
          const Pair copy = at;
          worlds.push_back(copy);
        } else {
          worlds[prng.below(worlds.size())] = Pair(at);
        }
        break;
      default: {
        std::vector<std::byte> bytes(1 + prng.below(9000), static_cast<std::byte>(prng.next()));
        at.image.write(where, bytes);
        if (at.model.size() < where + bytes.size()) at.model.resize(where + bytes.size());
        std::copy(bytes.begin(), bytes.end(), at.model.begin() + static_cast<ptrdiff_t>(where));
      }
    }
    const Pair& seen = worlds[prng.below(worlds.size())];
    ASSERT_EQ(all_of(seen.image), seen.model) << step;
  }
}

TEST(Image, is_sparse_and_its_hash_ignores_zeroes) {
  Image image;
  image.resize(uint64_t{64} << 40);
  EXPECT_EQ(image.bytes_allocated(), 0u);
  const uint64_t empty = image.hash();
  const std::vector<std::byte> zero(8192);
  image.write(uint64_t{1} << 45, zero);
  EXPECT_EQ(image.bytes_allocated(), 8192u);
  EXPECT_EQ(image.hash(), empty);
  const std::vector<std::byte> one(1, std::byte{1});
  image.write(uint64_t{1} << 45, one);
  EXPECT_NE(image.hash(), empty);
  EXPECT_EQ(image.pages_missing((uint64_t{1} << 45) - 1, 8194), 2u);
  image.punch(0, image.size());
  EXPECT_EQ(image.bytes_allocated(), 0u);
  EXPECT_EQ(image.hash(), empty);
}

}  // namespace
}  // namespace firn::sim
