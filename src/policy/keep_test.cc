// SPDX-License-Identifier: Apache-2.0
#include "policy/keep.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/prng.h"

namespace firn::policy {
namespace {

std::string chosen(KeepRule rule, const std::vector<KeepSnapshot>& snapshots, uint64_t layers) {
  std::string names;
  for (const size_t i : choose_doomed(rule, snapshots, layers).doomed) names += snapshots[i].name;
  return names;
}

TEST(Keep, off_by_default) {
  const std::vector<KeepSnapshot> all = {{"a", 1}, {"b", 2}, {"c", 3}};
  EXPECT_EQ(chosen({}, all, 1000), "");
}

TEST(Keep, the_newest_stay) {
  const std::vector<KeepSnapshot> all = {{"c", 3}, {"a", 1}, {"d", 4}, {"b", 2}};
  EXPECT_EQ(chosen({.keep = 4}, all, 5), "");
  EXPECT_EQ(chosen({.keep = 2}, all, 5), "ab");
  EXPECT_EQ(chosen({.keep = 1}, all, 5), "abc");
}

TEST(Keep, K1_one_in_use_is_not_replaced_by_a_newer_one) {
  const std::vector<KeepSnapshot> all = {
      {"a", 1}, {.name = "b", .order = 2, .in_use = true}, {"c", 3}, {"d", 4}};
  EXPECT_EQ(chosen({.keep = 2}, all, 5), "a");
  EXPECT_EQ(choose_doomed({.keep = 2}, all, 5).blocked, 1U);
}

TEST(Keep, K2_the_chain_limit_spares_the_newest) {
  const std::vector<KeepSnapshot> all = {{"a", 1}, {"b", 2}, {"c", 3}};
  EXPECT_EQ(chosen({.chain_max = 3}, all, 4), "a");
  EXPECT_EQ(chosen({.keep = 3, .chain_max = 3}, all, 4), "a");
  EXPECT_EQ(chosen({.chain_max = 1}, all, 4), "ab");
  EXPECT_EQ(choose_doomed({.chain_max = 1}, all, 4).blocked, 1U);
}

TEST(Keep, K3_a_clock_that_jumps_changes_nothing) {
  const std::vector<KeepSnapshot> all = {{"a", 1, 900}, {"b", 2, 100}, {"c", 3, 500}};
  EXPECT_EQ(chosen({.keep = 1}, all, 4), "ab");
  const std::vector<KeepSnapshot> equals = {{"z", 1, 5}, {"y", 1, 5}, {"x", 1, 9}};
  EXPECT_EQ(chosen({.keep = 1}, equals, 4), "yz");
}

TEST(Keep, K4_the_chain_limit_passes_over_what_would_not_shorten_it) {
  const std::vector<KeepSnapshot> all = {{.name = "a", .order = 1, .shared = true},
                                         {.name = "b", .order = 2, .in_chain = false},
                                         {"c", 3},
                                         {"d", 4}};
  EXPECT_EQ(chosen({.chain_max = 3}, all, 4), "c");
  EXPECT_EQ(chosen({.keep = 2}, all, 4), "ab");  // Names go even where layers stay.
}

TEST(Keep, holds_in_any_history) {
  Prng prng(11);
  for (int i = 0; i < 100'000; ++i) {
    std::vector<KeepSnapshot> all(prng.below(12));
    uint64_t layers = 1 + prng.below(3);
    for (KeepSnapshot& one : all) {
      one = {.name = "n",
             .order = prng.next(),
             .created_ns = prng.below(4),
             .in_use = prng.one_in(5),
             .in_chain = !prng.one_in(6),
             .shared = prng.one_in(6)};
      layers += one.in_chain ? 1 : 0;
    }
    const KeepRule rule = {.keep = prng.below(6), .chain_max = prng.below(8)};
    const KeepChoice choice = choose_doomed(rule, all, layers);

    std::vector<KeepSnapshot> rest = all;
    uint64_t last_order = 0, rest_layers = layers;
    for (const size_t doomed : choice.doomed) {
      ASSERT_FALSE(all[doomed].in_use);          // K1
      ASSERT_GT(all[doomed].order, last_order);  // K1, oldest first.
      last_order = all[doomed].order;
      std::erase_if(rest, [&](const KeepSnapshot& one) { return one.order == last_order; });
      rest_layers -= all[doomed].in_chain && !all[doomed].shared ? 1 : 0;
    }
    if (!all.empty()) {
      ASSERT_FALSE(rest.empty());  // K2
    }
    if (rule.keep == 0 && rule.chain_max == 0) {
      ASSERT_TRUE(choice.doomed.empty());
    }
    if (choice.blocked == 0) {  // K5
      ASSERT_TRUE(rule.keep == 0 || rest.size() <= rule.keep);
      ASSERT_TRUE(rule.chain_max == 0 || rest_layers <= rule.chain_max);
    }
    ASSERT_TRUE(choose_doomed(rule, rest, rest_layers).doomed.empty());  // K6
  }
}

}  // namespace
}  // namespace firn::policy
