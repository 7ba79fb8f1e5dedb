// SPDX-License-Identifier: Apache-2.0
// NbdSession: one connection from its greeting to its end.
//
// Contract:
//  S1  A client that is slow, silent, hostile or gone costs its own bounded memory and nobody's
//      time: see NbdLimits. What it sends is decoded by wire/ and judged by nbd_rules before
//      anything is done.
//  S2  A violation of the protocol ends the connection, with one log line that names peer and
//      value.
//  S3  Requests that were accepted run to their end and are answered before an orderly end, also
//      when draining; a reply is never sent twice, and never for something that did not happen.
//  S4  Before TLS where TLS is required no export is named, counted or touched.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "io/io.h"
#include "serve/exports.h"
#include "serve/log.h"
#include "serve/nbd_counters.h"

namespace firn::serve {

class NbdTransmission;
class Stream;
class TlsContext;

struct NbdLimits {
  Duration handshake = std::chrono::seconds(30);  // From accept to transmission.
  Duration farewell = std::chrono::seconds(30);   // For the last replies, once the client has left.
  uint32_t requests = 128;                        // In flight, a connection.
  size_t payload_bytes = 4 * kMiB;                // In flight, a connection; plus one piece.
  size_t piece_bytes = 1 * kMiB;                  // What a large request is cut into.
  size_t receive_bytes = 256 * kKiB;              // What one receive may bring; at least 96 KiB.
  uint32_t connections = 256;                     // A server.
};

enum class TlsMode : uint8_t { off, allowed, required };

// What all sessions of a server share. Outlives them.
struct NbdWorld {
  ExportSource& exports;
  Log& log;
  NbdServerCounters& counters;
  TlsMode tls_mode = TlsMode::off;
  const TlsContext* tls = nullptr;  // Present unless tls_mode is off.
  std::string default_export;       // "" means: the only one there is.
  NbdLimits limits;

  // Counters by export; never null, never dies before the world.
  virtual NbdExportCounters& counters_of(const std::string& name) = 0;
  // A session has a deadline that it did not have.
  virtual void deadline_set() = 0;

 protected:
  NbdWorld(ExportSource& source, Log& sink, NbdServerCounters& numbers)
      : exports(source), log(sink), counters(numbers) {}
  ~NbdWorld() = default;
};

class NbdSession {
 public:
  NbdSession(NbdWorld& world, std::unique_ptr<Socket> socket);
  ~NbdSession();
  NbdSession(const NbdSession&) = delete;
  NbdSession& operator=(const NbdSession&) = delete;

  // The whole conversation; returns when it is over and nothing of it is in flight.
  void run(Io& io);

  // Answers what is in flight, takes nothing new, then ends. Does not wait.
  void begin_drain(Io& io);
  // Ends it now: what is in flight still runs, unanswered. Does not wait.
  void abort(Io& io);
  // When somebody should call abort(), as things stand.
  std::optional<Time> deadline() const { return deadline_; }
  std::string peer() const { return socket_->peer(); }

 private:
  void set_deadline(Time deadline);

  NbdWorld& world_;
  std::unique_ptr<Socket> socket_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<NbdTransmission> transmission_;
  std::optional<Time> deadline_;
  bool draining_ = false;
};

}  // namespace firn::serve
