// SPDX-License-Identifier: Apache-2.0
#include "policy/format_pace.h"

#include <gtest/gtest.h>

#include "base/prng.h"

namespace firn::policy {
namespace {

using Verdict = FormatPace::Verdict;

TEST(FormatPace, fills_from_the_low_mark_to_the_high_one) {
  FormatPace pace({.ready_low_blocks = 4, .ready_high_blocks = 8});
  EXPECT_EQ(pace.step(4, 100, 0, 0), Verdict::rest);
  EXPECT_EQ(pace.step(3, 100, 0, 0), Verdict::format);
  EXPECT_EQ(pace.step(7, 100, 0, 0), Verdict::format);  // Above the low mark: goes on.
  EXPECT_EQ(pace.step(8, 100, 0, 0), Verdict::rest);
  EXPECT_EQ(pace.step(7, 100, 0, 0), Verdict::rest);
}

TEST(FormatPace, guests_come_first) {
  FormatPace pace({.ready_low_blocks = 4, .ready_high_blocks = 8});
  EXPECT_EQ(pace.step(0, 100, 5, 1), Verdict::wait);    // One is in flight.
  EXPECT_EQ(pace.step(0, 100, 9, 0), Verdict::wait);    // Some came since the last look.
  EXPECT_EQ(pace.step(0, 100, 9, 0), Verdict::format);  // Quiet since then.
  EXPECT_EQ(pace.step(0, 0, 9, 0), Verdict::rest);      // Nothing raw is left.
}

TEST(FormatPace, never_formats_beside_a_guest_in_any_history) {
  Prng prng(7);
  FormatPace pace({.ready_low_blocks = 16, .ready_high_blocks = 64});
  uint64_t requests = 0, seen = 0;
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t in_flight = prng.one_in(3) ? prng.below(4) : 0;
    requests += prng.one_in(2) ? prng.below(10) : 0;
    const uint64_t ready = prng.below(80), raw = prng.below(3);
    const Verdict verdict = pace.step(ready, raw, requests, in_flight);
    if (verdict == Verdict::format) {
      EXPECT_EQ(in_flight, 0U);
      EXPECT_EQ(requests, seen);
      EXPECT_LT(ready, 64U);
      EXPECT_GT(raw, 0U);
    }
    seen = requests;
  }
}

}  // namespace
}  // namespace firn::policy
