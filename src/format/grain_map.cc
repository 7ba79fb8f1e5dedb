// SPDX-License-Identifier: Apache-2.0
#include "format/grain_map.h"

#include "base/bytes.h"
#include "format/page.h"

namespace firn::format {

Result<void> check_map_page(View content, GrainNo grains) {
  for (size_t i = 0; i < kFanout; ++i) {
    const uint64_t raw = load<le64>(content.subspan(i * 8));
    if (raw == 0) continue;
    const GrainEntry entry = grain_entry_of(raw);
    const bool possible = (entry.type == GrainType::data && entry.grain < grains) ||
                          (entry.type == GrainType::zero && entry.grain == 0);
    if (!possible || encode(entry) != raw) {
      return fail(Errc::corrupt, "map entry {} is {:016x}, which is impossible", i, raw);
    }
  }
  return ok;
}

}  // namespace firn::format
