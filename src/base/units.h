// SPDX-License-Identifier: Apache-2.0
// Distinct types for distinct numbers, and the conversions between them by name.
#pragma once

#include <compare>
#include <cstdint>

namespace firn {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kTiB = 1024 * kGiB;

inline constexpr uint64_t kGrainBytes = 4 * kKiB;  // The unit in which a disk maps space.
inline constexpr uint64_t kBlockBytes = 1 * kMiB;  // The unit in which a pool gives out space.
inline constexpr uint64_t kPageBytes = 4 * kKiB;   // The unit of metadata.
inline constexpr uint32_t kBlockGrains = kBlockBytes / kGrainBytes;
inline constexpr uint64_t kDiskBytesMax = 64 * kTiB;

// A run of guest bytes [at, at + length). Never wraps: whoever makes one from hostile numbers
// checks first (see wire/ and Range::within).
struct Range {
  uint64_t at = 0;
  uint64_t length = 0;
  constexpr uint64_t end() const { return at + length; }
  constexpr bool empty() const { return length == 0; }
  constexpr bool overlaps(Range other) const { return at < other.end() && other.at < end(); }
  // Whether the run lies inside [0, size), without overflow for any input.
  constexpr bool within(uint64_t size) const { return length <= size && at <= size - length; }
  auto operator<=>(const Range&) const = default;
};

constexpr uint64_t round_down(uint64_t value, uint64_t unit) { return value / unit * unit; }
constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}
constexpr bool aligned(uint64_t value, uint64_t unit) { return value % unit == 0; }

}  // namespace firn
