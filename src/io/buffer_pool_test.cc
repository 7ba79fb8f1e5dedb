// SPDX-License-Identifier: Apache-2.0
#include "io/buffer_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "base/prng.h"
#include "io/fiber_io.h"

namespace firn {
namespace {

TEST(BufferPool, B1_buffers_are_aligned_to_their_capacity_and_disjoint) {
  BufferPool pool(4 * kMiB);
  Prng prng(1);
  std::vector<Buffer> held;
  for (int i = 0; i < 20000; ++i) {
    if (prng.one_in(2) && !held.empty()) {
      std::swap(held[prng.below(held.size())], held.back());
      held.pop_back();
      continue;
    }
    const size_t bytes = 1 + prng.below(prng.one_in(4) ? BufferPool::kBufferMax : 20000);
    Buffer buffer = pool.try_take(bytes);
    if (!buffer) continue;
    ASSERT_EQ(buffer.size(), bytes);
    const size_t capacity = std::max(std::bit_ceil(bytes), BufferPool::kBufferMin);
    ASSERT_EQ(std::bit_cast<uintptr_t>(buffer.data()) % capacity, 0u);
    ASSERT_TRUE(pool.contains(buffer.data(), bytes));
    for (const Buffer& other : held) {
      ASSERT_TRUE(other.data() + other.size() <= buffer.data() ||
                  buffer.data() + bytes <= other.data());
    }
    held.push_back(std::move(buffer));
  }
  held.clear();
  EXPECT_EQ(pool.bytes_in_use(), 0u);
  // Everything has merged again: the largest buffers fit as often as on the first day.
  for (int i = 0; i < 4; ++i) held.push_back(pool.try_take(BufferPool::kBufferMax));
  for (const Buffer& buffer : held) EXPECT_TRUE(static_cast<bool>(buffer));
  EXPECT_FALSE(static_cast<bool>(pool.try_take(1)));
}

TEST(BufferPool, knows_what_is_inside) {
  BufferPool pool(1);
  EXPECT_EQ(pool.arena().size(), kMiB);
  EXPECT_TRUE(pool.contains(pool.arena().data(), kMiB));
  EXPECT_FALSE(pool.contains(pool.arena().data() + 1, kMiB));
  EXPECT_FALSE(pool.contains(pool.arena().data() - 1, 1));
  EXPECT_FALSE(pool.contains(&pool, 1));
}

TEST(BufferPool, B2_waiters_are_served_in_order_and_the_large_one_is_not_starved) {
  auto io = FiberIo::make({.ring = {}, .buffer_bytes = kMiB, .helpers = nullptr}).take();
  std::vector<int> order;
  io->run([&] {
    BufferPool& pool = io->buffers();
    Group group(*io);
    Buffer half = pool.take(*io, kMiB / 2);
    Buffer other = pool.take(*io, kMiB / 2);
    io->spawn(group, [&] {
      const Buffer all = pool.take(*io, kMiB);
      order.push_back(1);
    });
    io->spawn(group, [&] {
      const Buffer small = pool.take(*io, 4096);
      order.push_back(2);
    });
    io->yield();
    half.reset();  // Enough for the second, but the first came first.
    EXPECT_FALSE(static_cast<bool>(pool.try_take(4096)));
    io->yield();
    EXPECT_TRUE(order.empty());
    other.reset();
    group.wait();
  });
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_EQ(io->buffers().waits(), 2u);
  EXPECT_EQ(io->buffers().bytes_in_use(), 0u);
  EXPECT_EQ(io->buffers().bytes_in_use_max(), kMiB);
}

}  // namespace
}  // namespace firn
