// SPDX-License-Identifier: Apache-2.0
#include "io/fiber.h"

#include <gtest/gtest.h>

#include <string>

#include "base/prng.h"

namespace firn {
namespace {

void drive(FiberScheduler& scheduler) {
  while (scheduler.has_ready()) scheduler.run_ready();
}

TEST(Fiber, F2_runs_in_order_of_spawn) {
  FiberScheduler scheduler;
  std::string trace;
  for (const char name : {'a', 'b', 'c'}) {
    scheduler.spawn(nullptr, [&trace, name] { trace += name; });
  }
  EXPECT_EQ(trace, "");  // Spawning does not run.
  drive(scheduler);
  EXPECT_EQ(trace, "abc");
  EXPECT_EQ(scheduler.alive(), 0u);
}

TEST(Fiber, F2_wakes_in_order_of_arrival_and_only_as_many) {
  FiberScheduler scheduler;
  WaitList list;
  std::string trace;
  for (const char name : {'a', 'b', 'c'}) {
    scheduler.spawn(nullptr, [&, name] {
      scheduler.park(list);
      trace += name;
    });
  }
  drive(scheduler);
  EXPECT_EQ(trace, "");
  EXPECT_FALSE(list.empty());
  scheduler.wake(list, 2);
  drive(scheduler);
  EXPECT_EQ(trace, "ab");
  scheduler.wake(list);
  drive(scheduler);
  EXPECT_EQ(trace, "abc");
  EXPECT_TRUE(list.empty());
}

TEST(Fiber, F3_yield_runs_after_all_that_became_runnable) {
  FiberScheduler scheduler;
  WaitList list;
  std::string trace;
  scheduler.spawn(nullptr, [&] {
    trace += '1';
    scheduler.wake(list);
    scheduler.yield();
    trace += '4';
    scheduler.yield();
    trace += '5';
  });
  scheduler.spawn(nullptr, [&] {
    trace += '2';
    scheduler.spawn(nullptr, [&] { trace += '3'; });
  });
  scheduler.run_ready();  // One turn: everybody, then those who yielded, once.
  EXPECT_EQ(trace, "1234");
  EXPECT_TRUE(scheduler.has_ready());
  drive(scheduler);
  EXPECT_EQ(trace, "12345");
}

TEST(Fiber, F3_a_turn_ends_even_when_two_wake_each_other_forever) {
  FiberScheduler scheduler;
  WaitList ping;
  WaitList pong;
  bool enough = false;
  scheduler.spawn(nullptr, [&] {
    while (!enough) {
      scheduler.wake(pong);
      scheduler.park(ping);
    }
    scheduler.wake(pong);
  });
  scheduler.spawn(nullptr, [&] {
    while (!enough) {
      scheduler.wake(ping);
      scheduler.park(pong);
    }
    scheduler.wake(ping);
  });
  scheduler.run_ready();
  EXPECT_TRUE(scheduler.has_ready());
  enough = true;
  drive(scheduler);
  EXPECT_EQ(scheduler.alive(), 0u);
}

TEST(Fiber, F4_stacks_are_used_again) {
  FiberScheduler scheduler;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 10; ++i) scheduler.spawn(nullptr, [&] { scheduler.yield(); });
    drive(scheduler);
  }
  EXPECT_EQ(scheduler.spawned(), 1000u);
  EXPECT_EQ(scheduler.stacks(), 10u);
}

// Touches `depth` frames of about a KiB each. Through a pointer, so that no compiler makes it a
// loop.
int dig(int depth);
int (*volatile dig_on)(int) = dig;
int dig(int depth) {
  volatile char room[1024];
  const auto place = static_cast<size_t>(depth) % sizeof(room);  // Keeps the whole of it alive.
  room[place] = 1;
  return depth == 0 ? 0 : dig_on(depth - 1) + room[place];
}

TEST(Fiber, F4_high_water_mark_sees_the_deepest_stack) {
  FiberScheduler scheduler;
  EXPECT_EQ(scheduler.stack_high_water(), 0u);
  scheduler.spawn(nullptr, [] { EXPECT_EQ(dig(24), 24); });
  drive(scheduler);
  EXPECT_GE(scheduler.stack_high_water(), 24u * 1024);
  EXPECT_LE(scheduler.stack_high_water(), FiberScheduler::kStackBytes);
}

TEST(FiberDeathTest, F4_overflow_meets_the_guard_page) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        FiberScheduler scheduler;
        scheduler.spawn(nullptr, [] { (void)dig(1 << 20); });
        drive(scheduler);
      },
      "");
}

TEST(FiberDeathTest, waiting_in_a_NoWait_section_is_a_programmers_error) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        FiberScheduler scheduler;
        scheduler.spawn(nullptr, [&] {
          NoWait guard;
          scheduler.yield();
        });
        drive(scheduler);
      },
      "NoWait");
}

TEST(FiberDeathTest, F5_a_waiting_fiber_must_not_outlive_the_scheduler) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        WaitList list;
        FiberScheduler scheduler;
        scheduler.spawn(nullptr, [&] { scheduler.park(list); });
        drive(scheduler);
      },
      "fiber 1 waits for park");
}

class SeededPicker final : public OrderPicker {
 public:
  explicit SeededPicker(uint64_t seed) : prng_(seed) {}
  size_t pick(size_t count) override { return static_cast<size_t>(prng_.below(count)); }

 private:
  Prng prng_;
};

std::string order_with_seed(uint64_t seed) {
  SeededPicker picker(seed);
  FiberScheduler scheduler(&picker);
  std::string trace;
  for (char name = 'a'; name <= 'z'; ++name) {
    scheduler.spawn(nullptr, [&, name] {
      scheduler.yield();
      trace += name;
    });
  }
  drive(scheduler);
  return trace;
}

TEST(Fiber, a_picker_chooses_the_order_and_the_same_seed_the_same) {
  EXPECT_EQ(order_with_seed(1), order_with_seed(1));
  EXPECT_NE(order_with_seed(1), order_with_seed(2));
  EXPECT_EQ(order_with_seed(1).size(), 26u);
}

TEST(Fiber, thousands_at_once_each_with_a_deep_stack_of_strings) {
  FiberScheduler scheduler;
  WaitList gate;
  size_t sum = 0;
  for (size_t i = 0; i < 5000; ++i) {
    scheduler.spawn(nullptr, [&, i] {
      std::string text(100, 'x');
      scheduler.park(gate);
      sum += text.size() + static_cast<size_t>(dig(2)) - 2 + i;
    });
  }
  drive(scheduler);
  EXPECT_EQ(scheduler.alive(), 5000u);
  scheduler.wake(gate);
  drive(scheduler);
  EXPECT_EQ(sum, 5000u * 100 + 5000u * 4999 / 2);
}

}  // namespace
}  // namespace firn
