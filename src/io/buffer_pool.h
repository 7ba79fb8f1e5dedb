// SPDX-License-Identifier: Apache-2.0
// BufferPool: the aligned buffers of one shard, from one arena that a ring can register once.
//
// Contract:
//  B1  A buffer begins on a multiple of its capacity, which is a power of two from 4 KiB to 1 MiB:
//      good for direct I/O on any device.
//  B2  Memory is bounded: when the arena is exhausted callers wait, strictly in order of arrival,
//      so that a large request is not starved by small ones behind it.
//  B3  Taking and giving back never allocates.
//
// Whoever holds a buffer and waits for a second one can deadlock with its like: take all in one go,
// or none while holding one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/units.h"
#include "io/io.h"

namespace firn {

// A piece of the arena; goes back when it dies. Must not outlive its pool.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), bytes_(std::exchange(other.bytes_, {})) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this == &other) return *this;
    reset();
    pool_ = std::exchange(other.pool_, nullptr);
    bytes_ = std::exchange(other.bytes_, {});
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { reset(); }

  explicit operator bool() const { return pool_ != nullptr; }
  Bytes bytes() const {
    return bytes_;
  }  // As many as were asked for. Contents are whatever they were.
  std::byte* data() const { return bytes_.data(); }
  size_t size() const { return bytes_.size(); }
  void reset();

 private:
  friend class BufferPool;
  Buffer(BufferPool* pool, Bytes bytes) : pool_(pool), bytes_(bytes) {}
  BufferPool* pool_ = nullptr;
  Bytes bytes_;
};

class BufferPool {
 public:
  static constexpr size_t kBufferMin = 4 * kKiB;
  static constexpr size_t kBufferMax = 1 * kMiB;
  static constexpr size_t kBytesByDefault = 16 * kMiB;

  explicit BufferPool(size_t arena_bytes);  // Rounded up to whole MiB.
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // 1 to kBufferMax bytes. May wait.
  Buffer take(Io& io, size_t bytes);
  // An empty Buffer when there is none at once, or when others wait already.
  Buffer try_take(size_t bytes);

  Bytes arena() const { return arena_; }
  bool contains(const void* at, size_t length) const {
    const auto offset = static_cast<size_t>(static_cast<const std::byte*>(at) - arena_.data());
    return offset < arena_.size() && length <= arena_.size() - offset;
  }
  size_t bytes_in_use() const { return in_use_; }
  size_t bytes_in_use_max() const { return in_use_max_; }
  uint64_t waits() const { return waits_; }  // How often somebody had to wait.

 private:
  friend class Buffer;
  static constexpr size_t kOrders = 9;  // 4 KiB << 0 .. 4 KiB << 8.
  static constexpr int32_t kNone = -1;
  static constexpr uint8_t kNotFree = 0xff;
  struct Page {  // Of 4 KiB. Links are page numbers, valid while the page heads a free run.
    int32_t previous = kNone;
    int32_t next = kNone;
    uint8_t free_order = kNotFree;
  };
  struct Waiter {
    Io* io = nullptr;
    size_t bytes = 0;
    Buffer buffer;
    WaitList here;
    Waiter* next = nullptr;
  };

  static size_t order_of(size_t bytes);
  Buffer carve(size_t bytes);
  void give_back(Bytes bytes);
  void serve_waiters();
  void link(int32_t page, size_t order);
  void unlink(int32_t page);

  Bytes arena_;
  std::vector<Page> pages_;
  std::array<int32_t, kOrders> free_{};
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
  size_t in_use_ = 0;
  size_t in_use_max_ = 0;
  uint64_t waits_ = 0;
};

}  // namespace firn
