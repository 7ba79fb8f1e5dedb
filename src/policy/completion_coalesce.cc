// SPDX-License-Identifier: Apache-2.0
// Notes on the design.
//
// Liveness without a timer: while completions come and no submissions, what is in flight falls, and
// below `in_flight_min` the ratio holds nothing; with nothing in flight nothing holds. The cap is
// for commands that are stuck below (a cold tier) while quick ones have been published.
//
// The ratio is chosen once an epoch from the guest's own depth: what is in flight plus what it has
// not heard of, for holding must not lower the measure that decides about holding. It is the mean
// over the epoch; a single sample may fall into a gap.
#include "policy/completion_coalesce.h"

#include <algorithm>

#include "base/check.h"

namespace firn::policy {

using Verdict = CompletionCoalesce::Verdict;

CompletionCoalesce::Ratio CompletionCoalesce::ratio() const {
  return {count_up_ == skip_up_ ? 1 : std::max(count_up_, 1U), skip_up_};
}

Verdict CompletionCoalesce::deliver(Time now) {
  pending_ = 0;
  signalled_before_ = signalled_;
  signalled_ = now;
  ++counters_.deliveries;
  return Verdict::deliver;
}

void CompletionCoalesce::end_epoch(Time now) {
  const Duration elapsed = now - epoch_began_;
  if (elapsed <= limits_.epoch) return;
  const auto ns = static_cast<uint64_t>(elapsed.count());
  const bool fast = epoch_completions_ >= limits_.rate_min * (ns / 1000) / 1'000'000;
  const auto depth =
      static_cast<uint32_t>((epoch_depths_ + epoch_completions_ / 2) / epoch_completions_);
  const uint32_t unit = std::max(limits_.in_flight_min, 1U);
  coalescing_ = fast && depth >= unit;
  count_up_ = skip_up_ = 1;
  if (coalescing_) {
    if (depth < 2 * unit) {
      count_up_ = 4, skip_up_ = 5;
    } else if (depth < 3 * unit) {
      count_up_ = 3, skip_up_ = 4;
    } else if (depth < 4 * unit) {
      count_up_ = 2, skip_up_ = 3;
    } else {
      skip_up_ = depth / (2 * unit);
    }
    skip_up_ = std::clamp(skip_up_, 1U, std::max(limits_.queue_size / 2, 1U));  // Q6
    count_up_ = std::min(count_up_, skip_up_);
  }
  counter_ = std::min(counter_, skip_up_);
  epoch_began_ = now;
  epoch_completions_ = epoch_depths_ = 0;
}

bool CompletionCoalesce::gap_holds(Time now, bool cross_cpu) const {
  if (limits_.mode != Mode::ipi && limits_.mode != Mode::ratio_ipi) return false;
  return cross_cpu && coalescing_ && in_flight_ + pending_ >= limits_.in_flight_min && signalled_ &&
         now - *signalled_ < limits_.ipi_gap;
}

// Steps the counter for each of the completions; whether none of them is to be delivered.
bool CompletionCoalesce::ratio_holds(uint32_t count) {
  if (limits_.mode != Mode::ratio && limits_.mode != Mode::ratio_ipi) return false;
  if (in_flight_ < limits_.in_flight_min) {
    counter_ = 1;
    return false;
  }
  bool holds = true;
  for (uint32_t i = 0; i < std::min(count, skip_up_); ++i) {
    const bool last = counter_ >= skip_up_;
    holds = holds && !last && counter_ >= count_up_;
    counter_ = last ? 1 : counter_ + 1;
  }
  return holds;
}

Verdict CompletionCoalesce::submit(Time now, uint32_t count) {
  in_flight_ += count;
  if (pending_ == 0 || now - oldest_ < limits_.delay_max / 2) return Verdict::hold;
  return flush(now);
}

Verdict CompletionCoalesce::complete(Time now, How how, uint32_t count) {
  CHECK(count > 0 && count <= in_flight_, "{} completions of {} commands", count, in_flight_);
  in_flight_ -= count;
  if (pending_ == 0) oldest_ = now;
  pending_ += count;
  counters_.completions += count;
  epoch_completions_ += count;
  epoch_depths_ += uint64_t{in_flight_ + pending_} * count;
  end_epoch(now);
  if (limits_.mode == Mode::off || in_flight_ == 0) return deliver(now);
  if (how.urgent) return flush(now);
  if (now - oldest_ >= limits_.delay_max) return tick(now);
  if (gap_holds(now, how.cross_cpu)) {
    counters_.held_by_ipi += count;
    return Verdict::hold;
  }
  if (ratio_holds(count)) {
    counters_.held_by_ratio += count;
    return Verdict::hold;
  }
  return deliver(now);
}

std::optional<Time> CompletionCoalesce::deadline() const {
  if (pending_ == 0) return std::nullopt;
  return oldest_ + limits_.delay_max;
}

Verdict CompletionCoalesce::tick(Time now) {
  if (pending_ == 0 || now - oldest_ < limits_.delay_max) return Verdict::hold;
  ++counters_.by_deadline;
  counter_ = 1;
  return deliver(now);
}

Verdict CompletionCoalesce::before_sleep(Time now) {
  return in_flight_ == 0 ? flush(now) : Verdict::hold;
}

Verdict CompletionCoalesce::flush(Time now) {
  if (pending_ == 0) return Verdict::hold;
  ++counters_.by_flush;
  counter_ = 1;
  return deliver(now);
}

void CompletionCoalesce::restart(Time now, uint32_t in_flight) {
  in_flight_ = in_flight;
  pending_ = 0;
  count_up_ = skip_up_ = counter_ = 1;
  coalescing_ = false;
  signalled_ = signalled_before_ = std::nullopt;
  epoch_began_ = now;
  epoch_completions_ = epoch_depths_ = 0;
}

}  // namespace firn::policy
