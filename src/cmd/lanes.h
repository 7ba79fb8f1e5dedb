// SPDX-License-Identifier: Apache-2.0
// Several connections to one disk, for work that hands out lanes itself. Signals end it as they end
// a crew (cmd/crew.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cmd/crew.h"

namespace firn::cmd {

// Runs `work` once, with all connections.
Result<void> with_lanes(FiberIo& io, const std::string& socket, const std::string& disk,
                        const std::function<Result<void>(std::vector<NbdClient*>&)>& work);

}  // namespace firn::cmd
