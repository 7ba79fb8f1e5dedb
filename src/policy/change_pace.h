// SPDX-License-Identifier: Apache-2.0
// Change tracking's two decisions: how far an intent reaches, and when what is known in memory goes
// to the log. Both buy a tighter answer after a crash with writes of metadata; neither is needed
// for a right one.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "base/time.h"

namespace firn::policy {

// How many regions a missing intent covers. A miss costs a commit; when few writes pass between two
// misses the run doubles, so that N regions cost about log2(N) + N / kMost commits; when many
// pass it halves again.
class IntentReach {
 public:
  static constexpr uint64_t kMost = 4096;         // 4 GiB of regions of 1 MiB.
  static constexpr uint64_t kThick = 1024;        // Writes between misses: fewer double the run,
  static constexpr uint64_t kThin = 1024 * 1024;  // more halve it.

  void hit() { ++hits_; }
  // The run for this miss, a power of two; the caller aligns it. At most 1/64 of the disk's
  // regions: on a small disk a crash shall not make everything count as changed.
  uint64_t miss(uint64_t regions) {
    const uint64_t most = std::min(kMost, std::bit_floor(std::max<uint64_t>(regions / 64, 1)));
    if (hits_ < kThick && missed_) reach_ = std::min(reach_ * 2, most);
    if (hits_ > kThin) reach_ = std::max<uint64_t>(reach_ / 2, 1);
    missed_ = true;
    hits_ = 0;
    return reach_;
  }

 private:
  uint64_t hits_ = 0;
  uint64_t reach_ = 1;
  bool missed_ = false;
};

// When bits go to the log although no event asks for it: after 5 s or with 1/8 of the bits set. A
// flush that would write many pages for few guest writes waits for more of them, a minute at most:
// so it never costs more than one page for every 64 writes, or 1,024 pages in 5 s.
struct ChangeFlush {
  static constexpr Duration kEvery = std::chrono::seconds(5);
  static constexpr Duration kAtLeast = std::chrono::minutes(1);
  static constexpr uint64_t kWritesPerPage = 64;
  static constexpr uint64_t kFewPages = 1024;

  static bool due(Duration since_last, uint64_t bits_set, uint64_t bits, uint64_t pages,
                  uint64_t writes) {
    if (bits_set == 0 || (since_last < kEvery && bits_set < bits / 8)) return false;
    return pages * kWritesPerPage <= writes || since_last >= kAtLeast ||
           (pages <= kFewPages && since_last >= kEvery);
  }
};

}  // namespace firn::policy
