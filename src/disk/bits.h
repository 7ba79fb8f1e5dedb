// SPDX-License-Identifier: Apache-2.0
// A bitmap in memory that counts its bits.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace firn::disk {

class Bits {
 public:
  Bits() = default;
  explicit Bits(uint64_t size) : size_(size), words_((size + 63) / 64) {}

  uint64_t size() const { return size_; }
  uint64_t count() const { return count_; }
  bool test(uint64_t bit) const { return (words_[bit / 64] >> (bit % 64) & 1) != 0; }
  // True when it was not set.
  bool set(uint64_t bit) {
    uint64_t& word = words_[bit / 64];
    const uint64_t mask = uint64_t{1} << (bit % 64);
    if ((word & mask) != 0) return false;
    word |= mask;
    ++count_;
    return true;
  }
  void clear(uint64_t bit) {
    uint64_t& word = words_[bit / 64];
    const uint64_t mask = uint64_t{1} << (bit % 64);
    if ((word & mask) == 0) return;
    word &= ~mask;
    --count_;
  }
  void set_range(uint64_t first, uint64_t end) {
    for_words(first, end, [this](uint64_t& word, uint64_t mask) {
      count_ += static_cast<uint64_t>(std::popcount(mask & ~word));
      word |= mask;
    });
  }
  void clear_range(uint64_t first, uint64_t end) {
    for_words(first, end, [this](uint64_t& word, uint64_t mask) {
      count_ -= static_cast<uint64_t>(std::popcount(mask & word));
      word &= ~mask;
    });
  }
  bool all(uint64_t first, uint64_t end) const {
    for (uint64_t bit = first; bit < end;) {
      const uint64_t stop = std::min(end, (bit / 64 + 1) * 64);
      const uint64_t mask = mask_of(bit, stop);
      if ((words_[bit / 64] & mask) != mask) return false;
      bit = stop;
    }
    return true;
  }
  // The first set bit of [from, end), or `end`.
  uint64_t next(uint64_t from, uint64_t end) const {
    for (uint64_t i = from / 64; i * 64 < end; ++i) {
      uint64_t word = words_[i];
      if (i == from / 64) word &= ~uint64_t{0} << (from % 64);
      if (word != 0) return std::min(end, i * 64 + static_cast<uint64_t>(std::countr_zero(word)));
    }
    return end;
  }
  void merge(const Bits& other) {
    count_ = 0;
    for (size_t i = 0; i < words_.size(); ++i) {
      if (i < other.words_.size()) words_[i] |= other.words_[i];
      count_ += static_cast<uint64_t>(std::popcount(words_[i]));
    }
  }
  void clear_all() {
    if (count_ > 0) std::fill(words_.begin(), words_.end(), 0);
    count_ = 0;
  }
  void resize(uint64_t size) {
    if (size < size_) clear_range(size, size_);
    words_.resize((size + 63) / 64);
    size_ = size;
  }
  uint64_t word(uint64_t index) const { return index < words_.size() ? words_[index] : 0; }
  uint64_t words() const { return words_.size(); }
  void set_word(uint64_t index, uint64_t value) {
    count_ -= static_cast<uint64_t>(std::popcount(words_[index]));
    words_[index] = value;
    count_ += static_cast<uint64_t>(std::popcount(value));
  }
  void swap(Bits& other) noexcept {
    std::swap(size_, other.size_);
    std::swap(count_, other.count_);
    words_.swap(other.words_);
  }

 private:
  // The bits [first, end) of one word; `first` lies in it, `end` at most behind it.
  static uint64_t mask_of(uint64_t first, uint64_t end) {
    const uint64_t count = end - first;
    const uint64_t low = count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    return low << (first % 64);
  }
  template <class Act>
  void for_words(uint64_t first, uint64_t end, Act&& act) {
    for (uint64_t bit = first; bit < end;) {
      const uint64_t stop = std::min(end, (bit / 64 + 1) * 64);
      act(words_[bit / 64], mask_of(bit, stop));
      bit = stop;
    }
  }

  uint64_t size_ = 0;
  uint64_t count_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace firn::disk
