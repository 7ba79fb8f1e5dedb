// SPDX-License-Identifier: Apache-2.0
// The samples of which the golden files of the archive are made. Used by make_golden and by the
// tests; no part of the product.
#pragma once

#include <vector>

#include "format/archive_label.h"
#include "format/segment.h"

namespace firn::format {

inline Uuid archive_sample_uuid(uint8_t first) {
  Uuid uuid{};
  for (size_t i = 0; i < uuid.size(); ++i) uuid[i] = static_cast<std::byte>(first + i);
  return uuid;
}

inline ArchiveLabel archive_sample_label() {
  ArchiveLabel label;
  label.uuid = archive_sample_uuid(0x10);
  label.created_ns = 1700000000123456789;
  label.segment_bytes = 16 * kMiB;
  label.sample = std::byte{3};
  for (size_t i = 0; i < 32; ++i) label.secrets[i] = static_cast<std::byte>(0x80 + i);
  return label;
}

// Three blocks of five slots: shrunk once.
inline std::vector<SegmentBlock> segment_sample_blocks() {
  std::vector<SegmentBlock> blocks(3);
  for (size_t i = 0; i < blocks.size(); ++i) {
    blocks[i].slot = static_cast<uint16_t>(i == 2 ? 4 : i);
    blocks[i].chunk = 1000 + blocks[i].slot;
    blocks[i].grain = 70 + i;
    blocks[i].seq = 3;
    blocks[i].identity.fill(static_cast<std::byte>(i + 1));
  }
  return blocks;
}

inline SegmentHeader segment_sample_header() {
  SegmentHeader header;
  header.archive = archive_sample_uuid(0x10);
  header.disk = archive_sample_uuid(0x20);
  header.salt = archive_sample_uuid(0x30);
  header.segment_id = 7;
  header.created_ns = 1700000000123456789;
  header.generation = 1;
  header.slots = 5;
  header.present = 3;
  header.groups = 1;
  header.seq_min = 3;
  header.seq_max = 3;
  return header;
}

// The whole object; group and index lie uncompressed: zstd's bytes differ between its versions.
inline std::vector<std::byte> segment_sample(SegmentHeader header) {
  const std::vector<std::byte> index = encode_block_index(segment_sample_blocks());
  std::vector<std::byte> payload(3 * kGrainBytes);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<std::byte>(i * 7);
  const GroupEntry group{static_cast<uint32_t>(payload.size()) | kGroupRaw, crc32c(payload)};
  header.index_bytes = static_cast<uint32_t>(index.size());
  header.index_stored = header.index_bytes;
  header.index_crc = crc32c(index);
  header.table_crc = crc32c(view_of(group));
  header.payload_bytes = payload.size();
  header.crc = crc32c(view_of(header).subspan(12));
  const auto label = encode(archive_sample_label());
  std::vector<std::byte> object;
  for (const View part :
       {view_of(header), View(label), view_of(group), View(index), View(payload)}) {
    object.insert(object.end(), part.begin(), part.end());
  }
  return object;
}

}  // namespace firn::format
