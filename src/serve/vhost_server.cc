// SPDX-License-Identifier: Apache-2.0
#include "serve/vhost_server.h"

#include <algorithm>

#include "base/check.h"
#include "serve/vhost_blk.h"
#include "serve/vhost_session.h"

namespace firn::serve {
namespace {

using std::chrono::milliseconds;

constexpr Duration kDrainPeriod = milliseconds(5);    // While draining, only.
constexpr Duration kAcceptPause = milliseconds(100);  // After a failure: out of descriptors, say.

}  // namespace

VhostServer::VhostServer(Io& io, ExportSource& exports, Log& log)
    : io_(io), exports_(exports), log_(log), group_(io) {}

VhostServer::~VhostServer() { CHECK(group_.running() == 0, "drain() the server first"); }

void VhostServer::offer(std::string name, std::unique_ptr<Socket> listener) {
  CHECK(!draining_);
  auto port = std::make_unique<Port>();
  port->name = std::move(name);
  port->listener = std::move(listener);
  counters_.try_emplace(port->name);
  Port& added = *port;
  ports_.push_back(std::move(port));
  io_.spawn(group_, [this, &added] { accept_from(added); });
}

void VhostServer::withdraw(std::string_view name) {
  for (const std::unique_ptr<Port>& port : ports_) {
    if (port->withdrawn || port->name != name) continue;
    port->withdrawn = true;
    io_.shutdown(*port->listener);
  }
}

// Ends, and the port with it, when nobody can come any more and nobody is there.
void VhostServer::accept_from(Port& port) {
  while (!draining_ && !port.withdrawn) {
    Result<std::unique_ptr<Socket>> socket = io_.accept(*port.listener);
    if (draining_ || port.withdrawn) break;
    if (!socket) {
      log_.line(Severity::error, "accept failed", port.name, text_of(socket.error()));
      io_.sleep(kAcceptPause);
      continue;
    }
    admit(port, socket.take());
  }
  while (port.taken) io_.park(port.over);
  ports_.remove_if([&](const std::unique_ptr<Port>& each) { return each.get() == &port; });
}

void VhostServer::admit(Port& port, std::unique_ptr<Socket> socket) {
  while (port.session != nullptr && port.session->is_ending()) io_.park(port.over);
  if (port.taken) {
    ++counters_[port.name].connections_refused;
    log_.line(Severity::warning, "front end refused", port.name,
              "another one is connected; a disk has one guest at a time");
    io_.shutdown(*socket);
    return;
  }
  if (draining_ || port.withdrawn) return;
  port.taken = true;
  io_.spawn(group_, [this, &port, held = std::move(socket)]() mutable {
    serve(&port, port.name, std::move(held));
    port.taken = false;
    io_.wake(port.over);
  });
}

void VhostServer::converse(const std::string& name, std::unique_ptr<Socket> socket) {
  serve(nullptr, name, std::move(socket));
}

void VhostServer::serve(Port* port, const std::string& name, std::unique_ptr<Socket> socket) {
  VhostCounters& counters = counters_[name];
  Result<Export> exported = exports_.find(io_, name);
  if (!exported) {
    log_.line(Severity::warning, "front end refused", printable(name), text_of(exported.error()));
    io_.shutdown(*socket);
    return;
  }
  VhostBlk device(exported.take(), log_, counters);
  VhostSession session(io_, log_, device, counters, name, std::move(socket));
  const auto place = sessions_.insert(sessions_.end(), &session);
  if (port != nullptr) port->session = &session;
  if (draining_) session.begin_drain();
  session.run();
  sessions_.erase(place);
  if (port != nullptr) port->session = nullptr;
  if (sessions_.empty()) io_.wake(nobody_left_);
}

void VhostServer::look_at_disks() {
  for (VhostSession* session : sessions_) session->look_at_config();
}

void VhostServer::drain(Duration patience) {
  draining_ = true;
  for (const std::unique_ptr<Port>& port : ports_) io_.shutdown(*port->listener);
  for (VhostSession* session : sessions_) session->begin_drain();
  const Time until = io_.now() + patience;
  while (!sessions_.empty() && io_.now() < until) {
    io_.sleep(std::min(kDrainPeriod, until - io_.now()));
  }
  for (VhostSession* session : sessions_) {
    log_.line(Severity::warning, "front end cut off", session->name(),
              "its requests did not end in time");
    session->abort();
  }
  while (!sessions_.empty()) io_.park(nobody_left_);  // Those of converse() are not in our group.
  group_.wait();
}

}  // namespace firn::serve
