// SPDX-License-Identifier: Apache-2.0
#include "policy/placement.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/prng.h"

namespace firn::policy {
namespace {

using Choice = Placement::Choice;
using Inputs = Placement::Inputs;
using Mode = Placement::Mode;
using Reason = Placement::Reason;

constexpr Inputs kGood = {.depth = 32, .ready_blocks = 1000};

Choice after(Placement& placement, const Inputs& inputs, int looks = 200) {
  for (int i = 0; i < looks; ++i) placement.look(inputs);
  return placement.choice();
}

TEST(Placement, in_place_unless_told_otherwise) {
  Placement placement({});
  EXPECT_EQ(after(placement, kGood), Choice::in_place);
  placement.set_mode(Mode::append);
  EXPECT_EQ(placement.look({.depth = 1, .ready_blocks = 16}), Choice::append);
}

TEST(Placement, L1_never_without_space) {
  Placement placement({.mode = Mode::append});
  EXPECT_EQ(placement.look({.ready_blocks = 15}), Choice::in_place);
  EXPECT_EQ(placement.reason(), Reason::space);
  EXPECT_EQ(placement.look({.ready_blocks = 16}), Choice::append);
}

TEST(Placement, L2_each_input_begins_and_ends_it) {
  struct Case {
    Inputs between, beyond;
    Reason reason;
  };
  Inputs between = kGood, beyond = kGood;
  std::vector<Case> cases;
  const auto add = [&](Reason reason) {
    cases.push_back({between, beyond, reason});
    between = beyond = kGood;
  };
  between.depth = 10, beyond.depth = 4;
  add(Reason::depth);
  between.sequential_permille = 400, beyond.sequential_permille = 900;
  add(Reason::sequential);
  between.ready_blocks = 40, beyond.ready_blocks = 20;
  add(Reason::space);
  between.fragmentation_permille = 400, beyond.fragmentation_permille = 501;
  add(Reason::fragmentation);
  between.amplification_permille = 1700, beyond.amplification_permille = 2001;
  add(Reason::cost);
  for (const Case& it : cases) {
    Placement placement({.mode = Mode::adaptive});
    EXPECT_EQ(after(placement, it.between), Choice::in_place);  // L3: stays what it is.
    EXPECT_EQ(after(placement, kGood), Choice::append);
    EXPECT_EQ(after(placement, it.between), Choice::append);
    EXPECT_EQ(after(placement, it.beyond), Choice::in_place);
    EXPECT_EQ(placement.reason(), it.reason);
    EXPECT_EQ(placement.changes(), 2U);
  }
}

TEST(Placement, L3_one_idle_moment_of_a_deep_guest_changes_nothing) {
  Placement placement({.mode = Mode::adaptive});
  after(placement, kGood);
  Inputs idle = kGood;
  idle.depth = 0;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(placement.look(i % 4 == 0 ? idle : kGood), Choice::append);
  }
}

TEST(Placement, L4_depth_one_is_served_in_place) {
  Placement placement({.mode = Mode::adaptive});
  after(placement, kGood);
  EXPECT_EQ(after(placement, {.depth = 1, .ready_blocks = 1000}, 64 + 64), Choice::in_place);
}

TEST(Placement, L1_and_L3_in_a_million_random_looks) {
  Prng prng(2);
  for (const Mode mode : {Mode::append, Mode::adaptive}) {
    Placement placement({.mode = mode});
    Choice last = placement.choice();
    int since = 1000;
    Inputs now;
    for (int i = 0; i < 500'000; ++i) {
      if (prng.one_in(50)) {
        now = {
            .depth = static_cast<uint32_t>(prng.below(64)),
            .sequential_permille = static_cast<uint32_t>(prng.below(prng.one_in(2) ? 200 : 1001)),
            .ready_blocks = prng.below(prng.one_in(9) ? 60 : 5000),
            .fragmentation_permille = static_cast<uint32_t>(prng.below(600)),
            .amplification_permille = static_cast<uint32_t>(1000 + prng.below(1200))};
      }
      const Choice choice = placement.look(now);
      ++since;
      if (now.ready_blocks < 16) {
        ASSERT_EQ(choice, Choice::in_place);  // L1
      } else if (mode == Mode::append) {
        ASSERT_EQ(choice, Choice::append);
      } else if (choice != last) {
        ASSERT_GE(since, 64);  // L3
      }
      if (choice != last) since = 0;
      last = choice;
    }
    EXPECT_GT(placement.changes(), 100U);
  }
}

}  // namespace
}  // namespace firn::policy
