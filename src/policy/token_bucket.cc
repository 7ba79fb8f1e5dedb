// SPDX-License-Identifier: Apache-2.0
// Notes on the design.
//
// Admission takes at once and may go below zero; the wait is the time until the level is zero
// again. So there is no queue here, and order is that of the calls (B3). A unit is kept as 10^9
// nano-units: a rate of r units per second is r nano-units per nanosecond, and refilling is exact
// (B2).
#include "policy/token_bucket.h"

#include <algorithm>

namespace firn::policy {

namespace {

constexpr int64_t kNano = 1'000'000'000;
constexpr int64_t kCentury = 100LL * 365 * 86'400 * kNano;

}  // namespace

TokenBucket::Wide TokenBucket::level_max() const {
  const uint64_t burst =
      limits_.burst != 0 ? limits_.burst : std::max<uint64_t>(limits_.rate / 10, 1);
  return static_cast<Wide>(burst) * kNano;
}

TokenBucket::TokenBucket(Limits limits, Time now) : limits_(limits), seen_(now) {
  level_ = level_max();
}

void TokenBucket::refill(Time now) {
  if (now <= seen_) return;
  const Wide gained = static_cast<Wide>((now - seen_).count()) * static_cast<Wide>(limits_.rate);
  level_ = gained >= level_max() - level_ ? level_max() : level_ + gained;
  seen_ = now;
}

Duration TokenBucket::admit(Time now, uint64_t cost) {
  if (limits_.rate == 0) return Duration::zero();
  refill(now);
  level_ -= static_cast<Wide>(cost) * kNano;
  if (level_ >= 0) return Duration::zero();
  const auto rate = static_cast<Wide>(limits_.rate);
  const Wide wait = (-level_ + rate - 1) / rate;
  return Duration(static_cast<int64_t>(std::min<Wide>(wait, Duration::max().count())));
}

void TokenBucket::refund(Time now, uint64_t cost) {
  if (limits_.rate == 0) return;
  refill(now);
  level_ = std::min(level_ + static_cast<Wide>(cost) * kNano, level_max());
}

void TokenBucket::set_limits(Time now, Limits limits) {
  refill(now);
  const Limits before = limits_;
  limits_ = limits;
  seen_ = std::max(seen_, now);
  if (before.rate == 0) {
    level_ = level_max();
  } else if (level_ < 0) {
    // In time first, and no more than a century of it: the product could overflow.
    const Wide owed_ns = std::max(level_ / static_cast<Wide>(before.rate), Wide{-kCentury});
    level_ = owed_ns * static_cast<Wide>(limits.rate);
  }
  level_ = std::min(level_, level_max());
}

uint64_t DiskLimits::requests_of(uint64_t bytes) const {
  if (request_bytes_ == 0 || bytes == 0) return 1;
  return (bytes - 1) / request_bytes_ + 1;
}

Duration DiskLimits::admit(Time now, uint64_t bytes) {
  return std::max(requests_.admit(now, requests_of(bytes)), bytes_.admit(now, bytes));
}

void DiskLimits::refund(Time now, uint64_t bytes) {
  requests_.refund(now, requests_of(bytes));
  bytes_.refund(now, bytes);
}

void DiskLimits::set_limits(Time now, Limits limits) {
  request_bytes_ = limits.request_bytes;
  requests_.set_limits(now, limits.requests);
  bytes_.set_limits(now, limits.bytes);
}

}  // namespace firn::policy
