// SPDX-License-Identifier: Apache-2.0
// Whether to look a little longer before sleeping. A sleep and its wake-up cost a virtual CPU more
// than most of the waits of a depth-1 client last; at depth the next completion is a gift to the
// batch, and an idle shard must sleep. Pure: it is told how long waits lasted and how much came of
// the last one.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace firn {

class SpinBudget {
 public:
  using Duration = std::chrono::nanoseconds;
  static constexpr Duration kWaitMax = std::chrono::microseconds(90);  // Expected waits worth it.
  static constexpr Duration kLimit = std::chrono::microseconds(120);   // Never longer than this.
  // What one long sleep weighs.
  static constexpr Duration kSampleMax = std::chrono::milliseconds(2);
  static constexpr uint64_t kBatchMax = 2;

  // How long to look before sleeping; zero: sleep at once. With rings to watch a sleep costs their
  // other side a signal, too, so that a batch is no reason to go to sleep.
  Duration allowance(bool watching = false) const {
    const bool wanted = watching || last_batch_ <= kBatchMax;
    return expected_ <= kWaitMax && wanted ? kLimit : Duration::zero();
  }
  // A wait ended after `duration`, and `batch` completions came of it.
  void waited(Duration duration) { expected_ += (std::min(duration, kSampleMax) - expected_) / 8; }
  void reaped(uint64_t batch) { last_batch_ = batch; }

 private:
  Duration expected_ = kSampleMax;
  uint64_t last_batch_ = 0;
};

}  // namespace firn
