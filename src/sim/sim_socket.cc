// SPDX-License-Identifier: Apache-2.0
// The sockets of SimIo: two byte queues in memory. A receive may give less than there is, and a
// send may go in pieces, as the seed says: protocols must not lean on the boundaries of their
// messages.
#include <algorithm>
#include <cerrno>

#include "io/host_event.h"
#include "sim/sim_io.h"

namespace firn::sim {
namespace {

// One direction.
struct Channel {
  std::deque<std::byte> bytes;
  uint64_t taken = 0;                              // Bytes that have left.
  std::deque<std::pair<uint64_t, Fd>> travelling;  // Descriptors, by the byte they go with.

  // How many bytes may be taken at once: up to the next ones that have descriptors.
  size_t available() const {
    size_t count = bytes.size();
    for (const auto& [at, fd] : travelling) {
      if (at > taken) count = std::min<size_t>(count, at - taken);
    }
    return count;
  }
  void take(size_t count, std::vector<Fd>* fds) {
    taken += count;
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    while (!travelling.empty() && travelling.front().first < taken) {
      if (fds != nullptr) fds->push_back(std::move(travelling.front().second));
      travelling.pop_front();
    }
  }
  bool closed = false;
  WaitList readers;
  WaitList writers;
};

class SimSocket final : public Socket {
 public:
  SimSocket(SimIo& io, std::shared_ptr<Channel> in, std::shared_ptr<Channel> out)
      : io_(io), in_(std::move(in)), out_(std::move(out)) {}
  ~SimSocket() override { end(); }
  std::string peer() const override { return "sim"; }
  Channel& in() { return *in_; }
  Channel& out() { return *out_; }
  bool ended = false;

  void end() {
    ended = true;
    for (Channel* channel : {in_.get(), out_.get()}) {
      channel->closed = true;
      io_.wake(channel->readers, SIZE_MAX);
      io_.wake(channel->writers, SIZE_MAX);
    }
  }

 private:
  SimIo& io_;
  std::shared_ptr<Channel> in_;
  std::shared_ptr<Channel> out_;
};

class SimListener final : public Socket {
 public:
  std::string peer() const override { return "sim"; }
  std::deque<std::unique_ptr<Socket>> waiting;
  WaitList acceptors;
  bool ended = false;
};

}  // namespace

SocketPair SimIo::pipe_pair() {
  auto there = std::make_shared<Channel>();
  auto back = std::make_shared<Channel>();
  return {std::make_unique<SimSocket>(*this, back, there),
          std::make_unique<SimSocket>(*this, there, back)};
}

std::unique_ptr<Socket> SimIo::listen() { return std::make_unique<SimListener>(); }

Result<std::unique_ptr<Socket>> SimIo::connect(Socket& listener) {
  auto& to = dynamic_cast<SimListener&>(listener);
  if (to.ended) return fail_errno(ECONNREFUSED, "cannot connect");
  SocketPair pair = pipe_pair();
  to.waiting.push_back(std::move(pair.b));
  wake(to.acceptors, 1);
  return std::move(pair.a);
}

Result<std::unique_ptr<Socket>> SimIo::accept(Socket& listener) {
  auto& at = dynamic_cast<SimListener&>(listener);
  while (at.waiting.empty() && !at.ended) park(at.acceptors);
  if (at.ended) return fail(Errc::cancelled, "accept: the listener was shut down");
  std::unique_ptr<Socket> made = std::move(at.waiting.front());
  at.waiting.pop_front();
  return made;
}

Result<size_t> SimIo::receive(Socket& socket, Bytes into) {
  std::vector<Fd> dropped;
  return receive(socket, into, dropped);
}

Result<size_t> SimIo::receive(Socket& socket, Bytes into, std::vector<Fd>& fds) {
  NoWait::assert_may_wait();
  auto& end = static_cast<SimSocket&>(socket);
  if (into.empty()) return size_t{0};
  if (options_.order == Order::drawn) sleep(Duration(nature_.below(1000)));
  if (const std::optional<Strike> fault = strike(Verb::socket, end.peer()); fault) {
    return fail_errno(fault->error, "receive from {}", end.peer());
  }
  Channel& from = end.in();
  while (from.bytes.empty() && !from.closed) park(from.readers);
  if (end.ended) return size_t{0};
  size_t count = std::min(into.size(), from.available());
  if (options_.order == Order::drawn && count > 1 && nature_.one_in(4)) {
    count = 1 + nature_.below(count);
  }
  const auto last = from.bytes.begin() + static_cast<ptrdiff_t>(count);
  std::copy(from.bytes.begin(), last, into.begin());
  const size_t before = fds.size();
  from.take(count, &fds);
  wake(from.writers, SIZE_MAX);
  trace(count, crc32c(into.first(count)));
  if (fds.size() - before > kDescriptorsMax) {
    return fail(Errc::invalid, "{} sent too many descriptors at once", end.peer());
  }
  return count;
}

Result<void> SimIo::send(Socket& socket, Iovec slices) { return send(socket, slices, {}); }

Result<void> SimIo::send(Socket& socket, Iovec slices, std::span<const int> fds) {
  NoWait::assert_may_wait();
  auto& end = static_cast<SimSocket&>(socket);
  if (options_.order == Order::drawn) sleep(Duration(nature_.below(1000)));
  if (const std::optional<Strike> fault = strike(Verb::socket, end.peer()); fault) {
    return fail_errno(fault->error, "send to {}", end.peer());
  }
  Channel& to = end.out();
  for (const int fd : fds) {
    to.travelling.emplace_back(to.taken + to.bytes.size(), TRY(duplicate(fd)));
  }
  for (const ::iovec& slice : slices) {
    View rest(static_cast<const std::byte*>(slice.iov_base), slice.iov_len);
    while (!rest.empty()) {
      while (to.bytes.size() >= options_.pipe_bytes && !to.closed) park(to.writers);
      if (to.closed) return fail_errno(EPIPE, "send to {}", end.peer());
      const size_t count = std::min(rest.size(), options_.pipe_bytes - to.bytes.size());
      to.bytes.insert(to.bytes.end(), rest.begin(), rest.begin() + static_cast<ptrdiff_t>(count));
      rest = rest.subspan(count);
      wake(to.readers, SIZE_MAX);
    }
  }
  trace(total_of(slices));
  return ok;
}

void SimIo::shutdown(Socket& socket) {
  if (auto* listener = dynamic_cast<SimListener*>(&socket); listener != nullptr) {
    listener->ended = true;
    listener->waiting.clear();
    wake(listener->acceptors, SIZE_MAX);
    return;
  }
  static_cast<SimSocket&>(socket).end();
}

Result<void> SimIo::wait(firn::Event& event) {
  NoWait::assert_may_wait();
  auto& source = static_cast<HostEvent&>(event);
  for (;;) {
    if (source.ended()) return fail(Errc::cancelled, "the event was shut down");
    const int sys = take_signals(source.fd());
    if (sys == 0) return ok;
    if (sys != EAGAIN) return fail_errno(sys, "wait for an event");
    park(event_waiters_);
  }
}

void SimIo::signal(firn::Event& event) {
  give_signal(static_cast<HostEvent&>(event).fd());
  wake(event_waiters_, SIZE_MAX);
}

void SimIo::shutdown(firn::Event& event) {
  static_cast<HostEvent&>(event).end();
  wake(event_waiters_, SIZE_MAX);
}

}  // namespace firn::sim
