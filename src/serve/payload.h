// SPDX-License-Identifier: Apache-2.0
// Payload: the bytes of a request or a reply while a connection holds them, paid from its
// Budget.
//
// Contract:
//  Y1  Begins on a multiple of 4096: good for direct I/O.
//  Y2  A connection holds at most its budget plus one piece, whatever its client does or fails
//      to do.
//  Y3  The shard's pool is shared with the disks, and a client that stops reading keeps what it
//      holds. So connections together take at most half of the pool; what is beyond comes from
//      the heap, and is bounded by Y2. No connection waits for another's buffers.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "base/check.h"
#include "io/buffer_pool.h"
#include "io/io.h"

namespace firn::serve {

class Budget {
 public:
  Budget(Io& io, size_t bytes) : io_(io), bytes_(bytes) {}
  // Waits while the budget is used up.
  void take(size_t bytes) {
    while (used_ >= bytes_) io_.park(waiters_);
    used_ += bytes;
  }
  void give_back(size_t bytes) {
    CHECK(bytes <= used_);
    used_ -= bytes;
    if (used_ < bytes_ && !waiters_.empty()) io_.wake(waiters_);
  }
  size_t used() const { return used_; }
  Io& io() { return io_; }

 private:
  Io& io_;
  size_t bytes_;
  size_t used_ = 0;
  WaitList waiters_;
};

class Payload {
 public:
  Payload() = default;
  // Waits for the budget, never for memory.
  Payload(Budget& budget, size_t bytes) {
    budget.take(bytes);
    budget_ = &budget;
    size_ = bytes;
    BufferPool& pool = budget.io().buffers();
    if (bytes <= BufferPool::kBufferMax && pool.bytes_in_use() + bytes <= pool.arena().size() / 2) {
      buffer_ = pool.try_take(bytes);
    }
    if (!buffer_) heap_.reset(static_cast<std::byte*>(::operator new(bytes, kAlignment)));
  }
  Payload(Payload&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)),
        buffer_(std::move(other.buffer_)),
        heap_(std::move(other.heap_)),
        size_(std::exchange(other.size_, 0)) {}
  Payload& operator=(Payload&& other) noexcept {
    if (this == &other) return *this;
    reset();
    budget_ = std::exchange(other.budget_, nullptr);
    buffer_ = std::move(other.buffer_);
    heap_ = std::move(other.heap_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  Payload(const Payload&) = delete;
  Payload& operator=(const Payload&) = delete;
  ~Payload() { reset(); }

  Bytes bytes() const { return {buffer_ ? buffer_.data() : heap_.get(), size_}; }
  void reset() {
    if (budget_ == nullptr) return;
    buffer_.reset();
    heap_.reset();
    std::exchange(budget_, nullptr)->give_back(std::exchange(size_, 0));
  }

 private:
  static constexpr std::align_val_t kAlignment{4096};
  struct Free {
    void operator()(std::byte* bytes) const { ::operator delete(bytes, kAlignment); }
  };
  Budget* budget_ = nullptr;
  Buffer buffer_;
  std::unique_ptr<std::byte, Free> heap_;
  size_t size_ = 0;
};

}  // namespace firn::serve
