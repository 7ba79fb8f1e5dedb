// SPDX-License-Identifier: Apache-2.0
#include "policy/completion_pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/prng.h"

namespace firn::policy {
namespace {

using Mode = CompletionPace::Mode;
using Op = CompletionPace::Op;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr Time at_us(int64_t us) { return {microseconds(us)}; }

CompletionPace::Limits five_ms(Mode mode) {
  return {.mode = mode,
          .nominal = {milliseconds(5), milliseconds(5), milliseconds(5), milliseconds(5)}};
}

TEST(CompletionPace, show_1_the_timing_follows_from_the_nominal_device) {
  const auto limits = CompletionPace::preset("hdd-7200");
  ASSERT_TRUE(limits);
  EXPECT_TRUE(CompletionPace::validate(*limits));
  CompletionPace pace(*limits, 1);
  EXPECT_EQ(pace.nominal(Op::read, 4096), milliseconds(8));
  EXPECT_EQ(pace.nominal(Op::flush, 0), milliseconds(12));
  EXPECT_FALSE(CompletionPace::preset("drum"));
  EXPECT_EQ(CompletionPace::preset("none")->mode, Mode::off);
}

TEST(CompletionPace, show_2_floor_waits_for_the_nominal_time) {
  CompletionPace pace(five_ms(Mode::floor), 1);
  PacedCompletion one;
  PacedCompletion* out[4];
  pace.issue(at_us(0), one, Op::read, 4096, 0);
  EXPECT_FALSE(pace.done(at_us(100), one));
  EXPECT_EQ(pace.safepoint(0, out), 0U);
  EXPECT_EQ(pace.deadline(), at_us(5000));
  EXPECT_EQ(pace.matured(at_us(4999), out), 0U);
  EXPECT_EQ(pace.matured(at_us(5000), out), 1U);
  EXPECT_EQ(out[0], &one);
}

TEST(CompletionPace, show_3_stable_is_faster_than_nominal_for_a_guest_that_waits) {
  CompletionPace pace(five_ms(Mode::stable), 1);
  PacedCompletion one;
  PacedCompletion* out[4];
  pace.issue(at_us(0), one, Op::read, 4096, 0);
  EXPECT_FALSE(pace.done(at_us(100), one));
  EXPECT_EQ(pace.safepoint(0, out), 1U);  // It is at one just now.
  EXPECT_FALSE(pace.deadline());
}

TEST(CompletionPace, show_4_what_is_late_is_not_delayed) {
  for (const Mode mode : {Mode::stable, Mode::floor}) {
    CompletionPace pace(five_ms(mode), 1);
    PacedCompletion one;
    pace.issue(at_us(0), one, Op::write, 4096, 0);
    EXPECT_TRUE(pace.done(at_us(7000), one));
  }
}

TEST(CompletionPace, show_5_nothing_before_the_guest_can_take_it) {
  CompletionPace pace(five_ms(Mode::stable), 1);
  PacedCompletion one;
  PacedCompletion* out[4];
  pace.issue(at_us(0), one, Op::read, 4096, 0);
  pace.done(at_us(100), one);
  for (int us = 100; us < 3100; us += 10) EXPECT_EQ(pace.matured(at_us(us), out), 0U);
  EXPECT_EQ(pace.safepoint(0, out), 1U);
}

TEST(CompletionPace, show_6_times_are_kept) {
  CompletionPace pace(five_ms(Mode::stable), 1);
  PacedCompletion one;
  pace.issue(at_us(7), one, Op::read, 4096, 0);
  pace.done(at_us(100), one);
  EXPECT_EQ(one.issued, at_us(7));
  EXPECT_EQ(one.done, at_us(100));
  EXPECT_EQ(one.matures, at_us(5007));
}

TEST(CompletionPace, show_7_a_safepoint_is_of_its_queue_alone) {
  CompletionPace pace(five_ms(Mode::stable), 2);
  PacedCompletion zero, one;
  PacedCompletion* out[4];
  pace.issue(at_us(0), zero, Op::read, 4096, 0);
  pace.issue(at_us(0), one, Op::read, 4096, 1);
  pace.done(at_us(1), zero);
  pace.done(at_us(1), one);
  EXPECT_EQ(pace.safepoint(1, out), 1U);
  EXPECT_EQ(out[0], &one);
  EXPECT_EQ(pace.held(), 1U);
}

TEST(CompletionPace, show_11_off_holds_nothing) {
  CompletionPace pace({}, 1);
  for (int i = 0; i < 1000; ++i) {
    PacedCompletion one;
    pace.issue(at_us(i), one, Op::read, 1 << 20, 0);
    ASSERT_TRUE(pace.done(at_us(i), one));
  }
}

TEST(CompletionPace, V5_ordered_queues_keep_their_order) {
  CompletionPace::Limits limits = five_ms(Mode::floor);
  limits.nominal[2] = milliseconds(12);
  limits.ordered = true;
  CompletionPace pace(limits, 1);
  PacedCompletion flush, read, late;
  PacedCompletion* out[4];
  pace.issue(at_us(0), flush, Op::flush, 0, 0);
  pace.issue(at_us(0), read, Op::read, 4096, 0);
  pace.issue(at_us(0), late, Op::read, 4096, 0);
  EXPECT_FALSE(pace.done(at_us(1), flush));
  EXPECT_FALSE(pace.done(at_us(2), read));
  EXPECT_FALSE(pace.done(at_us(9000), late));  // Mature by itself.
  EXPECT_EQ(pace.matured(at_us(11'999), out), 0U);
  EXPECT_EQ(pace.matured(at_us(12'000), out), 3U);
  EXPECT_EQ(out[0], &flush);
  EXPECT_EQ(out[1], &read);
  EXPECT_EQ(out[2], &late);
}

TEST(CompletionPace, V6_a_stall_is_followed_by_batches_not_by_a_flood) {
  CompletionPace pace(five_ms(Mode::floor), 1);
  std::vector<PacedCompletion> many(100);
  PacedCompletion* out[128];
  for (PacedCompletion& one : many) {
    pace.issue(at_us(0), one, Op::read, 4096, 0);
    pace.done(at_us(1), one);
  }
  EXPECT_EQ(pace.matured(at_us(60'000), out), 32U);
  EXPECT_EQ(pace.deadline(), at_us(5000));  // Still due.
  EXPECT_EQ(pace.drain(0, out), 68U);
  EXPECT_EQ(pace.held(), 0U);
}

TEST(CompletionPace, switched_off_all_that_is_held_matures) {
  CompletionPace pace(five_ms(Mode::stable), 1);
  std::vector<PacedCompletion> many(9);
  PacedCompletion* out[128];
  for (size_t i = 0; i < many.size(); ++i) {
    pace.issue(at_us(static_cast<int64_t>(9 - i)), many[i], Op::read, 4096, 0);
    pace.done(at_us(10), many[i]);
  }
  pace.set_limits(at_us(20), {});
  EXPECT_EQ(pace.matured(at_us(20), out), 9U);
}

TEST(CompletionPace, nonsense_is_refused) {
  CompletionPace::Limits limits = five_ms(Mode::stable);
  limits.nominal[1] = std::chrono::seconds(6);
  EXPECT_FALSE(CompletionPace::validate(limits));
  limits.nominal[1] = microseconds(-1);
  EXPECT_FALSE(CompletionPace::validate(limits));
  EXPECT_FALSE(CompletionPace::validate({.per_grain = milliseconds(2)}));
  EXPECT_FALSE(CompletionPace::validate({.batch_max = 0}));
}

// show_8 and show_10: each request visible exactly once, at the instant that V1 to V3 say.
TEST(CompletionPace, the_formula_holds_for_a_million_requests) {
  struct Request : PacedCompletion {
    bool live = false;
    Time safepoint{Duration::max()};  // The first of its queue after it was done.
  };
  constexpr uint32_t kQueues = 3;
  for (const Mode mode : {Mode::stable, Mode::floor}) {
    Prng prng(static_cast<uint64_t>(mode));
    CompletionPace::Limits limits = five_ms(mode);
    limits.nominal[1] = microseconds(300), limits.nominal[2] = milliseconds(9);
    limits.per_grain = microseconds(3), limits.batch_max = 1000;
    CompletionPace pace(limits, kQueues);
    std::vector<Request> slots(200);
    std::vector<PacedCompletion*> out(1000);
    uint64_t issued = 0, visible = 0;
    Time now{};
    const auto show = [&](PacedCompletion* which, bool by_safepoint) {
      auto& request = static_cast<Request&>(*which);
      ASSERT_TRUE(request.live);  // Exactly once.
      request.live = false;
      ++visible;
      const Time mature = request.matures;
      if (request.done >= mature) {
        ASSERT_EQ(now, request.done);  // V2
      } else {
        ASSERT_TRUE(by_safepoint ? now <= mature : now == mature);  // V3
        ASSERT_TRUE(mode == Mode::stable || !by_safepoint);
      }
    };
    const auto advance = [&](Time to) {  // Stops at each deadline on the way.
      while (pace.deadline() && *pace.deadline() <= to) {
        now = std::max(now, *pace.deadline());
        const size_t count = pace.matured(now, out);
        for (size_t i = 0; i < count; ++i) show(out[i], false);
      }
      now = to;
    };
    while (issued < 500'000) {
      Request& request = slots[prng.below(slots.size())];
      if (!request.live) {
        request = Request{};
        request.live = true;
        pace.issue(now, request, static_cast<Op>(prng.below(4)), prng.below(1 << 18),
                   static_cast<uint32_t>(prng.below(kQueues)));
        ++issued;
      } else if (request.done == Time{} && !request.links.linked) {
        if (pace.done(now, request)) show(&request, false);
      }
      if (prng.one_in(40)) {
        const auto queue = static_cast<uint32_t>(prng.below(kQueues));
        const size_t count = pace.safepoint(queue, out);
        for (size_t i = 0; i < count; ++i) {
          ASSERT_EQ(out[i]->queue, queue);                          // V4
          ASSERT_TRUE(i == 0 || out[i]->done >= out[i - 1]->done);  // V5
          show(out[i], true);
        }
      }
      advance(now + Duration(1 + prng.below(30'000)));
    }
    for (Request& request : slots) {
      if (request.live && request.done == Time{} && pace.done(now, request)) show(&request, false);
    }
    advance(now + std::chrono::seconds(10));
    EXPECT_EQ(visible, issued);
    EXPECT_EQ(pace.held(), 0U);
  }
}

}  // namespace
}  // namespace firn::policy
