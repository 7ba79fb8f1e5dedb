// SPDX-License-Identifier: Apache-2.0
#include "format/data_label.h"

#include "base/check.h"
#include "format/block_table.h"

namespace firn::format {
namespace {
constexpr size_t kCovered = 12;  // The checksum covers everything behind itself.
}  // namespace

std::array<std::byte, 512> encode(DataLabel label) {
  CHECK(label.magic == kDataLabelMagic && label.version == kDataLabelVersion);
  label.crc = crc32c(view_of(label).subspan(kCovered));
  std::array<std::byte, 512> bytes;
  std::memcpy(bytes.data(), &label, sizeof label);
  CHECK(decode_data_label(bytes), "a data label that we could not read back");
  return bytes;
}

Result<DataLabel> decode_data_label(View bytes) {
  if (bytes.size() < sizeof(DataLabel)) {
    return fail(Errc::corrupt, "data label: {} bytes where 512 were expected", bytes.size());
  }
  const auto label = load<DataLabel>(bytes);
  if (label.magic != kDataLabelMagic) {
    return fail(Errc::not_found, "data label: no magic, this is not the data of a pool");
  }
  const uint32_t expected = crc32c(view_of(label).subspan(kCovered));
  if (label.crc != expected) {
    return fail(Errc::corrupt, "data label: crc {:08x}, expected {:08x}", label.crc.get(),
                expected);
  }
  if (label.version > kDataLabelVersion) {
    return fail(Errc::too_new, "data label: version {}, this program knows {}", label.version.get(),
                kDataLabelVersion);
  }
  if (label.version == 0 || label.blocks == 0 || label.blocks > kBlocksMax) {
    return fail(Errc::corrupt, "data label: version {} with {} blocks cannot be",
                label.version.get(), label.blocks.get());
  }
  if (label.reserved0 != 0 || !all_zero(label.reserved)) {
    return fail(Errc::corrupt, "data label: reserved bytes are not zero");
  }
  return label;
}

}  // namespace firn::format
