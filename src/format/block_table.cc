// SPDX-License-Identifier: Apache-2.0
#include "format/block_table.h"

#include <bit>

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
      return entry.family != 0;
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

Result<PoolRoot> decode_pool_root(View content) {
  const auto root = load<PoolRoot>(content);
  if (root.magic != kPoolRootMagic) {
    return fail(Errc::corrupt, "pool root: magic is {:016x}", root.magic.get());
  }
  if (root.blocks == 0 || root.blocks > (uint64_t{1} << 36) || root.groups == 0 ||
      root.groups > kPageNoMax / kGroupPages ||
      static_cast<uint8_t>(root.block_table.level) > kLevelMax ||
      static_cast<uint8_t>(root.catalog.level) > kLevelMax || !all_zero(root.reserved)) {
    return fail(Errc::corrupt, "pool root: {} blocks and {} groups cannot be", root.blocks.get(),
                root.groups.get());
  }
  for (const TreeRoot& tree : {root.block_table, root.catalog}) {
    const uint64_t page = tree.page;
    if (page > kPageNoMax || (page != kNoPage && is_info_page(page)) || !all_zero(tree.reserved)) {
      return fail(Errc::corrupt, "pool root: a tree begins at page {}", page);
    }
  }
  return root;
}

}  // namespace firn::format
