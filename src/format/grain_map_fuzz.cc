// SPDX-License-Identifier: Apache-2.0
// Any bytes as a map page. What passes consists of entries that encode to themselves and lie inside
// the pool.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/check.h"
#include "format/grain_map.h"
#include "format/inspect.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firn;
  using namespace firn::format;
  constexpr GrainNo kGrains = 64 * kBlockGrains;
  const View input = std::as_bytes(std::span(data, size));
  std::array<std::byte, kPageBytes> content{};
  std::ranges::copy(input.first(std::min(input.size(), content.size())), content.begin());
  CHECK(!inspect(Artifact::map_page, content, {.grains = kGrains}).empty());
  const Result<void> checked = check_map_page(content, kGrains);
  if (!checked) {
    CHECK(checked.error().code == Errc::corrupt && !text_of(checked.error()).empty());
    return 0;
  }
  for (size_t at = 0; at < content.size(); at += 8) {
    const uint64_t raw = load<le64>(View(content).subspan(at));
    const GrainEntry entry = grain_entry_of(raw);
    CHECK(encode(entry) == raw);
    CHECK(entry.type != GrainType::data || entry.grain < kGrains);
    CHECK(entry.type != GrainType::zero || entry.grain == 0);
    CHECK(entry.type != GrainType::absent || raw == 0);
    CHECK(entry.type < GrainType::shared);
  }
  return 0;
}
