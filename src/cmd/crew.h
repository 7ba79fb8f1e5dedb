// SPDX-License-Identifier: Apache-2.0
// Crew: several connections to one disk, and a fiber for each, that share out one job.
//
// Contract:
//  W1  The job ends when every fiber returned. The first error is the job's; stopped() is true
//      from then on, and the others return soon.
//  W2  SIGINT, SIGTERM and SIGHUP, which are blocked (engine::block_signals), stop the job as an
//      error does, also where a fiber waits for the disk, and make the result Errc::cancelled.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cmd/nbd_client.h"
#include "io/fiber_io.h"

namespace firn::cmd {

class Crew {
 public:
  Crew(FiberIo& io, std::string socket, std::string disk)
      : io_(io), socket_(std::move(socket)), disk_(std::move(disk)) {}
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  // Connects, and calls `work` on each connection, in a fiber of its own. Once.
  Result<void> run(const std::function<Result<void>(NbdClient&)>& work);
  bool stopped() const { return stopped_; }

 private:
  Result<void> connect();
  void stop(Error error);

  FiberIo& io_;
  std::string socket_;
  std::string disk_;
  std::vector<std::unique_ptr<NbdClient>> clients_;
  Result<void> outcome_;
  bool stopped_ = false;
};

}  // namespace firn::cmd
