// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// I1  An Operation lies on the stack of the fiber that waits for it; the ring carries its address.
// It is
//     resumed by exactly one completion, so the address is good until then (F5: no cancellation).
// I2  A turn: run everything runnable, enter the ring once, deliver completions, timers and mail.
// Nothing
//     is resumed while completions are delivered; they only become runnable.
// I3  The read of the mailbox's eventfd is always in flight while run() is; that is what a post()
// wakes.
#include "io/fiber_io.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <climits>

#include "base/check.h"
#include "io/host_file.h"
#include "io/slice_cursor.h"
#include "io/socket.h"

namespace firn {
namespace {

constexpr size_t kTransferMax =
    1 << 30;  // What one entry asks for; lengths in the ring have 32 bits.

HostFile& host(File& file) { return static_cast<HostFile&>(file); }
HostSocket& host(Socket& socket) { return static_cast<HostSocket&>(socket); }
HostEvent& host(Event& event) { return static_cast<HostEvent&>(event); }

}  // namespace

Result<std::unique_ptr<FiberIo>> FiberIo::make(Settings settings) {
  if (settings.buffer_bytes > kGiB) {
    return fail(Errc::invalid, "{} bytes of buffers: a ring registers at most 1 GiB",
                settings.buffer_bytes);
  }
  std::unique_ptr<FiberIo> made(new FiberIo(settings));
  made->ring_ = TRY(Ring::make(settings.ring, made->buffers_.arena()));
  return made;
}

FiberIo::FiberIo(const Settings& settings)
    : buffers_(settings.buffer_bytes), prng_(host_random_seed()), helpers_(settings.helpers) {
  timers_.reserve(256);
}

FiberIo::~FiberIo() {
  if (ring_ == nullptr || !mailbox_listening_) return;
  // The ring still holds the address of mailbox_signal_: take it back before it dies.
  io_uring_sqe& sqe = ring_->entry();
  ::io_uring_prep_cancel64(&sqe, kMailbox, 0);
  sqe.user_data = kIgnored;
  while (mailbox_listening_) {
    ring_->enter(true, std::nullopt, Pollers());
    ring_->reap([this](uint64_t who, int32_t, uint32_t) {
      if (who == kMailbox) mailbox_listening_ = false;
    });
  }
}

// --- the turn

void FiberIo::run(Task main) {
  scheduler_.spawn(nullptr, std::move(main));
  while (scheduler_.alive() > 0) turn();
}

void FiberIo::turn() {
  ++turns_;
  scheduler_.run_ready();
  give_signals();
  if (scheduler_.alive() == 0) {
    if (!signals_.empty()) enter(false, std::nullopt);
    return;
  }
  if (!mailbox_listening_) listen_to_mailbox();
  if (scheduler_.has_ready()) {
    enter(false, std::nullopt);
  } else {
    enter(true, until_next_timer());
  }
  bool mail = false;
  ring_->reap([&](uint64_t who, int32_t result, uint32_t) {
    if (who == kIgnored) return;
    if (who == kMailbox) {
      mail = true;
      return;
    }
    auto& operation = *std::bit_cast<Operation*>(static_cast<uintptr_t>(who));
    operation.result = result;
    scheduler_.make_ready(*operation.fiber);
  });
  if (mail) read_mailbox();
  if (!timers_.empty()) fire_timers();
}

void FiberIo::enter(bool wait, std::optional<Duration> timeout) {
  if (wait && transfers_ >= DeepLoad::kTransfersMin) {
    const Duration limit = std::min(timeout.value_or(DeepLoad::kWaitMax), DeepLoad::kWaitMax);
    ring_->gather(DeepLoad::batch_of(transfers_), limit, pollers_);
  } else {
    ring_->enter(wait, timeout, pollers_);
  }
  // Their descriptors are the kernel's business now, and may be closed here.
  if (ring_->pending() == 0) signals_.clear();
}

// As entries of the ring, because a write to an eventfd that somebody has filled and made blocking
// would stop the shard; so it stops nobody.
void FiberIo::give_signals() {
  static const uint64_t one = 1;
  for (const std::shared_ptr<HostEvent::State>& event : signals_) {
    if (!event->signalled) continue;  // Not the first try to submit it.
    event->signalled = false;
    io_uring_sqe& sqe = ring_->entry();
    ::io_uring_prep_write(&sqe, event->fd.get(), &one, sizeof(one), UINT64_MAX);
    sqe.user_data = kIgnored;
    ring_->expect_no_completion(sqe);
  }
}

void FiberIo::listen_to_mailbox() {
  mailbox_listening_ = true;
  io_uring_sqe& sqe = ring_->entry();
  ::io_uring_prep_read(&sqe, mailbox_.signal_fd(), &mailbox_signal_, sizeof(mailbox_signal_), 0);
  sqe.user_data = kMailbox;
}

void FiberIo::read_mailbox() {
  mailbox_listening_ = false;
  mailbox_.take(mail_tasks_, mail_fibers_);
  for (Task& task : mail_tasks_) scheduler_.spawn(nullptr, std::move(task));
  for (Fiber* fiber : mail_fibers_) scheduler_.make_ready(*fiber);
  mail_tasks_.clear();
  mail_fibers_.clear();
}

std::optional<Duration> FiberIo::until_next_timer() {
  if (timers_.empty()) return std::nullopt;
  return std::max(timers_.front().due - now(), Duration::zero());
}

void FiberIo::fire_timers() {
  const Time current = now();
  while (!timers_.empty() && timers_.front().due <= current) {
    Fiber* fiber = timers_.front().fiber;
    std::pop_heap(timers_.begin(), timers_.end(), Later());
    timers_.pop_back();
    scheduler_.make_ready(*fiber);
  }
}

template <class Prepare>
int32_t FiberIo::submit(const char* what, Prepare&& prepare, Push push) {
  NoWait::assert_may_wait();
  Operation operation;
  operation.fiber = scheduler_.current();
  CHECK(operation.fiber != nullptr, "{} outside of run()", what);
  io_uring_sqe& sqe = ring_->entry();
  prepare(sqe);
  sqe.user_data = std::bit_cast<uintptr_t>(&operation);
  const bool now = push == Push::now ||
                   (push == Push::deep && DeepLoad::must_push(ring_->pending(), transfers_));
  if (now) ring_->push();
  scheduler_.suspend(what);
  return operation.result;
}

void FiberIo::use_slot(io_uring_sqe& sqe, int slot) {
  if (slot < 0) return;
  sqe.fd = slot;
  sqe.flags |= IOSQE_FIXED_FILE;
}

// --- time, threads

Time FiberIo::now() { return host_now(); }
int64_t FiberIo::wall_clock_ns() { return host_wall_clock_ns(); }
std::string FiberIo::identity() { return host_identity(); }

void FiberIo::sleep(Duration duration) {
  NoWait::assert_may_wait();
  CHECK(scheduler_.current() != nullptr, "sleep outside of run()");
  timers_.push_back(
      {now() + std::max(duration, Duration::zero()), timer_count_++, scheduler_.current()});
  std::push_heap(timers_.begin(), timers_.end(), Later());
  scheduler_.suspend("sleep");
}

void FiberIo::offload(Task task) {
  NoWait::assert_may_wait();
  CHECK(scheduler_.current() != nullptr, "offload outside of run()");
  if (helpers_ == nullptr) helpers_ = std::make_shared<HelperThreads>();
  HelperThreads::Job job;
  job.task = std::move(task);
  job.home = &mailbox_;
  job.fiber = scheduler_.current();
  helpers_->give(job);
  scheduler_.suspend("offload");
}

void FiberIo::call(FiberIo& there, Task task) {
  NoWait::assert_may_wait();
  Fiber* fiber = scheduler_.current();
  CHECK(fiber != nullptr, "call outside of run()");
  there.post([this, fiber, &task] {
    task();
    mailbox_.resume(*fiber);
  });
  scheduler_.suspend("call");
}

Result<void> FiberIo::wait_readable(int fd) {
  for (;;) {
    const int32_t got = submit(
        "wait_readable", [&](io_uring_sqe& sqe) { ::io_uring_prep_poll_add(&sqe, fd, POLLIN); });
    if (got >= 0) return ok;
    if (got != -EINTR) return fail_errno(-got, "wait for descriptor {}", fd);
  }
}

FiberIoCounters FiberIo::counters() const {
  FiberIoCounters seen;
  seen.turns = turns_;
  seen.enters = ring_->enters();
  seen.operations = ring_->entries_used();
  seen.completions = ring_->completions();
  seen.fibers_spawned = scheduler_.spawned();
  seen.fiber_switches = scheduler_.switches();
  seen.fibers_alive = scheduler_.alive();
  seen.stacks = scheduler_.stacks();
  seen.stack_high_water_bytes = scheduler_.stack_high_water();
  seen.buffer_waits = buffers_.waits();
  seen.buffer_bytes_in_use = buffers_.bytes_in_use();
  seen.buffer_bytes_in_use_max = buffers_.bytes_in_use_max();
  return seen;
}

// --- files

// Runs a system call that may block on a helper thread; `call` returns an errno.
template <class Call>
int FiberIo::sys_elsewhere(Call&& call) {
  int sys = 0;
  offload([&] { sys = call(); });
  return sys;
}

Result<std::unique_ptr<File>> FiberIo::open(const std::string& path, OpenHow how) {
  OpenedFile opened;
  offload([&] { opened = open_host_file(path, how); });
  return adopt_host_file(path, opened);
}

Result<uint64_t> FiberIo::size(File& file) {
  NoWait::assert_may_wait();
  uint64_t bytes = 0;
  if (const int sys = host_file_size(host(file).fd(), bytes); sys != 0) {
    return fail_errno(sys, "size of {}", file.name());
  }
  return bytes;
}

Result<void> FiberIo::resize(File& file, uint64_t bytes) {
  const int sys = sys_elsewhere(
      [&] { return ::ftruncate(host(file).fd(), static_cast<off_t>(bytes)) == 0 ? 0 : errno; });
  if (sys != 0) return fail_errno(sys, "resize of {} to {} bytes", file.name(), bytes);
  return ok;
}

// One entry for one piece: fixed when it is a single slice inside the arena.
int32_t FiberIo::transfer(bool write, File& file, uint64_t at, Iovec piece) {
  const int fd = host(file).fd();
  const int slot = host(file).slot.in(ring_->slots(), fd);
  ++transfers_;
  const int32_t done = submit(
      write ? "write" : "read",
      [&](io_uring_sqe& sqe) {
        const ::iovec& slice = piece[0];
        const auto length = static_cast<unsigned>(std::min(slice.iov_len, kTransferMax));
        if (piece.size() > 1) {
          const auto count = static_cast<unsigned>(piece.size());
          write ? ::io_uring_prep_writev(&sqe, fd, piece.data(), count, at)
                : ::io_uring_prep_readv(&sqe, fd, piece.data(), count, at);
        } else if (ring_->arena_registered() && buffers_.contains(slice.iov_base, length)) {
          write ? ::io_uring_prep_write_fixed(&sqe, fd, slice.iov_base, length, at, 0)
                : ::io_uring_prep_read_fixed(&sqe, fd, slice.iov_base, length, at, 0);
        } else {
          write ? ::io_uring_prep_write(&sqe, fd, slice.iov_base, length, at)
                : ::io_uring_prep_read(&sqe, fd, slice.iov_base, length, at);
        }
        use_slot(sqe, slot);
      },
      Push::deep);
  --transfers_;
  return done;
}

Result<void> FiberIo::read(File& file, uint64_t at, Iovec into) {
  TRY(check_transfer("read", file, at, into));
  for (SliceCursor cursor(into); !cursor.done();) {
    const uint64_t here = at + cursor.moved();
    // A direct read that stopped in mid-block has met the end of the file.
    if (here % file.alignment() != 0) return past_the_end(file, at, total_of(into), cursor.moved());
    const int32_t got = transfer(false, file, here, cursor.next());
    if (got == -EINTR) continue;
    if (got < 0) return fail_errno(-got, "read of {} at {}", file.name(), here);
    if (got == 0) return past_the_end(file, at, total_of(into), cursor.moved());
    cursor.advance(static_cast<size_t>(got));
  }
  return ok;
}

Result<void> FiberIo::write(File& file, uint64_t at, Iovec from) {
  TRY(check_transfer("write", file, at, from));
  for (SliceCursor cursor(from); !cursor.done();) {
    const uint64_t here = at + cursor.moved();
    const int32_t put = transfer(true, file, here, cursor.next());
    if (put == -EINTR) continue;
    if (put <= 0)
      return fail_errno(put == 0 ? ENOSPC : -put, "write of {} at {}", file.name(), here);
    cursor.advance(static_cast<size_t>(put));
  }
  return ok;
}

Result<void> FiberIo::flush(File& file) {
  NoWait::assert_may_wait();
  HostFile& target = host(file);
  return target.flushes.pass(*this, [&]() -> Result<void> {
    if (target.flush_failed) return earlier_flush_failed(file);
    const int slot = target.slot.in(ring_->slots(), target.fd());
    const int32_t done = submit("flush", [&](io_uring_sqe& sqe) {
      ::io_uring_prep_fsync(&sqe, target.fd(), IORING_FSYNC_DATASYNC);
      use_slot(sqe, slot);
    });
    if (done == 0) return ok;
    target.flush_failed = true;  // Whatever the reason: not retried (W4).
    return fail_errno(-done, "flush of {}", file.name());
  });
}

Result<void> FiberIo::punch(File& file, uint64_t at, uint64_t length) {
  NoWait::assert_may_wait();
  if (length == 0) return ok;
  const int slot = host(file).slot.in(ring_->slots(), host(file).fd());
  int32_t done = -EINTR;
  while (done == -EINTR) {
    done = submit("punch", [&](io_uring_sqe& sqe) {
      ::io_uring_prep_fallocate(&sqe, host(file).fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                static_cast<off_t>(at), static_cast<off_t>(length));
      use_slot(sqe, slot);
    });
  }
  if (done != 0) return fail_errno(-done, "punch of {} at {}, {} bytes", file.name(), at, length);
  return ok;
}

Result<void> FiberIo::remove(const std::string& path) {
  const int sys = sys_elsewhere([&] { return ::unlink(path.c_str()) == 0 ? 0 : errno; });
  if (sys != 0) return fail_errno(sys, "cannot remove {}", path);
  return ok;
}

Result<bool> FiberIo::directory_is_empty(const std::string& path) {
  Result<bool> empty = false;
  offload([&] { empty = host_directory_is_empty(path); });
  // The sentence of an error stays with the thread that made it: say it again on this one.
  if (!empty) return fail_errno(empty.error().sys, "cannot look into directory {}", path);
  return empty;
}

Result<void> FiberIo::make_directory(const std::string& path) {
  const int sys = sys_elsewhere([&] { return ::mkdir(path.c_str(), 0750) == 0 ? 0 : errno; });
  if (sys != 0) return fail_errno(sys, "cannot make directory {}", path);
  return ok;
}

Result<void> FiberIo::link_symbolically(const std::string& target, const std::string& path) {
  const int sys =
      sys_elsewhere([&] { return ::symlink(target.c_str(), path.c_str()) == 0 ? 0 : errno; });
  if (sys != 0) return fail_errno(sys, "cannot link {} to {}", path, target);
  return ok;
}

Result<void> FiberIo::lock(File& file, bool exclusive) {
  if (const int sys = lock_host_file(host(file), exclusive); sys != 0) {
    return fail_errno(sys, "cannot lock {}", file.name());
  }
  return ok;
}

Result<void> FiberIo::flush_directory(const std::string& path) {
  const int sys = sys_elsewhere([&] { return flush_host_directory(path); });
  if (sys != 0) return fail_errno(sys, "flush of directory {}", path);
  return ok;
}

// --- sockets

Result<size_t> FiberIo::receive(Socket& socket, Bytes into) {
  NoWait::assert_may_wait();
  HostSocket& end = host(socket);
  if (into.empty()) return size_t{0};
  while (!end.ended()) {
    const int32_t got = submit("receive", [&](io_uring_sqe& sqe) {
      const size_t length = std::min(into.size(), kTransferMax);
      if (end.is_pair()) {
        ::io_uring_prep_read(&sqe, end.in(), into.data(), static_cast<unsigned>(length),
                             UINT64_MAX);
      } else {
        ::io_uring_prep_recv(&sqe, end.in(), into.data(), length, 0);
        use_slot(sqe, end.slot.in(ring_->slots(), end.in()));
      }
    });
    if (got >= 0) return static_cast<size_t>(got);
    if (got == -EINTR || end.ended()) continue;
    return fail_errno(-got, "receive from {}", end.peer());
  }
  return size_t{0};
}

int32_t FiberIo::send_some(HostSocket& end, Iovec piece) {
  ::msghdr message{};
  return submit(
      "send",
      [&](io_uring_sqe& sqe) {
        if (end.is_pair()) {
          ::io_uring_prep_writev(&sqe, end.out(), piece.data(), static_cast<unsigned>(piece.size()),
                                 UINT64_MAX);
          return;
        }
        if (piece.size() == 1) {
          ::io_uring_prep_send(&sqe, end.out(), piece[0].iov_base,
                               std::min(piece[0].iov_len, kTransferMax),
                               MSG_NOSIGNAL | MSG_WAITALL);
        } else {
          message.msg_iov = const_cast<::iovec*>(piece.data());
          message.msg_iovlen = piece.size();
          ::io_uring_prep_sendmsg(&sqe, end.out(), &message, MSG_NOSIGNAL | MSG_WAITALL);
        }
        use_slot(sqe, end.slot.in(ring_->slots(), end.out()));
      },
      is_long_turn() ? Push::now : Push::later);
}

Result<void> FiberIo::send(Socket& socket, Iovec from) {
  NoWait::assert_may_wait();
  HostSocket& end = host(socket);
  for (SliceCursor cursor(from); !cursor.done();) {
    if (end.ended()) return fail_errno(EPIPE, "send to {}", end.peer());
    const int32_t put = send_some(end, cursor.next());
    if (put == -EINTR || (put < 0 && end.ended())) continue;
    if (put < 0) return fail_errno(-put, "send to {}", end.peer());
    cursor.advance(static_cast<size_t>(put));
  }
  return ok;
}

Result<std::unique_ptr<Socket>> FiberIo::accept(Socket& listener) {
  NoWait::assert_may_wait();
  HostSocket& end = host(listener);
  while (!end.ended()) {
    const int32_t got = submit("accept", [&](io_uring_sqe& sqe) {
      ::io_uring_prep_accept(&sqe, end.in(), nullptr, nullptr, SOCK_CLOEXEC);
      use_slot(sqe, end.slot.in(ring_->slots(), end.in()));
    });
    if (got >= 0) return accepted_socket(got);
    if (got == -EINTR || end.ended()) continue;
    return fail_errno(-got, "accept");
  }
  return fail(Errc::cancelled, "accept: the listener was shut down");
}

Result<size_t> FiberIo::receive(Socket& socket, Bytes into, std::vector<Fd>& fds) {
  NoWait::assert_may_wait();
  HostSocket& end = host(socket);
  DescriptorsIn incoming(into);
  while (!into.empty() && !end.ended()) {
    const int32_t got = submit("receive", [&](io_uring_sqe& sqe) {
      ::io_uring_prep_recvmsg(&sqe, end.in(), incoming.begin(), MSG_CMSG_CLOEXEC);
      use_slot(sqe, end.slot.in(ring_->slots(), end.in()));
    });
    if (got >= 0) {
      TRY(incoming.collect(fds, end.peer()));
      return static_cast<size_t>(got);
    }
    if (got == -EINTR || end.ended()) continue;
    return fail_errno(-got, "receive from {}", end.peer());
  }
  return size_t{0};
}

Result<void> FiberIo::send(Socket& socket, Iovec from, std::span<const int> fds) {
  NoWait::assert_may_wait();
  HostSocket& end = host(socket);
  DescriptorsOut outgoing(fds);
  for (SliceCursor cursor(from); !cursor.done();) {
    if (end.ended()) return fail_errno(EPIPE, "send to {}", end.peer());
    const Iovec piece = cursor.next();
    const int32_t put = submit("send", [&](io_uring_sqe& sqe) {
      ::io_uring_prep_sendmsg(&sqe, end.out(), outgoing.carry(piece), MSG_NOSIGNAL);
      use_slot(sqe, end.slot.in(ring_->slots(), end.out()));
    });
    if (put == -EINTR || (put < 0 && end.ended())) continue;
    if (put < 0) return fail_errno(-put, "send to {}", end.peer());
    outgoing.sent();
    cursor.advance(static_cast<size_t>(put));
  }
  return ok;
}

Result<void> FiberIo::wait(Event& event) {
  NoWait::assert_may_wait();
  HostEvent& source = host(event);
  CHECK(source.waiting == 0, "one fiber at a time waits for an event");
  while (!source.ended()) {
    Operation operation;
    operation.fiber = scheduler_.current();
    CHECK(operation.fiber != nullptr, "wait outside of run()");
    io_uring_sqe& sqe = ring_->entry();
    ::io_uring_prep_poll_add(&sqe, source.fd(), POLLIN);
    source.waiting = sqe.user_data = std::bit_cast<uintptr_t>(&operation);
    scheduler_.suspend("event");
    source.waiting = 0;
    if (source.ended()) break;
    const int sys = take_signals(source.fd());
    if (sys == 0) return ok;
    if (sys != EAGAIN) return fail_errno(sys, "wait for an event");
  }
  return fail(Errc::cancelled, "the event was shut down");
}

void FiberIo::signal(Event& event) {
  const std::shared_ptr<HostEvent::State>& state = host(event).state();
  if (state->signalled) return;
  state->signalled = true;
  signals_.push_back(state);
  if (!is_long_turn()) return;
  give_signals();
  ring_->push();
}

void FiberIo::shutdown(Event& event) {
  HostEvent& source = host(event);
  source.end();
  if (source.waiting == 0) return;
  io_uring_sqe& sqe = ring_->entry();
  ::io_uring_prep_cancel64(&sqe, source.waiting, 0);
  sqe.user_data = kIgnored;
}

void FiberIo::shutdown(Socket& socket) {
  HostSocket& end = host(socket);
  end.end();
  if (!end.is_pair()) {
    ::shutdown(end.in(), SHUT_RDWR);
    return;
  }
  // What is no socket cannot be shut down: recall what waits on it.
  for (const int fd : {end.in(), end.out()}) {
    io_uring_sqe& sqe = ring_->entry();
    ::io_uring_prep_cancel_fd(&sqe, fd, IORING_ASYNC_CANCEL_ALL);
    sqe.user_data = kIgnored;
  }
}

}  // namespace firn
