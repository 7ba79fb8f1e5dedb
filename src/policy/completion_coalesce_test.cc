// SPDX-License-Identifier: Apache-2.0
#include "policy/completion_coalesce.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <queue>
#include <vector>

#include "base/prng.h"

namespace firn::policy {
namespace {

using Mode = CompletionCoalesce::Mode;
using Verdict = CompletionCoalesce::Verdict;
using Limits = CompletionCoalesce::Limits;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// A guest that keeps `depth` commands outstanding and submits again when it hears, and a device
// with `channels` servers: what interrupts does it get? Checks Q1 and Q2 at each event.
struct Loop {
  explicit Loop(Limits the_limits) : coalesce(the_limits, Time{}), limits(the_limits) {}

  void run(Duration time, uint32_t depth, Duration service) {
    const Time end = now + time;
    submit(depth, service);
    while (now < end && !ends.empty()) {
      const std::optional<Time> limit = coalesce.deadline();
      if (limit && *limit < ends.top()) {
        now = *limit;
        ASSERT_EQ(coalesce.tick(now), Verdict::deliver);
        heard(depth, service, false);
        continue;
      }
      now = ends.top();
      ends.pop();
      begin(service);
      if (published == 0) oldest = now;
      ++published;
      const Verdict verdict = coalesce.complete(now, {});
      ASSERT_LE(now - oldest, limits.delay_max);                             // Q2
      ASSERT_TRUE(verdict == Verdict::deliver || coalesce.in_flight() > 0);  // Q1
      if (verdict == Verdict::deliver) heard(depth, service, coalesce.in_flight() > 0);
    }
    while (!ends.empty()) {  // The guest stops; what it had ends.
      now = std::max(now, ends.top());
      ends.pop();
      begin(service);
      if (coalesce.complete(now, {}) == Verdict::deliver) published = 0;
      if (!coalesce.deadline()) published = 0;
    }
    ASSERT_EQ(coalesce.pending(), 0U);
    published = 0;
  }
  double signals_per_completion() const {
    return static_cast<double>(coalesce.counters().deliveries - deliveries_before) /
           static_cast<double>(coalesce.counters().completions - completions_before);
  }
  void forget() {
    deliveries_before = coalesce.counters().deliveries;
    completions_before = coalesce.counters().completions;
    gap_least = Duration::max();
  }

  CompletionCoalesce coalesce;
  Limits limits;
  uint32_t channels = 8;
  Time now{}, oldest{}, last_heard{};
  Duration gap_least = Duration::max();  // Between two signals that no flush point explains.
  uint64_t deliveries_before = 0, completions_before = 0;

 private:
  void begin(Duration service) {
    if (waiting == 0) return;
    --waiting;
    const auto mean = static_cast<uint64_t>(service.count());
    ends.push(now + Duration(mean / 2 + prng.below(mean)));
  }
  void submit(uint32_t count, Duration service) {
    coalesce.submit(now, count);
    waiting += count;
    while (waiting > 0 && ends.size() < channels) begin(service);
  }
  void heard(uint32_t depth, Duration service, bool counts) {
    if (counts) gap_least = std::min(gap_least, now - last_heard);
    last_heard = now;
    published = 0;
    submit(depth - coalesce.in_flight(), service);
  }

