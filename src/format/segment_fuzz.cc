// SPDX-License-Identifier: Apache-2.0
// Any bytes as a segment: header, table, index and extents, as they are and under right checksums.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "format/segment.h"

namespace {

using namespace firn;
using namespace firn::format;

void decode(std::vector<std::byte> bytes, bool mend) {
  if (bytes.size() < kSegmentHeaderBytes) bytes.resize(kSegmentHeaderBytes);
  auto header = load<SegmentHeader>(bytes);
  const View behind = View(bytes).subspan(kSegmentHeaderBytes);
  if (mend) {
    header.magic = kSegmentMagic;
    const size_t table = std::min<uint64_t>(behind.size(), uint64_t{header.groups} * 8);
    header.table_crc = crc32c(behind.first(table));
    header.crc = crc32c(view_of(header).subspan(12));
  }
  const Result<SegmentHeader> decoded = decode_segment_header(view_of(header));
  if (!decoded) {
    CHECK(!text_of(decoded.error()).empty());
    return;
  }
  const SegmentShape shape = shape_of(*decoded);
  CHECK(shape.index_at <= shape.payload_at && shape.payload_at <= shape.bytes);
  CHECK(load<SegmentHeader>(encode(*decoded)).segment_id == decoded->segment_id);
  const Result<std::vector<GroupEntry>> groups = decode_group_table(*decoded, behind);
  if (groups) {
    uint64_t sum = 0;
    for (const GroupEntry& entry : *groups) sum += entry.stored & ~kGroupRaw;
    CHECK(sum == decoded->payload_bytes);
  }
  if (decoded->index_bytes > behind.size()) return;
  const Result<std::vector<SegmentBlock>> blocks =
      decode_block_index(*decoded, behind.first(decoded->index_bytes));
  if (!blocks) return;
  CHECK(blocks->size() == decoded->present);
  CHECK(std::ranges::equal(encode_block_index(*blocks), behind.first(decoded->index_bytes)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const View input = std::as_bytes(std::span(data, size));
  for (const bool mend : {false, true}) {
    decode(std::vector<std::byte>(input.begin(), input.end()), mend);
  }
  std::vector<ManifestExtent> extents(size / sizeof(ManifestExtent));
  for (size_t i = 0; i < extents.size(); ++i) {
    extents[i] = load<ManifestExtent>(input.subspan(i * sizeof(ManifestExtent)));
  }
  if (check_extents(extents)) {
    for (const ManifestExtent& each : extents) CHECK(each.grain + each.count <= kArchiveGrainsMax);
  }
  return 0;
}
