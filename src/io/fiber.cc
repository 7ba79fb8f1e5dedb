// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// A Fiber is a stack that outlives its tasks: body() runs one task after the other and switches
// back to the driver between them, so that starting a task on a used stack is one assignment and
// one switch. All switches are between the driver (run_ready) and a fiber, never from fiber to
// fiber: the sanitizers then have one place to be told in each direction.
#include "io/fiber.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define FIRN_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIRN_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define FIRN_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FIRN_TSAN 1
#endif
#endif

#ifdef FIRN_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef FIRN_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace firn {
namespace {

constexpr size_t kGuardBytes = 4096;
constexpr size_t kMappingBytes = kGuardBytes + FiberScheduler::kStackBytes;

// Leaving one stack for another, and arriving. `keep` is where the left stack's fake frames wait;
// null when it will never be entered again.
void leaving(void** keep, const void* bottom, size_t size) {
#ifdef FIRN_ASAN
  __sanitizer_start_switch_fiber(keep, bottom, size);
#else
  (void)keep;
  (void)bottom;
  (void)size;
#endif
}
void arrived(void* kept, const void** old_bottom, size_t* old_size) {
#ifdef FIRN_ASAN
  __sanitizer_finish_switch_fiber(kept, old_bottom, old_size);
#else
  (void)kept;
  (void)old_bottom;
  (void)old_size;
#endif
}
// Inlined always: ThreadSanitizer would note this function's entry on the stack left, and its exit
// on the one entered.
[[gnu::always_inline]] inline void tsan_switch([[maybe_unused]] void* to) {
#ifdef FIRN_TSAN
  __tsan_switch_to_fiber(to, 0);
#endif
}

// The stack belongs to the Fiber, not to the context that runs on it.
struct KeepStack {
  boost::context::stack_context allocate() { return {}; }
  void deallocate(boost::context::stack_context&) {}
};

// Stacks of schedulers that are gone: a crash enumeration makes a scheduler per image. Per thread,
// few.
class SpareStacks {
 public:
  SpareStacks() = default;
  SpareStacks(const SpareStacks&) = delete;
  SpareStacks& operator=(const SpareStacks&) = delete;
  ~SpareStacks() {
    for (std::byte* mapping : spare_) ::munmap(mapping, kMappingBytes);
  }
  std::byte* take() {
    if (spare_.empty()) return nullptr;
    std::byte* mapping = spare_.back();
    spare_.pop_back();
    return mapping;
  }
  void give_back(std::byte* mapping) {
    if (spare_.size() < kCount) {
      spare_.push_back(mapping);
    } else {
      ::munmap(mapping, kMappingBytes);
    }
  }

 private:
  static constexpr size_t kCount = 32;
  std::vector<std::byte*> spare_;
};
thread_local SpareStacks spare_stacks;

std::byte* map_stack(uint64_t number) {
  void* mapping = ::mmap(nullptr, kMappingBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
  CHECK(mapping != MAP_FAILED, "no memory for the stack of fiber {}: {}", number,
        std::strerror(errno));
  CHECK(::mprotect(mapping, kGuardBytes, PROT_NONE) == 0,
        "no guard page for the stack of fiber {} (vm.max_map_count?): {}", number,
        std::strerror(errno));
  return static_cast<std::byte*>(mapping);
}

}  // namespace

Fiber::Fiber(FiberScheduler& scheduler, uint64_t number) : scheduler_(scheduler), number_(number) {
  mapping_ = spare_stacks.take();
  if (mapping_ == nullptr) mapping_ = map_stack(number);
  boost::context::stack_context stack;
  stack.size = FiberScheduler::kStackBytes;
  stack.sp = mapping_ + kMappingBytes;
  context_ = boost::context::fiber(
      std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack), KeepStack{},
      [this](boost::context::fiber&& driver) { return body(std::move(driver)); });
#ifdef FIRN_TSAN
  tsan_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  CHECK(!context_, "fiber {} did not end", number_);
#ifdef FIRN_TSAN
  __tsan_destroy_fiber(tsan_fiber_);
#endif
#ifdef FIRN_ASAN
  __asan_unpoison_memory_region(mapping_ + kGuardBytes, FiberScheduler::kStackBytes);
#endif
  spare_stacks.give_back(mapping_);
}

boost::context::fiber Fiber::body(boost::context::fiber&& driver) {
  driver_ = std::move(driver);
  FiberScheduler& scheduler = scheduler_;
  arrived(nullptr, &scheduler.driver_bottom_, &scheduler.driver_size_);
  while (!scheduler.closing_) {
    task_();
    task_.clear();
    scheduler.ended(*this);
    scheduler.switch_out("a task");
  }
  leaving(nullptr, scheduler.driver_bottom_, scheduler.driver_size_);
  // ThreadSanitizer is told in resume(): the functions above us must end first.
  return std::move(driver_);
}

size_t Fiber::high_water() const {
  std::array<unsigned char, FiberScheduler::kStackBytes / 4096> resident{};
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  if (::mincore(mapping_ + kGuardBytes, FiberScheduler::kStackBytes, resident.data()) != 0)
    return 0;
  const size_t pages = FiberScheduler::kStackBytes / page;
  for (size_t i = 0; i < pages; ++i) {
    if ((resident[i] & 1) != 0) return (pages - i) * page;
  }
  return 0;
}

FiberScheduler::~FiberScheduler() {
  CHECK(alive_ == 0, "fibers outlive their scheduler: {}", describe_waiting());
  closing_ = true;
  for (const std::unique_ptr<Fiber>& fiber : fibers_) resume(*fiber);
}

