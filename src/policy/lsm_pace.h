// SPDX-License-Identifier: Apache-2.0
// The decisions of a tree in the bucket: when a generation is transferred, how much writers are
// delayed, what is merged. Source: US 11620261 (the two triggers); all else is ours.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"

namespace firn::policy {

// What waits for the store: the larger of dirty bytes and bytes of the log, so that a hot key that
// is overwritten for ever fills no disk.
struct LsmPressure {
  uint64_t live_bytes = 0;  // Of the generation that grows.
  uint64_t all_bytes = 0;   // With the one that is on its way.
  uint64_t capacity = 1;
};

struct LsmPace {
  static constexpr uint64_t kEasy = 2;  // Times capacity: up to here writers are free,
  static constexpr uint64_t kHard = 3;  // and here they stop.
  static constexpr Duration kDelayMax = std::chrono::milliseconds(100);
  static constexpr uint32_t kRunsEasy = 12;  // Runs that a reader may have to ask,
  static constexpr uint32_t kRunsHard = 36;  // and how many delay most. They never stop a writer.
  static constexpr Duration kDebtDelayMax = std::chrono::milliseconds(20);

  // A generation is not older than `interval` when its transfer begins, nor larger than capacity.
  static bool transfer_due(const LsmPressure& now, Duration age, Duration interval) {
    return now.live_bytes > 0 && (age >= interval || now.live_bytes >= now.capacity);
  }
  static bool must_stop(const LsmPressure& now) { return now.all_bytes >= kHard * now.capacity; }

  // Before a batch, in proportion to the excess over 2 x capacity.
  static Duration pressure_delay(const LsmPressure& now) {
    const uint64_t easy = kEasy * now.capacity;
    if (now.all_bytes <= easy) return {};
    const uint64_t excess = std::min(now.all_bytes - easy, now.capacity);
    return fraction(kDelayMax, excess, now.capacity);
  }
  // Before a batch, in proportion to the runs that compaction is behind by.
  static Duration debt_delay(uint64_t runs) {
    if (runs <= kRunsEasy) return {};
    const uint64_t excess = std::min<uint64_t>(runs, kRunsHard) - kRunsEasy;
    return fraction(kDebtDelayMax, excess, kRunsHard - kRunsEasy);
  }

 private:
  static Duration fraction(Duration most, uint64_t part, uint64_t whole) {
    const double share = static_cast<double>(part) / static_cast<double>(whole);
    return Duration(static_cast<int64_t>(static_cast<double>(most.count()) * share));
  }
};

// Tiers: a level that has kFan runs becomes one run of the next. A key is written once a level, and
// read from fewer than kFan runs a level.
struct LsmTiers {
  static constexpr uint32_t kFan = 4;

  // The shallowest level that is full: it is the one that reads suffer from most, and the cheapest.
  // `runs[n]`: of level n. `last` is how deep a run may go; there nothing is merged any more but
  // with all others of that level.
  static std::optional<uint32_t> pick(const std::vector<uint32_t>& runs) {
    for (uint32_t level = 0; level < runs.size(); ++level) {
      if (runs[level] >= kFan) return level;
    }
    return std::nullopt;
  }
};

// How long to wait after the Nth failure in a row (from 1) before the next try.
inline Duration lsm_retry_pause(uint32_t failures) {
  const auto first = std::chrono::milliseconds(100);
  return std::min<Duration>(first * (1LL << std::min(failures, 10U)), std::chrono::seconds(10));
}

}  // namespace firn::policy
