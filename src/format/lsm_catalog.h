// SPDX-License-Identifier: Apache-2.0
// The catalog of a tree in the bucket: which tables it consists of, at one version. And two small
// objects beside it: the claim of an epoch, and the hint where the newest catalog may be.
// docs/format/lsm_catalog.md
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "format/lsm_wire.h"
#include "format/page.h"

namespace firn::format {

inline constexpr std::array<char, 8> kLsmCatalogMagic{'F', 'I', 'R', 'N', 'L', 'S', 'M', 'C'};
inline constexpr uint16_t kLsmCatalogVersion = 1;
inline constexpr uint32_t kLsmCatalogKnownIncompat = 0;
inline constexpr uint64_t kLsmCatalogBytesMax = 64 * kMiB;
inline constexpr size_t kLsmTablesMax = 65536;
inline constexpr size_t kLsmRetiredMax = 65536;
inline constexpr uint32_t kLsmLevelsMax = 32;

struct LsmCatalogHead {
  std::array<char, 8> magic = kLsmCatalogMagic;
  le32 crc;  // crc32c of everything from byte 12 on.
  le16 format = kLsmCatalogVersion;
  le16 head_bytes = 128;
  le32 incompat;
  le32 compat;
  std::array<std::byte, 16> tree{};
  le64 version;
  le64 epoch;
  std::array<std::byte, 16> stamp{};  // Random: tells one attempt to make it from another.
  le64 written_ns;                    // The writer's wall clock; for people.
  le32 records;
  le32 body_bytes;
  std::array<std::byte, 40> reserved{};
};
static_assert(OnDisk<LsmCatalogHead, 128>);

// Odd types must be understood; even ones may be kept without.
enum class LsmRecord : uint16_t { table = 1, retired = 3, log = 5, floor = 7 };

struct LsmRecordHead {
  le16 type;
  le16 reserved;
  le32 bytes;  // Behind this head.
};
static_assert(OnDisk<LsmRecordHead, 8>);

struct LsmTableRecord {
  le64 epoch;
  le64 number;
  le64 run;
  le64 bytes;
  le64 entries;
  le64 removals;
  le32 tail_bytes;
  le16 first_bytes;
  le16 last_bytes;
  std::byte level{};
  std::array<std::byte, 7> reserved{};
  // The two keys, then tagged fields {le16 tag, le16 length, bytes}; none is known yet.
};
static_assert(OnDisk<LsmTableRecord, 64>);

struct LsmRetiredRecord {
  le64 epoch;
  le64 number;
  le64 version;   // The first catalog that does not need it.
  le64 since_ns;  // By the store's clock.
};
static_assert(OnDisk<LsmRetiredRecord, 32>);

struct LsmLogRecord {
  std::array<std::byte, 16> log{};  // The writer's local log,
  le64 segment;                     // of which this and what came before is in the tables.
};
static_assert(OnDisk<LsmLogRecord, 24>);

struct LsmFloorRecord {
  le64 floor;     // Catalogs below may be gone,
  le64 doomed;    // those below this one will be,
  le64 since_ns;  // and it was said then, by the store's clock.
};
static_assert(OnDisk<LsmFloorRecord, 24>);

// --- the same as values

struct LsmTable {
  LsmTableId id;
  uint64_t run = 0;    // Tables of a run do not overlap. A larger number is newer.
  uint32_t level = 0;  // Deeper levels are older.
  uint64_t bytes = 0;  // Of the object.
  uint64_t entries = 0;
  uint64_t removals = 0;
  uint32_t tail_bytes = 0;
  std::string first_key;
  std::string last_key;
  std::vector<std::byte> fields;
  bool operator==(const LsmTable&) const = default;
};

struct LsmRetired {
  LsmTableId id;
  uint64_t version = 0;
  int64_t since_ns = 0;
  bool operator==(const LsmRetired&) const = default;
};

struct LsmUnknownRecord {
  uint16_t type = 0;
  std::vector<std::byte> bytes;
  bool operator==(const LsmUnknownRecord&) const = default;
};

struct LsmCatalog {
  Uuid tree{};
  uint64_t version = 0;
  uint64_t epoch = 0;
  Uuid stamp{};
  int64_t written_ns = 0;
  // Newest run first; inside a run by key, without overlap. Deeper levels never come before others.
  std::vector<LsmTable> tables;
  std::vector<LsmRetired> retired;
  Uuid log{};
  uint64_t log_segment = 0;
  uint64_t floor = 1;
  uint64_t doomed = 1;
  int64_t doomed_since_ns = 0;
  std::vector<LsmUnknownRecord> others;  // Of even types; kept as they are.
  bool operator==(const LsmCatalog&) const = default;
};

std::vector<std::byte> encode(const LsmCatalog& catalog);
// Errc::corrupt, or too_new, with what is wrong. `version` is what its key says.
Result<LsmCatalog> decode_lsm_catalog(View bytes, uint64_t version);

// --- the small ones

inline constexpr std::array<char, 8> kLsmNewestMagic{'F', 'I', 'R', 'N', 'L', 'S', 'M', 'N'};
inline constexpr std::array<char, 8> kLsmEpochMagic{'F', 'I', 'R', 'N', 'L', 'S', 'M', 'E'};

// `newest`: a catalog that existed, and its epoch. `epoch/N`: the claim of epoch N by whoever saw
// that catalog as the newest (0: none).
struct LsmPointer {
  std::array<char, 8> magic{};
  le32 crc;  // crc32c of bytes [12, 88).
  le16 format = kLsmCatalogVersion;
  le16 bytes = 88;
  le32 incompat;
  le32 compat;
  std::array<std::byte, 16> tree{};  // Zero in the first claim of all: the tree has no name yet.
  le64 version;
  le64 epoch;
  std::array<std::byte, 16> stamp{};
  le64 written_ns;
  std::array<std::byte, 8> reserved{};
};
static_assert(OnDisk<LsmPointer, 88>);

std::array<std::byte, 88> encode(LsmPointer pointer);
Result<LsmPointer> decode_lsm_pointer(View bytes, const std::array<char, 8>& magic);

}  // namespace firn::format
