// SPDX-License-Identifier: Apache-2.0
// Stream sockets of this host, for BlockingIo and FiberIo: how they come into being. What is done
// with them afterwards are the verbs of Io.
//
// Contract:
//  K1  Descriptors are close-on-exec and in blocking mode (the ring waits, not the caller).
//  K2  TCP connections have TCP_NODELAY and keep-alive set.
//  K3  After Io::shutdown() receive gives 0 bytes and send fails with EPIPE, whatever the
//      descriptors are.
//
// Addresses are text: "HOST:PORT", "[V6]:PORT"; port 0 lets the kernel choose (see local_port()).
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/fd_slots.h"
#include "io/io.h"

namespace firn {

class HostSocket final : public Socket {
 public:
  // Separate descriptors for the two directions, or the same number twice. Owns them.
  HostSocket(int in, int out, std::string peer, bool listening = false)
      : in_(in), out_(out), peer_(std::move(peer)), listening_(listening) {}
  ~HostSocket() override;

  std::string peer() const override { return peer_; }
  int in() const { return in_; }
  int out() const { return out_; }
  bool is_pair() const { return in_ != out_; }  // Pipes or other files: no socket calls on them.
  bool ended() const { return ended_; }
  void end() { ended_ = true; }
  FdSlot slot;

 private:
  int in_;
  int out_;
  std::string peer_;
  bool listening_;
  bool ended_ = false;
};

// Listens on a path; a stale socket there (nobody accepts) is replaced, anything else is Errc::busy
// or Errc::exists. `mode` is the permission of the path.
Result<std::unique_ptr<Socket>> listen_unix(const std::string& path, uint32_t mode = 0600);
Result<std::unique_ptr<Socket>> listen_tcp(const std::string& address);
// A descriptor that somebody else made: socket activation, socketpair. Errc::invalid when it is
// none.
Result<std::unique_ptr<Socket>> adopt_socket(int fd);
// Two descriptors that are one conversation: standard input and output.
Result<std::unique_ptr<Socket>> adopt_pair(int in, int out, std::string peer);

// May wait.
Result<std::unique_ptr<Socket>> connect_unix(Io& io, const std::string& path);
Result<std::unique_ptr<Socket>> connect_tcp(Io& io, const std::string& address);

// The TCP port that a listening or connected socket has on this host; 0 for others.
uint16_t local_port(const Socket& socket);

// For Io implementations: one message with room for descriptors (SCM_RIGHTS).
class DescriptorsIn {
 public:
  explicit DescriptorsIn(Bytes into) : slice_(slice_of(into)) {}
  ::msghdr* begin();  // Anew, also after an interruption.
  // After the call: takes what came. Errc::invalid when some had no room; the kernel closed those.
  Result<void> collect(std::vector<Fd>& fds, const std::string& peer);

 private:
  ::iovec slice_;
  ::msghdr message_{};
  alignas(::cmsghdr) std::array<std::byte, CMSG_SPACE(Io::kDescriptorsMax * sizeof(int))> room_;
};
class DescriptorsOut {
 public:
  explicit DescriptorsOut(std::span<const int> fds) : fds_(fds) {}
  ::msghdr* carry(Iovec piece);
  void sent() { fds_ = {}; }  // They went with the first byte.

 private:
  std::span<const int> fds_;
  ::msghdr message_{};
  alignas(::cmsghdr) std::array<std::byte, CMSG_SPACE(Io::kDescriptorsMax * sizeof(int))> room_;
};

// For Io implementations: a fresh connection as a Socket.
std::unique_ptr<Socket> accepted_socket(int fd);

}  // namespace firn
