// SPDX-License-Identifier: Apache-2.0
// Asking a running daemon: one control request over DIR/firn.sock.
#pragma once

#include <optional>
#include <string>

#include "io/io.h"
#include "wire/control.h"

namespace firn::engine {

// Where the daemon of a pool listens for control requests.
std::string control_path(const std::string& directory);

// The body of the answer, or the error that the daemon had. Nothing when no daemon listens: no
// socket there, or a stale one that a dead daemon left behind.
Result<std::optional<std::string>> ask_daemon(Io& io, const std::string& directory,
                                              const wire::ControlRequest& request);

}  // namespace firn::engine
