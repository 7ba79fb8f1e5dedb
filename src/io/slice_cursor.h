// SPDX-License-Identifier: Apache-2.0
// SliceCursor: walks a scatter list through partial transfers without copying it.
//
//  C1  next() is never empty before done(), and holds at most 1,024 slices (IOV_MAX).
//  C2  After a transfer that stopped inside a slice, next() is the rest of that one slice.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/check.h"

namespace firn {

class SliceCursor {
 public:
  explicit SliceCursor(Iovec slices) : rest_(slices) { skip_empty(); }

  bool done() const { return rest_.empty(); }
  uint64_t moved() const { return moved_; }
  Iovec next() {
    if (inside_ == 0) return rest_.first(std::min<size_t>(rest_.size(), 1024));
    partial_ = {static_cast<std::byte*>(rest_[0].iov_base) + inside_, rest_[0].iov_len - inside_};
    return Iovec(&partial_, 1);
  }
  void advance(size_t bytes) {
    moved_ += bytes;
    while (bytes > 0) {
      CHECK(!rest_.empty(), "a transfer was longer than its buffers");
      const size_t step = std::min(bytes, rest_[0].iov_len - inside_);
      inside_ += step;
      bytes -= step;
      if (inside_ == rest_[0].iov_len) {
        rest_ = rest_.subspan(1);
        inside_ = 0;
        skip_empty();
      }
    }
  }

 private:
  void skip_empty() {
    while (!rest_.empty() && rest_[0].iov_len == 0) rest_ = rest_.subspan(1);
  }

  Iovec rest_;
  size_t inside_ = 0;  // Bytes of rest_[0] that are done.
  uint64_t moved_ = 0;
  ::iovec partial_{};
};

}  // namespace firn
