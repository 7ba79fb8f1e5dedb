// SPDX-License-Identifier: Apache-2.0
// When a completion that the backing store had early becomes visible to the guest: no later than
// the emulated device's nominal time, and before that only at a point that shows that the guest can
// take it. Off by default. Source: US 8875162 and its family (US 7853960); the observable
// safepoints, the presets and the mode `floor` are ours. One instance per device.
//
//  With t0 = issued, D = nominal, tc = done below, ts = its queue's first safepoint at or after tc:
//  V1  off: visible at tc, always.
//  V2  tc >= t0 + D: visible at tc.
//  V3  stable: else visible at min(t0 + D, ts). floor: else at t0 + D, safepoints or not.
//  V4  Each request becomes visible exactly once; a safepoint of one queue releases no other's.
//  V5  Within a queue safepoints release in the order of completion. With `ordered` nothing of a
//      queue is visible before what was done before it.
//  V6  At most `batch_max` are released at a time, by maturity or by safepoint; the rest is still
//      due: ask again in the next turn.
//
// Instants are exact as far as the caller looks at deadline(). Held requests count as in flight.
// Completions belong to the caller and are linked; nothing allocates after construction but a heap
// that grows to the most ever held.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/list.h"
#include "base/result.h"
#include "base/time.h"

namespace firn::policy {

// A request from issue() until it is visible. Derive from it; times may be shown.
struct PacedCompletion {
  Time issued, done, matures;
  uint32_t queue = 0;
  uint64_t sequence = 0;  // The pace's own, as is what follows.
  size_t place = 0;
  Links<PacedCompletion> links;
};

class CompletionPace {
 public:
  enum class Mode : uint8_t { off, stable, floor };
  enum class Op : uint8_t { read, write, flush, discard };
  struct Limits {
    Mode mode = Mode::off;
    std::array<Duration, 4> nominal{};  // By op.
    Duration per_grain{};               // For each 4 KiB of a read or write.
    bool ordered = false;
    uint32_t batch_max = 32;
  };
  static constexpr Duration kNominalMax = std::chrono::seconds(5);  // A guest waits 30 s.

  // "none", "ssd-sata", "hdd-7200": the times of a device of that sort, in mode `stable`.
  static std::optional<Limits> preset(std::string_view name);
  static Result<void> validate(const Limits& limits);

  CompletionPace(Limits limits, uint32_t queues);
  const Limits& limits() const { return limits_; }
  // For requests issued from now on; with `off` whatever is held matures at once.
  void set_limits(Time now, const Limits& limits);
  Duration nominal(Op op, uint64_t bytes) const;

  void issue(Time now, PacedCompletion& completion, Op op, uint64_t bytes, uint32_t queue);
  // Done below. True: make it visible now. Else it is held; if its queue is at a safepoint just
  // now, ask safepoint().
  bool done(Time now, PacedCompletion& completion);
  // The guest of `queue` has shown that it can take completions: fills `out` with what becomes
  // visible now.
  size_t safepoint(uint32_t queue, std::span<PacedCompletion*> out);
  // The same for what has matured; look at it each turn.
  size_t matured(Time now, std::span<PacedCompletion*> out);
  std::optional<Time> deadline() const;
  // All of a queue, whatever the time: reset, disconnect, stop.
  size_t drain(uint32_t queue, std::span<PacedCompletion*> out);
  size_t held() const { return heap_.size(); }

 private:
  using Local = List<PacedCompletion, &PacedCompletion::links>;

  size_t release(uint32_t queue, std::span<PacedCompletion*> out, size_t most);
  void push(PacedCompletion& completion);
  void remove(PacedCompletion& completion);
  bool sooner(size_t a, size_t b) const;
  void put(size_t place, PacedCompletion* completion);
  void sift(size_t place);

  Limits limits_;
  std::vector<PacedCompletion*> heap_;  // By maturity.
  std::unique_ptr<Local[]> local_;      // By queue, in order of completion.
  std::vector<Time> latest_;            // By queue: the latest maturity held, for `ordered`.
  uint32_t queues_;
  uint64_t sequence_ = 0;
};

}  // namespace firn::policy
