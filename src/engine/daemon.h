// SPDX-License-Identifier: Apache-2.0
// The daemon: an Engine, the front ends that serve its disks, the control plane, and their end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/log.h"
#include "engine/vhost_disks.h"
#include "io/fiber_io.h"
#include "store/pool.h"

namespace firn::engine {

struct DaemonSettings {
  std::string directory;
  std::vector<std::string> nbd;  // "unix:PATH", "tcp:HOST:PORT"; DIR/nbd.sock is always there too.
  uint32_t nbd_mode = 0660;      // Of the Unix sockets in `nbd`.
  VhostSettings vhost;
  std::string http;              // "HOST:PORT", or empty.
  std::string tls_certificates;  // A directory with ca-cert.pem, server-cert.pem, server-key.pem.
  std::string tls_psk;           // A file of USER:HEXKEY lines.
  bool tls_required = false;     // Else a client may choose.
  store::PoolSettings pool;
  LogSettings log;
};

// Opens the pool, serves until SIGTERM or SIGINT, drains and closes. Prints one line on standard
// output once everything accepts. The signals must be blocked in every thread of the process
// (block_signals).
Result<void> serve_pool(FiberIo& io, const DaemonSettings& settings);

// Blocks SIGTERM, SIGINT and SIGHUP in this thread and those it will start; call it before there
// are any.
void block_signals();

}  // namespace firn::engine
