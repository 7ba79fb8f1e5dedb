// SPDX-License-Identifier: Apache-2.0
#include "policy/job_pace.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace firn::policy {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

void feed(JobPace& pace, Duration latency, bool beside, int count) {
  for (int i = 0; i < count; ++i) pace.guest_saw(latency, beside);
}

TEST(P99, finds_the_percentile_of_a_uniform_stream) {
  Prng prng(3);
  P99 p99;
  for (int i = 0; i < 20'000; ++i) p99.add(Duration(1 + prng.below(1'000'000)));
  EXPECT_GT(p99.value(), Duration(950'000));
  EXPECT_LE(p99.value(), Duration(1'000'000));
  for (int i = 0; i < 20'000; ++i) p99.add(Duration(1 + prng.below(10'000)));
  EXPECT_LT(p99.value(), Duration(10'500));
}

TEST(JobPace, J1_full_speed_beside_nobody) {
  JobPace pace;
  Duration rest{};
  for (int i = 0; i < 4; ++i) rest = pace.rest_after(microseconds(100), 0, 7);
  EXPECT_EQ(rest, Duration::zero());
  EXPECT_FALSE(pace.busy());
}

TEST(JobPace, J2_a_tenth_of_the_time_beside_guests) {
  JobPace pace;
  EXPECT_EQ(pace.rest_after(microseconds(100), 32), microseconds(900));
  EXPECT_EQ(pace.rest_after(milliseconds(1), 32), milliseconds(199));    // A long step: 5 permille.
  EXPECT_EQ(pace.rest_after(milliseconds(100), 1), milliseconds(1000));  // rest_max.
  EXPECT_EQ(pace.rest_after(std::chrono::hours(100'000), 1), milliseconds(1000));
  EXPECT_EQ(pace.rest_after(Duration::zero(), 1), Duration::zero());
}

TEST(JobPace, J3_slow_guests_allow_longer_steps) {
  JobPace pace;
  feed(pace, milliseconds(8), false, 256);
  EXPECT_EQ(pace.step_max(), milliseconds(8));
  EXPECT_EQ(pace.rest_after(milliseconds(1), 32), milliseconds(9));
}

TEST(JobPace, J4_guests_that_feel_it_halve_the_share_and_get_it_back_slowly) {
  JobPace pace;
  feed(pace, microseconds(200), false, 256);
  feed(pace, microseconds(700), true, 256);
  pace.rest_after(microseconds(100), 32);
  EXPECT_EQ(pace.share_permille(), 50U);
  pace.rest_after(microseconds(100), 32);
  EXPECT_EQ(pace.share_permille(), 50U);  // No new evidence.
  for (int i = 0; i < 20; ++i) {
    feed(pace, microseconds(700), true, 256);
    pace.rest_after(microseconds(100), 32);
  }
  EXPECT_EQ(pace.share_permille(), 5U);  // The floor: J3.
  for (int i = 0; i < 400; ++i) {
    feed(pace, microseconds(210), true, 256);
    pace.rest_after(microseconds(100), 32);
  }
  EXPECT_EQ(pace.share_permille(), 100U);
}

TEST(JobPace, J5_a_guest_of_depth_one_is_busy_between_its_requests) {
  JobPace pace;
  uint64_t requests = 0;
  for (int i = 0; i < 20; ++i) {
    requests += i % 3 == 0 ? 1 : 0;  // Seldom seen in flight, but they come.
    EXPECT_GT(pace.rest_after(microseconds(100), 0, requests), Duration::zero());
  }
}

TEST(JobPace, holds_in_any_history) {
  Prng prng(5);
  JobPace pace;
  uint64_t requests = 0, seen = 0, quiet = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    if (!prng.one_in(4)) {
      pace.guest_saw(Duration(prng.below(1ULL << (10 + prng.below(18)))), prng.one_in(2));
      continue;
    }
    requests += prng.one_in(3) ? prng.below(9) : 0;
    const size_t in_flight = prng.one_in(3) ? prng.below(64) : 0;
    const Duration step(prng.below(1ULL << (8 + prng.below(24))));
    const Duration rest = pace.rest_after(step, in_flight, requests);
    quiet = in_flight == 0 && requests == seen ? quiet + 1 : 0;
    seen = requests;
    ASSERT_GE(pace.share_permille(), 5U);
    ASSERT_LE(pace.share_permille(), 100U);
    ASSERT_LE(rest, milliseconds(1000));
    if (quiet >= 3) {
      ASSERT_EQ(rest, Duration::zero());
    } else if (rest < milliseconds(1000)) {
      const int64_t share = step > pace.step_max() ? 5 : 100;
      ASSERT_LE(step * 1000, (step + rest) * share);  // J2
      ASSERT_LE(rest, step * 199 + Duration(1));      // J3
    }
  }
}

// A guest of depth 1 on a device with one server: each request waits for a step that is running.
// What it sees beside the job, by simulation without a clock.
TEST(JobPace, P6_the_p99_of_a_guest_does_not_double) {
  Prng prng(9);
  for (const Duration step : {microseconds(50), microseconds(180), microseconds(2'000)}) {
    JobPace pace;
    P99 alone, beside;
    Duration now{}, job_begins{}, job_ends{};
    for (uint64_t i = 0; i < 200'000; ++i) {
      const Duration service = microseconds(80) + Duration(prng.below(140'000));
      alone.add(service);
      while (job_ends <= now) {  // The job lives its life until the request comes.
        const Duration rest = pace.rest_after(step, 1, i);
        job_begins = job_ends + rest;
        job_ends = job_begins + step;
      }
      const Duration waits = job_begins <= now ? job_ends - now : Duration::zero();
      pace.guest_saw(service + waits, waits > Duration::zero());
      beside.add(service + waits);
      now += service + waits + Duration(prng.below(30'000));
    }
    EXPECT_LT(beside.value(), 2 * alone.value()) << step.count();
    EXPECT_GE(pace.share_permille(), 20U) << step.count();
  }
}

}  // namespace
}  // namespace firn::policy
