// SPDX-License-Identifier: Apache-2.0
// Cutting and copying scatter lists.
#pragma once

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/check.h"
#include "base/small_vector.h"
#include "base/units.h"

namespace firn::disk {

using Slices = SmallVector<::iovec, 16>;

// Bytes [at, at + length) of the list.
inline Slices cut(Iovec from, uint64_t at, uint64_t length) {
  Slices slices;
  for (const ::iovec& slice : from) {
    if (length == 0) break;
    if (at >= slice.iov_len) {
      at -= slice.iov_len;
      continue;
    }
    const uint64_t take = std::min<uint64_t>(slice.iov_len - at, length);
    slices.push_back({static_cast<std::byte*>(slice.iov_base) + at, take});
    length -= take;
    at = 0;
  }
  CHECK(length == 0, "a scatter list shorter than its range");
  return slices;
}

inline void copy_out(View from, Iovec to) {
  for (const ::iovec& slice : to) {
    std::memcpy(slice.iov_base, from.data(), slice.iov_len);
    from = from.subspan(slice.iov_len);
  }
}
inline void copy_in(Iovec from, Bytes to) {
  for (const ::iovec& slice : from) {
    std::memcpy(to.data(), slice.iov_base, slice.iov_len);
    to = to.subspan(slice.iov_len);
  }
}
inline void fill_zero(Iovec slices) {
  for (const ::iovec& slice : slices) std::memset(slice.iov_base, 0, slice.iov_len);
}
inline bool all_zero(Iovec slices) {
  for (const ::iovec& slice : slices) {
    if (!firn::all_zero(View(static_cast<const std::byte*>(slice.iov_base), slice.iov_len)))
      return false;
  }
  return true;
}
// Whether direct I/O can use the slices as they are.
inline bool all_aligned(Iovec slices, uint32_t alignment) {
  for (const ::iovec& slice : slices) {
    if (!aligned(reinterpret_cast<uintptr_t>(slice.iov_base) | slice.iov_len, alignment))
      return false;
  }
  return true;
}

}  // namespace firn::disk
