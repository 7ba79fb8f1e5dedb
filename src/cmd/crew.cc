// SPDX-License-Identifier: Apache-2.0
// Notes on the design. A fiber waits for a signal while the others work. An epoll descriptor joins
// the signals with an event of our own, by which that fiber is sent home when the work is done.
#include "cmd/crew.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

namespace firn::cmd {
namespace {

constexpr size_t kConnections = 4;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

int signal_descriptor() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

bool add_to(const Fd& events, const Fd& one) {
  ::epoll_event event{};
  event.events = EPOLLIN;
  return ::epoll_ctl(events.get(), EPOLL_CTL_ADD, one.get(), &event) == 0;
}

bool is_readable(const Fd& signals) {
  ::signalfd_siginfo taken{};
  return ::read(signals.get(), &taken, sizeof(taken)) == sizeof(taken);
}

}  // namespace

void Crew::stop(Error error) {
  if (outcome_) outcome_ = error;
  stopped_ = true;
  for (const auto& client : clients_) client->abort();
}

Result<void> Crew::connect() {
  for (size_t i = 0; i < kConnections; ++i) {
    clients_.push_back(TRY(NbdClient::connect(io_, socket_, disk_)));
  }
  return ok;
}

Result<void> Crew::run(const std::function<Result<void>(NbdClient&)>& work) {
  const Fd signals(signal_descriptor());
  const Fd done(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const Fd events(::epoll_create1(EPOLL_CLOEXEC));
  if (signals.get() < 0 || done.get() < 0 || events.get() < 0 || !add_to(events, signals) ||
      !add_to(events, done)) {
    return fail_errno(errno, "cannot wait for signals");
  }
  TRY(connect());
  Group watcher(io_);
  io_.spawn(watcher, [&] {
    const Result<void> waited = io_.wait_readable(events.get());
    if (!waited) return stop(waited.error());
    if (is_readable(signals)) stop(fail(Errc::cancelled, "interrupted"));
  });
  {
    Group workers(io_);
    for (const auto& client : clients_) {
      io_.spawn(workers, [this, &work, &client] {
        const Result<void> worked = work(*client);
        if (!worked && !stopped_) stop(worked.error());
        if (worked && !stopped_) client->end();
      });
    }
  }
  const uint64_t one = 1;
  if (::write(done.get(), &one, sizeof(one)) != sizeof(one)) {
    outcome_ = fail_errno(errno, "cannot end waiting for signals");
  }
  watcher.wait();
  return outcome_;
}

}  // namespace firn::cmd
