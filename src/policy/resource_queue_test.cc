// SPDX-License-Identifier: Apache-2.0
#include "policy/resource_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "base/prng.h"

namespace firn::policy {
namespace {

using Entry = ResourceQueue::Entry;
using Limits = ResourceQueue::Limits;
using Kind = ResourceQueue::Schedule::Kind;
using State = ResourceWaiter::State;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr Time at_ms(int64_t ms) { return {milliseconds(ms)}; }

ResourceWaiter with(uint8_t priority, uint64_t owner = 0) {
  ResourceWaiter waiter;
  waiter.priority = priority, waiter.owner = owner;
  return waiter;
}

// --- what must be shown

TEST(ResourceQueue, show_1_and_9_never_more_than_the_capacity) {
  for (const uint32_t capacity : {1U, 4U}) {
    ResourceQueue queue({.capacity = capacity});
    std::vector<ResourceWaiter> all(64);
    for (size_t i = 0; i < all.size(); ++i) {
      all[i].owner = i % 2;  // Two guests.
      EXPECT_EQ(queue.enter(at_ms(0), all[i]), i < capacity ? Entry::go : Entry::wait);
    }
    EXPECT_EQ(queue.next(at_ms(0)), nullptr);
    for (ResourceWaiter& one : all) {
      EXPECT_LE(queue.in_use(), capacity);
      queue.leave(at_ms(1), one);
      while (queue.next(at_ms(1)) != nullptr) {
      }
    }
    EXPECT_TRUE(queue.idle());
  }
}

TEST(ResourceQueue, show_2_nobody_goes_while_it_is_unavailable) {
  ResourceQueue queue(
      {.schedule = {.kind = Kind::fixed, .first = milliseconds(1), .jitter_permille = 0}});
  queue.make_unavailable(at_ms(0));
  EXPECT_FALSE(queue.next_check());  // Nobody waits.
  ResourceWaiter one = with(4);
  EXPECT_EQ(queue.enter(at_ms(0), one), Entry::wait);
  EXPECT_EQ(queue.next(at_ms(0)), nullptr);
  ASSERT_EQ(queue.next_check(), at_ms(1));
  queue.checked(at_ms(1), true);
  EXPECT_EQ(queue.next(at_ms(1)), &one);
}

std::vector<Duration> intervals(Limits limits, int count) {
  ResourceQueue queue(limits);
  ResourceWaiter one = with(4);
  Time now{};
  queue.make_unavailable(now);
  queue.enter(now, one);
  std::vector<Duration> found;
  for (int i = 0; i < count; ++i) {
    found.push_back(*queue.next_check() - now);
    now = *queue.next_check();
    queue.checked(now, false);
  }
  return found;
}

TEST(ResourceQueue, show_3_and_4_equal_intervals) {
  for (const Duration interval : intervals(
           {.schedule = {.kind = Kind::fixed, .first = milliseconds(3), .jitter_permille = 0}},
           20)) {
    EXPECT_EQ(interval, milliseconds(3));
  }
}

TEST(ResourceQueue, show_5_growing_intervals_up_to_a_cap) {
  const auto found = intervals({.schedule = {.jitter_permille = 0}}, 12);
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i], std::min<Duration>(microseconds(100) * (1 << i), milliseconds(100)));
  }
  for (const Duration interval : intervals({.schedule = {.kind = Kind::fixed}}, 50)) {
    EXPECT_GE(interval, microseconds(100));
    EXPECT_LT(interval, microseconds(120));
  }
}

TEST(ResourceQueue, show_6_a_completion_alone_starts_the_next) {
  ResourceQueue queue({});
  ResourceWaiter one = with(4), two = with(4);
  queue.enter(at_ms(0), one);
  queue.enter(at_ms(0), two);
  EXPECT_FALSE(queue.next_check());
  queue.leave(at_ms(9), one);
  EXPECT_EQ(queue.next(at_ms(9)), &two);
}

