// SPDX-License-Identifier: Apache-2.0
// Task: a callable that is moved around and run once, stored in place so that spawning never
// allocates.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace firn {

class Task {
 public:
  static constexpr size_t kCapacity = 96;

  Task() = default;
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, Task> && std::is_invocable_v<F&>)
      Task(F&& function) {
    using Held = std::remove_cvref_t<F>;
    static_assert(sizeof(Held) <= kCapacity, "capture less, or capture a reference to a struct");
    static_assert(alignof(Held) <= alignof(std::max_align_t));
    static_assert(std::is_nothrow_move_constructible_v<Held>);
    ::new (static_cast<void*>(room_)) Held(std::forward<F>(function));
    verbs_ = &kVerbs<Held>;
  }
  Task(Task&& other) noexcept : verbs_(std::exchange(other.verbs_, nullptr)) {
    if (verbs_ != nullptr) verbs_->move(room_, other.room_);
  }
  Task& operator=(Task&& other) noexcept {
    if (this == &other) return *this;
    clear();
    verbs_ = std::exchange(other.verbs_, nullptr);
    if (verbs_ != nullptr) verbs_->move(room_, other.room_);
    return *this;
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task() { clear(); }

  explicit operator bool() const { return verbs_ != nullptr; }
  void operator()() { verbs_->call(room_); }
  void clear() {
    if (verbs_ != nullptr) std::exchange(verbs_, nullptr)->destroy(room_);
  }

 private:
  struct Verbs {
    void (*call)(void*);
    void (*move)(void* to, void* from);  // Leaves `from` destroyed.
    void (*destroy)(void*);
  };
  template <class Held>
  static constexpr Verbs kVerbs{[](void* room) { (*static_cast<Held*>(room))(); },
                                [](void* to, void* from) {
                                  ::new (to) Held(std::move(*static_cast<Held*>(from)));
                                  static_cast<Held*>(from)->~Held();
                                },
                                [](void* room) { static_cast<Held*>(room)->~Held(); }};

  const Verbs* verbs_ = nullptr;
  alignas(std::max_align_t) std::byte room_[kCapacity];
};

}  // namespace firn
