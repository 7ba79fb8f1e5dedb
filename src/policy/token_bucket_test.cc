// SPDX-License-Identifier: Apache-2.0
#include "policy/token_bucket.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "base/prng.h"
#include "base/units.h"

namespace firn::policy {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(TokenBucket, B1_the_burst_at_once_then_the_rate) {
  TokenBucket bucket({.rate = 1000, .burst = 10}, Time{});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(bucket.admit(Time{}, 1), Duration::zero());
  for (int i = 1; i <= 5; ++i) EXPECT_EQ(bucket.admit(Time{}, 1), milliseconds(i));
  EXPECT_EQ(bucket.admit(Time{milliseconds(5)}, 1), milliseconds(1));
}

TEST(TokenBucket, B2_an_awkward_rate_does_not_drift) {
  // 999,983 a second is no whole number of nanoseconds each. After an hour of full load:
  TokenBucket bucket({.rate = 999'983, .burst = 1}, Time{});
  Time start{};
  bucket.admit(start, 1);
  constexpr uint64_t kSteps = 2'000'000;
  for (uint64_t i = 0; i < kSteps; ++i) start = start + bucket.admit(start, 1800);
  const Duration exact(static_cast<int64_t>(1800.0L * kSteps / 999'983 * 1e9L));
  EXPECT_LE(start.since_origin - exact, Duration(2));
  EXPECT_GE(start.since_origin - exact, Duration(-2));
}

TEST(TokenBucket, B4_no_rate_no_limit) {
  TokenBucket bucket({}, Time{});
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(bucket.admit(Time{}, UINT64_MAX), Duration::zero());
}

TEST(TokenBucket, B5_what_is_not_used_is_kept_up_to_the_burst) {
  TokenBucket bucket({.rate = 100, .burst = 5}, Time{});
  bucket.admit(Time{}, 5);
  const Time later{seconds(3600)};
  EXPECT_EQ(bucket.admit(later, 5), Duration::zero());
  EXPECT_EQ(bucket.admit(later, 1), milliseconds(10));
}

TEST(TokenBucket, new_limits_keep_the_time_that_is_owed) {
  TokenBucket bucket({.rate = 1000, .burst = 1}, Time{});
  bucket.admit(Time{}, 1001);  // A second ahead.
  bucket.set_limits(Time{}, {.rate = 10, .burst = 1});
  EXPECT_EQ(bucket.admit(Time{}, 1), milliseconds(1100));
  bucket.set_limits(Time{}, {});
  EXPECT_EQ(bucket.admit(Time{}, 1 << 20), Duration::zero());
  bucket.set_limits(Time{}, {.rate = 10, .burst = 2});
  EXPECT_EQ(bucket.admit(Time{}, 2), Duration::zero());
  EXPECT_EQ(bucket.admit(Time{}, 1), milliseconds(100));
  bucket.refund(Time{}, 1);
  EXPECT_EQ(bucket.admit(Time{}, 1), milliseconds(100));
}

TEST(TokenBucket, extreme_numbers_do_not_overflow) {
  TokenBucket bucket({.rate = UINT64_MAX, .burst = UINT64_MAX}, Time{});
  EXPECT_EQ(bucket.admit(Time{Duration::max()}, UINT64_MAX), Duration::zero());
  TokenBucket slow({.rate = 1, .burst = 1}, Time{});
  EXPECT_EQ(slow.admit(Time{}, UINT64_MAX), Duration::max());
  slow.set_limits(Time{}, {.rate = UINT64_MAX, .burst = 1});
  EXPECT_EQ(slow.admit(Time{}, 1), std::chrono::hours(24 * 365 * 100) + Duration(1));
}

TEST(DiskLimits, the_stricter_limit_decides) {
  DiskLimits limits({.requests = {1000, 1}, .bytes = {1 * kMiB, 4096}}, Time{});
  EXPECT_EQ(limits.admit(Time{}, 4096), Duration::zero());
  EXPECT_EQ(limits.admit(Time{}, 0), milliseconds(1));             // Requests.
  EXPECT_EQ(limits.admit(Time{}, 512 * kKiB), milliseconds(500));  // Bytes.
}

TEST(DiskLimits, a_long_request_counts_as_several) {
  DiskLimits limits({.requests = {100, 1}, .request_bytes = 65536}, Time{});
  EXPECT_EQ(limits.admit(Time{}, 65536), Duration::zero());
  EXPECT_EQ(limits.admit(Time{}, 65537), milliseconds(20));
}

// B1 in every stretch (to the nanosecond to which starts are rounded), B3 throughout.
TEST(TokenBucket, holds_in_a_million_random_requests) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Prng prng(seed);
    const uint64_t rate = 1 + prng.below(1ULL << (1 + prng.below(36)));
    const uint64_t burst = 1 + prng.below(1ULL << (1 + prng.below(30)));
    TokenBucket bucket({.rate = rate, .burst = burst}, Time{});
    const uint64_t cost_max = std::min(burst, 1 + rate / 100);
    Time now{}, last{};
    // The least of (let through before) - rate * t over all starts: B1 against every stretch in
    // one.
    long double through = 0, least = 0;
    const auto most =
        static_cast<long double>(burst) + static_cast<long double>(rate) / 1e9L + 1e-3L;
    for (int i = 0; i < 100'000; ++i) {
      if (prng.one_in(3)) now = now + Duration(prng.below(1ULL << prng.below(34)));
      const uint64_t cost = 1 + prng.below(cost_max);
      const Time start = now + bucket.admit(now, cost);
      ASSERT_GE(start, last);  // B3
      last = start;
      const long double allowance = static_cast<long double>(start.since_origin.count()) *
                                    static_cast<long double>(rate) / 1e9L;
      least = std::min(least, through - allowance);
      through += static_cast<long double>(cost);
      ASSERT_LE(through - allowance - least, most);
    }
  }
}

TEST(TokenBucket, B2_the_rate_is_reached_under_load) {
  Prng prng(8);
  TokenBucket bucket({.rate = 300 * kMiB, .burst = 1 * kMiB}, Time{});
  std::deque<Time> outstanding(32);  // A guest of depth 32 whose requests take no time themselves.
  uint64_t through = 0;
  Time now{};
  while (now < Time{seconds(10)}) {
    now = std::max(now, outstanding.front());
    outstanding.pop_front();
    const uint64_t cost = 4096 * (1 + prng.below(64));
    outstanding.push_back(now + bucket.admit(now, cost));
    through += cost;
  }
  EXPECT_GE(through, 3000 * kMiB);
  EXPECT_LE(through, 3000 * kMiB + 32 * 256 * kKiB + 1 * kMiB);
}

}  // namespace
}  // namespace firn::policy
