// SPDX-License-Identifier: Apache-2.0
#include "proof/tree_trial.h"

#include <gtest/gtest.h>

#include <chrono>

namespace firn::proof {
namespace {

void report(const Verdict& verdict, std::chrono::steady_clock::time_point begun) {
  for (const std::string& violation : verdict.violations) ADD_FAILURE() << violation;
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  std::cout << "crash states: " << verdict.crash_states << " distinct at " << verdict.moments
            << " moments, and " << verdict.recoveries_crashed << " recoveries crashed, in "
            << seconds << " s\n";
}

TEST(TreeTrial, the_same_seed_gives_the_same_trace_twice) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    TreeTrial once(seed, TreeShape::of(seed)), twice(seed, TreeShape::of(seed));
    EXPECT_EQ(once.live(), twice.live()) << seed;
  }
}

TEST(TreeTrial, lives_end_as_the_model_says) {
  Verdict verdict;
  disk::JobCounters jobs;
  TreeTrial::AskedCounters asked;
  uint64_t emptied = 0;
  for (uint64_t seed = 1; seed <= 100 && verdict.good(); ++seed) {
    TreeTrial trial(seed, TreeShape::of(seed));
    trial.live();
    trial.judge_end(verdict);
    jobs.consolidated += trial.jobs_done().consolidated;
    jobs.dropped += trial.jobs_done().dropped;
    asked.events += trial.asked().events;
    asked.lists += trial.asked().lists;
    emptied += trial.shrunk().emptied_bytes;
  }
  for (const std::string& violation : verdict.violations) ADD_FAILURE() << violation;
  EXPECT_GT(asked.events, 150U);
  EXPECT_GT(asked.lists, 1000U);
  EXPECT_GE(emptied, 2 * kMiB);  // Blocks that nobody is filling are rare in them.
  std::cout << jobs.consolidated << " consolidated, " << jobs.dropped << " dropped, "
            << asked.events << " events, " << asked.lists << " lists of changes, " << emptied / kMiB
            << " storage blocks emptied by shrinks\n";
}

// Two parts of one enumeration, so that they can run side by side.
class TreeCrashStates : public testing::TestWithParam<uint64_t> {};

TEST_P(TreeCrashStates, P2_P4_P5_all_recover) {
  const auto begun = std::chrono::steady_clock::now();
  Verdict verdict;
  for (uint64_t seed = GetParam(); seed <= 40 && verdict.good(); seed += 2) {
    TreeTrial trial(seed, TreeShape::of(seed));
    trial.live();
    trial.enumerate(verdict, 8, 400);
  }
  report(verdict, begun);
}
INSTANTIATE_TEST_SUITE_P(Trial, TreeCrashStates, testing::Values(1, 2));

}  // namespace
}  // namespace firn::proof
