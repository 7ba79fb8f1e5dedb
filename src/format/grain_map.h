// SPDX-License-Identifier: Apache-2.0
// The grain entry: 8 bytes that say where one 4 KiB grain of a disk is, and which layer wrote it. A
// map page is 512 of them, 2 MiB of guest space. docs/format/grain_map.md  (US 9038066, US 8874859:
// the idea)
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"

namespace firn::format {

// A grain's number in the pool: storage block * 256 + place inside it.
using GrainNo = uint64_t;
inline constexpr GrainNo kGrainNoMax = (GrainNo{1} << 44) - 1;

enum class GrainType : uint8_t {
  absent = 0,  // Nobody wrote here: reads zero.
  zero = 1,    // Written or discarded as zero: reads zero, hides what an ancestor has.
  data = 2,    // `grain` holds it.
  shared = 3,  // Reserved: `grain` names an entry of the deduplication table.
};

//   bits 0..43 grain, 44..59 zero, 60..62 type, 63 own (this layer wrote it; else an ancestor did).
struct GrainEntry {
  GrainType type = GrainType::absent;
  bool own = false;
  GrainNo grain = 0;
  bool operator==(const GrainEntry&) const = default;
  bool is_data() const { return type == GrainType::data; }
};

constexpr uint64_t encode(GrainEntry entry) {
  return entry.grain | (static_cast<uint64_t>(entry.type) << 60) |
         (static_cast<uint64_t>(entry.own) << 63);
}
// Trusts its input: only for pages whose entries check_map_page has passed.
constexpr GrainEntry grain_entry_of(uint64_t raw) {
  return {static_cast<GrainType>((raw >> 60) & 7), (raw >> 63) != 0, raw & kGrainNoMax};
}
// Every entry of a map page is possible: known type, no stray bits, absent entirely zero, grains
// inside a pool of `grains`.
Result<void> check_map_page(View content, GrainNo grains);

}  // namespace firn::format
