// SPDX-License-Identifier: Apache-2.0
// Mutex: one fiber at a time, among the fibers of one shard, first come first served. Hold it
// across waits; sections that do not wait need none (Io W1).
#pragma once

#include <utility>

#include "io/io.h"

namespace firn {

class Mutex {
 public:
  class Hold {
   public:
    Hold(Io& io, Mutex& mutex) : io_(&io), mutex_(&mutex) {}
    Hold(Hold&& other) noexcept : io_(other.io_), mutex_(std::exchange(other.mutex_, nullptr)) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold() {
      if (mutex_ == nullptr) return;
      mutex_->held_ = false;
      io_->wake(mutex_->waiters_, 1);
    }

   private:
    Io* io_;
    Mutex* mutex_;
  };
  Hold lock(Io& io) {
    while (held_) io.park(waiters_);
    held_ = true;
    return Hold(io, *this);
  }
  bool is_held() const { return held_; }

 private:
  bool held_ = false;
  WaitList waiters_;
};

}  // namespace firn
