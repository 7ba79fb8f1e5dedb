// SPDX-License-Identifier: Apache-2.0
#include "policy/shrink_pick.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace firn::policy {
namespace {

TEST(ShrinkPick, random_families) {
  Prng prng(7);
  for (int round = 0; round < 20000; ++round) {
    std::vector<uint16_t> used(prng.below(40));
    for (uint16_t& grains : used) grains = static_cast<uint16_t>(1 + prng.below(256));
    const ShrinkChoice choice = choose_victims(used, 256);
    uint64_t moves = 0, holes = 0;
    uint16_t most = 0, least = 256;
    for (const size_t i : choice.victims) {
      moves += used[i];
      most = std::max(most, used[i]);
      EXPECT_LT(used[i], 256);
    }
    for (const size_t i : choice.receivers) {
      holes += 256U - used[i];
      least = std::min(least, used[i]);
      EXPECT_LT(used[i], 256);
    }
    EXPECT_EQ(moves, choice.moves);
    if (choice.victims.empty()) {
      EXPECT_TRUE(choice.receivers.empty());
      continue;
    }
    EXPECT_LE(moves, holes);  // K1
    EXPECT_LE(most, least);   // K2
    // As few blocks as possible are left: one victim more would not fit.
    const uint16_t next = used[choice.receivers.back()];
    EXPECT_TRUE(choice.receivers.size() == 1 || moves + next > holes - (256U - next));
  }
}

TEST(ShrinkPick, nothing_to_win) {
  EXPECT_TRUE(choose_victims({}, 256).victims.empty());
  const uint16_t one[] = {3};
  EXPECT_TRUE(choose_victims(one, 256).victims.empty());
  const uint16_t halves[] = {200, 100};
  EXPECT_TRUE(choose_victims(halves, 256).victims.empty());
  const uint16_t fits[] = {200, 56, 256};
  EXPECT_EQ(choose_victims(fits, 256).victims, std::vector<size_t>{1});
}

}  // namespace
}  // namespace firn::policy
