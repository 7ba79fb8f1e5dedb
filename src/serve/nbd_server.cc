// SPDX-License-Identifier: Apache-2.0
#include "serve/nbd_server.h"

#include <algorithm>

#include "io/socket.h"

namespace firn::serve {
namespace {

using std::chrono::milliseconds;

constexpr Duration kWatchPeriod = milliseconds(50);   // While somebody has a deadline, only.
constexpr Duration kDrainPeriod = milliseconds(5);    // While draining, only.
constexpr Duration kAcceptPause = milliseconds(100);  // After a failure: out of descriptors, say.

}  // namespace

NbdServer::NbdServer(Io& io, ExportSource& exports, Log& log, Settings settings)
    : io_(io), world_(io, exports, log), group_(io) {
  CHECK(settings.tls_mode == TlsMode::off || settings.tls != nullptr);
  world_.tls_mode = settings.tls_mode;
  world_.tls = settings.tls;
  world_.default_export = std::move(settings.default_export);
  world_.limits = settings.limits;
  io_.spawn(group_, [this] { watch_deadlines(); });
}

NbdServer::~NbdServer() { CHECK(group_.running() == 0, "drain() the server first"); }

void NbdServer::listen(std::unique_ptr<Socket> listener, std::string name) {
  CHECK(!draining_);
  listeners_.push_back({std::move(listener), std::move(name)});
  io_.spawn(group_, [this, &added = listeners_.back()] { accept_from(added); });
}

void NbdServer::accept_from(Listener& listener) {
  while (!draining_) {
    Result<std::unique_ptr<Socket>> socket = io_.accept(*listener.socket);
    if (draining_) return;
    if (!socket) {
      world_.log.line(Severity::error, "accept failed", listener.name, text_of(socket.error()));
      io_.sleep(kAcceptPause);
      continue;
    }
    admit(socket.take());
  }
}

void NbdServer::admit(std::unique_ptr<Socket> socket) {
  if (sessions_.size() >= world_.limits.connections) {
    if (world_.numbers.connections_refused++ == 0) {
      world_.log.line(Severity::warning, "connection refused", socket->peer(),
                      fmt::format("there are {} already", sessions_.size()));
    }
    io_.shutdown(*socket);
    return;
  }
  auto session = std::make_unique<NbdSession>(world_, std::move(socket));
  io_.spawn(group_, [this, held = std::move(session)] { run_session(*held); });
}

void NbdServer::converse(std::unique_ptr<Socket> socket) {
  NbdSession session(world_, std::move(socket));
  run_session(session);
}

void NbdServer::run_session(NbdSession& session) {
  if (draining_) {
    session.abort(io_);
    return;
  }
  const auto place = sessions_.insert(sessions_.end(), &session);
  ++world_.numbers.connections_total;
  ++world_.numbers.connections;
  session.run(io_);
  --world_.numbers.connections;
  sessions_.erase(place);
  if (sessions_.empty()) io_.wake(nobody_left_);
}

// Io has no wait with a limit, so somebody looks at the clock while a session has a deadline.
void NbdServer::watch_deadlines() {
  while (!draining_) {
    std::optional<Time> next;
    const Time now = io_.now();
    for (NbdSession* session : sessions_) {
      const std::optional<Time> deadline = session->deadline();
      if (!deadline) continue;
      if (*deadline <= now) {
        session->abort(io_);
      } else if (!next || *deadline < *next) {
        next = deadline;
      }
    }
    if (next) {
      io_.sleep(std::min(kWatchPeriod, *next - now));
    } else {
      io_.park(world_.watcher);
    }
  }
}

void NbdServer::drain(Duration patience) {
  draining_ = true;
  io_.wake(world_.watcher);
  for (Listener& listener : listeners_) io_.shutdown(*listener.socket);
  for (NbdSession* session : sessions_) session->begin_drain(io_);
  const Time until = io_.now() + patience;
  while (!sessions_.empty() && io_.now() < until) {
    io_.sleep(std::min(kDrainPeriod, until - io_.now()));
  }
  for (NbdSession* session : sessions_) {
    world_.log.line(Severity::warning, "client cut off", session->peer(),
                    "it did not finish in time");
    session->abort(io_);
  }
  while (!sessions_.empty()) io_.park(nobody_left_);  // Those of converse() are not in our group.
  group_.wait();
}

Result<std::unique_ptr<Socket>> listen_at(std::string_view address, uint32_t mode) {
  if (address.starts_with("unix:")) return listen_unix(std::string(address.substr(5)), mode);
  if (address.starts_with("tcp:")) return listen_tcp(std::string(address.substr(4)));
  return fail(Errc::invalid, "'{}' is neither unix:PATH nor tcp:HOST:PORT", address);
}

}  // namespace firn::serve
