// SPDX-License-Identifier: Apache-2.0
// What vhost-user counts, a disk, for metrics. Plain numbers: written and read on the shard's own
// thread.
#pragma once

#include <array>
#include <cstdint>

namespace firn::serve {

enum class VhostOp : uint8_t { read, write, flush, get_id, discard, zero, unknown };
inline constexpr size_t kVhostOps = 7;

struct VhostCounters {
  std::array<uint64_t, kVhostOps> requests{};
  std::array<uint64_t, kVhostOps> errors{};  // Answered with an error.
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  uint64_t in_flight = 0;    // Now.
  uint64_t connections = 0;  // Now: 0 or 1.
  uint64_t connections_total = 0;
  uint64_t connections_refused = 0;  // While somebody else was connected.
  uint64_t protocol_errors = 0;      // Front ends dropped, and rings broken, for what they said.
  uint64_t kicks = 0;                // Signals that the guest gave ...
  uint64_t polls = 0;                // ... and batches that were found without.
  uint64_t calls = 0;                // Signals given to the guest ...
  uint64_t calls_spared = 0;         // ... and batches for which it wanted none.
  uint64_t calls_held = 0;           // Batches whose signal was held back for more of them ...
  uint64_t calls_late = 0;           // ... and signals given because their time had come.
  uint64_t paced = 0;                // Requests that have ended and are held, now.
  uint64_t paced_by_safepoint = 0;   // Let go because the guest could take them ...
  uint64_t paced_by_maturity = 0;    // ... and because their time had come.
  uint64_t resubmitted = 0;          // Requests taken over from a predecessor.
};

}  // namespace firn::serve
