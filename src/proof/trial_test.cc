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

TEST(Trial, P1_P2_crash_states_all_recover) {
  const auto begun = std::chrono::steady_clock::now();
  Verdict verdict;
  for (uint64_t seed = 1; seed <= 40 && verdict.good(); ++seed) {
    Trial trial(seed, TrialShape::of(seed));
    trial.live();
    trial.enumerate(verdict, 12, 2600);
  }
  for (const std::string& violation : verdict.violations) ADD_FAILURE() << violation;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  std::cout << "crash states: " << verdict.crash_states << " distinct at " << verdict.moments
            << " moments, and " << verdict.recoveries_crashed << " recoveries crashed, in " << seconds
            << " s\n";
}

}  // namespace
}  // namespace firn::proof
