// SPDX-License-Identifier: Apache-2.0
#include "policy/change_pace.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace firn::policy {
namespace {

using std::chrono::seconds;

TEST(IntentReach, grows_while_misses_come_thick_and_shrinks_when_they_are_rare) {
  IntentReach reach;
  EXPECT_EQ(reach.miss(1 << 20), 1U) << "the first miss says nothing";
  for (uint64_t expected = 2; expected <= IntentReach::kMost; expected *= 2) {
    EXPECT_EQ(reach.miss(1 << 20), expected);
  }
  EXPECT_EQ(reach.miss(1 << 20), IntentReach::kMost);
  for (uint64_t i = 0; i < IntentReach::kThick; ++i) reach.hit();
  EXPECT_EQ(reach.miss(1 << 20), IntentReach::kMost) << "neither thick nor thin";
  for (uint64_t i = 0; i <= IntentReach::kThin; ++i) reach.hit();
  EXPECT_EQ(reach.miss(1 << 20), IntentReach::kMost / 2);
}

TEST(IntentReach, a_small_disk_is_not_taken_whole) {
  IntentReach reach;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(reach.miss(64), 1U);
  IntentReach larger;
  for (int i = 0; i < 20; ++i) EXPECT_LE(larger.miss(1000), 8U);
}

// Random writes over N regions: how many of them had to wait for a commit.
TEST(IntentReach, random_writes_over_a_terabyte_cost_a_few_hundred_commits) {
  constexpr uint64_t kRegions = 1 << 20;
  std::vector<bool> set(kRegions);
  IntentReach reach;
  Prng prng(1);
  uint64_t misses = 0;
  for (uint64_t write = 0; write < 4 * kRegions; ++write) {
    const uint64_t region = prng.below(kRegions);
    if (set[region]) {
      reach.hit();
      continue;
    }
    ++misses;
    const uint64_t run = reach.miss(kRegions);
    const uint64_t first = region / run * run;
    for (uint64_t i = first; i < first + run; ++i) set[i] = true;
  }
  EXPECT_LT(misses, 600U);
}

TEST(ChangeFlush, is_due_after_five_seconds_or_with_an_eighth_of_the_bits) {
  struct Case {
    int after_s;
    uint64_t bits_set, pages, writes;
    bool due;
  };
  constexpr uint64_t kBits = 1 << 24;
  for (const Case& each : {
           Case{100, 0, 0, 0, false},               // Nothing to say.
           Case{4, 10, 1, 1000, false},             // Too early.
           Case{5, 10, 1, 10, true},                // Few pages: at once.
           Case{1, kBits / 8, 100, 1 << 20, true},  // Many bits: at once ...
           Case{1, kBits / 8, 16384, 1000, false},  // ... unless they are dear.
           Case{5, 20000, 16384, 20000, false},     // Scattered: a page for each write.
           Case{60, 20000, 16384, 20000, true},     // Not for ever.
           Case{5, 1 << 20, 16384, 1 << 20, true},  // 64 writes pay for a page.
       }) {
    EXPECT_EQ(
        ChangeFlush::due(seconds(each.after_s), each.bits_set, kBits, each.pages, each.writes),
        each.due)
        << each.after_s << " s, " << each.bits_set << " bits, " << each.pages << " pages";
  }
}

}  // namespace
}  // namespace firn::policy
