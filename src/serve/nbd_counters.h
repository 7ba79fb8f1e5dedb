// SPDX-License-Identifier: Apache-2.0
// What NBD counts, for metrics. Plain numbers: written and read on the shard's own thread.
#pragma once

#include <array>
#include <cstdint>

#include "wire/nbd.h"

namespace firn::serve {

struct NbdExportCounters {
  std::array<uint64_t, wire::nbd::kCommands + 1> requests{};  // By command; the last is "unknown".
  std::array<uint64_t, wire::nbd::kCommands + 1> errors{};    // Answered with an error.
  uint64_t bytes_read = 0;
  uint64_t bytes_written = 0;
  uint64_t in_flight = 0;    // Now.
  uint64_t connections = 0;  // Now.

  static size_t index_of(wire::nbd::Command command) {
    const auto index = static_cast<size_t>(command);
    return index < wire::nbd::kCommands ? index : wire::nbd::kCommands;
  }
};

struct NbdServerCounters {
  uint64_t connections = 0;  // Now.
  uint64_t connections_total = 0;
  uint64_t connections_refused = 0;  // Beyond the limit.
  uint64_t handshakes_failed = 0;    // Broken off, refused, or too slow.
  uint64_t tls_connections_total = 0;
  uint64_t protocol_errors = 0;  // Connections dropped for what they sent.
  uint64_t receives = 0;         // Together with sends: how well batches form.
  uint64_t sends = 0;
  uint64_t replies = 0;
  uint64_t replies_held = 0;  // Held back so that more go with one send ...
  uint64_t sends_late = 0;    // ... and sends because their time had come.
};

}  // namespace firn::serve
