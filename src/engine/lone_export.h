// SPDX-License-Identifier: Apache-2.0
// LoneExport: one disk or snapshot, offered on a Unix socket of its own that only this user may
// open: for import, export and --stdio. It is the default export there, and the only one.
#pragma once

#include <memory>
#include <string>

#include "disk/disks.h"
#include "engine/exports.h"
#include "engine/log.h"
#include "io/io.h"
#include "serve/nbd_server.h"

namespace firn::engine {

class LoneExport {
 public:
  // Listens at DIR/nbd-PID-N.sock. Errc::not_found when there is no such disk.
  static Result<std::unique_ptr<LoneExport>> begin(Io& io, const std::string& directory,
                                                   disk::Disks& disks, const std::string& disk,
                                                   DiskPaths* paths = nullptr);
  // Lets connections finish, for a moment, and takes the socket away. Call once, before
  // destruction.
  void end(Io& io);

  const std::string& path() const { return path_; }
  // Whether somebody came, and everybody is gone again.
  bool is_over() const;
  bool was_used() const { return server_.counters().connections_total > 0; }

 private:
  LoneExport(Io& io, disk::Disks& disks, const std::string& disk, DiskPaths* paths,
             std::string path);

  LoneExports exports_;
  ServeLog log_;
  serve::NbdServer server_;
  std::string path_;
};

// What daemons and commands that were killed left in DIR. Only for who holds the pool's lock alone.
void remove_stale_sockets(const std::string& directory);

}  // namespace firn::engine
