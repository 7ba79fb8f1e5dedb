// SPDX-License-Identifier: Apache-2.0
// The doctor of stores: a good one passes, in trouble too; each way of lying is found.
#include "io/store_doctor.h"

#include <gtest/gtest.h>

#include <set>

#include "sim/sim_io.h"
#include "sim/sim_store.h"

namespace firn {
namespace {

using namespace std::chrono_literals;
using sim::SimStoreFaults;

// The names of the checks that failed; or what the whole said.
std::set<std::string> failures(uint64_t seed, const SimStoreFaults& faults, int64_t ahead_s = 0) {
  sim::World world;
  sim::SimIo io(world, seed);
  sim::SimBucket bucket;
  bucket.ahead_ns = ahead_s * 1'000'000'000;
  sim::SimStore store(bucket, {.seed = seed, .patience = 600s, .faults = faults});
  std::set<std::string> failed;
  io.run([&] {
    const auto checks = examine_store(io, store, {.large_bytes = 300'000});
    if (!checks) {
      failed.insert(std::string(name_of(checks.error().code)));
      return;
    }
    EXPECT_GE(checks->size(), 9u);
    for (const StoreCheck& check : *checks) {
      if (check.verdict == StoreCheck::Verdict::fail) failed.insert(check.name);
    }
  });
  EXPECT_TRUE(faults.lists_late || faults.ignores_prefixes || bucket.objects.empty())
      << "the doctor left something behind";
  return failed;
}

using Names = std::set<std::string>;

TEST(StoreDoctor, finds_nothing_wrong_with_a_good_store) {
  EXPECT_EQ(failures(1, {}), Names{});
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    EXPECT_EQ(failures(seed, {.latency_min = 1ms,
                              .latency_max = 100ms,
                              .lost_one_in = 10,
                              .dropped_one_in = 10,
                              .throttled_one_in = 5,
                              .torn_one_in = 10,
                              .stalled_one_in = 30}),
              Names{})
        << seed;
  }
}

TEST(StoreDoctor, finds_each_lie) {
  EXPECT_EQ(failures(1, {.latency_min = 1ms, .latency_max = 50ms, .ignores_once = true}),
            (Names{"create once", "create once, race"}));
  EXPECT_EQ(failures(1, {.lists_late = true}), Names{"list"});
  EXPECT_TRUE(failures(1, {.ignores_prefixes = true}).contains("list"));
}

TEST(StoreDoctor, finds_a_clock_that_is_off) {
  EXPECT_EQ(failures(1, {}, 3600), Names{"clock"});
  EXPECT_EQ(failures(1, {}, -3600), Names{"clock"});
  EXPECT_EQ(failures(1, {}, 60), Names{});
}

TEST(StoreDoctor, says_at_once_that_it_may_not) {
  EXPECT_EQ(failures(1, {.refuses_all = true}), Names{"invalid"});
}

}  // namespace
}  // namespace firn
