// SPDX-License-Identifier: Apache-2.0
// VhostDisks: a directory with one vhost-user socket for each disk that is served, kept in step
// with the pool's disks.
//
// Contract:
//  H1  refresh() makes the directory agree with the disks: sockets of new ones appear, those of
//      disks that were deleted, renamed or are not served any more go. A guest that is connected
//      keeps its disk; guests of disks with a new size are told.
//  H2  A socket that cannot be made (its path is too long, somebody else listens there) is a line
//      in the log; the other disks are not held up.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "engine/exports.h"
#include "engine/log.h"
#include "serve/vhost_server.h"

namespace firn::engine {

struct VhostSettings {
  std::string directory;  // Empty: no vhost-user.
  uint32_t mode = 0660;   // Of the sockets.
  std::string owner;      // "USER:GROUP", "USER", ":GROUP", or empty: whoever runs the daemon.
};

class VhostDisks {
 public:
  // Errc::invalid when there is no such user or group, or the directory cannot be made.
  static Result<std::unique_ptr<VhostDisks>> begin(Io& io, DiskExports& exports, ServeLog& log,
                                                   const VhostSettings& settings);
  void refresh();
  // Takes the sockets away, and lets what is in flight end.
  void end(Duration patience);

  const serve::VhostServer& server() const { return server_; }
  const std::string& directory() const { return settings_.directory; }

 private:
  VhostDisks(Io& io, DiskExports& exports, ServeLog& log, const VhostSettings& settings);
  Result<void> find_owner();
  Result<void> add(const std::string& disk);
  std::string path_of(const std::string& disk) const;

  Io& io_;
  DiskExports& exports_;
  VhostSettings settings_;
  uint32_t user_ = UINT32_MAX;  // As chown understands it: leave it.
  uint32_t group_ = UINT32_MAX;
  std::map<std::string, std::string> paths_;  // By disk; empty: it could not be made.
  serve::VhostServer server_;
};

}  // namespace firn::engine
