// SPDX-License-Identifier: Apache-2.0
#include "io/blocking_io.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "io/host_event.h"
#include "io/slice_cursor.h"
#include "io/socket.h"

namespace firn {
namespace {

HostFile& host(File& file) { return static_cast<HostFile&>(file); }
HostSocket& host(Socket& socket) { return static_cast<HostSocket&>(socket); }
HostEvent& host(Event& event) { return static_cast<HostEvent&>(event); }

// Repeats a call that a signal interrupted.
template <class Call>
auto again(Call&& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

}  // namespace

BlockingIo::BlockingIo() : prng_(host_random_seed()) {}
BlockingIo::~BlockingIo() = default;

void BlockingIo::sleep(Duration duration) {
  NoWait::assert_may_wait();
  if (duration <= Duration::zero()) return;
  const int64_t until = (host_now() + duration).since_origin.count();
  const timespec when{until / 1'000'000'000, until % 1'000'000'000};
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, nullptr) == EINTR) {
  }
}

void BlockingIo::spawn(Group& group, Task task) {
  group.child_started();
  task();
  task.clear();
  group.child_ended();
}

void BlockingIo::park(WaitList&) {
  CHECK(false, "park under BlockingIo: there is nobody who could wake the caller");
}

void BlockingIo::wake(WaitList& list, size_t) { CHECK(list.empty()); }

void BlockingIo::yield() { NoWait::assert_may_wait(); }

void BlockingIo::offload(Task task) {
  NoWait::assert_may_wait();
  task();
}

Result<std::unique_ptr<File>> BlockingIo::open(const std::string& path, OpenHow how) {
  NoWait::assert_may_wait();
  return adopt_host_file(path, open_host_file(path, how));
}

Result<uint64_t> BlockingIo::size(File& file) {
  NoWait::assert_may_wait();
  uint64_t bytes = 0;
  if (const int sys = host_file_size(host(file).fd(), bytes); sys != 0) {
    return fail_errno(sys, "size of {}", file.name());
  }
  return bytes;
}

Result<void> BlockingIo::resize(File& file, uint64_t bytes) {
  NoWait::assert_may_wait();
  if (again([&] { return ::ftruncate(host(file).fd(), static_cast<off_t>(bytes)); }) != 0) {
    return fail_errno(errno, "resize of {} to {} bytes", file.name(), bytes);
  }
  return ok;
}

Result<void> BlockingIo::read(File& file, uint64_t at, Iovec into) {
  NoWait::assert_may_wait();
  TRY(check_transfer("read", file, at, into));
  for (SliceCursor cursor(into); !cursor.done();) {
    const Iovec piece = cursor.next();
    const uint64_t here = at + cursor.moved();
    // A direct read that stopped in mid-block has met the end of the file.
    if (here % file.alignment() != 0) {
      return past_the_end(file, at, total_of(into), cursor.moved());
    }
    const ssize_t got = again([&] {
      return ::preadv(host(file).fd(), piece.data(), static_cast<int>(piece.size()),
                      static_cast<off_t>(here));
    });
    if (got < 0) return fail_errno(errno, "read of {} at {}", file.name(), here);
    if (got == 0) return past_the_end(file, at, total_of(into), cursor.moved());
    cursor.advance(static_cast<size_t>(got));
  }
  return ok;
}

Result<void> BlockingIo::write(File& file, uint64_t at, Iovec from) {
  NoWait::assert_may_wait();
  TRY(check_transfer("write", file, at, from));
  for (SliceCursor cursor(from); !cursor.done();) {
    const Iovec piece = cursor.next();
    const uint64_t here = at + cursor.moved();
    const ssize_t put = again([&] {
      return ::pwritev(host(file).fd(), piece.data(), static_cast<int>(piece.size()),
                       static_cast<off_t>(here));
    });
    if (put < 0) return fail_errno(errno, "write of {} at {}", file.name(), here);
    if (put == 0) return fail_errno(ENOSPC, "write of {} at {}", file.name(), here);
    cursor.advance(static_cast<size_t>(put));
  }
  return ok;
}

Result<void> BlockingIo::flush(File& file) {
  NoWait::assert_may_wait();
  if (host(file).flush_failed) return earlier_flush_failed(file);
  // No retry on any error: the kernel reports a lost page once (W4).
  if (::fdatasync(host(file).fd()) != 0) {
    host(file).flush_failed = true;
    return fail_errno(errno, "flush of {}", file.name());
  }
  return ok;
}

Result<void> BlockingIo::punch(File& file, uint64_t at, uint64_t length) {
  NoWait::assert_may_wait();
  if (length == 0) return ok;
  if (const int sys = punch_host_file(host(file).fd(), at, length); sys != 0) {
    return fail_errno(sys, "punch of {} at {}, {} bytes", file.name(), at, length);
  }
  return ok;
}

Result<void> BlockingIo::remove(const std::string& path) {
  NoWait::assert_may_wait();
  if (::unlink(path.c_str()) != 0) return fail_errno(errno, "cannot remove {}", path);
  return ok;
}

Result<bool> BlockingIo::directory_is_empty(const std::string& path) {
  NoWait::assert_may_wait();
  return host_directory_is_empty(path);
}

Result<void> BlockingIo::make_directory(const std::string& path) {
  NoWait::assert_may_wait();
  if (::mkdir(path.c_str(), 0750) != 0) return fail_errno(errno, "cannot make directory {}", path);
  return ok;
}

