// SPDX-License-Identifier: Apache-2.0
#include "io/spin.h"

#include <gtest/gtest.h>

namespace firn {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;

void settle(SpinBudget& spin, SpinBudget::Duration wait, uint64_t batch) {
  for (int i = 0; i < 64; ++i) {
    spin.waited(wait);
    spin.reaped(batch);
  }
}

TEST(SpinBudget, looks_only_when_waits_are_short_and_few_things_come) {
  SpinBudget spin;
  EXPECT_EQ(spin.allowance().count(), 0);  // Until it has seen short waits.
  settle(spin, microseconds(40), 1);
  EXPECT_EQ(spin.allowance(), SpinBudget::kLimit);
  spin.reaped(8);  // Depth: sleep, and let a batch gather.
  EXPECT_EQ(spin.allowance().count(), 0);
  spin.reaped(1);
  EXPECT_EQ(spin.allowance(), SpinBudget::kLimit);
}

TEST(SpinBudget, one_long_sleep_ends_it_and_short_waits_bring_it_back) {
  SpinBudget spin;
  settle(spin, microseconds(40), 1);
  spin.waited(seconds(100));
  EXPECT_EQ(spin.allowance().count(), 0);
  settle(spin, microseconds(40), 1);
  EXPECT_EQ(spin.allowance(), SpinBudget::kLimit);
  settle(spin, microseconds(500), 1);
  EXPECT_EQ(spin.allowance().count(), 0);
}

}  // namespace
}  // namespace firn
