// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// A buddy allocator over pages of 4 KiB. I1: a free run of order k begins at a multiple of 2^k
// pages, and its buddy is not free at the same order. I2: in_use_ is the sum of the capacities
// handed out. I3: nobody waits for what could be given: serve_waiters() runs at each return, and
// gives to the head directly, so that nobody who comes later can snatch it.
#include "io/buffer_pool.h"

#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace firn {

void Buffer::reset() {
  if (pool_ != nullptr) std::exchange(pool_, nullptr)->give_back(bytes_);
  bytes_ = {};
}

BufferPool::BufferPool(size_t arena_bytes) {
  const size_t bytes = round_up(std::max<size_t>(arena_bytes, 1), kBufferMax);
  // Twice over, less the ends: mmap aligns to pages only, the arena must be aligned to its largest
  // buffer.
  void* mapping = ::mmap(nullptr, bytes + kBufferMax, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(mapping != MAP_FAILED, "no memory for {} bytes of buffers: {}", bytes,
        std::strerror(errno));
  auto* begin = static_cast<std::byte*>(mapping);
  const size_t before = (kBufferMax - std::bit_cast<uintptr_t>(begin) % kBufferMax) % kBufferMax;
  if (before > 0) ::munmap(begin, before);
  if (before < kBufferMax) ::munmap(begin + before + bytes, kBufferMax - before);
  arena_ = Bytes(begin + before, bytes);
  pages_.resize(bytes / kBufferMin);
  free_.fill(kNone);
  constexpr size_t kStep = kBufferMax / kBufferMin;
  for (size_t page = pages_.size(); page >= kStep; page -= kStep) {
    link(static_cast<int32_t>(page - kStep), kOrders - 1);
  }
}

BufferPool::~BufferPool() {
  CHECK(in_use_ == 0, "{} bytes of buffers outlive their pool", in_use_);
  CHECK(first_ == nullptr);
  ::munmap(arena_.data(), arena_.size());
}

size_t BufferPool::order_of(size_t bytes) {
  CHECK(bytes > 0 && bytes <= kBufferMax, "no buffer has {} bytes", bytes);
  const size_t pages = (bytes + kBufferMin - 1) / kBufferMin;
  return static_cast<size_t>(std::bit_width(pages - 1));
}

void BufferPool::link(int32_t page, size_t order) {
  Page& head = pages_[static_cast<size_t>(page)];
  head = {kNone, free_[order], static_cast<uint8_t>(order)};
  if (head.next != kNone) pages_[static_cast<size_t>(head.next)].previous = page;
  free_[order] = page;
}

void BufferPool::unlink(int32_t page) {
  Page& head = pages_[static_cast<size_t>(page)];
  if (head.previous == kNone) {
    free_[head.free_order] = head.next;
  } else {
    pages_[static_cast<size_t>(head.previous)].next = head.next;
  }
  if (head.next != kNone) pages_[static_cast<size_t>(head.next)].previous = head.previous;
  head.free_order = kNotFree;
}

Buffer BufferPool::carve(size_t bytes) {
  const size_t wanted = order_of(bytes);
  size_t order = wanted;
  while (order < kOrders && free_[order] == kNone) ++order;
  if (order == kOrders) return {};
  const int32_t page = free_[order];
  unlink(page);
  while (order > wanted) {
    --order;
    link(page + (1 << order), order);  // The upper half stays free.
  }
  in_use_ += kBufferMin << wanted;
  in_use_max_ = std::max(in_use_max_, in_use_);
  return Buffer(this, arena_.subspan(static_cast<size_t>(page) * kBufferMin, bytes));
}

void BufferPool::give_back(Bytes bytes) {
  size_t order = order_of(bytes.size());
  in_use_ -= kBufferMin << order;
  auto page = static_cast<int32_t>(static_cast<size_t>(bytes.data() - arena_.data()) / kBufferMin);
  for (; order + 1 < kOrders; ++order) {
    const int32_t buddy = page ^ (1 << order);
    if (pages_[static_cast<size_t>(buddy)].free_order != order) break;
    unlink(buddy);
    page = std::min(page, buddy);
  }
  link(page, order);
  serve_waiters();
}

void BufferPool::serve_waiters() {
  while (first_ != nullptr) {
    Waiter& waiter = *first_;
    waiter.buffer = carve(waiter.bytes);
    if (!waiter.buffer) return;
    first_ = waiter.next;
    if (first_ == nullptr) last_ = nullptr;
    waiter.io->wake(waiter.here);
  }
}

Buffer BufferPool::try_take(size_t bytes) {
  if (first_ != nullptr) return {};
  return carve(bytes);
}

Buffer BufferPool::take(Io& io, size_t bytes) {
  NoWait::assert_may_wait();
  Buffer buffer = try_take(bytes);
  if (buffer) return buffer;
  ++waits_;
  Waiter waiter;
  waiter.io = &io;
  waiter.bytes = bytes;
  (first_ == nullptr ? first_ : last_->next) = &waiter;
  last_ = &waiter;
  while (!waiter.buffer) io.park(waiter.here);
  return std::move(waiter.buffer);
}

}  // namespace firn
