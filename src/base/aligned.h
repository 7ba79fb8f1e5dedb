// SPDX-License-Identifier: Apache-2.0
// A page-aligned buffer, as direct I/O wants it. Sizes up to 1 MiB come from a free list of the
// thread, so that the steady state allocates nothing.
#pragma once

#include <array>
#include <bit>
#include <cstdlib>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"

namespace firn {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 4096;

  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes) : size_(bytes) {
    if (bytes == 0) return;
    class_ = class_of(bytes);
    if (class_ < kClasses && !spare()[class_].empty()) {
      data_ = spare()[class_].back();
      spare()[class_].pop_back();
      return;
    }
    const size_t room = class_ < kClasses ? kAlignment << class_
                                          : (bytes + kAlignment - 1) / kAlignment * kAlignment;
    data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, room));
    CHECK(data_ != nullptr, "out of memory: {} bytes", room);
  }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        class_(other.class_) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(class_, other.class_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() {
    if (data_ == nullptr) return;
    auto& list = spare()[class_ < kClasses ? class_ : 0];
    if (class_ < kClasses && list.size() < kSpareMax >> class_) {
      list.push_back(data_);
    } else {
      std::free(data_);
    }
  }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  Bytes bytes() const { return {data_, size_}; }

 private:
  static constexpr size_t kClasses = 9;     // 4 KiB ... 1 MiB.
  static constexpr size_t kSpareMax = 512;  // At most 2 MiB of each class waits for reuse.

  struct Spare : std::array<std::vector<std::byte*>, kClasses> {
    ~Spare() {
      for (auto& list : *this) {
        for (std::byte* data : list) std::free(data);
      }
    }
  };
  static Spare& spare() {
    static thread_local Spare lists;
    return lists;
  }
  static size_t class_of(size_t bytes) {
    const size_t pages = (bytes + kAlignment - 1) / kAlignment;
    return static_cast<size_t>(std::bit_width(pages - 1));
  }

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t class_ = 0;
};

}  // namespace firn
