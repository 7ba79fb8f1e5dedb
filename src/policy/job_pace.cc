// SPDX-License-Identifier: Apache-2.0
#include "policy/job_pace.h"

#include <algorithm>

namespace firn::policy {

void P99::add(Duration value) {
  constexpr int64_t kDown = 2048;  // A value below: this part less. A value above: 99 such more.
  const int64_t ns = std::max<int64_t>(value.count(), 1);
  if (count_++ == 0 && value_ns_ == 0) {
    value_ns_ = ns;
  } else if (ns > value_ns_) {
    value_ns_ = std::min(ns, value_ns_ + 99 * value_ns_ / kDown + 1);
  } else {
    value_ns_ = std::max(ns, value_ns_ - value_ns_ / kDown);
  }
}

void JobPace::look(size_t in_flight, uint64_t requests) {
  const bool quiet = in_flight == 0 && requests == seen_requests_;
  seen_requests_ = requests;
  looks_quiet_ = quiet ? std::min(looks_quiet_ + 1, limits_.quiet_looks) : 0;
}

// Halves at once, recovers slowly; each decision needs samples of its own (J4).
void JobPace::adjust_share() {
  if (all_.count() < kSamplesMin || quiet_.count() < kSamplesMin) return;
  all_.restart_count();
  if (all_.value() > quiet_.value() + quiet_.value() / 2) {
    share_permille_ = std::max(share_permille_ / 2, limits_.floor_permille);
  } else {
    share_permille_ = std::min(share_permille_ + share_permille_ / 16 + 1, limits_.short_permille);
  }
}

Duration JobPace::rest_after(Duration step, size_t guests_in_flight, uint64_t guest_requests) {
  look(guests_in_flight, guest_requests);
  adjust_share();
  if (!busy()) return Duration::zero();
  uint32_t share = share_permille_;
  if (step > quiet_p99()) share = std::min(share, limits_.long_permille);
  share = std::clamp<uint32_t>(share, std::max(limits_.floor_permille, 1U), 1000);
  // A step of hours would overflow the product; its rest is the longest anyway.
  const Duration taken = std::clamp(step, Duration::zero(), limits_.rest_max * 1000);
  const Duration rest((taken.count() * (1000 - share) + share - 1) / share);  // Rounded up: J2.
  return std::min(rest, limits_.rest_max);
}

}  // namespace firn::policy
