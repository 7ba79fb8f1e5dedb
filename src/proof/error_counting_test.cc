// SPDX-License-Identifier: Apache-2.0
// Error counting: the Nth call of a life fails, for every N until the life is through without it.
// Afterwards everything goes on or the pool is fenced; without faults, and after a crash as well,
// it opens, checks clean and has all that was acknowledged.
#include <gtest/gtest.h>

#include <cerrno>

#include "proof/tree_trial.h"
#include "proof/trial.h"

namespace firn::proof {
namespace {

// Small, so that every N of it is tried; with everything that a life has.
TrialShape small(uint64_t seed) {
  return {.clients = 2,
          .steps = 12,
          .spot_grains = 12,
          .flush_one_in = 4,
          .pool_blocks = 3,
          .journal_bytes = 64 * kKiB,
          .background = seed % 2 == 0};
}

struct Kind {
  sim::Verb verb;
  int error;
  bool and_all_later;
  const char* files;
};

// Returns how many calls failed in turn.
uint64_t count_errors(uint64_t seed, const Kind& kind, Verdict& verdict) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(fmt::format("seed {}, call {} of verb {} on '{}', errno {}{}", seed, nth,
                             static_cast<int>(kind.verb), kind.files, kind.error,
                             kind.and_all_later ? " from then on" : ""));
    Trial trial(seed, small(seed));
    const sim::Fault fault{.files = kind.files,
                           .verb = kind.verb,
                           .nth = nth,
                           .and_all_later = kind.and_all_later,
                           .error = kind.error};
    trial.live(&fault);
    if (!trial.fault_struck()) return nth - 1;
    trial.judge_end(verdict);
    if (verdict.good()) trial.enumerate(verdict, 4, 40);  // And the power fails as well.
    for (const std::string& violation : verdict.violations) ADD_FAILURE() << violation;
    if (!verdict.good()) return nth;
  }
}

TEST(ErrorCounting, P1_P3_every_call_fails_once) {
  Verdict verdict;
  uint64_t lives = 0;
  for (uint64_t seed = 1; seed <= 6 && verdict.good(); ++seed) {
    for (const Kind& kind :
         {Kind{sim::Verb::any, EIO, false, "*"}, Kind{sim::Verb::any, ENOSPC, false, "*"}}) {
      lives += count_errors(seed, kind, verdict);
      if (!verdict.good()) return;
    }
  }
  EXPECT_GT(lives, 500U);
  std::cout << "error counting: " << lives << " lives with one failure\n";
}

TEST(ErrorCounting, P1_P3_a_file_fails_from_some_call_on) {
  Verdict verdict;
  uint64_t lives = 0;
  for (uint64_t seed = 1; seed <= 6 && verdict.good(); ++seed) {
    for (const char* file : {"*/data", "*/meta", "*/journal", "*/superblock"}) {
      for (const Kind& kind :
           {Kind{sim::Verb::write, EIO, true, file}, Kind{sim::Verb::flush, EIO, true, file},
            Kind{sim::Verb::write, ENOSPC, true, file}, Kind{sim::Verb::read, EIO, true, file}}) {
        lives += count_errors(seed, kind, verdict);
        if (!verdict.good()) return;
      }
    }
  }
  EXPECT_GT(lives, 500U);
  std::cout << "error counting: " << lives << " lives with a file gone bad\n";
}

// Two disks' worth of history in miniature: made, deleted, cloned, reverted, merged.
TEST(ErrorCounting, P2_P5_every_call_fails_once_in_a_tree_of_layers) {
  Verdict verdict;
  uint64_t lives = 0;
  for (const uint64_t seed : {2, 11}) {
    const TreeShape shape{.clients = 1,
                          .steps = 8,
                          .ops = 8,
                          .snapshots_max = 3,
                          .pool_blocks = 6,
                          .journal_bytes = 64 * kKiB,
                          .background = seed % 2 == 0,
                          .weights = {.snapshot = 5, .unsnapshot = 5, .revert = 2, .look = 1}};
    for (uint64_t nth = 1;; ++nth, ++lives) {
      SCOPED_TRACE(fmt::format("seed {}, call {}", seed, nth));
      TreeTrial trial(seed, shape);
      const sim::Fault fault{.nth = nth, .error = nth % 2 == 0 ? EIO : ENOSPC};
      trial.live(&fault);
      if (!trial.fault_struck()) break;
      trial.judge_end(verdict);
      if (verdict.good()) trial.enumerate(verdict, 3, 9);
      for (const std::string& violation : verdict.violations) ADD_FAILURE() << violation;
      if (!verdict.good()) return;
    }
  }
  EXPECT_GT(lives, 120U);
  std::cout << "error counting: " << lives << " lives of trees with one failure\n";
}

}  // namespace
}  // namespace firn::proof
