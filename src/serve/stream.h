// SPDX-License-Identifier: Apache-2.0
// Stream: a connection as bytes in both directions, plain here, encrypted in tls.h.
//
// Contract:
//  T1  One fiber receives and one sends at a time; the two may wait at once.
//  T2  receive() gives at least one byte, or 0 at the end that the peer announced. A TLS
//      connection cut without its farewell is an error, so that a truncation is never taken for
//      an end.
//  T3  abort() does not wait; who waits in receive() or send() then returns with 0 or an error.
//      Does not own the socket.
#pragma once

#include <string>

#include "io/io.h"

namespace firn::serve {

class Stream {
 public:
  virtual ~Stream() = default;
  virtual Result<size_t> receive(Io& io, Bytes into) = 0;
  virtual Result<void> send(Io& io, Iovec from) = 0;
  // Says farewell where the protocol has one (which may wait), then ends both directions.
  virtual void close(Io& io) = 0;

  void abort(Io& io) { io.shutdown(socket_); }
  std::string peer() const { return socket_.peer(); }

 protected:
  explicit Stream(Socket& socket) : socket_(socket) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Socket& socket_;
};

class PlainStream final : public Stream {
 public:
  explicit PlainStream(Socket& socket) : Stream(socket) {}
  Result<size_t> receive(Io& io, Bytes into) override { return io.receive(socket_, into); }
  Result<void> send(Io& io, Iovec from) override { return io.send(socket_, from); }
  void close(Io& io) override { io.shutdown(socket_); }
};

}  // namespace firn::serve