Result<void> BlockingIo::link_symbolically(const std::string& target, const std::string& path) {
  NoWait::assert_may_wait();
  if (::symlink(target.c_str(), path.c_str()) != 0) {
    return fail_errno(errno, "cannot link {} to {}", path, target);
  }
  return ok;
}

Result<void> BlockingIo::lock(File& file, bool exclusive) {
  if (const int sys = lock_host_file(host(file), exclusive); sys != 0) {
    return fail_errno(sys, "cannot lock {}", file.name());
  }
  return ok;
}

Result<void> BlockingIo::flush_directory(const std::string& path) {
  NoWait::assert_may_wait();
  if (const int sys = flush_host_directory(path); sys != 0) {
    return fail_errno(sys, "flush of directory {}", path);
  }
  return ok;
}

BufferPool& BlockingIo::buffers() {
  if (buffers_ == nullptr) buffers_ = std::make_unique<BufferPool>(BufferPool::kBytesByDefault);
  return *buffers_;
}

Result<size_t> BlockingIo::receive(Socket& socket, Bytes into) {
  NoWait::assert_may_wait();
  HostSocket& end = host(socket);
  if (end.ended() || into.empty()) return size_t{0};
  const ssize_t got = again([&] { return ::read(end.in(), into.data(), into.size()); });
  if (got < 0) return fail_errno(errno, "receive from {}", end.peer());
  return static_cast<size_t>(got);
}

Result<void> BlockingIo::send(Socket& socket, Iovec from) {
  NoWait::assert_may_wait();
  HostSocket& end = host(socket);
  for (SliceCursor cursor(from); !cursor.done();) {
    if (end.ended()) return fail_errno(EPIPE, "send to {}", end.peer());
    const Iovec piece = cursor.next();
    const ssize_t put = again([&]() -> ssize_t {
      if (end.is_pair()) return ::writev(end.out(), piece.data(), static_cast<int>(piece.size()));
      msghdr message{};
      message.msg_iov = const_cast<::iovec*>(piece.data());
      message.msg_iovlen = piece.size();
      return ::sendmsg(end.out(), &message, MSG_NOSIGNAL);
    });
    if (put < 0) return fail_errno(errno, "send to {}", end.peer());
    cursor.advance(static_cast<size_t>(put));
  }
  return ok;
}

Result<std::unique_ptr<Socket>> BlockingIo::accept(Socket& listener) {
  NoWait::assert_may_wait();
  if (host(listener).ended()) return fail(Errc::cancelled, "accept: the listener was shut down");
  const int fd =
      again([&] { return ::accept4(host(listener).in(), nullptr, nullptr, SOCK_CLOEXEC); });
  if (fd < 0) return fail_errno(errno, "accept");
  return accepted_socket(fd);
}

void BlockingIo::shutdown(Socket& socket) {
  HostSocket& end = host(socket);
  end.end();
  if (!end.is_pair()) ::shutdown(end.in(), SHUT_RDWR);
}

Result<size_t> BlockingIo::receive(Socket& socket, Bytes into, std::vector<Fd>& fds) {
  NoWait::assert_may_wait();
  HostSocket& end = host(socket);
  if (end.ended() || into.empty()) return size_t{0};
  DescriptorsIn incoming(into);
  const ssize_t got =
      again([&] { return ::recvmsg(end.in(), incoming.begin(), MSG_CMSG_CLOEXEC); });
  if (got < 0) return fail_errno(errno, "receive from {}", end.peer());
  TRY(incoming.collect(fds, end.peer()));
  return static_cast<size_t>(got);
}

Result<void> BlockingIo::send(Socket& socket, Iovec from, std::span<const int> fds) {
  NoWait::assert_may_wait();
  HostSocket& end = host(socket);
  DescriptorsOut outgoing(fds);
  for (SliceCursor cursor(from); !cursor.done();) {
    if (end.ended()) return fail_errno(EPIPE, "send to {}", end.peer());
    const Iovec piece = cursor.next();
    const ssize_t put =
        again([&] { return ::sendmsg(end.out(), outgoing.carry(piece), MSG_NOSIGNAL); });
    if (put < 0) return fail_errno(errno, "send to {}", end.peer());
    outgoing.sent();
    cursor.advance(static_cast<size_t>(put));
  }
  return ok;
}

Result<void> BlockingIo::wait(Event& event) {
  NoWait::assert_may_wait();
  HostEvent& source = host(event);
  while (!source.ended()) {
    ::pollfd wanted{source.fd(), POLLIN, 0};
    if (again([&] { return ::poll(&wanted, 1, -1); }) < 0) {
      return fail_errno(errno, "wait for an event");
    }
    const int sys = take_signals(source.fd());
    if (sys == 0) return ok;
    if (sys != EAGAIN) return fail_errno(sys, "wait for an event");
  }
  return fail(Errc::cancelled, "the event was shut down");
}

void BlockingIo::signal(Event& event) { give_signal(host(event).fd()); }

void BlockingIo::shutdown(Event& event) { host(event).end(); }

void BlockingIo::watch(Poller&) { CHECK(false, "BlockingIo never sleeps: nobody would look"); }

void BlockingIo::unwatch(Poller&) { CHECK(false, "nothing is watched"); }

}  // namespace firn
