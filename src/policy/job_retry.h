// SPDX-License-Identifier: Apache-2.0
// When a background job that met an error is tried again. Ours.
//
//  R1  The first pause is short: most errors that pass do so at once.
//  R2  Each further one is twice as long, up to `kMost`: a disk that stays away costs one attempt a
//      minute, and is noticed within a minute when it is back.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace firn::policy {

struct JobRetry {
  static constexpr Duration kFirst = std::chrono::seconds(1);
  static constexpr Duration kMost = std::chrono::minutes(1);

  // The pause after so many failures in a row; at least one.
  static constexpr Duration after(uint32_t failures) {
    Duration pause = kFirst;
    for (uint32_t i = 1; i < failures && pause < kMost; ++i) pause *= 2;
    return std::min(pause, kMost);
  }
};

}  // namespace firn::policy
