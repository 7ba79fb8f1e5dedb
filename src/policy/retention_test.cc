// SPDX-License-Identifier: Apache-2.0
#include "policy/retention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/prng.h"

namespace firn::policy {
namespace {

constexpr int64_t kHour = int64_t{3600} * 1'000'000'000;
constexpr int64_t kDay = 24 * kHour;
constexpr int64_t kMonday = (int64_t{19723} + 0) * kDay;  // 2024-01-01, a Monday.

std::vector<size_t> expired(RetentionRule rule, const std::vector<int64_t>& created) {
  return choose_expired(rule, created);
}

TEST(Retention, nothing_asked_keeps_everything) {
  EXPECT_TRUE(expired({}, {1, 2, 3}).empty());
  EXPECT_TRUE(expired({.last = 1}, {}).empty());
}

TEST(Retention, the_newest_of_each_period_stays) {
  // Three a day for four days.
  std::vector<int64_t> created;
  for (int64_t day = 0; day < 4; ++day) {
    for (int64_t n = 0; n < 3; ++n) created.push_back(kMonday + day * kDay + (6 + 6 * n) * kHour);
  }
  EXPECT_EQ(expired({.daily = 2}, created), (std::vector<size_t>{0, 1, 2, 3, 4, 5, 6, 7, 9, 10}));
  EXPECT_EQ(expired({.last = 4}, created), (std::vector<size_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(expired({.weekly = 5}, created).size(), 11U) << "one week";
}

TEST(Retention, weeks_begin_on_monday_and_months_with_the_first) {
  const std::vector<int64_t> created{kMonday - 1, kMonday, kMonday + 7 * kDay - 1,
                                     kMonday + 7 * kDay};
  EXPECT_EQ(expired({.weekly = 3}, created), (std::vector<size_t>{1}));
  EXPECT_EQ(expired({.monthly = 2}, created), (std::vector<size_t>{1, 2}));
  EXPECT_EQ(expired({.yearly = 2}, created), (std::vector<size_t>{1, 2}));
}

TEST(Retention, a_pause_costs_nothing) {
  const std::vector<int64_t> created{kMonday, kMonday + kDay, kMonday + 40 * kDay};
  EXPECT_TRUE(expired({.daily = 3}, created).empty());
}

TEST(Retention, what_was_kept_is_kept_again_and_the_newest_always) {
  Prng prng(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> created;
    for (uint64_t i = 0; i < 1 + prng.below(60); ++i) {
      created.push_back(kMonday + static_cast<int64_t>(prng.below(800)) * kDay / 2);
    }
    const RetentionRule rule{
        static_cast<uint32_t>(prng.below(3)),  static_cast<uint32_t>(prng.below(5)),
        static_cast<uint32_t>(prng.below(8)),  static_cast<uint32_t>(prng.below(5)),
        static_cast<uint32_t>(prng.below(13)), static_cast<uint32_t>(prng.below(3))};
    const std::vector<size_t> gone = choose_expired(rule, created);
    const std::set<size_t> unique(gone.begin(), gone.end());
    EXPECT_EQ(unique.size(), gone.size());
    std::vector<int64_t> kept;
    for (size_t i = 0; i < created.size(); ++i) {
      if (!unique.contains(i)) kept.push_back(created[i]);
    }
    ASSERT_FALSE(kept.empty());
    EXPECT_EQ(*std::ranges::max_element(kept), *std::ranges::max_element(created));
    EXPECT_TRUE(choose_expired(rule, kept).empty());
  }
}

}  // namespace
}  // namespace firn::policy
