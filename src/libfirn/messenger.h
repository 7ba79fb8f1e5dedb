// SPDX-License-Identifier: Apache-2.0
// Messenger: the front end's half of a vhost-user socket, by plain system calls that block for
// kPatience at most. Answers are judged; everything else is the channel's.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "wire/vhost_user.h"

namespace firn::libfirn {

// A descriptor that closes itself. (io/fd.h is another room's.)
class Handle {
 public:
  explicit Handle(int fd = -1) : fd_(fd) {}
  Handle(Handle&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Handle& operator=(Handle&& other) noexcept;
  ~Handle();
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

class Messenger {
 public:
  using Request = wire::vhost::Request;
  static constexpr std::chrono::seconds kPatience{10};

  static Result<Messenger> connect(const std::string& path);

  Result<void> say(Request request, View payload = {}, const std::vector<int>& fds = {});
  // `fd`, when given, gets the descriptor that came with the answer, if one did.
  Result<std::vector<std::byte>> ask(Request request, View payload = {}, Handle* fd = nullptr);
  Result<uint64_t> ask_number(Request request);
  // With NEED_REPLY, which the server must have agreed to: refused is an error.
  Result<void> order(Request request, View payload = {}, const std::vector<int>& fds = {});
  // Whether the server has hung up. Does not wait.
  bool is_gone() const;
  int fd() const { return socket_.get(); }

 private:
  explicit Messenger(Handle socket) : socket_(std::move(socket)) {}
  Result<void> send(Request request, uint32_t flags, View payload, const std::vector<int>& fds);
  Result<std::vector<std::byte>> answer_to(Request request, Handle* fd);
  Result<void> take(Bytes into, Handle* fd);

  Handle socket_;
};

}  // namespace firn::libfirn
