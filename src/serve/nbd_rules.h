// SPDX-License-Identifier: Apache-2.0
// What a request may ask, decided without I/O: the order of the checks is the order of the
// protocol's text.
//
// Contract: a request that is judged good lies within the export, carries only flags that its
// command may carry, and, if it writes, meets a writable export. Judges headers only; payloads
// are the session's.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "wire/nbd.h"

namespace firn::serve {

// What was agreed in the handshake, and how large the export is now.
struct NbdTerms {
  wire::nbd::Form form = wire::nbd::Form::simple;
  uint16_t flags = 0;  // Transmission flags, as advertised.
  uint64_t bytes = 0;
  bool has_contexts = false;
};

struct NbdVerdict {
  wire::nbd::Errno error = wire::nbd::Errno::none;
  const char* why = "";  // For the client, who sent it.
  bool good() const { return error == wire::nbd::Errno::none; }
};

// Everything but NBD_CMD_DISC.
NbdVerdict judge(const wire::nbd::Request& request, const NbdTerms& terms);

// False when the payload that the header announces is too long to be believed: nothing after it can
// be either, so the connection ends.
bool payload_is_believable(const wire::nbd::Request& request, wire::nbd::Form form);

// How a device's error reads on the wire.
wire::nbd::Errno errno_for(Errc code);

}  // namespace firn::serve