TEST(ResourceQueue, show_7_and_8_the_highest_priority_goes_first) {
  ResourceQueue queue({});
  ResourceWaiter holder = with(4);
  std::vector<ResourceWaiter> all;
  for (const int priority : {3, 0, 7, 5, 7, 1, 3})
    all.push_back(with(static_cast<uint8_t>(priority)));
  queue.enter(at_ms(0), holder);
  for (ResourceWaiter& one : all) queue.enter(at_ms(0), one);
  ResourceWaiter* last = &holder;
  std::vector<size_t> order;
  for (size_t i = 0; i < all.size(); ++i) {
    queue.leave(at_ms(0), *last);
    last = queue.next(at_ms(0));
    ASSERT_NE(last, nullptr);
    order.push_back(static_cast<size_t>(last - all.data()));
  }
  EXPECT_EQ(order, (std::vector<size_t>{2, 4, 3, 0, 6, 5, 1}));
}

TEST(ResourceQueue, show_11_what_nobody_contends_for_has_no_queue) {
  ResourceTable table(milliseconds(10));
  const ResourceKey page = {1, 2, 3};
  EXPECT_EQ(table.find(page), nullptr);
  ResourceQueue& queue = table.contend(page, {});
  EXPECT_EQ(&table.contend(page, {}), &queue);
  EXPECT_EQ(table.find({1, 2, 4}), nullptr);
  ResourceWaiter one = with(4);
  queue.enter(at_ms(0), one);
  table.sweep(at_ms(100));
  queue.leave(at_ms(100), one);
  for (int ms = 100; ms < 110; ++ms) table.sweep(at_ms(ms));
  EXPECT_EQ(table.find(page), &queue);
  table.sweep(at_ms(130));
  EXPECT_EQ(table.find(page), nullptr);
}

TEST(ResourceQueue, show_12_dependencies_and_what_they_inherit) {
  ResourceQueue queue({});
  ResourceWaiter holder = with(4), a = with(0), b = with(7), traffic = with(4);
  queue.enter(at_ms(0), holder);
  queue.enter(at_ms(0), traffic);
  queue.enter(at_ms(0), a);
  b.after = &a;
  queue.enter(at_ms(0), b);
  EXPECT_EQ(a.effective(), 7);
  queue.leave(at_ms(1), holder);
  EXPECT_EQ(queue.next(at_ms(1)), &a);
  queue.leave(at_ms(2), a);
  EXPECT_EQ(queue.next(at_ms(2)), &b);
  queue.leave(at_ms(3), b);
  EXPECT_EQ(queue.next(at_ms(3)), &traffic);
}

TEST(ResourceQueue, show_13_priority_0_is_served_under_endless_priority_7) {
  ResourceQueue queue({.age = milliseconds(50)});
  std::deque<ResourceWaiter> all;
  ResourceWaiter low = with(0);
  ResourceWaiter* holder = &all.emplace_back(with(7));
  queue.enter(at_ms(0), *holder);
  queue.enter(at_ms(0), low);
  int64_t ms = 0;
  while (holder != &low && ms < 1000) {
    ++ms;
    queue.enter(at_ms(ms), all.emplace_back(with(7)));
    queue.enter(at_ms(ms), all.emplace_back(with(7)));  // More than can be served.
    queue.leave(at_ms(ms), *holder);
    holder = queue.next(at_ms(ms));
    ASSERT_NE(holder, nullptr);
  }
  EXPECT_EQ(holder, &low);
  EXPECT_LE(ms, 2 * 8 * 50);  // What came in the first 350 ms, at one served for two that came.
}

// --- the rest

TEST(ResourceQueue, R7_the_holder_of_a_lock_inherits_through_what_it_waits_for) {
  ResourceQueue page({}), device({});
  ResourceWaiter low = with(1), low_io = with(1), other_io = with(4), first_io = with(4);
  ResourceWaiter high = with(7);
  page.enter(at_ms(0), low);
  device.enter(at_ms(0), first_io);
  device.enter(at_ms(0), other_io);
  low_io.priority = low.effective();
  EXPECT_EQ(device.enter(at_ms(0), low_io), Entry::wait);
  low.elsewhere = &low_io;
  page.enter(at_ms(1), high);  // Waits for low, which waits for the device.
  EXPECT_EQ(low_io.effective(), 7);
  device.leave(at_ms(1), first_io);
  EXPECT_EQ(device.next(at_ms(1)), &low_io);
}

