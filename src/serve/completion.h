// SPDX-License-Identifier: Apache-2.0
// How those who use a disk hear of what has ended: as the disk's settings say (policy/).
#pragma once

#include <cstdint>

#include "policy/completion_coalesce.h"
#include "policy/completion_pace.h"

namespace firn::serve {

// Shared with who changes it, on the same shard: it holds for those who are connected, too.
struct CompletionRules {
  bool gathers = false;  // Signals and replies are gathered while a client has much in flight.
  policy::CompletionPace::Limits pace;  // Of guests; NBD's replies are not paced.
  uint64_t version = 1;                 // Another one with each change.
};

}  // namespace firn::serve
