// SPDX-License-Identifier: Apache-2.0
// Any 512 bytes as a data label, as they are and under a right checksum. What is accepted can be
// written, and is the same bytes.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/check.h"
#include "format/block_table.h"
#include "format/data_label.h"
#include "format/inspect.h"

namespace {

using namespace firn;
using namespace firn::format;

void decode(View bytes) {
  CHECK(!inspect(Artifact::data_label, bytes).empty());
  const Result<DataLabel> label = decode_data_label(bytes);
  if (!label) {
    CHECK(!text_of(label.error()).empty());
    return;
  }
  CHECK(label->blocks >= 1 && label->blocks <= kBlocksMax && all_zero(label->reserved));
  CHECK(std::ranges::equal(encode(*label), bytes.first(512)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const View input = std::as_bytes(std::span(data, size));
  decode(input);
  std::array<std::byte, 512> bytes{};
  std::ranges::copy(input.first(std::min(size, bytes.size())), bytes.begin());
  std::ranges::copy(view_of(kDataLabelMagic), bytes.begin());
  const le32 crc(crc32c(View(bytes).subspan(12)));
  std::ranges::copy(view_of(crc), bytes.begin() + 8);
  decode(bytes);
  return 0;
}