TEST(ResourceQueue, R8_the_denied_keep_their_place_and_checks_grow) {
  ResourceQueue queue({.schedule = {.jitter_permille = 0}});
  ResourceWaiter one = with(4), two = with(4);
  queue.enter(at_ms(0), one);
  queue.enter(at_ms(0), two);
  queue.denied(at_ms(0), one);
  EXPECT_EQ(queue.next(at_ms(0)), nullptr);
  EXPECT_EQ(queue.next_check(), Time{microseconds(100)});
  queue.checked(Time{microseconds(100)}, true);
  EXPECT_EQ(queue.next(Time{microseconds(100)}), &one);
  queue.denied(Time{microseconds(100)}, one);
  EXPECT_EQ(queue.next_check(), Time{microseconds(300)});
  queue.make_available();
  EXPECT_EQ(queue.next(Time{microseconds(150)}), &one);
  queue.leave(at_ms(1), one);
  queue.make_unavailable(at_ms(1));
  EXPECT_EQ(queue.next_check(), Time{microseconds(1100)});  // From the beginning.
}

TEST(ResourceQueue, R8_a_full_queue_says_so) {
  ResourceQueue queue({.waiters_max = 2});
  std::vector<ResourceWaiter> all(4);
  EXPECT_EQ(queue.enter(at_ms(0), all[0]), Entry::go);
  EXPECT_EQ(queue.enter(at_ms(0), all[1]), Entry::wait);
  EXPECT_EQ(queue.enter(at_ms(0), all[2]), Entry::wait);
  EXPECT_EQ(queue.enter(at_ms(0), all[3]), Entry::full);
  EXPECT_EQ(all[3].state, State::outside);
}

TEST(ResourceQueue, R6_a_failure_cancels_all_that_come_after_it) {
  ResourceQueue queue({});
  ResourceWaiter a = with(4), b = with(4), c = with(4), d = with(4);
  queue.enter(at_ms(0), a);
  b.after = &a, c.after = &b, d.after = &a;
  for (ResourceWaiter* one : {&b, &c, &d}) queue.enter(at_ms(0), *one);
  queue.leave(at_ms(1), a, true);
  EXPECT_EQ(queue.next_cancelled(), &b);
  EXPECT_EQ(queue.next_cancelled(), &d);
  EXPECT_EQ(queue.next_cancelled(), &c);
  EXPECT_EQ(queue.next_cancelled(), nullptr);
  EXPECT_TRUE(queue.idle());
}

TEST(ResourceQueue, a_client_that_goes_takes_its_waiters_along) {
  ResourceQueue queue({});
  ResourceWaiter a = with(4, 1), b = with(4, 2), c = with(5, 2), d = with(4, 1);
  d.after = &b;
  for (ResourceWaiter* one : {&a, &b, &c, &d}) queue.enter(at_ms(0), *one);
  queue.cancel_owner(2);
  EXPECT_EQ(queue.next_cancelled(), &b);
  EXPECT_EQ(queue.next_cancelled(), &c);
  EXPECT_EQ(queue.next_cancelled(), &d);  // It came after one that was cancelled.
  EXPECT_EQ(queue.next_cancelled(), nullptr);
  queue.leave(at_ms(1), a);
  EXPECT_TRUE(queue.idle());
}

TEST(ResourceQueue, a_lost_completion_is_named_and_keeps_its_place) {
  ResourceQueue queue({.hold_max = milliseconds(100)});
  ResourceWaiter one = with(4), two = with(4);
  queue.enter(at_ms(0), one);
  queue.enter(at_ms(0), two);
  EXPECT_EQ(queue.overdue(at_ms(100)), nullptr);
  EXPECT_EQ(queue.overdue(at_ms(101)), &one);
  EXPECT_EQ(queue.next(at_ms(101)), nullptr);
}

// A random life of a queue, against a list of who waits; every waiter ends exactly once.
class Life {
 public:
  explicit Life(uint64_t seed)
      : prng_(seed),
        capacity_(static_cast<uint32_t>(1 + prng_.below(4))),
        queue_({.capacity = capacity_, .waiters_max = 40, .age = milliseconds(prng_.below(20))}),
        pool_(60) {}

