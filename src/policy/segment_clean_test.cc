// SPDX-License-Identifier: Apache-2.0
#include "policy/segment_clean.h"

#include <gtest/gtest.h>

namespace firn::policy {
namespace {

constexpr int64_t kHour = int64_t{3600} * 1'000'000'000;
constexpr int64_t kNow = 100 * kHour;

CleanSegment segment(uint32_t live, uint32_t disk = 1) {
  return {.disk = disk, .bytes = 16'000'000, .present = 4000, .live = live};
}

TEST(SegmentClean, what_holds_nothing_goes_when_its_time_has_come) {
  CleanSegment empty = segment(0);
  empty.doomed = true;
  empty.release_ns = kNow;
  CleanSegment early = empty;
  early.release_ns = kNow + 1;
  const CleanSegment undecided = segment(0);
  const std::vector<CleanSegment> all{empty, early, undecided};
  const CleanPlan plan = plan_clean({}, {}, all, kNow);
  EXPECT_EQ(plan.remove, std::vector<size_t>{0});
  EXPECT_TRUE(plan.shrink.empty() && plan.coalesce.empty());
}

TEST(SegmentClean, sparse_ones_shrink_or_are_put_together) {
  const std::vector<CleanSegment> all{segment(2000), segment(1999),  segment(200), segment(300),
                                      segment(10),   segment(10, 2), segment(4000)};
  const CleanPlan plan = plan_clean({}, {}, all, kNow);
  EXPECT_EQ(plan.shrink, (std::vector<size_t>{1, 5})) << "large, and alone on its disk";
  ASSERT_EQ(plan.coalesce.size(), 1U);
  EXPECT_EQ(plan.coalesce[0], (std::vector<size_t>{2, 3, 4}));
}

TEST(SegmentClean, groups_do_not_become_larger_than_a_segment) {
  const std::vector<CleanSegment> all(12, segment(900));
  const CleanPlan plan = plan_clean({}, {}, all, kNow);
  for (const auto& group : plan.coalesce) EXPECT_LE(group.size() * 900, 4000U + 900U);
  EXPECT_GE(plan.coalesce.size(), 3U);
}

// Blocks that are stored in a few bytes each.
TEST(SegmentClean, groups_do_not_have_more_blocks_than_a_segment) {
  const std::vector<CleanSegment> all(
      9, CleanSegment{.disk = 1, .bytes = 200'000, .present = 65'535, .live = 30'000});
  const CleanPlan plan = plan_clean({}, {}, all, kNow);
  EXPECT_EQ(plan.coalesce.size(), 4U);
  for (const auto& group : plan.coalesce) EXPECT_EQ(group.size(), 2U);
  EXPECT_EQ(plan.shrink.size(), 1U);
}

TEST(SegmentClean, young_and_unreleased_ones_are_left_alone) {
  CleanSegment young = segment(1000);
  young.created_ns = kNow - kHour + 1;
  CleanSegment cold = segment(1000);
  cold.release_ns = kNow + 1;
  const CleanPlan plan = plan_clean({}, {}, std::vector<CleanSegment>{young, cold}, kNow);
  EXPECT_TRUE(plan.remove.empty() && plan.shrink.empty() && plan.coalesce.empty());
}

TEST(SegmentClean, it_must_pay) {
  // Deep archive: keeping 16 MB costs next to nothing, reading and writing do.
  const TierPrice deep{.byte_month = 0.00099e-9, .byte_read = 0.02e-9, .get = 4e-7, .put = 5e-5};
  const std::vector<CleanSegment> all{segment(1900), segment(1)};
  const CleanPlan short_view = plan_clean({.horizon_months = 2}, deep, all, kNow);
  EXPECT_TRUE(short_view.shrink.empty() && short_view.coalesce.empty());
  const CleanPlan long_view = plan_clean({.horizon_months = 12}, deep, all, kNow);
  EXPECT_EQ(long_view.shrink, std::vector<size_t>{1}) << "the emptier one";
}

TEST(SegmentClean, deciding_again_after_doing_it_decides_nothing) {
  std::vector<CleanSegment> all{segment(1999), segment(100), segment(100)};
  const CleanPlan plan = plan_clean({}, {}, all, kNow);
  for (const size_t i : plan.shrink) {
    all[i].bytes = all[i].bytes * all[i].live / all[i].present;
    all[i].present = all[i].live;
  }
  CleanSegment made;
  made.disk = 1;
  for (const size_t i : plan.coalesce.at(0)) {
    made.bytes += all[i].bytes * all[i].live / all[i].present;
    made.present += all[i].live;
    all[i].live = 0;
  }
  made.live = made.present;
  all.push_back(made);
  const CleanPlan again = plan_clean({}, {}, all, kNow);
  EXPECT_TRUE(again.remove.empty() && again.shrink.empty() && again.coalesce.empty());
}

}  // namespace
}  // namespace firn::policy
