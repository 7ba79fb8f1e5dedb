// SPDX-License-Identifier: Apache-2.0
// seSparse: the space-efficient virtual disk of VMware's hypervisors, as a file that comes from
// there or goes to qemu-img. Not ours to change: docs/format/sesparse.md  (US 8874859: the idea)
//
// Contract:
//  S1  decode_* believes nothing: no sum wraps, every place that is read later lies inside the
//      file, and an error names the field or the entry.
//  S2  Only a disk that was closed in order passes: a journal that waits for replay is refused.
//  S3  decode_entry(encode(e)) == e for every entry; a table of zeroes maps nothing.
//
// Offsets and sizes on disk are in sectors of 512 bytes; all of Layout is in bytes. Knows no file:
// whoever reads has the bytes. A parent is reported, not followed.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"

namespace firn::format::sesparse {

inline constexpr uint64_t kSectorBytes = 512;
inline constexpr uint64_t kHeaderBytes = 512;
inline constexpr uint64_t kGrainSectors = kGrainBytes / kSectorBytes;
inline constexpr uint64_t kTableSectors = 64;
inline constexpr uint64_t kTableBytes = kTableSectors * kSectorBytes;
inline constexpr uint64_t kTableEntries = kTableBytes / 8;
inline constexpr uint64_t kTableReach = kTableEntries * kGrainBytes;  // 16 MiB of the disk.
inline constexpr uint64_t kMagic = 0xcafebabe;
inline constexpr uint64_t kVolatileMagic = 0xcafecafe;
inline constexpr uint64_t kVersion = 0x0000000200000001;  // 2.1, the only one known.
inline constexpr uint32_t kNoParent = 0xffffffff;
inline constexpr size_t kDescriptorBytesMax = 64 * 1024;

struct Region {
  le64 offset;
  le64 size;
};

struct ConstHeader {  // At sector 0.
  le64 magic = kMagic;
  le64 version = kVersion;
  le64 capacity;
  le64 grain_size = kGrainSectors;
  le64 grain_table_size = kTableSectors;
  le64 flags;
  std::array<le64, 4> reserved{};
  Region volatile_header;
  Region journal_header;
  Region journal;
  Region grain_directory;
  Region grain_tables;
  Region free_bitmap;
  Region back_map;
  Region grains;
  std::array<std::byte, 304> padding{};
};
static_assert(OnDisk<ConstHeader, kHeaderBytes>);
static_assert(offsetof(ConstHeader, volatile_header) == 80 &&
              offsetof(ConstHeader, padding) == 208);

struct VolatileHeader {
  le64 magic = kVolatileMagic;
  le64 free_table;     // The next grain table to give out.
  le64 next_sequence;  // Of the journal.
  le64 replay_journal;
  std::array<std::byte, 480> padding{};
};
static_assert(OnDisk<VolatileHeader, kHeaderBytes>);

// Where everything is, in bytes from the beginning of the file.
struct Layout {
  uint64_t bytes = 0;  // What the guest sees.
  uint64_t volatile_header = 0;
  uint64_t directory = 0;
  uint64_t tables = 0;
  uint64_t table_count = 0;  // That the region holds.
  uint64_t free_bitmap = 0;
  uint64_t back_map = 0;
  uint64_t grains = 0;
  uint64_t grain_count = 0;  // That the region and the file hold, whole ones.

  // Of the disk.
  uint64_t grains_mapped() const { return (bytes + kGrainBytes - 1) / kGrainBytes; }
  uint64_t directory_entries() const { return (bytes + kTableReach - 1) / kTableReach; }
};

// Whether a file that begins so is an extent.
bool is_extent(View head);
// Errc::not_found without the magic, unsupported, corrupt.
Result<Layout> decode_header(View bytes, uint64_t file_bytes);
// Errc::busy: closed in disorder.
Result<VolatileHeader> decode_volatile_header(View bytes);

// An empty extent for a disk of `bytes`, a multiple of 512 up to 64 TiB: every region begins on a
// MiB and is large enough for all of the disk, as the hypervisor makes them.
ConstHeader header_for(uint64_t bytes);

// --- the map

enum class EntryType : uint8_t {
  unallocated = 0,  // Look in the parent; without one it reads zero.
  unmapped = 1,     // Reads zero, hides the parent: the guest gave it back.
  zero = 2,         // Reads zero, hides the parent.
  data = 3,         // `grain` holds it.
};

struct Entry {
  EntryType type = EntryType::unallocated;
  uint64_t grain = 0;  // Of data only.
  bool operator==(const Entry&) const = default;
};

inline constexpr uint64_t kGrainMax = (uint64_t{1} << 60) - 1;

//   bits 0..47 grain / 4096, 48..59 grain % 4096, 60..63 type: the number is rotated by 12 bits.
constexpr uint64_t encode(Entry entry) {
  return (static_cast<uint64_t>(entry.type) << 60) | ((entry.grain & 0xfff) << 48) |
         (entry.grain >> 12);
}
// The entry of the disk's grain number `index`, in an extent that holds `grains`.
Result<Entry> decode_entry(uint64_t raw, uint64_t index, uint64_t grains);

constexpr uint64_t encode_directory_entry(uint64_t table) {
  return (uint64_t{0x10000000} << 32) | table;
}
// The number of the grain table, or nothing: none of its grains is allocated.
Result<std::optional<uint64_t>> decode_directory_entry(uint64_t raw, uint64_t index,
                                                       uint64_t tables);

// --- the descriptor: a small text file that names the extent

struct Descriptor {
  std::string extent;  // Hostile: any text without a quote, a line end or NUL.
  uint64_t sectors = 0;
  uint32_t content_id = 0;
  uint32_t parent_id = kNoParent;
  std::string parent;  // The file, as the descriptor names it; or empty.
  bool has_parent() const { return parent_id != kNoParent || !parent.empty(); }
};

// Errc::not_found when the text does not say createType="seSparse"; unsupported when it does, and
// has not exactly one extent.
Result<Descriptor> decode_descriptor(std::string_view text);
// Whether a descriptor can name this extent: in quotes, and for readers that see a protocol in
// front of a colon.
bool can_be_named(std::string_view extent);
// Of a disk without a parent, whose extent can be named.
std::string encode(const Descriptor& descriptor);

}  // namespace firn::format::sesparse
