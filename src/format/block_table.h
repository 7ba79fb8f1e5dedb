// SPDX-License-Identifier: Apache-2.0
// The block table: one 64-byte entry for each storage block of the pool, 64 in a page.
// docs/format/block_table.md  (US 9747298: free space kept as formatted and yet-to-be-formatted)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"

namespace firn::format {

using BlockNo = uint64_t;
inline constexpr uint64_t kBlocksPerPage = 64;

// RAW is 0: a block never touched has no entry anywhere. FREEING has no value on disk: a freeing
// that is durable is RAW, one that is not has not happened.
enum class BlockState : uint8_t {
  raw = 0,        // Free; content unknown.
  ready = 1,      // Free; written with zeroes.
  allocated = 2,  // Belongs to a family; `used` > 0.
  bad = 3,        // The device refused to write it.
};

struct BlockEntry {
  std::byte state{};  // BlockState.
  std::byte reserved0{};
  le16 used;                             // Grains in use: the number of bits set below.
  le32 family;                           // Owner when allocated, else 0.
  le32 generation;                       // Counts allocations: catches stale references.
  std::array<std::byte, 20> reserved{};  // Zero.
  std::array<le64, 4> bitmap{};          // Bit g of word g/64: grain g is some layer's own.
};
static_assert(OnDisk<BlockEntry, 64>);
static_assert(sizeof(BlockEntry) * kBlocksPerPage == kPageBytes);

// Every entry of the page is possible: a known state; `used` counts the bitmap; allocated if and
// only if there are grains and an owner; reserved bytes zero.
Result<void> check_block_page(View content);

// The pool root: page 1, where every tree begins. docs/format/pool_root.md
struct TreeRoot {
  le64 page;          // 0: empty.
  std::byte level{};  // 0: `page` is a leaf; n: an index page of level n.
  std::array<std::byte, 7> reserved{};
};
enum class Tree : uint8_t {
  block_table = 0,  // By block / 64.
  catalog = 1,      // By record / 8.
  // 2 to 15: reserved for the deduplication table, change logs, tier and archive.
};
inline constexpr size_t kTrees = 16;
inline constexpr size_t kTreesKnown = 2;
struct PoolRoot {
  le64 magic;
  le64 blocks;                           // Capacity in storage blocks.
  le64 groups;                           // Page groups that `meta` has.
  std::array<TreeRoot, kTrees> trees{};  // By Tree.
  le64 catalog_records;                  // Slots in use or once used: the catalog's length.
  le32 next_family;                      // kFamiliesReserved: all are given out.
  le32 next_layer;                       // UINT32_MAX: all are given out.
  std::array<std::byte, 3800> reserved{};

  TreeRoot& tree(Tree which) { return trees[static_cast<size_t>(which)]; }
  const TreeRoot& tree(Tree which) const { return trees[static_cast<size_t>(which)]; }
};
constexpr size_t offset_of(Tree which) {
  return offsetof(PoolRoot, trees) + static_cast<size_t>(which) * sizeof(TreeRoot);
}
static_assert(OnDisk<PoolRoot, kPageBytes>);
inline constexpr uint64_t kPoolRootMagic = 0x544f4f524e524946;  // "FIRNROOT"
inline constexpr uint64_t kBlocksMax = uint64_t{1} << 36;       // 64 PiB: what a GrainNo reaches.
inline constexpr uint64_t kCatalogRecordsMax = uint64_t{1} << 32;

// Errc::too_new when a reserved tree is in use, else Errc::corrupt.
Result<PoolRoot> decode_pool_root(View content);

}  // namespace firn::format
