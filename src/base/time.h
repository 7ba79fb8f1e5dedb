// SPDX-License-Identifier: Apache-2.0
// Instants and spans, as values. Nobody here can read a clock: the world (io/) and the tests say
// what time it is.
#pragma once

#include <chrono>
#include <compare>

namespace firn {

using Duration = std::chrono::nanoseconds;
struct Time {  // Monotonic nanoseconds since an arbitrary origin.
  Duration since_origin{};
  auto operator<=>(const Time&) const = default;
  friend constexpr Time operator+(Time t, Duration d) { return {t.since_origin + d}; }
  friend constexpr Duration operator-(Time a, Time b) { return a.since_origin - b.since_origin; }
};

}  // namespace firn
