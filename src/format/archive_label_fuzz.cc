// SPDX-License-Identifier: Apache-2.0
// Any 512 bytes as the label of an archive, as they are and under a right checksum.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/check.h"
#include "format/archive_label.h"

namespace {

using namespace firn;
using namespace firn::format;

void decode(View bytes) {
  const Result<ArchiveLabel> label = decode_archive_label(bytes);
  if (!label) {
    CHECK(!text_of(label.error()).empty());
    return;
  }
  CHECK(label->segment_bytes >= kSegmentBytesMin && label->segment_bytes <= kSegmentBytesMax);
  CHECK(static_cast<uint8_t>(label->scrypt_n) <= 18 && static_cast<uint8_t>(label->sample) <= 16);
  if (label->version != kArchiveVersion) return;
  CHECK(decode_archive_label(encode(*label)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const View input = std::as_bytes(std::span(data, size));
  decode(input);
  std::array<std::byte, kArchiveLabelBytes> bytes{};
  std::ranges::copy(input.first(std::min(size, bytes.size())), bytes.begin());
  std::ranges::copy(view_of(kArchiveMagic), bytes.begin());
  const le32 crc(crc32c(View(bytes).subspan(12)));
  std::ranges::copy(view_of(crc), bytes.begin() + 8);
  decode(bytes);
  return 0;
}
