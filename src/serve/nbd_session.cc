// SPDX-License-Identifier: Apache-2.0
#include "serve/nbd_session.h"

#include "serve/inbox.h"
#include "serve/nbd_handshake.h"
#include "serve/nbd_transmission.h"
#include "serve/stream.h"

namespace firn::serve {

NbdSession::NbdSession(NbdWorld& world, std::unique_ptr<Socket> socket)
    : world_(world), socket_(std::move(socket)), stream_(std::make_unique<PlainStream>(*socket_)) {}

NbdSession::~NbdSession() = default;

void NbdSession::run(Io& io) {
  set_deadline(io.now() + world_.limits.handshake);
  Inbox inbox(world_.limits.receive_bytes);
  NbdHandshake handshake(world_, *socket_, stream_, inbox);
  Result<std::optional<NbdAgreement>> agreement = handshake.run(io);
  if (!agreement) {
    ++world_.counters.handshakes_failed;
    const bool late = io.now() >= *deadline_;
    world_.log.line(Severity::warning, "handshake failed", socket_->peer(),
                    late ? "it took too long" : text_of(agreement.error()));
  }
  if (agreement && agreement->has_value() && !draining_) {
    const std::string name = (*agreement)->exported.name;
    deadline_.reset();
    world_.log.line(Severity::info, "client connected", socket_->peer(), printable(name));
    transmission_ =
        std::make_unique<NbdTransmission>(world_, io, *stream_, inbox, std::move(**agreement));
    transmission_->read_requests();
    set_deadline(io.now() + world_.limits.farewell);
    transmission_->finish();
    world_.log.line(Severity::info, "client left", socket_->peer(), printable(name));
  }
  stream_->close(io);
  deadline_.reset();
  transmission_.reset();
}

void NbdSession::set_deadline(Time deadline) {
  deadline_ = deadline;
  world_.deadline_set();
}

void NbdSession::begin_drain(Io& io) {
  draining_ = true;
  if (transmission_ != nullptr) {
    transmission_->begin_drain();
  } else {
    io.shutdown(*socket_);
  }
}

void NbdSession::abort(Io& io) { io.shutdown(*socket_); }

}  // namespace firn::serve
