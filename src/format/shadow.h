// SPDX-License-Identifier: Apache-2.0
// The shadow: what the next commits will carry, kept in memory that outlives the process, so that a
// server that is killed loses nothing that it answered. docs/format/shadow.md
//
// It is no journal: after a restart of the machine it is void, and says so by the boot it names.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"
#include "format/page.h"

namespace firn::format {

inline constexpr std::array<char, 8> kShadowMagic{'F', 'I', 'R', 'N', 'S', 'H', 'D', 'W'};
inline constexpr uint16_t kShadowVersion = 1;

struct ShadowHeader {
  std::array<char, 8> magic = kShadowMagic;
  le32 crc;  // crc32c of bytes [12, 480).
  le16 version = kShadowVersion;
  le16 reserved0;
  Uuid uuid{};                  // Of the pool.
  le64 epoch;                   // Of the journal whose next commits these are.
  le64 half_bytes;              // Of each of the two halves, which follow page 0.
  std::array<char, 40> boot{};  // The boot of the machine that wrote them; zero-padded.
  std::array<std::byte, 392> reserved{};
  // Not under the checksum: each is stored whole, in this order.
  le64 carried_after;  // The halves are wanted behind this commit of `epoch` ...
  le64 carried;        // ... in this later epoch, as long as it has no commit of its own. 0: none.
  std::array<std::byte, 16> reserved1{};
};
static_assert(OnDisk<ShadowHeader, 512>);
static_assert(offsetof(ShadowHeader, carried_after) == 480 &&
              offsetof(ShadowHeader, carried) == 488);

// At the begin of a half.
struct ShadowHalf {
  le64 id;      // The commit that will carry what is here; 0: nothing is.
  le64 closed;  // 1: all that this commit carries is here, and the next one goes on in the other.
  std::array<std::byte, 48> reserved{};
};
static_assert(OnDisk<ShadowHalf, 64>);

// A span: what was changed when somebody was about to be answered. Its first 8 bytes are stored
// last, whole; zeroes end the row. Spans begin at multiples of 8.
struct ShadowSpan {
  le32 bytes;  // Of the page records behind it, whose crc is 0; a multiple of 8.
  le32 crc;    // Of them, seeded with pool, id and the place in the half.
};
static_assert(OnDisk<ShadowSpan, 8>);

inline constexpr uint64_t kShadowHeaderBytes = kPageBytes;
inline constexpr uint64_t kShadowHalfBytes = 4 * kMiB;
inline constexpr uint64_t kShadowBytes = kShadowHeaderBytes + 2 * kShadowHalfBytes;

std::array<std::byte, 512> encode(ShadowHeader header);
// Errc::not_found (no magic), corrupt (checksum, sizes, reserved bytes), too_new.
Result<ShadowHeader> decode_shadow_header(View bytes);
std::array<char, 40> shadow_boot(std::string_view boot);

uint32_t span_crc(const Uuid& uuid, uint64_t id, uint64_t place, View records);
// The page records of a half whose commit is `id`, joined; up to the first span that is not whole.
std::vector<std::byte> read_half(const Uuid& uuid, uint64_t id, View half);

}  // namespace firn::format
