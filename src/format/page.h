// SPDX-License-Identifier: Apache-2.0
// Metadata pages: how the file `meta` is divided, what kinds of pages there are, and the page-info
// page that keeps the checksum of its neighbours apart from them. docs/format/page.md
//
// `meta` is a row of groups of 256 pages. The first page of a group is its info page: one 16-byte
// entry for each of the other 255. Keeping checksums apart detects rot, tears, misdirected *and*
// lost writes.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"

namespace firn::format {

using PageNo = uint64_t;
using Uuid = std::array<std::byte, 16>;
std::string uuid_text(const Uuid& uuid);  // "10111213-1415-1617-1819-1a1b1c1d1e1f"

inline constexpr uint64_t kGroupPages = 256;
inline constexpr uint64_t kGroupEntries = kGroupPages - 1;
inline constexpr PageNo kNoPage = 0;    // Page 0 is the first info page: nothing ever refers to it.
inline constexpr PageNo kRootPage = 1;  // The pool root.
inline constexpr PageNo kPageNoMax = (PageNo{1} << 44) - 1;

// Explicit, never reused; 0 is never a kind, so zeroed space is not a record.
enum class PageKind : uint8_t {
  free = 0,
  pool_root = 1,
  index = 2,        // 512 index entries: an interior page of any tree.
  block_table = 3,  // 64 block entries.
  catalog = 4,      // 8 catalog records.
  map = 5,          // 512 grain entries: a leaf of a layer's map.
  change_log = 6,      // 1024 counters: a leaf of a disk's change log.
  change_intents = 7,  // 32768 bits: a leaf of its intent map.
};
inline constexpr uint8_t kPageKindMax = 7;

constexpr bool is_info_page(PageNo page) { return page % kGroupPages == 0; }
constexpr PageNo info_page_of(PageNo page) { return page - page % kGroupPages; }
constexpr size_t info_entry_of(PageNo page) { return page % kGroupPages - 1; }

struct PageInfo {
  le32 crc;           // page_crc() of the page's content; of a free page: 0.
  std::byte kind{};   // PageKind.
  std::byte level{};  // Of an index page: 1 when it points to leaves, 2 above, ...
  le16 flags;         // Zero.
  le32 family;        // Of map and its index pages; 0 for the pool's own.
  le32 reserved;
};
static_assert(OnDisk<PageInfo, 16>);

struct InfoPage {
  le32 magic;
  le32 crc;   // info_crc(): of bytes [8, 4096), seeded like page_crc.
  le64 page;  // Its own number.
  std::array<PageInfo, kGroupEntries> entries{};
};
static_assert(OnDisk<InfoPage, kPageBytes>);
inline constexpr uint32_t kInfoMagic = 0x49504e46;  // "FNPI"

// The checksum of a page's 4096 bytes, with the pool and the place folded in.
uint32_t page_crc(const Uuid& uuid, PageNo page, View content);
uint32_t info_crc(const Uuid& uuid, PageNo page, View content);

// Checks magic, place and checksum, and that every entry is possible: the pool root is page 1 and
// only page 1, only index pages have a level, the entry of a free page is entirely zero.
// Errc::too_new for a page of a kind that this version does not know.
Result<void> check_info_page(const Uuid& uuid, PageNo page, View content);
// The last of these only.
Result<void> check_info_entries(PageNo page, View content);

// An index entry: where a child page is, and whether this layer wrote it.
//   bits 0..43 page, bit 63 own; the rest zero. 0: no child.
struct IndexEntry {
  PageNo page = kNoPage;
  bool own = false;
  bool operator==(const IndexEntry&) const = default;
};
uint64_t encode(IndexEntry entry);
Result<IndexEntry> decode_index_entry(uint64_t raw);

inline constexpr uint64_t kFanout = 512;  // Entries of an index or map page.
inline constexpr uint8_t kLevelMax = 4;  // 512^4 grains of 4 KiB behind one level-3 index: 256 TiB.

}  // namespace firn::format
