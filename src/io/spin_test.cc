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

TEST(DeepLoad, gathers_a_share_of_what_is_in_flight) {
  EXPECT_EQ(DeepLoad::batch_of(1), 1u);
  EXPECT_EQ(DeepLoad::batch_of(8), 2u);
  EXPECT_EQ(DeepLoad::batch_of(32), 8u);
  EXPECT_EQ(DeepLoad::batch_of(1000), DeepLoad::kBatchMax);
}

TEST(DeepLoad, gives_an_idle_device_something_early) {
  EXPECT_FALSE(DeepLoad::must_push(3, 3));
  EXPECT_TRUE(DeepLoad::must_push(4, 4));
  EXPECT_FALSE(DeepLoad::must_push(4, 5));  // One is with the device.
  EXPECT_FALSE(DeepLoad::must_push(7, 32));
  EXPECT_TRUE(DeepLoad::must_push(8, 32));
}

}  // namespace
}  // namespace firn