  std::priority_queue<Time, std::vector<Time>, std::greater<>> ends;
  Prng prng{42};
  uint32_t waiting = 0;
  uint32_t published = 0;
};

// --- what must be shown

TEST(CompletionCoalesce, show_1_signals_across_CPUs_are_100_us_apart) {
  for (const uint32_t depth : {16U, 32U, 64U}) {
    Loop loop({.mode = Mode::ipi});
    loop.run(milliseconds(500), depth, microseconds(100));
    loop.forget();
    loop.run(milliseconds(500), depth, microseconds(100));
    EXPECT_GE(loop.gap_least, microseconds(100)) << depth;
    EXPECT_LT(loop.signals_per_completion(), 0.3) << depth;
  }
}

// A queue in the middle of a fast epoch, with many in flight.
CompletionCoalesce busy(Limits limits, Time& now) {
  CompletionCoalesce coalesce(limits, now);
  coalesce.submit(now, 32);
  for (int i = 0; i < 30'000; ++i) {
    now = now + microseconds(10);
    coalesce.complete(now, {});
    coalesce.submit(now, 1);
  }
  coalesce.flush(now);
  return coalesce;
}

TEST(CompletionCoalesce, show_2_after_silence_at_once) {
  Time now{};
  CompletionCoalesce coalesce = busy({.mode = Mode::ipi}, now);
  EXPECT_EQ(coalesce.complete(now + microseconds(100), {}), Verdict::deliver);
}

TEST(CompletionCoalesce, show_3_soon_after_a_signal_none) {
  Time now{};
  CompletionCoalesce coalesce = busy({.mode = Mode::ipi}, now);
  EXPECT_EQ(coalesce.complete(now + microseconds(99), {}), Verdict::hold);
  EXPECT_EQ(coalesce.pending(), 1U);  // Published all the same.
  EXPECT_EQ(coalesce.deadline(), now + microseconds(299));
}

TEST(CompletionCoalesce, show_4_the_gap_is_what_was_set) {
  Time now{};
  CompletionCoalesce coalesce =
      busy({.mode = Mode::ipi, .ipi_gap = milliseconds(1), .delay_max = milliseconds(5)}, now);
  EXPECT_EQ(coalesce.complete(now + microseconds(999), {}), Verdict::hold);
  EXPECT_EQ(coalesce.complete(now + microseconds(1000), {}), Verdict::deliver);
}

TEST(CompletionCoalesce, show_5_only_across_CPUs) {
  Time now{};
  CompletionCoalesce coalesce = busy({.mode = Mode::ipi}, now);
  EXPECT_EQ(coalesce.complete(now, {.cross_cpu = false}), Verdict::deliver);
  EXPECT_EQ(coalesce.complete(now, {.cross_cpu = false}), Verdict::deliver);
}

TEST(CompletionCoalesce, show_6_below_2000_a_second_each_is_signalled) {
  Loop loop({});
  loop.run(std::chrono::seconds(2), 32, milliseconds(5));  // 8 channels: 1,600 a second.
  EXPECT_EQ(loop.signals_per_completion(), 1.0);
}

TEST(CompletionCoalesce, show_7_depths_1_to_3_each_is_signalled_at_any_rate) {
  for (const uint32_t depth : {1U, 2U, 3U}) {
    for (const Mode mode : {Mode::ratio, Mode::ipi, Mode::ratio_ipi}) {
      Loop loop({.mode = mode});
      loop.run(std::chrono::seconds(1), depth, microseconds(10));
      EXPECT_EQ(loop.signals_per_completion(), 1.0) << depth;
    }
  }
}

TEST(CompletionCoalesce, show_8_the_ratio_follows_the_table_and_a_change_within_an_epoch) {
  struct Case {
    uint32_t depth;
    double ratio;
  };
  Loop loop({.mode = Mode::ratio, .delay_max = milliseconds(2)});
  for (const Case& it : std::initializer_list<Case>{
           {64, 1.0 / 8}, {4, 1.0}, {64, 1.0 / 8}, {16, 0.5}, {8, 0.75}, {12, 0.667}, {32, 0.25}}) {
    loop.run(milliseconds(401), it.depth, microseconds(100));  // The epoch in which it changed.
    loop.forget();
    loop.run(milliseconds(600), it.depth, microseconds(100));
    EXPECT_NEAR(loop.signals_per_completion(), it.ratio, it.ratio / 10) << it.depth;
  }
}

TEST(CompletionCoalesce, show_9_what_is_pending_beside_stuck_commands_is_delivered_in_time) {
  Time now{};
  CompletionCoalesce coalesce = busy({}, now);
  const Time first = now + microseconds(1);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(coalesce.complete(first, {}), Verdict::hold);
  EXPECT_EQ(coalesce.before_sleep(first),
            Verdict::hold);  // Commands are in flight: sleep until ...
  ASSERT_EQ(coalesce.deadline(), first + microseconds(200));
  EXPECT_EQ(coalesce.tick(first + microseconds(199)), Verdict::hold);
  EXPECT_EQ(coalesce.tick(first + microseconds(200)), Verdict::deliver);
  EXPECT_FALSE(coalesce.deadline());
}

TEST(CompletionCoalesce, show_12_off_takes_effect_at_the_next_completion) {
  Time now{};
  CompletionCoalesce coalesce = busy({}, now);
  EXPECT_EQ(coalesce.complete(now, {}), Verdict::hold);
  coalesce.set_mode(Mode::off);
  EXPECT_EQ(coalesce.complete(now, {}), Verdict::deliver);
}

// --- the rest

TEST(CompletionCoalesce, Q4_a_signal_that_was_not_made_starts_no_gap) {
  Time now{};
  CompletionCoalesce coalesce = busy({.mode = Mode::ipi}, now);
  now = now + milliseconds(1);
  EXPECT_EQ(coalesce.complete(now, {}), Verdict::deliver);
  coalesce.not_signalled();
  EXPECT_EQ(coalesce.complete(now, {}), Verdict::deliver);
  EXPECT_EQ(coalesce.complete(now, {}), Verdict::hold);
}

TEST(CompletionCoalesce, Q5_urgent_ones_flush_and_so_does_a_late_kick) {
  Time now{};
  CompletionCoalesce coalesce = busy({}, now);
  EXPECT_EQ(coalesce.complete(now, {}), Verdict::hold);
  EXPECT_EQ(coalesce.complete(now, {.urgent = true}), Verdict::deliver);
  EXPECT_EQ(coalesce.complete(now, {}), Verdict::hold);
  EXPECT_EQ(coalesce.submit(now + microseconds(99)), Verdict::hold);
  EXPECT_EQ(coalesce.submit(now + microseconds(100)), Verdict::deliver);
}

TEST(CompletionCoalesce, Q6_a_small_queue_keeps_half_of_itself_moving) {
  for (const uint32_t size : {1U, 2U, 16U, 256U}) {
    Loop loop({.mode = Mode::ratio, .queue_size = size});
    loop.run(milliseconds(500), size, microseconds(50));
    EXPECT_LE(loop.coalesce.ratio().every, std::max(size / 2, 1U));
  }
}

TEST(CompletionCoalesce, those_published_together_need_one_decision) {
  Time now{};
  CompletionCoalesce coalesce = busy({.mode = Mode::ratio}, now);
  ASSERT_EQ(coalesce.ratio().every, 4U);
  const uint64_t before = coalesce.counters().deliveries;
  EXPECT_EQ(coalesce.complete(now, {}, 3), Verdict::hold);
  EXPECT_EQ(coalesce.complete(now, {}, 29), Verdict::deliver);
  EXPECT_EQ(coalesce.counters().deliveries, before + 1);
  coalesce.restart(now, 5);
  EXPECT_EQ(coalesce.ratio().every, 1U);
  EXPECT_EQ(coalesce.in_flight(), 5U);
}

TEST(CompletionCoalesce, show_10_a_million_random_events_leave_nothing_unsignalled) {
  Prng prng(6);
  for (int life = 0; life < 20; ++life) {
    const Limits limits = {.mode = static_cast<Mode>(prng.below(4)),
                           .in_flight_min = static_cast<uint32_t>(1 + prng.below(8)),
                           .rate_min = prng.below(20'000),
                           .epoch = microseconds(1 + prng.below(20'000)),
                           .ipi_gap = microseconds(prng.below(300)),
                           .delay_max = microseconds(1 + prng.below(300)),
                           .queue_size = static_cast<uint32_t>(1 + prng.below(256))};
    Time now{};
    CompletionCoalesce coalesce(limits, now);
    uint64_t in_flight = 0, pending = 0, depth = 1;
    Time oldest{};
    for (int i = 0; i < 50'000; ++i) {
      if (prng.one_in(500)) depth = 1 + prng.below(prng.one_in(2) ? 4 : limits.queue_size + 1);
      now = now + Duration(prng.below(prng.one_in(1000) ? 5'000'000 : 30'000));
      const std::optional<Time> limit = coalesce.deadline();
      ASSERT_EQ(limit.has_value(), pending > 0);
      if (limit && *limit <= now) {  // A timer is never early, and we were told when.
        now = *limit;
        ASSERT_EQ(*limit, oldest + limits.delay_max);  // Q2
        ASSERT_EQ(coalesce.tick(now), Verdict::deliver);
        pending = 0;
        continue;
      }
      Verdict verdict = Verdict::hold;
      if (in_flight > 0 && prng.below(depth) < in_flight) {
        const auto count = static_cast<uint32_t>(1 + prng.below(std::min<uint64_t>(in_flight, 4)));
        const bool urgent = prng.one_in(50);
        in_flight -= count;
        if (pending == 0) oldest = now;
        pending += count;
        verdict = coalesce.complete(now, {prng.one_in(2), urgent}, count);
        if (in_flight == 0 || urgent || limits.mode == Mode::off) {
          ASSERT_EQ(verdict, Verdict::deliver);  // Q1, Q5
        }
        if (verdict == Verdict::hold && limits.mode == Mode::ratio) {
          ASSERT_GE(in_flight, limits.in_flight_min);                       // Q3
          ASSERT_LE(2 * pending, std::max(limits.queue_size, 2U) + 2 * 4);  // Q6, for counts of 4.
        }
      } else if (in_flight + pending < limits.queue_size) {
        verdict = coalesce.submit(now);
        ++in_flight;
      }
      if (verdict == Verdict::deliver) pending = 0;
      ASSERT_EQ(coalesce.pending(), pending);
      ASSERT_EQ(coalesce.in_flight(), in_flight);
      ASSERT_TRUE(in_flight > 0 || pending == 0);  // Q1: at idle nothing is left.
    }
  }
}

}  // namespace
}  // namespace firn::policy
