// SPDX-License-Identifier: Apache-2.0
// The local log of a tree in the bucket: segments of records, each a batch of puts and removals.
// docs/format/lsm_log.md
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "format/lsm_table.h"
#include "format/lsm_wire.h"
#include "format/page.h"

namespace firn::format {

inline constexpr std::array<char, 8> kLsmLogMagic{'F', 'I', 'R', 'N', 'L', 'S', 'M', 'L'};
inline constexpr uint16_t kLsmLogVersion = 1;
inline constexpr uint64_t kLsmLogRecordMax = 17 * kMiB;
inline constexpr uint64_t kLsmLogSlots = 4;  // Segment n lies in the file log-(n % 4).

struct LsmLogHead {
  std::array<char, 8> magic = kLsmLogMagic;
  le32 crc;  // crc32c of bytes [12, 80).
  le16 version = kLsmLogVersion;
  le16 head_bytes = 80;
  le32 incompat;
  le32 compat;
  std::array<std::byte, 16> tree{};
  std::array<std::byte, 16> log{};
  le64 segment;  // From 1.
  std::array<std::byte, 16> reserved{};
};
static_assert(OnDisk<LsmLogHead, 80>);

struct LsmLogRecordHead {
  le32 crc;     // Of the rest and the batch; log, segment and place are folded in.
  le32 bytes;   // Of the batch; at least 1.
  le64 number;  // Of the record in its segment, from 1.
};
static_assert(OnDisk<LsmLogRecordHead, 16>);

std::array<std::byte, 80> encode(LsmLogHead head);
// Errc::not_found: no segment (empty, or never finished its first write); corrupt; too_new.
Result<LsmLogHead> decode_lsm_log_head(View bytes);

// Appends record `number` with `batch` to `to`, which will lie at byte `at` of the segment.
void append_lsm_record(std::vector<std::byte>& to, const LsmLogHead& head, uint64_t at,
                       uint64_t number, View batch);
// The batch of the record at `at`, whose bytes and what follows `bytes` is. Empty: no record here,
// which is where the log ends, torn or not.
View decode_lsm_record(View bytes, const LsmLogHead& head, uint64_t at, uint64_t number);

// --- batches: {u8 1 put or 2 removal, le16 key bytes, le32 value bytes, key, value} each
void append_lsm_put(std::vector<std::byte>& to, View key, View value);
void append_lsm_removal(std::vector<std::byte>& to, View key);

// The first record of a segment: how many records the segment before has. When that one has fewer,
// this one was never synced, and is no part of the log.
void append_lsm_link(std::vector<std::byte>& to, uint64_t records);
std::optional<uint64_t> decode_lsm_link(View batch);

// Walks a batch. `batch` outlives it.
class LsmBatchReader {
 public:
  explicit LsmBatchReader(View batch) : taker_(batch) {}
  // False at the end; Errc::corrupt. A removal has an empty value.
  Result<bool> next();
  LsmEntry entry() const { return entry_; }

 private:
  LsmTaker taker_;
  LsmEntry entry_;
};

}  // namespace firn::format
