// SPDX-License-Identifier: Apache-2.0
#include "io/host_event.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace firn {
namespace {

bool is_eventfd(int fd) {
  std::array<char, 64> name{};
  const std::string link = fmt::format("/proc/self/fd/{}", fd);
  const ssize_t length = ::readlink(link.c_str(), name.data(), name.size());
  return length > 0 &&
         std::string_view(name.data(), static_cast<size_t>(length)) == "anon_inode:[eventfd]";
}

}  // namespace

Result<std::unique_ptr<Event>> adopt_event(Fd fd) {
  if (!is_eventfd(fd.get())) return fail(Errc::invalid, "the descriptor is not an eventfd");
  const int status = ::fcntl(fd.get(), F_GETFL);
  if (status < 0 || ::fcntl(fd.get(), F_SETFL, status | O_NONBLOCK) != 0 ||
      ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
    return fail_errno(errno, "cannot adopt an eventfd");
  }
  return std::unique_ptr<Event>(std::make_unique<HostEvent>(std::move(fd)));
}

Result<Fd> make_event_fd() {
  Fd made(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!made) return fail_errno(errno, "cannot make an eventfd");
  return made;
}

Result<Fd> duplicate(int fd) {
  Fd made(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!made) return fail_errno(errno, "cannot duplicate a descriptor");
  return made;
}

int take_signals(int fd) {
  // Whoever shares the descriptor can clear O_NONBLOCK: ask for this read not to wait.
  uint64_t count = 0;
  const ::iovec into{&count, sizeof(count)};
  for (;;) {
    ssize_t got = ::preadv2(fd, &into, 1, -1, RWF_NOWAIT);
    if (got < 0 && errno == EOPNOTSUPP) got = ::read(fd, &count, sizeof(count));  // Before 5.8.
    if (got >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

void give_signal(int fd) {
  const uint64_t one = 1;
  ssize_t put = 0;
  do {
    put = ::write(fd, &one, sizeof(one));
  } while (put < 0 && errno == EINTR);
}

}  // namespace firn
