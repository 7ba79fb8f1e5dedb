// SPDX-License-Identifier: Apache-2.0
#include "proof/trial.h"

#include <gtest/gtest.h>

#include <chrono>

namespace firn::proof {
namespace {

TEST(Trial, the_same_seed_gives_the_same_trace_twice) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Trial once(seed, TrialShape::of(seed)), twice(seed, TrialShape::of(seed));
    EXPECT_EQ(once.live(), twice.live()) << seed;
  }
  Trial one(1, {}), other(2, {});
  EXPECT_NE(one.live(), other.live());
}

TEST(Trial, lives_end_as_the_model_says) {
  Verdict verdict;
  for (uint64_t seed = 1; seed <= 100 && verdict.good(); ++seed) {
    Trial trial(seed, TrialShape::of(seed));
    trial.live();
    trial.judge_end(verdict);
  }
  for (const std::string& violation : verdict.violations) ADD_FAILURE() << violation;
}

void report(const Verdict& verdict, std::chrono::steady_clock::time_point begun) {
  for (const std::string& violation : verdict.violations) ADD_FAILURE() << violation;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  std::cout << "crash states: " << verdict.crash_states << " distinct at " << verdict.moments
            << " moments, and " << verdict.recoveries_crashed << " recoveries crashed, in "
            << seconds << " s\n";
}

TEST(Trial, S3_space_is_not_given_out_before_its_freeing_is_durable) {
  const auto begun = std::chrono::steady_clock::now();
  Verdict verdict;
  for (uint64_t seed = 1; seed <= 3 && verdict.good(); ++seed) {
    Trial trial(seed, {.clients = 0,
                       .pool_blocks = 2,
                       .background = false,
                       .recycle = true,
                       .change_catalog = false});
    trial.live();
    trial.enumerate(verdict, 6, 10'000);
  }
  report(verdict, begun);
}

TEST(Trial, P1_P2_what_goes_down_together_is_acknowledged_by_the_same_rules) {
  const auto begun = std::chrono::steady_clock::now();
  Verdict verdict;
  for (uint64_t seed = 1; seed <= 4 && verdict.good(); ++seed) {
    TrialShape shape = TrialShape::of(seed);
    shape.clients += 6;
    shape.pool_blocks += 8;
    shape.coalesce = true;
    Trial trial(seed, shape);
    trial.live();
    trial.enumerate(verdict, 4, 600);
    trial.judge_end(verdict);
  }
  report(verdict, begun);
}

// Four parts of one enumeration, so that they can run side by side.
class CrashStates : public testing::TestWithParam<uint64_t> {};

TEST_P(CrashStates, P1_P2_P3_all_recover) {
  const auto begun = std::chrono::steady_clock::now();
  Verdict verdict;
  for (uint64_t seed = GetParam(); seed <= 112 && verdict.good(); seed += 4) {
    Trial trial(seed, TrialShape::of(seed));
    trial.live();
    trial.enumerate(verdict, 12, 1500);
  }
  report(verdict, begun);
  EXPECT_TRUE(!verdict.good() || verdict.crash_states >= 26'000) << verdict.crash_states;
}
INSTANTIATE_TEST_SUITE_P(Trial, CrashStates, testing::Values(1, 2, 3, 4));

}  // namespace
}  // namespace firn::proof
