// SPDX-License-Identifier: Apache-2.0
// Where chunks lie, as the indexes of segments say it: what a rebuild goes by.
#pragma once

#include <cstdint>
#include <vector>

namespace firn::archive {

// Chunks side by side, in slots side by side.
struct Place {
  uint64_t first = 0;
  uint64_t count = 0;
  uint32_t disk = 0;
  uint64_t segment = 0;
  uint16_t slot = 0;
  uint64_t end() const { return first + count; }
  bool operator==(const Place&) const = default;
};

// Ascending, not overlapping. Of a chunk that lies in several segments the youngest one counts: it
// was moved there.
std::vector<Place> settled(std::vector<Place> places);

}  // namespace firn::archive
