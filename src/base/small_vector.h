// SPDX-License-Identifier: Apache-2.0
// A vector of trivially copyable elements whose first N live inside it: short lists never allocate.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

namespace firn {

template <class T, size_t N>
class SmallVector {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  SmallVector() = default;
  SmallVector(SmallVector&& other) noexcept { *this = std::move(other); }
  SmallVector& operator=(SmallVector&& other) noexcept {
    more_ = std::move(other.more_);
    capacity_ = std::exchange(other.capacity_, N);
    count_ = std::exchange(other.count_, 0);
    if (more_ == nullptr) std::memcpy(static_cast<void*>(few_), other.few_, count_ * sizeof(T));
    return *this;
  }
  SmallVector(const SmallVector&) = delete;
  SmallVector& operator=(const SmallVector&) = delete;

  T* data() { return more_ != nullptr ? more_.get() : few_; }
  const T* data() const { return more_ != nullptr ? more_.get() : few_; }
  size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  T* begin() { return data(); }
  T* end() { return data() + count_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + count_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  T& back() { return data()[count_ - 1]; }

  void push_back(const T& element) {
    if (count_ == capacity_) grow();
    data()[count_++] = element;
  }
  void append(std::span<const T> elements) {
    for (const T& element : elements) push_back(element);
  }

 private:
  void grow() {
    auto larger = std::make_unique<T[]>(capacity_ * 2);
    std::memcpy(static_cast<void*>(larger.get()), data(), count_ * sizeof(T));
    more_ = std::move(larger);
    capacity_ *= 2;
  }

  T few_[N];
  std::unique_ptr<T[]> more_;
  size_t count_ = 0;
  size_t capacity_ = N;
};

}  // namespace firn
