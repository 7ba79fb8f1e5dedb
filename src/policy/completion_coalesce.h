// SPDX-License-Identifier: Apache-2.0
// When a guest hears of its completions: at once while it has little in flight, else one signal for
// several, as many as the commands still in flight allow. Two parts, both without timers of their
// own: the delivery ratio (source: US 8478924) and the limit of cross-CPU wake-ups (US 9336165).
// The delay cap, the flush points and the gate are ours. One instance per queue; for a socket, a
// signal is a send of the replies gathered.
//
// Completions are published (visible to a guest that polls) before complete() is asked.
//
//  Q1  Depth 1: every completion is delivered at once. Nothing in flight => nothing is pending.
//  Q2  Something pending => deadline() is at most `delay_max` after the oldest of it was published,
//      and tick() delivers then. So nothing is held beyond its cap.
//  Q3  Fewer than `in_flight_min` in flight, or a rate below `rate_min`: no ratio holds anything.
//  Q4  Cross-CPU signals are `ipi_gap` apart, but for flush points, the cap, and guests that the
//      gate excludes: a depth below `in_flight_min` or a rate below `rate_min`.
//  Q5  Urgent completions (flush, FUA, errors, discards) and flush points deliver all.
//  Q6  A ratio never holds more than half of the queue.
//  Q7  set_mode() takes effect at the next completion.
#pragma once

#include <cstdint>
#include <optional>

#include "base/time.h"

namespace firn::policy {

class CompletionCoalesce {
 public:
  enum class Mode : uint8_t { off, ratio, ipi, ratio_ipi };
  enum class Verdict : uint8_t { deliver, hold };
  struct Limits {
    Mode mode = Mode::ratio_ipi;
    uint32_t in_flight_min = 4;
    uint64_t rate_min = 2000;                         // Completions per second.
    Duration epoch = std::chrono::milliseconds(200);  // Between two choices of the ratio.
    Duration ipi_gap = std::chrono::microseconds(100);
    Duration delay_max = std::chrono::microseconds(200);
    uint32_t queue_size = 128;
  };
  struct Counters {
    uint64_t completions = 0, deliveries = 0, held_by_ratio = 0, held_by_ipi = 0;
    uint64_t by_deadline = 0, by_flush = 0;
  };
  struct How {
    bool cross_cpu = true;  // Whoever is told runs on another CPU.
    bool urgent = false;
  };

  CompletionCoalesce(Limits limits, Time now) : limits_(limits), epoch_began_(now) {}
  void set_mode(Mode mode) { limits_.mode = mode; }

  // `count` commands were taken from the guest.
  Verdict submit(Time now, uint32_t count = 1);
  // `count` completions were published together. On `deliver` the signal is due now, for all
  // pending.
  Verdict complete(Time now, How how, uint32_t count = 1);
  Verdict tick(Time now);  // At deadline(), or each turn.
  std::optional<Time> deadline() const;
  Verdict before_sleep(Time now);  // With nothing in flight; else sleep until deadline() at most.
  Verdict flush(Time now);         // Queue stop, reset, disconnect.
  // After `deliver`, when the guest had asked for no signal and none was made (Q4 counts signals).
  void not_signalled() { signalled_ = signalled_before_; }
  // A guest connects again with `in_flight` commands; tell it once of all that it missed.
  void restart(Time now, uint32_t in_flight);

  uint32_t in_flight() const { return in_flight_; }
  uint32_t pending() const { return pending_; }
  // Of `every` completions, `delivered` are signalled.
  struct Ratio {
    uint32_t delivered = 1;
    uint32_t every = 1;
  };
  Ratio ratio() const;
  const Counters& counters() const { return counters_; }

 private:
  Verdict deliver(Time now);
  void end_epoch(Time now);
  bool gap_holds(Time now, bool cross_cpu) const;
  bool ratio_holds(uint32_t count);

  Limits limits_;
  uint32_t in_flight_ = 0;  // Taken, and not yet published.
  uint32_t pending_ = 0;    // Published, and not yet signalled.
  // Deliver while counter < count_up, then hold until it is skip_up.
  uint32_t count_up_ = 1, skip_up_ = 1, counter_ = 1;
  bool coalescing_ = false;  // The last epoch had the rate and the depth for it.
  Time oldest_{};
  std::optional<Time> signalled_, signalled_before_;
  Time epoch_began_;
  uint64_t epoch_completions_ = 0, epoch_depths_ = 0;
  Counters counters_;
};

}  // namespace firn::policy
