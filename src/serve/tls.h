// SPDX-License-Identifier: Apache-2.0
// TLS for front ends: 1.2 and 1.3, by certificates or by pre-shared keys, over OpenSSL.
//
// Contract:
//  L1  Files are laid out as QEMU and libvirt lay them out: server-cert.pem and server-key.pem
//      in one directory, ca-cert.pem beside them when clients must show a certificate of that
//      authority.
//  L2  A file of pre-shared keys holds one "user:hexkey" on each line ('#' begins a comment), as
//      psktool writes it.
//      Beside certificates, keys are for clients that have none; then those must be verified.
//  L3  OpenSSL never touches a socket: bytes pass through memory, so that waiting stays with Io.
//  L4  Renegotiation, compression and session tickets are off.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/stream.h"

struct ssl_st;
struct ssl_ctx_st;

namespace firn::serve {

struct TlsFiles {
  std::string directory;       // Of certificates; "" for none.
  bool verify_clients = true;  // Clients must show a certificate that ca-cert.pem has signed.
  std::string psk_file;        // "" for none.
};

class TlsContext {
 public:
  // At least one of directory and psk_file must be given. May wait: reads files.
  static Result<std::unique_ptr<TlsContext>> load(Io& io, const TlsFiles& files);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  // The server's side of the handshake on a connection whose peer is about to begin it.
  Result<std::unique_ptr<Stream>> accept(Io& io, Socket& socket) const;

  // The key of a user; empty when there is none. For OpenSSL's callback.
  View key_of(std::string_view user) const;

 private:
  struct User {
    std::string name;
    std::vector<std::byte> key;
  };
  TlsContext() = default;
  Result<void> load_certificates(Io& io, const TlsFiles& files);
  Result<void> load_keys(Io& io, const std::string& path);

  ssl_ctx_st* context_ = nullptr;
  std::vector<User> users_;
};

// Either side of an encrypted connection. Takes ownership of `session`, which has no transport yet.
class TlsStream final : public Stream {
 public:
  TlsStream(Socket& socket, ssl_st* session);
  ~TlsStream() override;

  Result<void> handshake(Io& io);
  Result<size_t> receive(Io& io, Bytes into) override;
  Result<void> send(Io& io, Iovec from) override;
  void close(Io& io) override;

 private:
  struct Halves;  // The two memory ends, and the lock of the sending one.
  Result<bool> fill(Io& io);
  Result<void> flush(Io& io);
  Error broken(const char* verb);

  ssl_st* session_;
  std::unique_ptr<Halves> halves_;
};

}  // namespace firn::serve
