// SPDX-License-Identifier: Apache-2.0
#include "libfirn/messenger.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace firn::libfirn {

namespace vhost = wire::vhost;

Handle& Handle::operator=(Handle&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Handle::~Handle() {
  if (fd_ >= 0) ::close(fd_);
}

Result<Messenger> Messenger::connect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return fail(Errc::invalid, "{} is too long for a socket's path", path);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Handle made(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made) return fail_errno(errno, "cannot make a socket");
  const ::timeval limit{kPatience.count(), 0};
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    (void)::setsockopt(made.get(), SOL_SOCKET, option, &limit, sizeof(limit));
  }
  const void* const there = &address;
  if (::connect(made.get(), static_cast<const sockaddr*>(there), sizeof(address)) != 0) {
    return fail_errno(errno, "cannot connect to {}", path);
  }
  return Messenger(std::move(made));
}

Result<void> Messenger::send(Request request, uint32_t flags, View payload,
                             const std::vector<int>& fds) {
  const auto head =
      vhost::encode(vhost::Header{request, flags, static_cast<uint32_t>(payload.size())});
  ::iovec slices[] = {slice_of(View(head)), slice_of(payload)};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int) * vhost::kRegionsMax)]{};
  ::msghdr message{};
  message.msg_iov = slices;
  message.msg_iovlen = payload.empty() ? 1 : 2;
  if (!fds.empty()) {
    const size_t bytes = sizeof(int) * fds.size();
    message.msg_control = room;
    message.msg_controllen = CMSG_SPACE(bytes);
    ::cmsghdr* const control = CMSG_FIRSTHDR(&message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(bytes);
    std::memcpy(CMSG_DATA(control), fds.data(), bytes);
  }
  // Messages are small: a Unix socket takes them whole, or the server is not well.
  const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  if (sent < 0) return fail_errno(errno, "{} to the server", vhost::name_of(request));
  if (static_cast<size_t>(sent) != head.size() + payload.size()) {
    return fail(Errc::io, "{} to the server was cut off", vhost::name_of(request));
  }
  return ok;
}

Result<void> Messenger::take(Bytes into, Handle* fd) {
  while (!into.empty()) {
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))]{};
    ::iovec slice = slice_of(into);
    ::msghdr message{};
    message.msg_iov = &slice;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof(room);
    const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "waiting for the server's answer");
    if (got == 0) return fail(Errc::io, "the server hung up");
    const ::cmsghdr* const control = CMSG_FIRSTHDR(&message);
    if (control != nullptr && control->cmsg_type == SCM_RIGHTS) {
      int came = -1;
      std::memcpy(&came, CMSG_DATA(control), sizeof(came));
      Handle held(came);
      if (fd != nullptr) *fd = std::move(held);
    }
    into = into.subspan(static_cast<size_t>(got));
  }
  return ok;
}

Result<std::vector<std::byte>> Messenger::answer_to(Request request, Handle* fd) {
  std::array<std::byte, vhost::kHeaderBytes> head;
  TRY(take(head, fd));
  const auto said = static_cast<Request>(uint32_t{load<le32>(head)});
  const uint32_t flags = load<le32>(View(head).subspan(4));
  const uint32_t bytes = load<le32>(View(head).subspan(8));
  if (said != request || (flags & vhost::kReply) == 0 || bytes > vhost::kPayloadMax) {
    return fail(Errc::invalid, "the server's answer to {} is something else",
                vhost::name_of(request));
  }
  std::vector<std::byte> payload(bytes);
  TRY(take(payload, fd));
  return payload;
}

Result<void> Messenger::say(Request request, View payload, const std::vector<int>& fds) {
  return send(request, vhost::kVersion, payload, fds);
}

Result<std::vector<std::byte>> Messenger::ask(Request request, View payload, Handle* fd) {
  TRY(send(request, vhost::kVersion, payload, {}));
  return answer_to(request, fd);
}

Result<uint64_t> Messenger::ask_number(Request request) {
  const std::vector<std::byte> answer = TRY(ask(request));
  return vhost::decode_number(answer);
}

Result<void> Messenger::order(Request request, View payload, const std::vector<int>& fds) {
  TRY(send(request, vhost::kVersion | vhost::kNeedReply, payload, fds));
  const std::vector<std::byte> answer = TRY(answer_to(request, nullptr));
  if (TRY(vhost::decode_number(answer)) == 0) return ok;
  return fail(Errc::invalid, "the server refused {}", vhost::name_of(request));
}

bool Messenger::is_gone() const {
  char byte = 0;
  const ssize_t got = ::recv(socket_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

}  // namespace firn::libfirn
