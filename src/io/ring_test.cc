// SPDX-License-Identifier: Apache-2.0
#include "io/ring.h"

#include <gtest/gtest.h>

namespace firn {

class RingTest : public testing::Test {
 protected:
  // As many short waits as it takes to believe that the next one is short, too.
  void expect_short_waits() {
    for (int i = 0; i < 100; ++i) {
      ::io_uring_prep_nop(&ring->entry());
      ring->enter(true, std::nullopt, none);
      ring->reap([](uint64_t, int32_t, uint32_t) {});
    }
  }
  // As the kernel does when it says so a moment after we have done that work.
  void say_that_work_is_there() {
    __atomic_or_fetch(ring->ring_.sq.kflags, unsigned{IORING_SQ_TASKRUN}, __ATOMIC_SEQ_CST);
  }
  std::unique_ptr<Ring> ring = Ring::make({}, {}).take();
  Pollers none;
};

struct Counting final : Poller {
  explicit Counting(int after) : finds_after(after) {}
  bool look() override { return ++looks > finds_after; }
  bool arm() override {
    ++arms;
    return false;
  }
  int finds_after;
  int looks = 0;
  int arms = 0;
};

TEST_F(RingTest, a_flag_that_stays_hides_nothing_that_is_watched) {
  expect_short_waits();
  Pollers pollers;
  Counting poller(3);
  pollers.push_back(&poller);
  say_that_work_is_there();
  ring->enter(true, std::chrono::seconds(60), pollers);
  EXPECT_EQ(poller.looks, 4);
  EXPECT_EQ(poller.arms, 0);
}

TEST_F(RingTest, a_flag_that_stays_keeps_nobody_awake) {
  expect_short_waits();
  Pollers pollers;
  Counting poller(1 << 30);
  pollers.push_back(&poller);
  say_that_work_is_there();
  const uint64_t before = ring->enters();
  ring->enter(true, std::chrono::milliseconds(1), pollers);
  EXPECT_EQ(poller.arms, 1);
  EXPECT_LT(ring->enters() - before, 1000u);
}

}  // namespace firn
