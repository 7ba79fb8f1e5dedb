// SPDX-License-Identifier: Apache-2.0
// HostEvent: an eventfd of this host, for all implementations of Io; how events come into being.
//
// Contract:
//  - The descriptor is an eventfd: nothing that could block for ever when it is read or written.
//  - It stays open until a signal that was asked for has been given, also when its Event dies.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "io/fd.h"
#include "io/io.h"

namespace firn {

class HostEvent final : public Event {
 public:
  struct State {
    Fd fd;
    bool signalled = false;  // In this turn already.
  };
  explicit HostEvent(Fd fd) : state_(std::make_shared<State>()) { state_->fd = std::move(fd); }

  int fd() const { return state_->fd.get(); }
  const std::shared_ptr<State>& state() const { return state_; }
  bool ended() const { return ended_; }
  void end() { ended_ = true; }
  // What to recall when the wait is to end; 0: nobody waits. FiberIo's.
  uint64_t waiting = 0;

 private:
  std::shared_ptr<State> state_;
  bool ended_ = false;
};

// Errc::invalid unless it is an eventfd. Makes it non-blocking, for whoever shares it too.
Result<std::unique_ptr<Event>> adopt_event(Fd fd);
// A fresh one: for who begins a conversation.
Result<Fd> make_event_fd();
Result<Fd> duplicate(int fd);

// Takes all signals without waiting: 0 when there were some, EAGAIN when not, another errno.
int take_signals(int fd);
// Adds one without waiting, as far as that is the caller's to say; for who has no ring.
void give_signal(int fd);

}  // namespace firn
