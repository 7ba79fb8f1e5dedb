// SPDX-License-Identifier: Apache-2.0
// Queue: fibers that want one contended thing, each with a priority. The decisions are those of
// policy/resource_queue.h; here they become waits. Source: US 9052937.
//
// Everything that a guest and a background job may want at once has one: the device (so many
// requests at a time), room in the journal, the shape of a layer's map. Completion driven: who
// leaves wakes the next, and nobody polls.
//
// Order, against deadlock: shape of a map, then journal, then device.
#pragma once

#include "io/io.h"
#include "policy/resource_queue.h"

namespace firn::store {

// Who goes first (R5). Waiting counts: after 50 ms as one more.
enum class Priority : uint8_t { format = 0, job = 2, guest = 4, urgent = 6 };

class Queue {
 public:
  using Counters = policy::ResourceQueue::Counters;

  explicit Queue(uint32_t capacity) : queue_({.capacity = capacity}) {}
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // In the queue, and then in possession, as long as it lives.
  class Hold {
   public:
    // Waits for its turn. 65,536 may wait; more is a front end without bounds (CHECK).
    Hold(Io& io, Queue& queue, Priority priority) : io_(io), queue_(queue) {
      turn_.priority = static_cast<uint8_t>(priority);
      const auto entry = queue.queue_.enter(queue.contended() ? io.now() : Time{}, turn_);
      CHECK(entry != policy::ResourceQueue::Entry::full, "too many wait for one thing");
      while (turn_.state != policy::ResourceWaiter::State::holding) io.park(turn_.woken);
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() { queue_.leave(io_, turn_); }

   private:
    friend class Queue;
    struct Turn : policy::ResourceWaiter {
      WaitList woken;
    };
    Io& io_;
    Queue& queue_;
    Turn turn_;
  };
  Hold enter(Io& io, Priority priority) { return Hold(io, *this, priority); }

  bool idle() const { return queue_.idle(); }
  uint32_t waiting() const { return queue_.waiting(); }
  const Counters& counters() const { return queue_.counters(); }

 private:
  // Only waiting is measured: whoever finds the thing free does not even look at the clock.
  bool contended() const { return queue_.waiting() > 0 || !queue_.is_available(); }
  void leave(Io& io, Hold::Turn& turn) {
    const Time now = contended() ? io.now() : Time{};
    queue_.leave(now, turn);
    while (policy::ResourceWaiter* const next = queue_.next(now)) {
      io.wake(static_cast<Hold::Turn*>(next)->woken);
    }
  }

  policy::ResourceQueue queue_;
};

}  // namespace firn::store
