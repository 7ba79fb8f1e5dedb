// SPDX-License-Identifier: Apache-2.0
#include "io/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

namespace firn {
namespace {

constexpr int kBacklog = 128;

const HostSocket& host(const Socket& socket) { return static_cast<const HostSocket&>(socket); }

// The kernel's address types are one family of structs behind a common head: the one place that
// says so.
sockaddr* head_of(sockaddr_storage& address) {
  return static_cast<sockaddr*>(static_cast<void*>(&address));
}

void tune(int fd) {
  const int on = 1;  // Fails on what is not TCP, which is right.
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

std::string name_of_address(sockaddr_storage& address, socklen_t length) {
  if (address.ss_family == AF_UNIX) return "unix";
  std::array<char, NI_MAXHOST> name{};
  std::array<char, NI_MAXSERV> port{};
  if (::getnameinfo(head_of(address), length, name.data(), name.size(), port.data(), port.size(),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unknown";
  }
  if (address.ss_family == AF_INET6) return fmt::format("[{}]:{}", name.data(), port.data());
  return fmt::format("{}:{}", name.data(), port.data());
}

std::string peer_name(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (::getpeername(fd, head_of(address), &length) != 0) return "nobody";
  return name_of_address(address, length);
}

Result<void> unix_address(const std::string& path, sockaddr_storage& address, socklen_t& length) {
  sockaddr_un local{};
  if (path.empty() || path.size() >= sizeof(local.sun_path)) {
    return fail(Errc::invalid, "socket path '{}' must have 1 to {} bytes", path,
                sizeof(local.sun_path) - 1);
  }
  local.sun_family = AF_UNIX;
  std::memcpy(local.sun_path, path.data(), path.size());
  std::memcpy(&address, &local, sizeof(local));
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return ok;
}

struct HostPort {
  std::string host;
  std::string port;
};
Result<HostPort> split(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) {
    return fail(Errc::invalid, "'{}' is not HOST:PORT", address);
  }
  std::string name = address.substr(0, colon);
  if (name.size() >= 2 && name.front() == '[' && name.back() == ']') {
    name = name.substr(1, name.size() - 2);
  }
  return HostPort{std::move(name), address.substr(colon + 1)};
}

struct Found {
  int fd = -1;
  int sys = 0;
  int gai = 0;
};
// Tries each address that the name stands for. Plain errno inside: may run on a helper thread.
Found each_address(const HostPort& where, bool listening) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = listening ? AI_PASSIVE : 0;
  addrinfo* list = nullptr;
  Found found;
  found.gai = ::getaddrinfo(where.host.empty() ? nullptr : where.host.c_str(), where.port.c_str(),
                            &hints, &list);
  if (found.gai != 0) return found;
  for (addrinfo* each = list; each != nullptr && found.fd < 0; each = each->ai_next) {
    const int fd = ::socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, each->ai_protocol);
    if (fd < 0) {
      found.sys = errno;
      continue;
    }
    const int on = 1;
    if (listening) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    const bool good =
        listening ? ::bind(fd, each->ai_addr, each->ai_addrlen) == 0 && ::listen(fd, kBacklog) == 0
                  : ::connect(fd, each->ai_addr, each->ai_addrlen) == 0;
    if (good) {
      found.fd = fd;
    } else {
      found.sys = errno;
      ::close(fd);
    }
  }
  ::freeaddrinfo(list);
  return found;
}

Result<std::unique_ptr<Socket>> socket_of(Found found, bool listening, const std::string& address) {
  const char* verb = listening ? "listen on" : "connect to";
  if (found.gai != 0) {
    return fail(Errc::not_found, "cannot {} {}: {}", verb, address, ::gai_strerror(found.gai));
  }
  if (found.fd < 0) return fail_errno(found.sys, "cannot {} {}", verb, address);
  tune(found.fd);
  return std::unique_ptr<Socket>(
      std::make_unique<HostSocket>(found.fd, found.fd, peer_name(found.fd), listening));
}

// 0 when somebody accepts there.
int try_connect_unix(const std::string& path, int& fd) {
  sockaddr_storage address{};
  socklen_t length = 0;
  if (!unix_address(path, address, length)) return EINVAL;
  fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  if (::connect(fd, head_of(address), length) == 0) return 0;
  const int sys = errno;
  ::close(fd);
  fd = -1;
  return sys;
}

Result<void> make_way(const std::string& path) {
  struct stat seen {};
  if (::lstat(path.c_str(), &seen) != 0) return ok;
  if (!S_ISSOCK(seen.st_mode)) {
    return fail(Errc::exists, "cannot listen on {}: it exists and is not a socket", path);
  }
  int fd = -1;
  const int sys = try_connect_unix(path, fd);
  if (sys == 0) {
    ::close(fd);
    return fail(Errc::busy, "cannot listen on {}: somebody does already", path);
  }
  if (sys != ECONNREFUSED) return fail_errno(sys, "cannot listen on {}", path);
  if (::unlink(path.c_str()) != 0) return fail_errno(errno, "cannot replace stale socket {}", path);
  return ok;
}

}  // namespace

