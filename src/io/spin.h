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

// What a shard does differently while it has much in flight. Completions come by themselves then,
// many at once: looking for them wins nothing, and waking up for each of them costs more than it
// does. But the device must not wait for the end of a turn that a batch has made long, nor a client
// for its signal. Pure.
struct DeepLoad {
  static constexpr uint32_t kTransfersMin = 8;  // In flight, from which on the shard gathers.
  static constexpr uint32_t kShare = 4;         // It sleeps until one of so many has ended ...
  static constexpr uint32_t kBatchMax = 8;      // ... so many at most, ...
  static constexpr std::chrono::nanoseconds kWaitMax =
      std::chrono::microseconds(200);          // ... or this.
  static constexpr uint32_t kPushAt = 8;       // Entries that wait for the end of a turn, at most;
  static constexpr uint32_t kFirstPushAt = 4;  // ... while the device has nothing else to do.
  static constexpr size_t kLongTurn = 4;       // Runnable fibers that a signal does not wait for.

  static constexpr uint32_t batch_of(uint32_t transfers) {
    return std::clamp(transfers / kShare, uint32_t{1}, kBatchMax);
  }
  // `pending` of the transfers in flight are not submitted yet.
  static constexpr bool must_push(uint32_t pending, uint32_t transfers) {
    return pending >= (pending >= transfers ? kFirstPushAt : kPushAt);
  }
};

}  // namespace firn
