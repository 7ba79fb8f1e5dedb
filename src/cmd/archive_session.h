// SPDX-License-Identifier: Apache-2.0
// An archive to ask things of: its store by URL, its key from a file, and a place for the writer's
// log.
#pragma once

#include <memory>
#include <string>

#include "archive/archive.h"
#include "cmd/arguments.h"
#include "io/fiber_io.h"

namespace firn::cmd {

Result<archive::Credentials> credentials_of(Io& io, const ArchiveArguments& arguments);

class ArchiveSession {
 public:
  enum class Purpose : uint8_t { look, verify, change };  // `verify`: without a key, too.
  // The log of a writer lies in a temporary directory: nothing in it is needed once the command has
  // ended, because nothing is acknowledged before it is published.
  static Result<std::unique_ptr<ArchiveSession>> open(FiberIo& io,
                                                      const ArchiveArguments& arguments,
                                                      Purpose purpose);
  ~ArchiveSession();
  Result<void> close();
  archive::Archive& archive() { return *archive_; }
  // A temporary place for the log of a writer.
  static Result<std::string> temporary_directory();

 private:
  explicit ArchiveSession(FiberIo& io) : io_(io) {}

  FiberIo& io_;
  std::unique_ptr<ObjectStore> store_;
  std::unique_ptr<archive::Archive> archive_;
  std::string temporary_;
};

// "web@monday" in its two parts; Errc::invalid.
struct SnapshotName {
  std::string disk;
  std::string snapshot;
};
Result<SnapshotName> snapshot_name(const std::string& text);

}  // namespace firn::cmd
