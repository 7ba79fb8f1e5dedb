// SPDX-License-Identifier: Apache-2.0
// A pool to ask things of: through its daemon when one runs, else opened by this process.
//
// Contract: both ways give the same answers, by the same code (engine/engine.h). Close it: what was
// opened here is written home and unlocked.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/lone_export.h"
#include "io/fiber_io.h"
#include "wire/control.h"

namespace firn::cmd {

class Session {
 public:
  enum class Purpose : uint8_t { look, change };
  static Result<std::unique_ptr<Session>> open(FiberIo& io, const std::string& directory,
                                               Purpose purpose);
  ~Session();  // Closes, if nobody did.
  Result<void> close();

  Result<std::string> ask(const wire::ControlRequest& request);
  // Does what is to be done in the background, where no daemon does it.
  Result<void> sweep();
  bool has_daemon() const { return engine_ == nullptr; }

  // The path of a socket where NBD clients find this disk, and no other. Lives as long as the
  // session.
  Result<std::string> socket_of(const std::string& disk);
  // Without a daemon: serves this disk on a connection, until that is over.
  Result<void> converse(const std::string& disk, std::unique_ptr<Socket> client);
  // Ends the socket before the session does, and lets go of the disk.
  void end_socket();

 private:
  Session(FiberIo& io, std::string directory) : io_(io), directory_(std::move(directory)) {}

  FiberIo& io_;
  std::string directory_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<engine::LoneExport> export_;
};

// Nobody makes a disk with a name that imports use.
Result<void> check_reserved(std::string_view name);

}  // namespace firn::cmd
