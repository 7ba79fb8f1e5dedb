// SPDX-License-Identifier: Apache-2.0
// A child process with limits: qemu-img, which reads files that nobody vouches for.
//
// Contract:
//  Y1  The child dies when we do (PR_SET_PDEATHSIG), has no more memory and CPU time than it was
//      given, gets no descriptors but 0, 1, 2, and standard input is /dev/null.
//  Y2  SIGINT, SIGTERM and SIGHUP, which are blocked (engine::block_signals), end it and make the
//      result Errc::cancelled.
//  Y3  Its standard error is kept, bounded.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/fiber_io.h"

namespace firn::cmd {

struct ChildLimits {
  uint64_t memory_bytes = uint64_t{4} << 30;
  uint64_t cpu_seconds = 600;
};

struct ChildEnd {
  int status = 0;            // Its exit status.
  std::string first_errors;  // What it said first on standard error, and last.
  std::string last_errors;
};

// Runs it to its end. `on_output` gets what it prints on standard output, in pieces. Errc::io when
// it was ended by a signal.
Result<ChildEnd> run_child(FiberIo& io, const std::vector<std::string>& command,
                           const ChildLimits& limits,
                           const std::function<void(std::string_view)>& on_output);
// The same where only status 0 is good: the last line of its standard error is the error.
Result<void> run_child_well(FiberIo& io, const std::vector<std::string>& command,
                            const ChildLimits& limits,
                            const std::function<void(std::string_view)>& on_output);

}  // namespace firn::cmd
