// SPDX-License-Identifier: Apache-2.0
// A gate: those who change maps pass through; whoever closes it waits until they are out, and has
// the maps standing still until it opens again. For the check, and for snapshots.
#pragma once

#include <utility>

#include "io/io.h"

namespace firn::disk {

class Gate {
 public:
  class Pass {
   public:
    Pass(Io& io, Gate& gate) : io_(&io), gate_(&gate) {}
    Pass(Pass&& other) noexcept : io_(other.io_), gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr && --gate_->inside_ == 0) io_->wake(gate_->emptied_);
    }

   private:
    Io* io_;
    Gate* gate_;
  };
  Pass enter(Io& io) {
    while (closed_) io.park(opened_);
    ++inside_;
    return Pass(io, *this);
  }

  class Closed {
   public:
    Closed(Io& io, Gate& gate) : io_(io), gate_(gate) {}
    Closed(const Closed&) = delete;
    Closed& operator=(const Closed&) = delete;
    ~Closed() {
      gate_.closed_ = false;
      io_.wake(gate_.opened_);
    }

   private:
    Io& io_;
    Gate& gate_;
  };
  Closed close(Io& io) {
    while (closed_) io.park(opened_);
    closed_ = true;
    while (inside_ > 0) io.park(emptied_);
    return Closed(io, *this);
  }

 private:
  size_t inside_ = 0;
  bool closed_ = false;
  WaitList opened_;
  WaitList emptied_;
};

}  // namespace firn::disk
