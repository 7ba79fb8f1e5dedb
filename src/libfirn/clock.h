// SPDX-License-Identifier: Apache-2.0
// The monotonic clock, for who has no Io.
#pragma once

#include <cstdint>
#include <ctime>

namespace firn::libfirn {

inline uint64_t now_ns() {
  ::timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace firn::libfirn
