// SPDX-License-Identifier: Apache-2.0
// Change tracking on disk: the record of a tracked disk, the records of the applications that back
// it up, the pages of its log and of its intent map, and change ids. docs/format/changes.md
// Source: US 8443166, US 8954665 (a counter per block); the intent map and branches are ours.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "format/block_table.h"
#include "format/catalog.h"

namespace firn::format {

// What an application remembers: the state of a disk at one event. Text: DISK/BRANCH/COUNTER.
struct ChangeId {
  Uuid disk{};
  Uuid branch{};
  uint64_t counter = 0;
  bool operator==(const ChangeId&) const = default;
};
std::string text_of(const ChangeId& id);
// Errc::invalid when the text is none: two uuids as uuid_text() writes them and a decimal number.
Result<ChangeId> parse_change_id(std::string_view text);
Result<Uuid> parse_uuid(std::string_view text);

enum class ChangesState : uint8_t {
  clean = 1,    // The log says all; no intent bit is set.
  open = 2,     // Blocks of regions with an intent bit may have changed since the last event.
  invalid = 3,  // The log says nothing: tracking begins anew.
};

inline constexpr uint32_t kChangeBlockShift = 16;     // 64 KiB, unless the disk is huge.
inline constexpr uint32_t kChangeBlockShiftMax = 24;  // 16 MiB.
inline constexpr uint64_t kChangeBlocksWanted = uint64_t{1} << 26;  // More: larger blocks.
inline constexpr uint32_t kRegionShift = 4;        // 16 blocks share an intent bit.
inline constexpr uint64_t kLogEntries = 1024;      // Of a page of the log: le32 each.
inline constexpr uint64_t kIntentBits = 32768;     // Of a page of the intent map.
inline constexpr uint64_t kEventMax = 0xfffffff0;  // Counters of the log are 32 bits wide.
// The shift that keeps a disk of this size within kChangeBlocksWanted.
uint32_t change_block_shift(uint64_t disk_bytes);

// Blocks from `first_block` on came with a growth of the disk and have at least this counter.
struct Growth {
  le64 first_block;
  le64 counter;  // 0: this entry and those behind it are not in use.
};
inline constexpr size_t kGrowths = 8;

struct ChangesRecord {
  std::byte kind{static_cast<std::byte>(RecordKind::changes)};
  std::byte version{1};
  std::byte state{};  // ChangesState.
  std::byte block_shift{};
  std::array<std::byte, 4> reserved0{};
  std::array<std::byte, 16> disk{};
  std::array<std::byte, 16> branch{};  // Changes when the disk goes back to an earlier content.
  le64 event_counter;                  // Of the last event.
  le64 valid_from;                     // The smallest counter that the log can answer for.
  le64 bytes;                          // Size of the disk.
  le64 created_ns;
  TreeRoot log;      // By block / kLogEntries.
  TreeRoot intents;  // By region / kIntentBits.
  std::array<Growth, kGrowths> growths{};
  le16 tail_bytes;  // Of `tail` in use.
  std::array<std::byte, 6> reserved{};
  std::array<std::byte, 272> tail{};  // Tagged fields, as in NameRecord. None is known yet.
};
static_assert(OnDisk<ChangesRecord, kRecordBytes>);
static_assert(offsetof(ChangesRecord, log) % 8 == 0 && offsetof(ChangesRecord, growths) % 8 == 0);

inline constexpr size_t kApplicationsMax = 64;  // Of a disk; the one that began first is dropped.

struct ApplicationRecord {
  std::byte kind{static_cast<std::byte>(RecordKind::application)};
  std::byte version{1};
  std::byte name_bytes{};
  std::byte has_previous{};  // 1: `previous` is a counter of the same branch.
  std::array<std::byte, 4> reserved0{};
  std::array<std::byte, 16> disk{};
  std::array<std::byte, 16> branch{};  // At its last begin.
  le64 counter;                        // Of its last begin.
  le64 previous;                       // Of the one before, on the same branch.
  le64 began_ns;
  std::array<char, kNameBytesMax> name{};
  le16 tail_bytes;
  std::array<std::byte, 6> reserved{};
  std::array<std::byte, 312> tail{};
};
static_assert(OnDisk<ApplicationRecord, kRecordBytes>);

// Everything is possible: a known state, counters in order, growths ascending, roots not at an info
// page. An encoder is not needed: records are made whole and changed word by word.
Result<ChangesRecord> decode_changes(View record);
Result<ApplicationRecord> decode_application(View record);
std::string name_of(const ApplicationRecord& record);

// The counter that blocks have by the growths alone; 0 where there is none.
uint64_t grown_counter(const ChangesRecord& record, uint64_t block);
// Adds one; when all are in use two neighbours become one that says at least what both said.
void add_growth(ChangesRecord& record, uint64_t first_block, uint64_t counter);
// Takes out those that begin at `blocks` or behind.
void cut_growths(ChangesRecord& record, uint64_t blocks);

}  // namespace firn::format
