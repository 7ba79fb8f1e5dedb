// SPDX-License-Identifier: Apache-2.0
// Notes on the design. A watcher fiber cuts connections that are late. It sleeps a second at a time
// while there are connections and parks while there are none, so that V1 costs nothing when idle
// (V4).
#include "engine/http_server.h"

#include "engine/log.h"
#include "wire/control.h"

namespace firn::engine {
namespace {

constexpr Duration kTick = std::chrono::milliseconds(250);
constexpr Duration kLinger = std::chrono::seconds(1);
constexpr Duration kPause = std::chrono::milliseconds(100);  // After an accept that failed.
constexpr size_t kChunkBytes = 4096;
constexpr size_t kDrainBytesMax = 1 << 20;

HttpAnswer problem(int status, Error error) {
  return {status, "application/problem+json",
          wire::encode_problem(status, error.code, text_of(error))};
}

// Appends what the peer sends next. Errc::cancelled at the end of the stream.
Result<void> receive_more(Io& io, Socket& socket, std::string& text, size_t bytes_max) {
  const size_t before = text.size();
  text.resize(before + std::min(kChunkBytes, bytes_max - before));
  const Bytes room = std::as_writable_bytes(std::span(text)).subspan(before);
  const Result<size_t> got = io.receive(socket, room);
  text.resize(before + (got ? *got : 0));
  if (!got) return got.error();
  if (*got == 0)
    return fail(Errc::cancelled, "{} closed before its request was complete", socket.peer());
  return ok;
}

Result<void> send_text(Io& io, Socket& socket, std::string_view text) {
  const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
  return io.send(socket, Iovec(&slice, 1));
}

}  // namespace

void HttpServer::listen(Io& io, Group& group, std::unique_ptr<Socket> socket, std::string where) {
  listeners_.push_back(std::make_unique<Listener>(Listener{std::move(socket), std::move(where)}));
  Listener& listener = *listeners_.back();
  io.spawn(group, [this, &io, &group, &listener] { accept_all(io, group, listener); });
  if (!watching_) {
    watching_ = true;
    io.spawn(group, [this, &io] { watch(io); });
  }
}

void HttpServer::stop(Io& io) {
  stopping_ = true;
  for (const auto& listener : listeners_) io.shutdown(*listener->socket);
  for (Connection& connection : connections_) {
    if (connection.waiting) io.shutdown(*connection.socket);
  }
  io.wake(watcher_);
}

void HttpServer::accept_all(Io& io, Group& group, Listener& listener) {
  while (!stopping_) {
    Result<std::unique_ptr<Socket>> socket = io.accept(*listener.socket);
    if (stopping_) return;
    if (!socket) {
      // Out of descriptors, or a peer that went away: neither is a reason to stop listening.
      log_error("cannot accept", socket.error(), listener.where);
      io.sleep(kPause);
      continue;
    }
    if (connections_.size() >= limits_.connections_max) {
      ++refused_;
      continue;
    }
    connections_.push_back(Connection{socket.take(), Time{}, true});
    const Place place = std::prev(connections_.end());
    expect_peer(io, *place);
    io.wake(watcher_);
    io.spawn(group, [this, &io, place] { serve(io, place); });
  }
}

void HttpServer::expect_peer(Io& io, Connection& connection) {
  connection.deadline = io.now() + limits_.patience;
  connection.waiting = true;
}

// Goes on behind stop(), until the last answer is out: V1 holds for these too.
void HttpServer::watch(Io& io) {
  while (!stopping_ || !connections_.empty()) {
    if (connections_.empty()) {
      io.park(watcher_);
      continue;
    }
    io.sleep(std::min(kTick, limits_.patience));
    const Time now = io.now();
    for (Connection& connection : connections_) {
      if (connection.waiting && connection.deadline < now) io.shutdown(*connection.socket);
    }
  }
}

void HttpServer::serve(Io& io, Place place) {
  const Result<void> done = converse(io, *place);
  if (!done)
    log_event(LogLevel::debug, "request abandoned", {{"why", std::string(text_of(done.error()))}});
  connections_.erase(place);
}

Result<void> HttpServer::converse(Io& io, Connection& connection) {
  Socket& socket = *connection.socket;
  std::string text;
  size_t head = 0;
  while (head == 0) {
    const Result<std::optional<size_t>> length = wire::head_length(text);
    if (!length) return refuse(io, connection, 431, length.error());
    if (length->has_value()) {
      head = **length;
    } else {
      TRY(receive_more(io, socket, text, wire::kHeadBytesMax));
    }
  }
  const Result<wire::HttpRequest> request =
      wire::parse_request(std::string_view(text).substr(0, head));
  if (!request) return refuse(io, connection, 400, request.error());
  if (request->body_bytes > wire::kControlBodyBytesMax) {
    const Error error = fail(Errc::invalid, "the body has {} bytes; at most {} are allowed",
                             request->body_bytes, wire::kControlBodyBytesMax);
    return refuse(io, connection, 413, error);
  }
  if (request->expects_continue) TRY(send_text(io, socket, "HTTP/1.1 100 Continue\r\n\r\n"));
  const size_t whole = head + static_cast<size_t>(request->body_bytes);
  while (text.size() < whole) TRY(receive_more(io, socket, text, whole));
  ++requests_;
  connection.waiting = false;
  const HttpAnswer answer = handler_(
      io, *request, std::string_view(text).substr(head, static_cast<size_t>(request->body_bytes)));
  return reply(io, connection, answer);
}

Result<void> HttpServer::refuse(Io& io, Connection& connection, int status, Error error) {
  TRY(reply(io, connection, problem(status, error)));
  // The peer may still be sending what we refused to read, and closing now would reset the
  // connection under our answer: its end comes first, or a moment, or more than a mistake.
  connection.deadline = io.now() + std::min(kLinger, limits_.patience);
  std::string rest;
  for (size_t drained = 0; drained < kDrainBytesMax; drained += rest.size()) {
    rest.clear();
    TRY(receive_more(io, *connection.socket, rest, kChunkBytes));
  }
  return ok;
}

Result<void> HttpServer::reply(Io& io, Connection& connection, const HttpAnswer& answer) {
  expect_peer(io, connection);
  const wire::HttpResponse head{answer.status, answer.type, answer.body.size()};
  return send_text(io, *connection.socket, wire::text_of_response(head) + answer.body);
}

}  // namespace firn::engine
