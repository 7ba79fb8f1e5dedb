// SPDX-License-Identifier: Apache-2.0
// Who may use a contended thing next: a map page under copy, an allocation group, a journal slot,
// the depth of a device, a lease. One queue per thing, ordered by priority; waiters are woken by
// the caller, on completions, and on a schedule of checks where somebody else holds the thing.
// Source: US 9052937; ageing, inheritance and the form of dependencies are ours.
//
//  R1  Never more than `capacity` hold it.
//  R2  Nobody is let in while it is unavailable; one check per interval, not one per waiter.
//  R3  Checks come at a fixed interval, or at `first`, `first * factor`, ... up to `cap`; the count
//      begins again when a holder has ended well.
//  R4  Completion driven: leave() alone, without any check, makes the next one eligible.
//  R5  The next is the one with the highest priority, each `age` of waiting counting for one more;
//      among equals the one that came first. So nobody starves: priority 0 goes before whatever
//      came 7 * `age` after it.
//  R6  A waiter `after` another goes when that has ended well, and is cancelled when it failed.
//  R7  Whoever others wait for has at least their priority: a predecessor, and the holder of a
//      thing of capacity 1, through what that one waits for in another queue in turn.
//  R8  One that was denied keeps its place. At most `waiters_max` wait; then enter() says so.
//  R9  Nothing free and available has an eligible waiter, once next() has returned null.
//
// Whoever holds one thing may wait for another only in ascending order of keys (deadlock).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>

#include "base/list.h"
#include "base/prng.h"
#include "base/time.h"

namespace firn::policy {

class ResourceQueue;

// A token: derive from it. Lives from enter() until leave(), or until it was cancelled.
struct ResourceWaiter {
  static constexpr uint8_t kPriorities = 8;
  enum class State : uint8_t { outside, waiting, blocked, holding, cancelled };

  uint8_t priority = 4;  // 0 scrub, format; 2 consolidate, replicate; 4 guests; 6 guests that wait.
  uint64_t owner = 0;    // For cancel_owner().
  ResourceWaiter* after = nullptr;      // Of the same queue: has to end before this one goes.
  ResourceWaiter* elsewhere = nullptr;  // What this holder waits for in another queue.

  uint8_t effective() const { return priority > inherited ? priority : inherited; }

  // The queue's own.
  State state = State::outside;
  uint8_t inherited = 0;
  uint8_t level = 0;
  uint64_t order = 0;
  Time since, issued;
  ResourceQueue* queue = nullptr;
  uint32_t dependants = 0;
  Links<ResourceWaiter> links;
};

class ResourceQueue {
 public:
  enum class Entry : uint8_t { go, wait, full };
  struct Schedule {
    enum class Kind : uint8_t { fixed, exponential } kind = Kind::exponential;
    Duration first = std::chrono::microseconds(100);
    uint32_t factor = 2;
    Duration cap = std::chrono::milliseconds(100);
    uint32_t jitter_permille = 200;  // Added at most; hosts must not check in step.
  };
  struct Limits {
    uint32_t capacity = 1;
    uint32_t waiters_max = 65'536;
    Duration age = std::chrono::milliseconds(50);  // Zero: no ageing.
    Duration hold_max{};                           // For overdue(); zero: any time.
    Schedule schedule;
    uint64_t seed = 1;
  };
  struct Counters {
    uint64_t direct = 0, queued = 0, issued = 0, denied = 0, checks = 0;
    uint64_t cancelled = 0, refused = 0, inherited = 0, depth_max = 0;
  };

  explicit ResourceQueue(Limits limits) : limits_(limits), prng_(limits.seed) {}
  ResourceQueue(const ResourceQueue&) = delete;
  ResourceQueue& operator=(const ResourceQueue&) = delete;

