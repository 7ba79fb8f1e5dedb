// SPDX-License-Identifier: Apache-2.0
// The catalog: 512-byte records, 8 in a page, that name the disks of a pool and their layers.
// docs/format/catalog.md
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "format/page.h"

namespace firn::format {

inline constexpr uint64_t kRecordsPerPage = 8;
inline constexpr size_t kRecordBytes = 512;
inline constexpr size_t kNameBytesMax = 128;
// Families from here on belong to the pool's own helpers (deduplication, tier, archive), never to a
// layer.
inline constexpr uint32_t kFamiliesReserved = 0xffffff00;

// Kinds 4 and 5 are described in format/changes.h.
enum class RecordKind : uint8_t {
  free = 0,
  disk = 1,
  layer = 2,
  snapshot = 3,
  changes = 4,
  application = 5,
};

enum class LayerState : uint8_t {
  live = 1,      // The growing layer of a disk.
  frozen = 2,    // Below a snapshot.
  dropping = 3,  // Being taken apart; goes on after restart.
};

// A layer: the map between two snapshots.
struct LayerRecord {
  std::byte kind{static_cast<std::byte>(RecordKind::layer)};
  std::byte version{1};
  std::byte state{};       // LayerState.
  std::byte root_level{};  // 0: the root is a map page.
  le32 layer;              // Its id; ascending, never reused.
  le32 family;
  le32 parent;      // Layer id, 0: base.
  le64 bytes;       // Size of the disk as of this layer.
  le64 root;        // IndexEntry of the root page.
  le64 own_grains;  // Data grains that this layer owns.
  le64 own_pages;   // Map and index pages that this layer owns.
  le64 created_ns;
  le64 open_block;  // Block it was filling, + 1; 0 none. A hint: verified before use.
  le16 tail_bytes;  // Of `tail` in use.
  std::array<std::byte, 6> reserved{};
  std::array<std::byte, 440> tail{};  // Tagged fields, as in NameRecord. None is known yet.
};
static_assert(OnDisk<LayerRecord, kRecordBytes>);

// A disk or a snapshot: a name for a layer.
struct NameRecord {
  std::byte kind{};
  std::byte version{1};
  std::byte name_bytes{};
  std::byte reserved0{};
  le32 layer;
  std::array<std::byte, 16> uuid{};
  le64 created_ns;
  le64 continuation;  // Record number of more tagged fields; 0 none. Reserved.
  std::array<char, kNameBytesMax> name{};
  le16 tail_bytes;  // Of `tail` in use.
  std::array<std::byte, 6> reserved{};
  // Tagged fields {le16 tag, le16 length, bytes}. Unknown even tag: skip and keep; unknown odd:
  // refuse.
  std::array<std::byte, 336> tail{};
};
static_assert(OnDisk<NameRecord, kRecordBytes>);
inline constexpr uint16_t kTagSetting = 2;  // "key\0value"; since version 1.
inline constexpr uint16_t kTagDisk = 3;     // Of a snapshot: the uuid of its disk, 16 bytes.
inline constexpr uint16_t kTagEvent = 4;    // Of a snapshot: the event that it was made at.

// The event of a snapshot of a disk whose changes are tracked (format/changes.h).
struct SnapshotEvent {
  Uuid branch{};
  uint64_t counter = 0;
  std::string application;  // That began a backup at it; empty: none.
  bool has_previous = false;
  uint64_t previous = 0;  // When the application had begun before, on the same branch.
  bool operator==(const SnapshotEvent&) const = default;
};

// What a name record says, decoded.
struct Named {
  RecordKind kind = RecordKind::disk;
  std::string name;
  Uuid uuid{};
  uint32_t layer = 0;
  uint64_t created_ns = 0;
  std::map<std::string, std::string> settings;
  Uuid disk{};          // Of a snapshot: whose it is. A snapshot's name is unique within its disk.
  std::optional<SnapshotEvent> event;
  std::string unknown;  // Tagged fields that this version does not know, kept as they are.
};

// 1 to 128 bytes of [A-Za-z0-9._:-], not beginning with '.' or '-'.
bool name_is_valid(std::string_view name);

// Errc::no_space when the settings do not fit, Errc::invalid when one has no key.
Result<NameRecord> encode(const Named& named);
Result<Named> decode_name(View record);
Result<LayerRecord> decode_layer(View record);
// Free is entirely zero; Errc::too_new for a kind that is not known.
Result<RecordKind> kind_of_record(View record);

}  // namespace firn::format
