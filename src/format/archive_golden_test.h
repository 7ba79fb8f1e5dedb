// SPDX-License-Identifier: Apache-2.0
// The samples of which the golden files of the archive are made. Used by make_golden and by the
// tests; no part of the product.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "format/archive_label.h"
#include "format/archive_rows.h"
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

using ArchiveSamples = std::vector<std::pair<std::string, std::vector<std::byte>>>;

template <class Head>
std::vector<std::byte> archive_sample_bytes(Head head) {
  head.crc = crc32c(view_of(head).subspan(12));
  const View bytes = view_of(head);
  return {bytes.begin(), bytes.end()};
}

inline ArchiveSamples archive_label_samples() {
  ArchiveSamples samples;
  const auto bad = [&](const std::string& name, auto&& change) {
    ArchiveLabel label = archive_sample_label();
    change(label);
    samples.emplace_back("archive_label-v1" + name, archive_sample_bytes(label));
  };
  bad("", [](ArchiveLabel&) {});
  std::vector<std::byte> rot = samples.front().second;
  rot[50] ^= std::byte{1};
  samples.emplace_back("archive_label-v1-bad-rot", rot);
  bad("-bad-version", [](ArchiveLabel& label) { label.version = 2; });
  bad("-bad-incompat", [](ArchiveLabel& label) { label.incompat = 4; });
  bad("-bad-reserved", [](ArchiveLabel& label) { label.reserved.back() = std::byte{1}; });
  bad("-bad-segment", [](ArchiveLabel& label) { label.segment_bytes = 4096; });
  bad("-bad-scrypt", [](ArchiveLabel& label) { label.key_source = std::byte{2}; });
  return samples;
}

inline ArchiveSamples segment_samples() {
  ArchiveSamples samples;
  const auto bad = [&](const std::string& name, auto&& change) {
    SegmentHeader header = segment_sample_header();
    change(header);
    samples.emplace_back("segment-v1" + name, segment_sample(header));
  };
  bad("", [](SegmentHeader&) {});
  const auto flipped = [&](const std::string& name, size_t at) {
    std::vector<std::byte> bytes = samples.front().second;
    bytes[at] ^= std::byte{1};
    samples.emplace_back("segment-v1-bad-" + name, bytes);
  };
  flipped("rot", 90);
  flipped("table", kSegmentTableAt);
  bad("-bad-magic", [](SegmentHeader& header) { header.magic[0] = 'X'; });
  bad("-bad-version", [](SegmentHeader& header) { header.version = 2; });
  bad("-bad-kind", [](SegmentHeader& header) { header.kind = std::byte{3}; });
  bad("-bad-slots", [](SegmentHeader& header) { header.slots = 2; });
  bad("-bad-groups", [](SegmentHeader& header) { header.groups = 2; });
  return samples;
}

// A byte that says nothing, then a row; or a key.
inline ArchiveSamples archive_row_samples() {
  ArchiveSamples samples;
  const auto add = [&](const std::string& name, const std::string& text) {
    const View bytes = std::as_bytes(std::span(text));
    samples.emplace_back(name, std::vector<std::byte>(bytes.begin(), bytes.end()));
  };
  SnapshotRow snapshot;
  snapshot.seq = 5;
  snapshot.disk = "web";
  snapshot.name = "monday";
  SegmentRow usage;
  usage.slots = 100;
  usage.live_count = 3;
  usage.live = {{1, 2, 50}};
  RegionRow region;
  region.own = {{0, 4, 9}, {7, 1, 0}};
  region.flat = region.own;
  add("archive", "a" + encode(ArchiveRow{}));
  add("disk", "d" + encode(DiskRow{archive_sample_uuid(1), 9, 77, "web"}));
  add("snapshot", "s" + encode(snapshot));
  add("region", "l" + encode(region));
  add("chunk", "c" + encode(ChunkRow{4, 1, 2, 3, 5}));
  add("usage", "u" + encode(usage));
  add("region_key", region_key(1, 2, 3));
  return samples;
}

}  // namespace firn::format
