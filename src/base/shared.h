// SPDX-License-Identifier: Apache-2.0
// Memory that another process may change at any moment: each value is read once into memory of our
// own, and judged there.
//
// The atomics are for what two sides agree to share: aligned, one writer each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace firn {

template <class T>
T load_acquire(const std::byte* at) {
  return __atomic_load_n(static_cast<const T*>(static_cast<const void*>(at)), __ATOMIC_ACQUIRE);
}
template <class T>
T load_relaxed(const std::byte* at) {
  return __atomic_load_n(static_cast<const T*>(static_cast<const void*>(at)), __ATOMIC_RELAXED);
}
template <class T>
void store_release(std::byte* at, T value) {
  __atomic_store_n(static_cast<T*>(static_cast<void*>(at)), value, __ATOMIC_RELEASE);
}
template <class T>
void store_relaxed(std::byte* at, T value) {
  __atomic_store_n(static_cast<T*>(static_cast<void*>(at)), value, __ATOMIC_RELAXED);
}
// What was stored before is seen by the other side before anything that is loaded after.
inline void full_fence() { __sync_synchronize(); }

// The compiler must not look at `from` again later, as it may with plain memory.
inline void copy_once(void* to, const std::byte* from, size_t count) {
  std::memcpy(to, from, count);
  __asm__ volatile("" : : "r"(to) : "memory");
}
template <class T>
T copy_once(const std::byte* from) {
  T object;
  copy_once(&object, from, sizeof(T));
  return object;
}

}  // namespace firn
