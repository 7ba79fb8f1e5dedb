// SPDX-License-Identifier: Apache-2.0
// The superblock: who this pool is, which features it uses, and the epoch of its journal. Two
// copies in the file `superblock`, at 0 and 4096; the valid one with the higher sequence wins.
// docs/format/superblock.md
#pragma once

#include <array>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"

namespace firn::format {

inline constexpr std::array<char, 8> kSuperblockMagic{'F', 'I', 'R', 'N', 'P', 'O', 'O', 'L'};
inline constexpr uint16_t kPoolVersion = 1;
inline constexpr uint64_t kSuperblockStride = 4096;  // Copy k lies at k * stride.
inline constexpr int kSuperblockCopies = 2;

// Feature masks known to this version. A pool that uses others is refused, opened read-only, or
// opened.
inline constexpr uint64_t kKnownIncompat = 0;
inline constexpr uint64_t kKnownReadOnlyCompat = 0;
inline constexpr uint64_t kKnownCompat = 0;
inline constexpr uint64_t kKnownAutoclear = 0;

enum class JournalMedium : uint8_t { file = 1, pmem = 2 };

struct Superblock {
  std::array<char, 8> magic = kSuperblockMagic;
  le32 crc;  // crc32c of bytes [12, 512).
  le16 version = kPoolVersion;
  le16 slot;                         // Where this copy belongs: catches misdirected writes.
  le64 incompat;                     // Unknown bit: refuse to open.
  le64 ro_compat;                    // Unknown bit: open read-only.
  le64 compat;                       // Unknown bit: ignore and preserve.
  le64 autoclear;                    // Unknown bit: a writer clears it first.
  std::array<std::byte, 16> uuid{};  // Which pool: folded into the checksum of every page and slot.
  le64 sequence;                     // Ascending; the copy with the higher one is newer.
  le64 epoch;                        // Journal slots of other epochs are void.
  le64 created_ns;                   // Wall clock.
  le64 journal_slot_bytes;
  le64 journal_slots;
  std::byte journal_medium{};  // JournalMedium.
  std::byte block_shift{20};   // Storage block: 1 MiB.
  std::byte grain_shift{12};   // Grain: 4 KiB.
  std::byte page_shift{12};    // Metadata page: 4 KiB.
  // Zero, unless an unknown bit of ro_compat or compat explains it: then kept as it is.
  std::array<std::byte, 404> reserved{};
};
static_assert(OnDisk<Superblock, 512>);
static_assert(offsetof(Superblock, uuid) == 48 && offsetof(Superblock, sequence) == 64);

// Seals `superblock` for copy `slot` and returns its bytes. Unknown autoclear bits are dropped:
// whoever writes does not keep up what they vouch for.
std::array<std::byte, 512> encode(Superblock superblock, uint16_t slot);
// What lies at copy `slot`, or why it is not a superblock: Errc::not_found (no magic), corrupt
// (checksum, place, reserved bytes), too_new (version or incompatible features), unsupported
// (sizes).
Result<Superblock> decode_superblock(View bytes, uint16_t slot);

}  // namespace firn::format
