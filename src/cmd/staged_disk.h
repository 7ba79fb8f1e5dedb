// SPDX-License-Identifier: Apache-2.0
// Disks under construction: they have a reserved name until everything in them is durable, so that
// a half-made one is never mistaken for a good one.
#pragma once

#include <string>

#include "cmd/session.h"

namespace firn::cmd {

// The reserved name for `name`; Errc::invalid when there can be none.
Result<std::string> staged_name(const std::string& name);
// Errc::exists when `name` is taken. Removes what an interrupted one has left.
Result<void> make_room(Session& session, const std::string& name, const std::string& staged);
Result<void> remove_staged(FiberIo& io, Session& session, const std::string& staged);
// "WHAT: why; OUTCOME".
Error with_context(Error error, const std::string& what, const char* outcome);

}  // namespace firn::cmd
