// SPDX-License-Identifier: Apache-2.0
#include "policy/lsm_pace.h"

#include <gtest/gtest.h>

namespace firn::policy {
namespace {

using namespace std::chrono_literals;

TEST(LsmPace, a_transfer_is_due_by_age_or_by_size) {
  const LsmPressure little{1, 1, 1000};
  EXPECT_FALSE(LsmPace::transfer_due(little, 4999ms, 5s));
  EXPECT_TRUE(LsmPace::transfer_due(little, 5s, 5s));
  EXPECT_TRUE(LsmPace::transfer_due({1000, 1000, 1000}, 0s, 1h));
  EXPECT_FALSE(LsmPace::transfer_due({999, 2999, 1000}, 0s, 1h)) << "the other one is on its way";
  EXPECT_FALSE(LsmPace::transfer_due({0, 1000, 1000}, 1h, 5s)) << "nothing new";
}

TEST(LsmPace, writers_are_free_up_to_two_capacities_and_stop_at_three) {
  EXPECT_EQ(LsmPace::pressure_delay({0, 2000, 1000}), 0ns);
  EXPECT_EQ(LsmPace::pressure_delay({0, 2500, 1000}), LsmPace::kDelayMax / 2);
  EXPECT_EQ(LsmPace::pressure_delay({0, 9000, 1000}), LsmPace::kDelayMax);
  EXPECT_FALSE(LsmPace::must_stop({0, 2999, 1000}));
  EXPECT_TRUE(LsmPace::must_stop({0, 3000, 1000}));
}

TEST(LsmPace, delays_grow_with_what_causes_them) {
  Duration before{};
  for (uint64_t bytes = 0; bytes < 4000; bytes += 7) {
    const Duration delay = LsmPace::pressure_delay({0, bytes, 1000});
    EXPECT_GE(delay, before);
    before = delay;
  }
  before = {};
  for (uint64_t runs = 0; runs < 100; ++runs) {
    const Duration delay = LsmPace::debt_delay(runs);
    EXPECT_GE(delay, before);
    EXPECT_LE(delay - before, 1ms) << "graded, no cliff";
    before = delay;
  }
  EXPECT_EQ(LsmPace::debt_delay(LsmPace::kRunsEasy), 0ns);
  EXPECT_EQ(before, LsmPace::kDebtDelayMax);
}

TEST(LsmTiers, the_shallowest_full_level_is_merged) {
  EXPECT_EQ(LsmTiers::pick({}), std::nullopt);
  EXPECT_EQ(LsmTiers::pick({3, 3, 3}), std::nullopt);
  EXPECT_EQ(LsmTiers::pick({3, 4, 9}), 1U);
  EXPECT_EQ(LsmTiers::pick({4, 4}), 0U);
}

// Merging whenever a level is full keeps the runs that a reader asks few: logarithmic in transfers.
TEST(LsmTiers, runs_stay_few) {
  std::vector<uint32_t> runs(1);
  uint64_t merged = 0;
  for (uint32_t transfer = 1; transfer <= 4096; ++transfer) {
    ++runs[0];
    uint64_t weight = 1;
    while (const auto level = LsmTiers::pick(runs)) {
      if (*level + 1 == runs.size()) runs.push_back(0);
      weight = uint64_t{1} << (2 * (*level + 1));
      merged += weight;
      runs[*level] = 0;
      ++runs[*level + 1];
    }
    uint64_t all = 0;
    for (const uint32_t count : runs) all += count;
    EXPECT_LE(all, 3 * runs.size());
  }
  EXPECT_LE(merged, 4096U * 6) << "written once a level";
}

TEST(LsmPace, pauses_after_failures_grow_and_are_bounded) {
  EXPECT_EQ(lsm_retry_pause(1), 200ms);
  EXPECT_EQ(lsm_retry_pause(2), 400ms);
  EXPECT_EQ(lsm_retry_pause(1000), 10s);
}

}  // namespace
}  // namespace firn::policy
