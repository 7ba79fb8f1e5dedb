// SPDX-License-Identifier: Apache-2.0
// FiberScheduler: stackful fibers of one thread, run in turns. The ground under FiberIo and SimIo.
//
// Contract:
//  F1  A fiber runs until it waits; nobody is preempted, and a fiber never changes its thread.
//  F2  Without a picker, fibers run in the order in which they became runnable; WaitLists are FIFO.
//  F3  A turn (run_ready) runs everything runnable, also what becomes runnable meanwhile; then
//      those who yielded, once; then returns, so that a driver may submit what has gathered.
//  F4  Stacks come from a pool, lie above a guard page, and are used again without allocation.
//  F5  A task runs to its end: there is no cancellation. All fibers have ended when the scheduler
//      dies.
//
// Knows no I/O and no clock: a driver calls run_ready() and make_ready().
#pragma once

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/task.h"
#include "io/io.h"

namespace firn {

class FiberScheduler;

// One stack and what runs on it. The node links it into the one list in which it waits.
class Fiber : public WaitList::Node {
 public:
  Fiber(FiberScheduler& scheduler, uint64_t number);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  uint64_t number() const {
    return number_;
  }  // Which spawn it was: the same in every run of a seed.
  const char* waits_for() const { return waits_for_; }

 private:
  friend class FiberScheduler;
  enum class State : uint8_t { idle, ready, running, waiting };

  boost::context::fiber body(boost::context::fiber&& driver);
  size_t high_water() const;  // Bytes of the stack ever touched, in whole pages.

  FiberScheduler& scheduler_;
  uint64_t number_;
  State state_ = State::idle;
  const char* waits_for_ = "";
  Group* group_ = nullptr;
  Task task_;
  std::byte* mapping_ = nullptr;   // Guard page first, then the stack.
  boost::context::fiber context_;  // Where to resume it.
  boost::context::fiber driver_;   // Where to return to, while it runs.
  void* fake_stack_ = nullptr;     // AddressSanitizer's.
  void* tsan_fiber_ = nullptr;     // ThreadSanitizer's.
};

// Chooses who runs next: an index below `count` (> 0). Simulation injects a seeded one.
class OrderPicker {
 public:
  virtual ~OrderPicker() = default;
  virtual size_t pick(size_t count) = 0;
};

class FiberScheduler {
 public:
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static constexpr size_t kStackBytes = 256 * 1024;  // Redzones make frames several times larger.
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  static constexpr size_t kStackBytes = 256 * 1024;
#else
  static constexpr size_t kStackBytes = 64 * 1024;
#endif
#else
  static constexpr size_t kStackBytes = 64 * 1024;
#endif
  // A turn ends after so many switches even when fibers keep waking each other: I/O must not
  // starve.
  static constexpr size_t kTurnSwitches = 1 << 16;

  explicit FiberScheduler(OrderPicker* picker = nullptr) : picker_(picker) {}
  ~FiberScheduler();
  FiberScheduler(const FiberScheduler&) = delete;
  FiberScheduler& operator=(const FiberScheduler&) = delete;

  // --- for fibers (and, where they do not wait, for the driver)
  // `group` may be null: a root fiber.
  void spawn(Group* group, Task task);
  void park(WaitList& list);
  void wake(WaitList& list, size_t count = SIZE_MAX);
  void yield();
  // Waits until somebody calls make_ready() with this fiber. `what` must outlive the wait.
  void suspend(const char* what);
  // Null outside of fibers.
  Fiber* current() const { return current_; }
  void make_ready(Fiber& fiber);

  // --- for the driver
  void run_ready();
  bool has_ready() const { return ready_count_ > 0 || yielded_.first != nullptr; }
  size_t alive() const { return alive_; }
  size_t ready_count() const { return ready_count_; }

  // --- for metrics and for whoever explains a deadlock
  uint64_t spawned() const { return spawned_; }
  uint64_t switches() const { return switches_; }
  size_t stacks() const { return fibers_.size(); }
  // The largest part of any stack ever used. Asks the kernel about each stack: for a scrape, not a
  // path.
  size_t stack_high_water() const;
  // "fiber 7 waits for read, fiber 9 waits for park", at most `count` of them.
  std::string describe_waiting(size_t count = 32) const;

 private:
  friend class Fiber;
  static void append(WaitList& list, Fiber& fiber);
  static Fiber* take_first(WaitList& list);
  void push_ready(Fiber& fiber);
  Fiber& pop_ready();
  void drain();
  void resume(Fiber& fiber);
  void switch_out(const char* what);  // From the current fiber to the driver.
  void ended(Fiber& fiber);

  OrderPicker* picker_;
  Fiber* current_ = nullptr;
  // A ring of runnable fibers; a power of two of places.
  std::vector<Fiber*> ready_ = std::vector<Fiber*>(64);
  size_t ready_first_ = 0;
  size_t ready_count_ = 0;
  WaitList yielded_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  size_t alive_ = 0;
  uint64_t spawned_ = 0;
  uint64_t switches_ = 0;
  bool closing_ = false;
  // The driver's side of the sanitizers' book-keeping.
  void* driver_fake_stack_ = nullptr;
  const void* driver_bottom_ = nullptr;
  size_t driver_size_ = 0;
  void* driver_tsan_ = nullptr;
};

}  // namespace firn
