// SPDX-License-Identifier: Apache-2.0
// How long a background job (consolidation, drop, shrink) rests after a step, so that no guest's
// p99 more than doubles (promise P6): at full speed beside nobody, else at a small share of the
// time that shrinks as soon as guests feel it. Ours; it paces the work of US 9116726.
//
// Why it keeps P6. A request meets at most one step when rests are longer than steps. A step no
// longer than the guests' own quiet p99 can then at most double it; such *short* steps may take
// `short_permille` of the time. Longer steps may take so small a share that fewer than one request
// in a hundred meets one. Both are guesses about the device: what guests really see corrects them.
//
//  J1  Nobody busy: no rest.
//  J2  Somebody busy: step / (step + rest) <= the share, unless the rest is cut to `rest_max`.
//  J3  The share is never above `short_permille`, never above `long_permille` for a long step, and
//      never below `floor_permille`: the job always ends.
//  J4  When the p99 of all requests is 1.5 times that of those which met no step, the share is
//      halved; again only after as many new requests.
//  J5  A guest of depth 1 counts as busy between its requests: quiet takes `quiet_looks` looks in
//      a row without a request in flight or begun.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/time.h"

namespace firn::policy {

// The 99th percentile of a stream in two words: up a lot for each value above, down a little for
// each one below. Follows a change within some hundred values; within some per cent when steady.
class P99 {
 public:
  void add(Duration value);
  Duration value() const { return Duration(value_ns_); }
  uint64_t count() const { return count_; }
  void restart_count() { count_ = 0; }

 private:
  int64_t value_ns_ = 0;
  uint64_t count_ = 0;
};

class JobPace {
 public:
  struct Limits {
    uint32_t short_permille = 100;  // Of the time, for steps no longer than the guests' p99.
    uint32_t long_permille = 5;     // For longer ones.
    uint32_t floor_permille = 5;
    uint32_t quiet_looks = 3;
    Duration rest_max = std::chrono::seconds(1);
    Duration p99_assumed = std::chrono::microseconds(200);  // Until guests were seen.
  };
  JobPace() : JobPace(Limits{}) {}
  explicit JobPace(Limits limits) : limits_(limits), share_permille_(limits.short_permille) {}

  // A guest's request ended; `beside` when a step ran during any part of its life. Optional:
  // without it guests are taken to have `p99_assumed`.
  void guest_saw(Duration latency, bool beside) {
    all_.add(latency);
    if (!beside) quiet_.add(latency);
  }

  // A step took `step`; `guests_in_flight` requests are in flight now, `guest_requests` were ever
  // begun (leave it out where nobody counts). Returns how long to rest.
  Duration rest_after(Duration step, size_t guests_in_flight, uint64_t guest_requests = 0);

  // The longest step that is a short one: how much work to take at once.
  Duration step_max() const { return quiet_p99(); }
  uint32_t share_permille() const { return share_permille_; }
  bool busy() const { return looks_quiet_ < limits_.quiet_looks; }

 private:
  static constexpr uint64_t kSamplesMin = 256;  // Before a percentile is believed.

  Duration quiet_p99() const {
    return quiet_.count() < kSamplesMin ? limits_.p99_assumed : quiet_.value();
  }
  void look(size_t in_flight, uint64_t requests);
  void adjust_share();

  Limits limits_;
  P99 quiet_, all_;
  uint32_t share_permille_;
  uint32_t looks_quiet_ = 0;
  uint64_t seen_requests_ = 0;
};

}  // namespace firn::policy
