// SPDX-License-Identifier: Apache-2.0
// simulate SEED [--seconds N] [--states N] [--shape disk|tree|both]: random lives of a pool on a
// simulated world, each lived twice (the traces must be equal), crashed everywhere and judged; from
// SEED on, until the time is up. Shape disk: clients of one disk; tree: snapshots, clones, reverts
// and the jobs that follow; both by turns.
#include <fmt/core.h>

#include <charconv>
#include <chrono>
#include <cstring>
#include <string_view>

#include "io/blocking_io.h"
#include "proof/tree_trial.h"
#include "proof/trial.h"

namespace firn::proof {
namespace {

struct Wanted {
  uint64_t seed = 1;
  uint64_t seconds = 60;
  uint64_t states = 4000;  // Crash states of each life.
  uint64_t lives = UINT64_MAX;
  std::string_view shape = "both";
};

bool number(const char* text, uint64_t& value) {
  const char* const end = text + std::strlen(text);
  const auto [at, error] = std::from_chars(text, end, value);
  return error == std::errc{} && at == end;
}

bool parse(int count, char** words, Wanted& wanted) {
  bool seed_given = false;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = words[i];
    uint64_t* const target = word == "--seconds"  ? &wanted.seconds
                             : word == "--states" ? &wanted.states
                             : word == "--lives"  ? &wanted.lives
                                                  : nullptr;
    if (word == "--shape") {
      if (i + 1 >= count) return false;
      wanted.shape = words[++i];
      if (wanted.shape != "disk" && wanted.shape != "tree" && wanted.shape != "both") return false;
    } else if (target != nullptr) {
      if (i + 1 >= count || !number(words[++i], *target)) return false;
    } else if (seed_given || !number(words[i], wanted.seed)) {
      return false;
    } else {
      seed_given = true;
    }
  }
  return true;
}

// One seed: lived twice, crashed everywhere. Every third also with a failing call on the way.
template <class AnyTrial, class Shape>
void try_trial(uint64_t seed, const Wanted& wanted, const Shape& shape, Verdict& verdict) {
  AnyTrial once(seed, shape), twice(seed, shape);
  const uint64_t trace = once.live();
  verdict.trace = (verdict.trace ^ trace) * 0x9e3779b97f4a7c15ULL;
  if (trace != twice.live()) {
    verdict.violations.push_back(fmt::format("seed {}: two lives, two traces", seed));
    return;
  }
  once.enumerate(verdict, 12, wanted.states);
  if (seed % 3 != 0 || !verdict.good()) return;
  Prng prng(seed);
  for (const sim::Verb verb : {sim::Verb::write, sim::Verb::flush, sim::Verb::read}) {
    AnyTrial faulty(seed, shape);
    const sim::Fault fault{.verb = verb, .nth = 1 + prng.below(once.operations()), .error = EIO};
    faulty.live(&fault);
    faulty.judge_end(verdict);
  }
}

void try_seed(uint64_t seed, const Wanted& wanted, Verdict& verdict) {
  const bool tree = wanted.shape == "tree" || (wanted.shape == "both" && seed % 2 == 0);
  if (tree) return try_trial<TreeTrial>(seed, wanted, TreeShape::of(seed / 2), verdict);
  try_trial<Trial>(seed, wanted, TrialShape::of(seed), verdict);
}

}  // namespace
}  // namespace firn::proof

int main(int count, char** words) {
  using namespace firn::proof;
  Wanted wanted;
  if (!parse(count, words, wanted)) {
    fmt::print(stderr,
               "usage: simulate [SEED] [--seconds N] [--states PER-LIFE] [--lives N] "
               "[--shape disk|tree|both]\n");
    return 2;
  }
  firn::BlockingIo clock;
  const firn::Time begun = clock.now();
  const auto elapsed = [&] { return std::chrono::duration<double>(clock.now() - begun).count(); };
  Verdict verdict;
  uint64_t lives = 0;
  while (verdict.good() && lives < wanted.lives &&
         elapsed() < static_cast<double>(wanted.seconds)) {
    try_seed(wanted.seed + lives++, wanted, verdict);
  }
  for (const std::string& violation : verdict.violations) fmt::print("VIOLATION {}\n", violation);
  fmt::print(
      "seeds {}..{}: {} lives, each lived twice; {} crash states at {} moments, {} recoveries "
      "crashed; "
      "{:.0f} states/hour; trace {:016x}; {} violations\n",
      wanted.seed, wanted.seed + lives - 1, lives, verdict.crash_states, verdict.moments,
      verdict.recoveries_crashed, static_cast<double>(verdict.crash_states) / elapsed() * 3600,
      verdict.trace, verdict.violations.size());
  return verdict.good() ? 0 : 1;
}
