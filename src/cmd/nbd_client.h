// SPDX-License-Identifier: Apache-2.0
// NbdClient: a connection to one disk of ours, for the formats that are read and written here and
// not by qemu-img.
//
// Contract:
//  C1  One request at a time on a connection; several connections see the same disk.
//  C2  What a server answers is decoded and bounded before it is believed, ours too.
//  C3  After abort() whatever waits here fails, and everything later. Does not wait.
//
// Speaks plain NBD with structured replies over a Unix socket.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/units.h"
#include "io/io.h"
#include "wire/nbd.h"

namespace firn::cmd {

class NbdClient {
 public:
  enum class Kind : uint8_t { hole, zero, data };  // Nobody wrote; reads as zero; holds something.
  struct Run {
    uint64_t length = 0;
    Kind kind = Kind::hole;
  };

  static Result<std::unique_ptr<NbdClient>> connect(Io& io, const std::string& socket,
                                                    const std::string& disk);
  ~NbdClient() = default;
  NbdClient(const NbdClient&) = delete;
  NbdClient& operator=(const NbdClient&) = delete;

  uint64_t bytes() const { return bytes_; }
  Result<void> read(uint64_t at, Bytes into);
  Result<void> write(uint64_t at, View from);
  // What each part of `range` is; runs that cover it, in order. At most 2 GiB.
  Result<void> map(Range range, std::vector<Run>& into);
  // Says farewell; nothing may follow.
  void end();
  void abort() { io_.shutdown(*socket_); }

 private:
  NbdClient(Io& io, std::unique_ptr<Socket> socket, std::string disk)
      : io_(io), socket_(std::move(socket)), disk_(std::move(disk)) {}

  Result<void> receive(Bytes into);
  Result<void> send(View head, View payload);
  Result<void> greet();
  // The answers to an option, each given to `take`, until the acknowledgement.
  template <class Take>
  Result<void> option(wire::nbd::Option which, View data, Take&& take);
  Result<void> select_contexts();
  Result<void> go();

  Result<void> request(wire::nbd::Command command, Range range, View payload = {});
  // The chunks of a reply, each given to `take` with its payload not yet received, until the last.
  template <class Take>
  Result<void> reply(const char* verb, uint64_t at, Take&& take);
  Result<void> take_simple(const char* verb, uint64_t at, View bytes);
  Result<void> take_error(const char* verb, uint64_t at, const wire::nbd::ReplyChunk& chunk);
  Result<uint64_t> take_data(const wire::nbd::ReplyChunk& chunk, Range range, Bytes into);
  Result<uint64_t> map_some(Range range, std::vector<Run>& into);

  Io& io_;
  std::unique_ptr<Socket> socket_;
  std::string disk_;
  uint64_t bytes_ = 0;
  uint64_t cookie_ = 0;
  std::array<uint32_t, 2> contexts_{};  // Ids of base:allocation and qemu:allocation-depth.
};

}  // namespace firn::cmd
