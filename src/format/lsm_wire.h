// SPDX-License-Identifier: Apache-2.0
// What the formats of the tree in the bucket share: names of tables, reading and appending of small
// values with every bound checked. docs/format/lsm_table.md
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/units.h"

namespace firn::format {

inline constexpr size_t kLsmKeyMax = 1024;  // And at least 1.
inline constexpr size_t kLsmValueMax = kMiB;

// A table's name: who made it, and the how-manieth of that epoch it is. Never used twice.
struct LsmTableId {
  uint64_t epoch = 0;
  uint64_t number = 0;
  auto operator<=>(const LsmTableId&) const = default;
};

inline std::string_view text_view(View bytes) {
  return {static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size()};
}
inline View view_of_text(std::string_view text) { return std::as_bytes(std::span(text)); }

inline void append_bytes(std::vector<std::byte>& to, View bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}
template <class T>
requires kWire<T>
void append_object(std::vector<std::byte>& to, const T& object) {
  append_bytes(to, view_of(object));
}
// Seven bits a byte, the low ones first; the last byte has its top bit clear.
inline void append_varint(std::vector<std::byte>& to, uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<std::byte>(value | 0x80));
  to.push_back(static_cast<std::byte>(value));
}

// Takes values off the front of bytes that nobody vouches for; once something is not there, nothing
// is any more.
class LsmTaker {
 public:
  explicit LsmTaker(View left) : left_(left) {}
  size_t left() const { return left_.size(); }
  bool good() const { return good_; }
  bool at_end() const { return left_.empty(); }

  template <class T>
  requires kWire<T> T object() {
    if (left_.size() < sizeof(T)) return refuse(), T{};
    const T value = load<T>(left_);
    left_ = left_.subspan(sizeof(T));
    return value;
  }
  // At most `most`, in its shortest form.
  uint64_t varint(uint64_t most) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 63; shift += 7) {
      if (left_.empty()) break;
      const auto byte = static_cast<uint8_t>(left_[0]);
      left_ = left_.subspan(1);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte >= 0x80) continue;
      if ((byte == 0 && shift > 0) || value > most) break;
      return value;
    }
    return refuse(), 0;
  }
  View bytes(uint64_t count) {
    if (count > left_.size()) return refuse(), View{};
    const View taken = left_.first(count);
    left_ = left_.subspan(count);
    return taken;
  }

 private:
  void refuse() {
    good_ = false;
    left_ = {};
  }
  View left_;
  bool good_ = true;
};

}  // namespace firn::format