HostSocket::~HostSocket() {
  // A kernel may keep the file a little longer in the ring's table; the peer must learn of the end
  // now. A listener may be shared with whoever activated us, and stays as it is.
  if (!is_pair() && !listening_) ::shutdown(in_, SHUT_RDWR);
  slot.clear();
  ::close(in_);
  if (is_pair()) ::close(out_);
}

Result<std::unique_ptr<Socket>> listen_unix(const std::string& path, uint32_t mode) {
  sockaddr_storage address{};
  socklen_t length = 0;
  TRY(unix_address(path, address, length));
  TRY(make_way(path));
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail_errno(errno, "cannot make a socket for {}", path);
  auto made = std::make_unique<HostSocket>(fd, fd, "unix", true);
  if (::bind(fd, head_of(address), length) != 0) {
    return fail_errno(errno, "cannot listen on {}", path);
  }
  // Between bind and listen nobody can connect, so nobody slips in before the mode is right.
  if (::chmod(path.c_str(), mode) != 0 || ::listen(fd, kBacklog) != 0) {
    return fail_errno(errno, "cannot listen on {}", path);
  }
  return std::unique_ptr<Socket>(std::move(made));
}

Result<std::unique_ptr<Socket>> listen_tcp(const std::string& address) {
  return socket_of(each_address(TRY(split(address)), true), true, address);
}

Result<std::unique_ptr<Socket>> adopt_socket(int fd) {
  int type = 0;
  socklen_t length = sizeof(type);
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0) {
    return fail_errno(errno, "descriptor {} is not a socket", fd);
  }
  if (type != SOCK_STREAM) return fail(Errc::invalid, "descriptor {} is not a stream socket", fd);
  const int status = ::fcntl(fd, F_GETFL);
  if (status < 0 || ::fcntl(fd, F_SETFL, status & ~O_NONBLOCK) != 0 ||
      ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot adopt descriptor {}", fd);
  }
  int listening = 0;
  (void)::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length);
  tune(fd);
  return std::unique_ptr<Socket>(
      std::make_unique<HostSocket>(fd, fd, peer_name(fd), listening != 0));
}

Result<std::unique_ptr<Socket>> adopt_pair(int in, int out, std::string peer) {
  for (const int fd : {in, out}) {
    const int status = ::fcntl(fd, F_GETFL);
    if (status < 0 || ::fcntl(fd, F_SETFL, status & ~O_NONBLOCK) != 0) {
      return fail_errno(errno, "cannot adopt descriptor {}", fd);
    }
  }
  // A pipe has no MSG_NOSIGNAL: its reader's end must become an error, not our end.
  (void)::signal(SIGPIPE, SIG_IGN);
  return std::unique_ptr<Socket>(std::make_unique<HostSocket>(in, out, std::move(peer)));
}

Result<std::unique_ptr<Socket>> connect_unix(Io& io, const std::string& path) {
  int fd = -1;
  int sys = 0;
  io.offload([&] { sys = try_connect_unix(path, fd); });
  if (sys != 0) return fail_errno(sys, "cannot connect to {}", path);
  return std::unique_ptr<Socket>(std::make_unique<HostSocket>(fd, fd, "unix"));
}

Result<std::unique_ptr<Socket>> connect_tcp(Io& io, const std::string& address) {
  const HostPort where = TRY(split(address));
  Found found;
  io.offload([&] { found = each_address(where, false); });
  return socket_of(found, false, address);
}

uint16_t local_port(const Socket& socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (::getsockname(host(socket).in(), head_of(address), &length) != 0) return 0;
  if (address.ss_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, &address, sizeof(v4));
    return ntohs(v4.sin_port);
  }
  if (address.ss_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address, sizeof(v6));
    return ntohs(v6.sin6_port);
  }
  return 0;
}

::msghdr* DescriptorsIn::begin() {
  message_ = {};
  message_.msg_iov = &slice_;
  message_.msg_iovlen = 1;
  message_.msg_control = room_.data();
  message_.msg_controllen = room_.size();
  return &message_;
}

Result<void> DescriptorsIn::collect(std::vector<Fd>& fds, const std::string& peer) {
  for (::cmsghdr* each = CMSG_FIRSTHDR(&message_); each != nullptr;
       each = CMSG_NXTHDR(&message_, each)) {
    if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(each) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
  if ((message_.msg_flags & MSG_CTRUNC) == 0) return ok;
  return fail(Errc::invalid, "{} sent more than {} descriptors at once, or we have no room", peer,
              Io::kDescriptorsMax);
}

::msghdr* DescriptorsOut::carry(Iovec piece) {
  message_ = {};
  message_.msg_iov = const_cast<::iovec*>(piece.data());
  message_.msg_iovlen = piece.size();
  if (fds_.empty()) return &message_;
  CHECK(fds_.size() <= Io::kDescriptorsMax);
  message_.msg_control = room_.data();
  message_.msg_controllen = CMSG_SPACE(fds_.size_bytes());
  ::cmsghdr* const head = CMSG_FIRSTHDR(&message_);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(fds_.size_bytes());
  std::memcpy(CMSG_DATA(head), fds_.data(), fds_.size_bytes());
  return &message_;
}

std::unique_ptr<Socket> accepted_socket(int fd) {
  tune(fd);
  return std::make_unique<HostSocket>(fd, fd, peer_name(fd));
}

}  // namespace firn
