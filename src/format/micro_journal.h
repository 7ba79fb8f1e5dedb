// SPDX-License-Identifier: Apache-2.0
// The micro-journal: a slot that holds redo entries of exactly one transaction under one commit id.
// Larger transactions chain slots. docs/format/micro_journal.md  (US 10445308, US 11204912, US
// 10528436)
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "format/page.h"

namespace firn::format {

struct SlotHeader {
  le32 magic;
  le16 version;
  le16 part;           // Which slot of the chain this is, from 0.
  le64 commit_id;      // Globally ascending; 0 never.
  le64 epoch;          // Of the superblock; slots of other epochs are void.
  le16 parts;          // Slots of the chain.
  le16 flags;          // Bit 0: dense, the ids in this ring have no gaps.
  le32 payload_bytes;  // In this slot.
  le32 payload_crc;
  le32 reserved0;
  le64 oldest_needed;  // Replay may need the transactions from this one on: what lies before was
                       // durable at home when this slot was written. 1 to commit_id.
  le64 reserved1;
  le32 reserved2;
  le32 header_crc;  // Of bytes [0, 60), seeded with the pool's uuid.
};
static_assert(OnDisk<SlotHeader, 64>);
inline constexpr uint32_t kSlotMagic = 0x314a4d46;  // "FMJ1"
inline constexpr uint16_t kSlotPartsMax = 4096;
inline constexpr uint16_t kSlotDense = 1;

void seal(const Uuid& uuid, SlotHeader& header, View payload);

enum class SlotState : uint8_t {
  nothing,  // Torn, empty or foreign: no error, a transaction that never happened.
  valid,    // For this pool and epoch.
  too_new,  // Sealed for this pool and epoch, but not understood: to pass over it would be to lose
            // what was acknowledged.
};
SlotState read_slot(const Uuid& uuid, uint64_t epoch, View slot, SlotHeader& header);

// The payload, joined over the chain, is a row of page records: after this transaction page P has
// checksum C, and these 8-byte words of it have these values.
//   PageRecord, then `runs` times { WordRun, words * 8 bytes }
struct PageRecord {
  le64 page;  // Bits 56..63: the type of the record, 0 for this one.
  le32 crc;   // page_crc (info_crc for an info page) of the page after this transaction.
  le16 runs;
  le16 flags;  // Bit 0: fresh, the page starts from zeroes and not from what is at home.
};
struct WordRun {
  le16 first;
  le16 words;
  le32 reserved;
};
static_assert(OnDisk<PageRecord, 16> && OnDisk<WordRun, 8>);
inline constexpr uint16_t kRecordFresh = 1;
inline constexpr unsigned kRecordTypeShift = 56;
inline constexpr size_t kPageWords = kPageBytes / 8;

// Walks a joined payload. The sink sees each page, then its runs; every length is checked first.
class RecordSink {
 public:
  virtual ~RecordSink() = default;
  virtual Result<void> page(PageNo page, uint32_t crc, bool fresh) = 0;
  // Words [first, first + words.size() / 8) of the page announced last.
  virtual Result<void> words(size_t first, View words) = 0;
};
Result<void> walk_records(View payload, RecordSink& sink);

}  // namespace firn::format
