// SPDX-License-Identifier: Apache-2.0
#include "format/block_table.h"

#include <bit>

#include "format/catalog.h"
#include "format/page.h"

namespace firn::format {
namespace {

bool possible(const BlockEntry& entry) {
  if (entry.reserved0 != std::byte{} || !all_zero(entry.reserved)) return false;
  unsigned bits = 0;
  for (const le64& word : entry.bitmap) bits += static_cast<unsigned>(std::popcount(word.get()));
  if (bits != entry.used) return false;
  switch (static_cast<BlockState>(entry.state)) {
    case BlockState::allocated:
      return entry.family != 0 && bits != 0;
    case BlockState::raw:
    case BlockState::ready:
    case BlockState::bad:
      return entry.family == 0 && bits == 0;
  }
  return false;
}

}  // namespace

Result<void> check_block_page(View content) {
  for (size_t i = 0; i < kBlocksPerPage; ++i) {
    const auto entry = load<BlockEntry>(content.subspan(i * sizeof(BlockEntry)));
    if (!possible(entry)) {
      return fail(Errc::corrupt,
                  "block entry {}: state {} with {} grains of family {} is impossible", i,
                  static_cast<unsigned>(entry.state), entry.used.get(), entry.family.get());
    }
  }
  return ok;
}

namespace {

bool possible(const TreeRoot& tree, uint64_t groups) {
  const uint64_t page = tree.page;
  const auto level = static_cast<uint8_t>(tree.level);
  if (level > kLevelMax || !all_zero(tree.reserved)) return false;
  if (page == kNoPage) return level == 0;
  return page != kRootPage && page < groups * kGroupPages && !is_info_page(page);
}

Result<void> check_trees(const PoolRoot& root) {
  for (size_t i = 0; i < kTrees; ++i) {
    const TreeRoot& tree = root.trees[i];
    if (i >= kTreesKnown) {
      if (all_zero(view_of(tree))) continue;
      return fail(Errc::too_new, "pool root: tree {} is in use, unknown to this version", i);
    }
    if (!possible(tree, root.groups)) {
      return fail(Errc::corrupt, "pool root: tree {} begins at page {}, level {}", i,
                  tree.page.get(), static_cast<unsigned>(tree.level));
    }
  }
  const PageNo table = root.tree(Tree::block_table).page;
  if (table != kNoPage && table == root.tree(Tree::catalog).page) {
    return fail(Errc::corrupt, "pool root: block table and catalog both begin at page {}", table);
  }
  return ok;
}

}  // namespace

Result<PoolRoot> decode_pool_root(View content) {
  const auto root = load<PoolRoot>(content);
  if (root.magic != kPoolRootMagic) {
    return fail(Errc::corrupt, "pool root: magic is {:016x}", root.magic.get());
  }
  if (root.blocks == 0 || root.blocks > kBlocksMax || root.groups == 0 ||
      root.groups > kPageNoMax / kGroupPages) {
    return fail(Errc::corrupt, "pool root: {} blocks and {} groups cannot be", root.blocks.get(),
                root.groups.get());
  }
  TRY(check_trees(root));
  if (root.catalog_records > kCatalogRecordsMax || root.next_family == 0 || root.next_layer == 0 ||
      root.next_family > kFamiliesReserved) {
    return fail(Errc::corrupt, "pool root: {} catalog records, next family {}, next layer {}",
                root.catalog_records.get(), root.next_family.get(), root.next_layer.get());
  }
  if (!all_zero(root.reserved)) {
    return fail(Errc::corrupt, "pool root: reserved bytes are not zero");
  }
  return root;
}

}  // namespace firn::format
