// SPDX-License-Identifier: Apache-2.0
// Waiting for what a command has begun: layers on their way out.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cmd/print.h"
#include "cmd/session.h"

namespace firn::cmd {

// How far the jobs of some layers are, seen in lists of jobs that come one after the other.
// Pure.
class JobWatch {
 public:
  explicit JobWatch(const std::vector<uint64_t>& layers);
  // False once none of the layers is in the list. Errc::corrupt when a job of theirs cannot go on.
  Result<bool> look(const std::vector<Job>& jobs);
  double percent() const;

 private:
  struct Seen {
    uint64_t done = 0;
    uint64_t total = 1;
    bool gone = false;
  };
  std::map<uint64_t, Seen> layers_;
};

// Until none of the layers is left; does the jobs itself when there is no daemon. A progress bar on
// a terminal. Interrupted, the jobs go on in the daemon, or when the pool is opened again.
Result<void> wait_for_jobs(FiberIo& io, Session& session, const std::vector<uint64_t>& layers,
                           const std::string& what);

}  // namespace firn::cmd