  void step() {
    now_ = now_ + microseconds(prng_.below(5000));
    const uint64_t what = prng_.below(10);
    Tracked& one = pool_[prng_.below(pool_.size())];
    if (what < 5 && one.state == State::outside) {
      enter(one);
    } else if (what < 8 && !holders_.empty()) {
      end(prng_.below(holders_.size()));
    } else if (what == 8 && prng_.one_in(5)) {
      cancel(one);
    } else if (outside_ && queue_.next_check() && now_ >= *queue_.next_check()) {
      outside_ = prng_.one_in(2);
      queue_.checked(now_, !outside_);
    }
    settle();
  }
  void finish() {
    queue_.make_available();
    outside_ = false;
    settle();
    while (!holders_.empty()) {
      Tracked& holder = *holders_.back();
      holders_.pop_back();
      holder.holds = false;
      queue_.leave(now_, holder);
      settle();
    }
    EXPECT_TRUE(queue_.idle());  // R9: nobody was forgotten.
    for (const Tracked& one : pool_) EXPECT_TRUE(!one.waits && one.state == State::outside);
  }

 private:
  struct Tracked : ResourceWaiter {
    bool waits = false, holds = false;
  };

  void enter(Tracked& one) {
    one.priority = static_cast<uint8_t>(prng_.below(8)), one.owner = prng_.below(4);
    Tracked& before = pool_[prng_.below(pool_.size())];
    const bool depends = prng_.one_in(4) && &before != &one && before.state != State::outside;
    one.after = depends ? &before : nullptr;
    const Entry entry = queue_.enter(now_, one);
    one.waits = entry == Entry::wait, one.holds = entry == Entry::go;
    if (one.holds) holders_.push_back(&one);
    EXPECT_FALSE(one.holds && (outside_ || depends));  // R2, R6
  }
  void end(size_t which) {
    Tracked& holder = *holders_[which];
    holders_.erase(holders_.begin() + static_cast<ptrdiff_t>(which));
    holder.holds = false;
    if (prng_.one_in(10)) {
      queue_.denied(now_, holder);
      holder.waits = outside_ = true;
    } else {
      const bool failed = prng_.one_in(20);
      queue_.leave(now_, holder, failed);
      outside_ = outside_ && failed;
    }
  }
  void cancel(Tracked& one) {
    if (one.waits) {
      queue_.cancel(one);
      one.waits = false;
    } else {
      queue_.cancel_owner(prng_.below(4));
    }
  }
  void settle() {
    while (ResourceWaiter* const victim = queue_.next_cancelled()) {
      auto& one = static_cast<Tracked&>(*victim);
      EXPECT_TRUE(one.waits);
      one.waits = false;
    }
    while (ResourceWaiter* const chosen = queue_.next(now_)) {
      auto& one = static_cast<Tracked&>(*chosen);
      EXPECT_TRUE(one.waits && !one.holds && one.after == nullptr);  // R6
      EXPECT_FALSE(outside_);                                        // R2
      for (const Tracked& other : pool_) {                           // R5
        if (!other.waits || other.state != State::waiting) continue;
        EXPECT_FALSE(other.effective() >= one.effective() && other.order < one.order);
      }
      one.waits = false, one.holds = true;
      holders_.push_back(&one);
    }
    EXPECT_LE(holders_.size(), capacity_);  // R1
    EXPECT_EQ(holders_.size(), queue_.in_use());
  }

  Prng prng_;
  uint32_t capacity_;
  ResourceQueue queue_;
  std::deque<Tracked> pool_;
  std::vector<Tracked*> holders_;
  bool outside_ = false;  // Somebody else has it.
  Time now_{};
};

TEST(ResourceQueue, holds_in_a_million_random_events) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Life life(seed);
    for (int i = 0; i < 100'000; ++i) {
      life.step();
      if (HasFailure()) FAIL() << "seed " << seed << ", event " << i;
    }
    life.finish();
  }
}

}  // namespace
}  // namespace firn::policy