  // `go`: it holds the thing. `wait`: next() will give it one day. `full`: it is not in the queue.
  Entry enter(Time now, ResourceWaiter& waiter);
  // Who goes now, if anybody: call it after each event below until it says null, and wake each.
  ResourceWaiter* next(Time now);
  // Whom to wake with an error: dependants of what failed, and what was cancelled by owner.
  ResourceWaiter* next_cancelled();

  void leave(Time now, ResourceWaiter& holder, bool failed = false);
  void denied(Time now, ResourceWaiter& holder);  // It was let in, and found somebody else there.
  void cancel(ResourceWaiter& waiter);            // A waiting one; it is outside afterwards.
  void cancel_owner(uint64_t owner);              // All its waiting ones, through next_cancelled().

  // Somebody outside has it, or has given it back.
  void make_unavailable(Time now);
  void make_available() { unavailable_ = false; }
  std::optional<Time> next_check() const;  // Look then whether it is available, and say:
  void checked(Time now, bool is_available);

  // The oldest holder if it has been one for too long: its completion is lost. It keeps its place,
  // for whoever came next could do a thing twice.
  const ResourceWaiter* overdue(Time now) const;

  uint32_t in_use() const { return static_cast<uint32_t>(holders_.count()); }
  uint32_t waiting() const { return waiting_; }
  bool is_available() const { return !unavailable_ && in_use() < limits_.capacity; }
  bool idle() const { return waiting_ == 0 && in_use() == 0 && !unavailable_; }
  const Counters& counters() const { return counters_; }

 private:
  using Waiters = List<ResourceWaiter, &ResourceWaiter::links>;
  struct Level {  // By order.
    ResourceWaiter* first = nullptr;
    ResourceWaiter* last = nullptr;
  };

  void hold(Time now, ResourceWaiter& waiter);
  void line_up(ResourceWaiter& waiter);
  void step_out(ResourceWaiter& waiter);
  ResourceWaiter* best() const;
  static void inherit(ResourceWaiter* waiter, uint8_t priority);
  void let_holder_inherit(const ResourceWaiter& waiter);
  void end_dependency(const ResourceWaiter& ended, bool failed);
  void throw_out(ResourceWaiter& waiter);
  void schedule_check(Time now);

  Limits limits_;
  std::array<Level, ResourceWaiter::kPriorities> levels_;
  Waiters blocked_, holders_, cancelled_;
  uint32_t waiting_ = 0;  // Lined up or blocked.
  uint64_t orders_ = 0;
  bool unavailable_ = false;
  Time next_check_{};
  uint32_t checks_ = 0;  // Since a holder ended well.
  Prng prng_;
  Counters counters_;
};

struct ResourceKey {
  uint8_t kind = 0;
  uint64_t a = 0, b = 0;
  auto operator<=>(const ResourceKey&) const = default;
};

// Queues of those things that are contended just now. A thing without a queue is used directly.
class ResourceTable {
 public:
  explicit ResourceTable(Duration linger = std::chrono::seconds(5)) : linger_(linger) {}
  // Null: nobody contends, use it directly.
  ResourceQueue* find(const ResourceKey& key) {
    if (queues_.empty()) return nullptr;
    const auto found = queues_.find(key);
    return found != queues_.end() ? &found->second.queue : nullptr;
  }
  // From the first denial on.
  ResourceQueue& contend(const ResourceKey& key, const ResourceQueue::Limits& limits) {
    return queues_.try_emplace(key, limits).first->second.queue;
  }
  // Drops queues that were idle for `linger`, at two calls that far apart.
  void sweep(Time now);
  size_t size() const { return queues_.size(); }

 private:
  struct Entry {
    explicit Entry(const ResourceQueue::Limits& limits) : queue(limits) {}
    ResourceQueue queue;
    uint64_t issued = 0;  // What the queue had issued when it was first seen idle.
    std::optional<Time> idle_since;
  };
  Duration linger_;
  std::map<ResourceKey, Entry> queues_;
};

}  // namespace firn::policy
