// SPDX-License-Identifier: Apache-2.0
// Inbox: bytes that arrived and were not looked at yet. Receives greedily, so that one receive
// brings many requests; gathers, so that a decoder always sees a whole structure.
//
// Contract: pending() stays where it is until the next gather(). Memory is touched only as far
// as a connection fills it: an idle one costs a page or two.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/check.h"
#include "serve/stream.h"

namespace firn::serve {

class Inbox {
 public:
  explicit Inbox(size_t capacity)
      : capacity_(capacity), room_(std::make_unique_for_overwrite<std::byte[]>(capacity)) {}

  View pending() const { return {room_.get() + begin_, end_ - begin_}; }
  void consume(size_t count) {
    CHECK(count <= end_ - begin_);
    begin_ += count;
    if (begin_ == end_) begin_ = end_ = 0;
  }
  // Waits until `count` bytes are pending; false when the stream ended before. count <= capacity.
  Result<bool> gather(Io& io, Stream& stream, size_t count) {
    CHECK(count <= capacity_);
    while (end_ - begin_ < count) {
      make_room(count);
      const size_t got = TRY(stream.receive(io, Bytes(room_.get() + end_, capacity_ - end_)));
      if (got == 0) return false;
      end_ += got;
    }
    return true;
  }
  size_t capacity() const { return capacity_; }

 private:
  // Moves what is pending to the front when the rest behind it is too small for a good receive.
  void make_room(size_t count) {
    const size_t pending = end_ - begin_;
    if (capacity_ - end_ >= std::max(count - pending, capacity_ / 4)) return;
    std::memmove(room_.get(), room_.get() + begin_, pending);
    begin_ = 0;
    end_ = pending;
  }

  size_t capacity_;
  std::unique_ptr<std::byte[]> room_;
  size_t begin_ = 0;
  size_t end_ = 0;
};

}  // namespace firn::serve
