// SPDX-License-Identifier: Apache-2.0
#include "io/ring.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>
#include <vector>

#include "io/host_event.h"

namespace firn {

using std::chrono::milliseconds;
using std::chrono::seconds;

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
  // One completion for each that is signalled.
  void listen_to(const std::vector<Fd>& events) {
    for (const Fd& each : events) {
      ::io_uring_prep_poll_add(&ring->entry(), each.get(), POLLIN);
    }
  }
  static std::vector<Fd> make_events(size_t count) {
    std::vector<Fd> events;
    for (size_t i = 0; i < count; ++i) events.push_back(make_event_fd().take());
    return events;
  }
  size_t reaped() {
    size_t count = 0;
    ring->reap([&](uint64_t, int32_t, uint32_t) { ++count; });
    return count;
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

TEST_F(RingTest, gathers_as_many_completions_as_it_is_asked_for) {
  const std::vector<Fd> events = make_events(4);
  listen_to(events);
  std::thread other([&] {
    for (size_t i = 0; i < 3; ++i) give_signal(events[i].get());
  });
  ring->gather(3, seconds(60), none);
  EXPECT_EQ(reaped(), 3u);
  other.join();
}

TEST_F(RingTest, does_not_gather_for_longer_than_it_may) {
  const std::vector<Fd> events = make_events(2);
  listen_to(events);
  give_signal(events[0].get());
  ring->gather(2, milliseconds(1), none);
  EXPECT_EQ(reaped(), 1u);
}

TEST_F(RingTest, gathers_nothing_while_there_is_something_in_what_is_watched) {
  const std::vector<Fd> events = make_events(1);
  Pollers pollers;
  Counting poller(0);
  pollers.push_back(&poller);
  listen_to(events);
  ring->gather(1, seconds(60), pollers);
  EXPECT_EQ(poller.looks, 1);
  EXPECT_EQ(poller.arms, 0);
  EXPECT_EQ(reaped(), 0u);
}

}  // namespace firn
