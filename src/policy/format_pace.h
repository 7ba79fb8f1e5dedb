// SPDX-License-Identifier: Apache-2.0
// When the background formatter may turn one more RAW block into READY: with hysteresis between two
// marks, and never beside guests. Source: US 9747298 (the two structures); the pacing is ours.
#pragma once

#include <cstdint>

namespace firn::policy {

class FormatPace {
 public:
  struct Limits {
    uint64_t ready_low_blocks = 256;    // Starts below ...
    uint64_t ready_high_blocks = 1024;  // ... and stops here.
  };
  enum class Verdict : uint8_t {
    format,  // Do one block now.
    wait,    // Wanted, but guests are busy: look again a little later.
    rest,    // Not wanted: sleep until space is taken.
  };
  explicit FormatPace(Limits limits) : limits_(limits) {}

  // `guest_requests` counts all ever begun, `in_flight` those not ended.
  Verdict step(uint64_t ready_blocks, uint64_t raw_blocks, uint64_t guest_requests,
               uint64_t in_flight) {
    if (ready_blocks < limits_.ready_low_blocks) filling_ = true;
    if (ready_blocks >= limits_.ready_high_blocks || raw_blocks == 0) filling_ = false;
    const bool busy = in_flight > 0 || guest_requests != seen_requests_;
    seen_requests_ = guest_requests;
    if (!filling_) return Verdict::rest;
    return busy ? Verdict::wait : Verdict::format;
  }

 private:
  Limits limits_;
  bool filling_ = false;
  uint64_t seen_requests_ = 0;
};

}  // namespace firn::policy
