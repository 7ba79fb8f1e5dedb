// SPDX-License-Identifier: Apache-2.0
// Segments: the immutable objects that an archive is made of. docs/format/segment.md
//
//   header 256 | label 512 | groups x 8 | index, stored form | payload: the groups, back to back
//
//  G1  A segment belongs to one disk, and describes itself: which archive, disk and segment it is,
//      and of each block its slot, chunk, snapshot, grain and identity.
//  G2  A data segment's payload is its blocks in the order of their slots, 16 to a group. A
//      manifest's payload is the extents of one snapshot's difference, 3276 to a group.
//  G3  A group is compressed, or raw when that is not smaller; then encrypted, if the archive is.
//      The checksum covers what is stored: rot is found without a key.
//  G4  Rewritten smaller under its own name, a segment keeps its slots and raises its generation.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"
#include "format/archive_label.h"

namespace firn::format {

inline constexpr std::array<char, 8> kSegmentMagic{'F', 'I', 'R', 'N', 'S', 'E', 'G', 'M'};
inline constexpr uint16_t kSegmentVersion = 1;
inline constexpr uint64_t kSegmentKnownIncompat = 0;
inline constexpr uint64_t kSegmentHeaderBytes = 256;
inline constexpr uint64_t kSegmentTableAt = kSegmentHeaderBytes + kArchiveLabelBytes;
inline constexpr uint32_t kSegmentSlotsMax = 65535;
inline constexpr uint32_t kGroupBlocks = 16;
inline constexpr uint32_t kGroupBytes = kGroupBlocks * kGrainBytes;
inline constexpr uint32_t kSealBytes = 16;  // The tag behind an encrypted group or index.
inline constexpr uint64_t kSegmentObjectMax = 512 * kMiB;
inline constexpr uint64_t kArchiveGrainsMax = kDiskBytesMax / kGrainBytes;
inline constexpr uint64_t kChunkIdMax = (uint64_t{1} << 56) - 1;

using Identity = std::array<std::byte, 32>;  // HMAC-SHA-256 of a block under the archive's secret.

enum class SegmentKind : uint8_t { data = 1, manifest = 2 };

struct SegmentHeader {
  std::array<char, 8> magic = kSegmentMagic;
  le32 crc;  // crc32c of bytes [12, 256).
  le16 version = kSegmentVersion;
  std::byte kind{1};
  std::byte sealed{};  // 1: index and groups are encrypted.
  le64 incompat;
  Uuid archive{};
  Uuid disk{};
  Uuid salt{};  // Of the segment's key: fresh for each object.
  le64 segment_id;
  le64 created_ns;
  le32 generation;
  le32 slots;    // Once given out, never changes. Of a manifest: 0.
  le32 present;  // Blocks, or extents, in the payload.
  le32 groups;
  le32 index_bytes;   // Plain ...
  le32 index_stored;  // ... and as it lies here; equal: not compressed (before the seal).
  le32 index_crc;     // Of the stored form.
  le32 table_crc;     // Of the table of groups.
  le64 payload_bytes;
  le32 seq_min;
  le32 seq_max;
  le32 part;         // Of a manifest: which of its objects, from 0 ...
  le32 parts;        // ... of how many; 0 in all but the last.
  le32 revision;     // Of a manifest: the highest that is complete counts.
  std::byte tier{};  // Where it was written to: 0 hot.
  std::array<std::byte, 107> reserved{};
};
static_assert(OnDisk<SegmentHeader, kSegmentHeaderBytes>);

struct GroupEntry {
  le32 stored;  // Bits 0..30 length; bit 31: not compressed.
  le32 crc;
};
static_assert(OnDisk<GroupEntry, 8>);
inline constexpr uint32_t kGroupRaw = uint32_t{1} << 31;

struct SegmentBlock {
  uint16_t slot = 0;
  uint64_t chunk = 0;
  uint64_t grain = 0;
  uint32_t seq = 0;
  Identity identity{};
  bool operator==(const SegmentBlock&) const = default;
};
inline constexpr size_t kBlockIndexBytes = 2 + 8 + 8 + 4 + 32;

// One run of a snapshot's difference. Chunk 0: zeroes.
struct ManifestExtent {
  le64 grain;
  le32 count;
  le64 chunk;  // Of the first grain; the others follow it.
};
static_assert(OnDisk<ManifestExtent, 20>);
inline constexpr uint32_t kGroupExtents = kGroupBytes / sizeof(ManifestExtent);

// Where the parts of a segment lie.
struct SegmentShape {
  uint64_t index_at = 0;
  uint64_t payload_at = 0;
  uint64_t bytes = 0;  // Of the object.
};
SegmentShape shape_of(const SegmentHeader& header);
inline uint32_t items_per_group(const SegmentHeader& header) {
  return header.kind == std::byte{static_cast<uint8_t>(SegmentKind::data)} ? kGroupBlocks
                                                                           : kGroupExtents;
}
// Plain bytes of a group.
uint32_t group_bytes(const SegmentHeader& header, uint32_t group);

std::array<std::byte, kSegmentHeaderBytes> encode(SegmentHeader header);
// Errc::not_found (no magic), corrupt, too_new.
Result<SegmentHeader> decode_segment_header(View bytes);
// The table against its header: checksum, lengths, their sum.
Result<std::vector<GroupEntry>> decode_group_table(const SegmentHeader& header, View bytes);

// The plain index of a data segment: columns, each as differences, so that it compresses to little
// more than the identities. Blocks ascend by slot.
std::vector<std::byte> encode_block_index(std::span<const SegmentBlock> blocks);
Result<std::vector<SegmentBlock>> decode_block_index(const SegmentHeader& header, View bytes);

// The extents of one group of a manifest: ascending, inside a disk, not overlapping.
Result<void> check_extents(std::span<const ManifestExtent> extents);

}  // namespace firn::format
