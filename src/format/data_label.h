// SPDX-License-Identifier: Apache-2.0
// The data label: which pool a data file or device belongs to. It lies in the first MiB of it, the
// label area; the storage blocks lie behind. docs/format/data_label.md
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"
#include "format/page.h"

namespace firn::format {

inline constexpr std::array<char, 8> kDataLabelMagic{'F', 'I', 'R', 'N', 'D', 'A', 'T', 'A'};
inline constexpr uint16_t kDataLabelVersion = 1;
// As long as a storage block, so that blocks stay aligned to their size.
inline constexpr uint64_t kLabelAreaBytes = kBlockBytes;

struct DataLabel {
  std::array<char, 8> magic = kDataLabelMagic;
  le32 crc;  // crc32c of bytes [12, 512).
  le16 version = kDataLabelVersion;
  le16 reserved0;
  Uuid uuid{};      // Of the pool.
  le64 blocks;      // Capacity when the pool was created; the pool root has today's.
  le64 created_ns;  // Wall clock.
  std::array<std::byte, 464> reserved{};
};
static_assert(OnDisk<DataLabel, 512>);
static_assert(offsetof(DataLabel, uuid) == 16 && offsetof(DataLabel, blocks) == 32);

std::array<std::byte, 512> encode(DataLabel label);
// Errc::not_found (no magic), corrupt (checksum, capacity, reserved bytes), too_new (version).
Result<DataLabel> decode_data_label(View bytes);

}  // namespace firn::format
