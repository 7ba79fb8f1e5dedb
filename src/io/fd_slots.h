// SPDX-License-Identifier: Apache-2.0
// FdSlots: the registered-file table of one ring, and FdSlot, a descriptor's place in it.
//
// Contract: a slot is filled at a descriptor's first use on the ring and given back when its owner
// dies, also when the ring died before. Everything happens on the ring's thread. A full table is no
// error: the descriptor is then used by its number.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

struct io_uring;

namespace firn {

class FdSlots {
 public:
  // A null ring: every take() fails, which is how a ring without a table says so.
  FdSlots(::io_uring* ring, uint32_t count);
  FdSlots(const FdSlots&) = delete;
  FdSlots& operator=(const FdSlots&) = delete;

  int take(int fd);  // -1 when there is no room.
  void give_back(int slot);
  void close() { ring_ = nullptr; }  // The ring is about to go.
  size_t in_use() const { return in_use_; }

 private:
  ::io_uring* ring_;
  std::vector<int> free_;
  size_t in_use_ = 0;
};

class FdSlot {
 public:
  FdSlot() = default;
  FdSlot(const FdSlot&) = delete;
  FdSlot& operator=(const FdSlot&) = delete;
  ~FdSlot() { clear(); }

  // The index for `fd` in `home`; -1 when the number itself must be used.
  int in(const std::shared_ptr<FdSlots>& home, int fd) {
    if (home_ == home) return index_;
    if (home_ != nullptr) return -1;  // Lives in another ring's table.
    home_ = home;
    index_ = home->take(fd);
    return index_;
  }
  void clear() {
    if (home_ != nullptr && index_ >= 0) home_->give_back(index_);
    home_.reset();
    index_ = -1;
  }

 private:
  std::shared_ptr<FdSlots> home_;
  int index_ = -1;
};

}  // namespace firn
