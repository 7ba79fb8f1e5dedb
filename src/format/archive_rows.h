// SPDX-License-Identifier: Apache-2.0
// The rows of an archive's metadata, as keys and values of the tree in the bucket.
// docs/format/archive_rows.md
//
//   a                            ArchiveRow    counters
//   d disk                       DiskRow       one disk
//   s disk seq                   SnapshotRow   one snapshot
//   l disk region ~seq           RegionRow     what that snapshot changed in 1024 grains
//   c last-chunk                 ChunkRow      chunks that lie side by side, of one reference count
//   u disk segment               SegmentRow    usage of a segment
//   h identity[0..8)             ChunkHint     a sampled identity
//
//  R1  Numbers in keys are big-endian: rows ascend. `~seq` descends, so that a walk from (region,
//      ~N) meets the newest snapshot not younger than N first.
//  R2  A chunk row is keyed by its last chunk: the first row at or behind an id is the only one
//      that can hold it.
//  R3  Region rows never hold addresses of segments, chunk rows never hold addresses of disks.
//  R4  What is decoded is bounded and checked; the error names the row.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "format/page.h"
#include "format/segment.h"

namespace firn::format {

inline constexpr uint32_t kRegionGrains = 1024;
inline constexpr uint32_t kRegionsMax = kArchiveGrainsMax / kRegionGrains;
inline constexpr size_t kArchiveNameMax = 255;

std::string archive_key();
std::string disk_key(uint32_t disk);
std::string snapshot_key(uint32_t disk, uint32_t seq);
std::string region_key(uint32_t disk, uint32_t region, uint32_t seq);
std::string chunk_key(uint64_t last);
std::string usage_key(uint32_t disk, uint64_t segment);
std::string hint_key(const Identity& identity);
inline std::string region_prefix(uint32_t disk) { return region_key(disk, 0, 0).substr(0, 5); }
// The first key behind all that begin with `prefix`.
std::string end_of(std::string prefix);

struct RegionAddress {
  uint32_t disk = 0;
  uint32_t region = 0;
  uint32_t seq = 0;
};
Result<RegionAddress> decode_region_key(std::string_view key);
Result<uint64_t> decode_chunk_key(std::string_view key);
Result<uint32_t> decode_disk_key(std::string_view key);
struct UsageAddress {
  uint32_t disk = 0;
  uint64_t segment = 0;
};
Result<UsageAddress> decode_usage_key(std::string_view key);

struct ArchiveRow {
  uint64_t next_chunk = 1;
  uint32_t next_disk = 1;
  bool operator==(const ArchiveRow&) const = default;
};
std::string encode(const ArchiveRow& row);
Result<ArchiveRow> decode_archive_row(std::string_view bytes);

struct DiskRow {
  Uuid uuid{};
  uint32_t next_seq = 1;
  uint64_t next_segment = 1;
  std::string name;
  bool operator==(const DiskRow&) const = default;
};
std::string encode(const DiskRow& row);
Result<DiskRow> decode_disk_row(std::string_view bytes);

enum class SnapshotState : uint8_t { uploading = 1, complete = 2, deleting = 3, aborted = 4 };
std::string_view name_of(SnapshotState state);

struct SnapshotRow {
  Uuid uuid{};  // The pool's, so that both sides can find a common base.
  SnapshotState state = SnapshotState::uploading;
  uint32_t seq = 0;
  uint32_t revision = 0;  // Of its manifest.
  uint32_t manifest_parts = 0;
  uint64_t manifest_segment = 0;  // The first; the others follow it.
  uint64_t bytes = 0;             // Of the disk then.
  int64_t created_ns = 0;
  int64_t pushed_ns = 0;
  uint64_t segment_first = 0;  // What the push reserved.
  uint64_t segment_end = 0;
  uint64_t chunk_first = 0;
  uint64_t chunk_end = 0;
  uint64_t extents = 0;  // Of its difference.
  uint64_t grains = 0;   // With content, in its difference.
  uint64_t new_grains = 0;
  uint64_t stored_bytes = 0;  // What the push put.
  std::string disk;           // Its name when it was pushed.
  std::string name;
  std::string holder;  // Who pushes: host and directory.
  bool operator==(const SnapshotRow&) const = default;
};
std::string encode(const SnapshotRow& row);
Result<SnapshotRow> decode_snapshot_row(std::string_view bytes);

// A run of grains of one region. Chunk 0: zeroes.
struct RegionExtent {
  uint16_t start = 0;
  uint16_t count = 0;
  uint64_t chunk = 0;
  bool operator==(const RegionExtent&) const = default;
};
struct RegionRow {
  std::vector<RegionExtent> own;  // What the snapshot changed. These alone hold references.
  // Everything that the region shows at this snapshot; grains not in it are zeroes.
  std::optional<std::vector<RegionExtent>> flat;
  bool operator==(const RegionRow&) const = default;
};
std::string encode(const RegionRow& row);
Result<RegionRow> decode_region_row(std::string_view bytes);

struct ChunkRow {
  uint32_t count = 0;
  uint32_t disk = 0;
  uint64_t segment = 0;
  uint16_t slot = 0;  // Of the first.
  uint32_t references = 0;
  bool operator==(const ChunkRow&) const = default;
};
std::string encode(const ChunkRow& row);
Result<ChunkRow> decode_chunk_row(std::string_view key, std::string_view bytes);

struct SegmentRow {
  uint32_t slots = 0;
  uint32_t live_count = 0;
  uint64_t bytes = 0;       // Of the object.
  uint32_t head_bytes = 0;  // Up to its payload.
  uint32_t generation = 0;
  uint32_t present = 0;  // Blocks in the object.
  uint8_t tier = 0;
  bool doomed = false;  // Holds nothing; the object goes at release_ns.
  int64_t created_ns = 0;
  int64_t release_ns = 0;  // Not to be removed before, nor rewritten.
  // The live slots, ascending. Nothing: all of them.
  std::optional<std::vector<uint16_t>> live;
  bool operator==(const SegmentRow&) const = default;
};
enum class UsageForm : uint8_t { full = 0, list = 1, bitmap = 2 };
// Whichever is smaller.
UsageForm form_of(const SegmentRow& row);
std::string encode(const SegmentRow& row);
Result<SegmentRow> decode_segment_row(std::string_view bytes);

std::string encode_hint(uint64_t chunk);
Result<uint64_t> decode_hint(std::string_view bytes);

}  // namespace firn::format