void FiberScheduler::spawn(Group* group, Task task) {
  DCHECK(static_cast<bool>(task));
  if (idle_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(*this, 0));
    idle_.reserve(fibers_.capacity());
    idle_.push_back(fibers_.back().get());
  }
  Fiber& fiber = *idle_.back();
  idle_.pop_back();
  fiber.number_ = ++spawned_;
  fiber.task_ = std::move(task);
  fiber.group_ = group;
  ++alive_;
  if (group != nullptr) group->child_started();
  push_ready(fiber);
}

void FiberScheduler::ended(Fiber& fiber) {
  --alive_;
  fiber.state_ = Fiber::State::idle;
  idle_.push_back(&fiber);
  // Last: this may end the group's life together with whoever waits for it, in a later switch.
  if (fiber.group_ != nullptr) std::exchange(fiber.group_, nullptr)->child_ended();
}

void FiberScheduler::append(WaitList& list, Fiber& fiber) {
  fiber.next = nullptr;
  (list.first == nullptr ? list.first : list.last->next) = &fiber;
  list.last = &fiber;
}

Fiber* FiberScheduler::take_first(WaitList& list) {
  WaitList::Node* node = list.first;
  if (node == nullptr) return nullptr;
  list.first = node->next;
  if (list.first == nullptr) list.last = nullptr;
  return static_cast<Fiber*>(node);
}

void FiberScheduler::park(WaitList& list) {
  CHECK(current_ != nullptr, "only a fiber can wait");
  append(list, *current_);
  suspend("park");
}

void FiberScheduler::wake(WaitList& list, size_t count) {
  for (; count > 0; --count) {
    Fiber* fiber = take_first(list);
    if (fiber == nullptr) return;
    make_ready(*fiber);
  }
}

void FiberScheduler::yield() {
  CHECK(current_ != nullptr, "only a fiber can wait");
  append(yielded_, *current_);
  suspend("yield");
}

void FiberScheduler::suspend(const char* what) {
  NoWait::assert_may_wait();
  CHECK(current_ != nullptr, "only a fiber can wait (for {})", what);
  current_->state_ = Fiber::State::waiting;
  switch_out(what);
}

void FiberScheduler::make_ready(Fiber& fiber) {
  CHECK(fiber.state_ == Fiber::State::waiting, "fiber {} does not wait", fiber.number_);
  push_ready(fiber);
}

void FiberScheduler::push_ready(Fiber& fiber) {
  fiber.state_ = Fiber::State::ready;
  if (ready_count_ == ready_.size()) {
    std::vector<Fiber*> larger(ready_.size() * 2);
    for (size_t i = 0; i < ready_count_; ++i) {
      larger[i] = ready_[(ready_first_ + i) & (ready_.size() - 1)];
    }
    ready_ = std::move(larger);
    ready_first_ = 0;
  }
  ready_[(ready_first_ + ready_count_++) & (ready_.size() - 1)] = &fiber;
}

Fiber& FiberScheduler::pop_ready() {
  const size_t mask = ready_.size() - 1;
  if (picker_ != nullptr && ready_count_ > 1) {
    const size_t chosen = picker_->pick(ready_count_);
    CHECK(chosen < ready_count_);
    std::swap(ready_[ready_first_], ready_[(ready_first_ + chosen) & mask]);
  }
  Fiber& fiber = *ready_[ready_first_];
  ready_first_ = (ready_first_ + 1) & mask;
  --ready_count_;
  return fiber;
}

void FiberScheduler::drain() {
  for (size_t budget = kTurnSwitches; ready_count_ > 0 && budget > 0; --budget) {
    resume(pop_ready());
  }
}

void FiberScheduler::run_ready() {
  CHECK(current_ == nullptr, "a fiber cannot drive its own scheduler");
  drain();
  if (yielded_.first == nullptr) return;
  while (Fiber* fiber = take_first(yielded_)) make_ready(*fiber);
  drain();
}

void FiberScheduler::resume(Fiber& fiber) {
  ++switches_;
  current_ = &fiber;
  fiber.state_ = Fiber::State::running;
#ifdef FIRN_TSAN
  driver_tsan_ = __tsan_get_current_fiber();
#endif
  tsan_switch(fiber.tsan_fiber_);
  leaving(&driver_fake_stack_, fiber.mapping_ + kGuardBytes, kStackBytes);
  fiber.context_ = std::move(fiber.context_).resume();
  if (!fiber.context_) tsan_switch(driver_tsan_);  // It has ended.
  arrived(driver_fake_stack_, nullptr, nullptr);
  current_ = nullptr;
}

void FiberScheduler::switch_out(const char* what) {
  Fiber& fiber = *current_;
  fiber.waits_for_ = what;
  tsan_switch(driver_tsan_);
  leaving(&fiber.fake_stack_, driver_bottom_, driver_size_);
  fiber.driver_ = std::move(fiber.driver_).resume();
  arrived(fiber.fake_stack_, &driver_bottom_, &driver_size_);
}

size_t FiberScheduler::stack_high_water() const {
  size_t most = 0;
  for (const std::unique_ptr<Fiber>& fiber : fibers_) most = std::max(most, fiber->high_water());
  return most;
}

std::string FiberScheduler::describe_waiting(size_t count) const {
  std::string text;
  for (const std::unique_ptr<Fiber>& fiber : fibers_) {
    if (fiber->state_ != Fiber::State::waiting) continue;
    if (count-- == 0) return text + ", ...";
    if (!text.empty()) text += ", ";
    text += fmt::format("fiber {} waits for {}", fiber->number_, fiber->waits_for_);
  }
  return text;
}

}  // namespace firn
