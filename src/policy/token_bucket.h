// SPDX-License-Identifier: Apache-2.0
// Limits of a disk (QoS): requests per second, bytes per second, and how much may come at once.
// Says how long each request must wait, once, when it comes; the caller sleeps that long. Ours.
//
//  B1  In any stretch of time t, no more than burst + rate * t is let through (requests above the
//      burst are let through when all of them is paid for, so one of them may exceed it).
//  B2  No drift: what is let through in the long run under load is exactly the rate. Amounts are
//      integers of 1/1,000,000,000 unit; only the answer is rounded, up.
//  B3  Fair: starts are in order of arrival, whatever their sizes; none waits longer than what was
//      admitted before it and itself cost.
//  B4  A rate of 0 is no limit: never a wait.
//  B5  Unused allowance is kept up to the burst, no further.
#pragma once

#include <cstdint>

#include "base/time.h"

namespace firn::policy {

// One limit. Units are the caller's: requests, bytes.
class TokenBucket {
 public:
  struct Limits {
    uint64_t rate = 0;   // Units per second; 0: no limit.
    uint64_t burst = 0;  // Units at once; 0: what the rate gives in 100 ms.
  };
  TokenBucket(Limits limits, Time now);

  // Takes `cost` units; returns how long from `now` they may not be used.
  Duration admit(Time now, uint64_t cost);
  // The request did not happen after all.
  void refund(Time now, uint64_t cost);
  // What is owed or kept is worth the same time, or less, at the new rate.
  void set_limits(Time now, Limits limits);

 private:
  __extension__ using Wide = __int128;

  void refill(Time now);
  Wide level_max() const;

  Limits limits_;
  Wide level_;  // Nano-units; negative: admitted in advance.
  Time seen_;
};

// The limits of one disk: a request waits for the stricter of the two.
class DiskLimits {
 public:
  struct Limits {
    TokenBucket::Limits requests;
    TokenBucket::Limits bytes;
    uint64_t request_bytes = 0;  // A longer request counts as several; 0: as one.
  };
  DiskLimits(Limits limits, Time now)
      : request_bytes_(limits.request_bytes),
        requests_(limits.requests, now),
        bytes_(limits.bytes, now) {}

  Duration admit(Time now, uint64_t bytes);
  void refund(Time now, uint64_t bytes);
  void set_limits(Time now, Limits limits);

 private:
  uint64_t requests_of(uint64_t bytes) const;

  uint64_t request_bytes_;
  TokenBucket requests_, bytes_;
};

}  // namespace firn::policy
