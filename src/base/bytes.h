// SPDX-License-Identifier: Apache-2.0
// Views of bytes, scatter lists, and the little-endian integers that every persisted struct is made
// of.
#pragma once

#include <sys/uio.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace firn {

using Bytes = std::span<std::byte>;
using View = std::span<const std::byte>;
// A scatter list. Whether it is read or written is said by the verb it is given to.
using Iovec = std::span<const ::iovec>;

inline ::iovec slice_of(Bytes bytes) { return {bytes.data(), bytes.size()}; }
inline ::iovec slice_of(View bytes) { return {const_cast<std::byte*>(bytes.data()), bytes.size()}; }
inline uint64_t total_of(Iovec slices) {
  uint64_t sum = 0;
  for (const ::iovec& slice : slices) sum += slice.iov_len;
  return sum;
}

// The one place where an object is looked at as bytes, and bytes as an object. T must be built from
// le*, std::byte and char only: alignment 1, no padding.
template <class T>
inline constexpr bool kWire = std::is_trivially_copyable_v<T>&& std::is_standard_layout_v<T>&&
                                  std::has_unique_object_representations_v<T> &&
                              alignof(T) == 1;

template <class T>
View view_of(const T& object) {
  return std::as_bytes(std::span<const T, 1>(&object, 1));
}
template <class T>
Bytes bytes_of(T& object) {
  return std::as_writable_bytes(std::span<T, 1>(&object, 1));
}
// Copies a T out of `from`, which must hold at least sizeof(T) bytes.
template <class T>
requires kWire<T> T load(View from) {
  T object;
  std::memcpy(&object, from.data(), sizeof(T));
  return object;
}

template <class U>
class LittleEndian {
 public:
  constexpr LittleEndian() = default;
  constexpr LittleEndian(U value) { set(value); }
  constexpr operator U() const { return get(); }
  constexpr U get() const {
    static_assert(std::endian::native == std::endian::little, "Debian's amd64, arm64, riscv64");
    return std::bit_cast<U>(raw_);
  }
  constexpr void set(U value) { raw_ = std::bit_cast<std::array<std::byte, sizeof(U)>>(value); }
  constexpr LittleEndian& operator=(U value) {
    set(value);
    return *this;
  }

 private:
  std::array<std::byte, sizeof(U)> raw_{};
};

template <class U>
class BigEndian {
 public:
  constexpr BigEndian() = default;
  constexpr BigEndian(U value) {
    raw_ = std::bit_cast<std::array<std::byte, sizeof(U)>>(flip(value));
  }
  constexpr operator U() const { return flip(std::bit_cast<U>(raw_)); }

 private:
  static constexpr U flip(U value) {
    if constexpr (sizeof(U) == 2) return __builtin_bswap16(value);
    if constexpr (sizeof(U) == 4) return __builtin_bswap32(value);
    if constexpr (sizeof(U) == 8) return __builtin_bswap64(value);
  }
  std::array<std::byte, sizeof(U)> raw_{};
};

using le16 = LittleEndian<uint16_t>;
using le32 = LittleEndian<uint32_t>;
using le64 = LittleEndian<uint64_t>;
using be16 = BigEndian<uint16_t>;
using be32 = BigEndian<uint32_t>;
using be64 = BigEndian<uint64_t>;

// True when every byte is zero. Vectorised; about 60 GB/s.
bool all_zero(View bytes);
// CRC32C (Castagnoli), chained through `seed`; crc32c({}, s) == s.
uint32_t crc32c(View bytes, uint32_t seed = 0);

template <class T, size_t Size>
concept OnDisk = kWire<T> && sizeof(T) == Size;

}  // namespace firn
