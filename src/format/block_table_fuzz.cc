// SPDX-License-Identifier: Apache-2.0
// Any bytes as a block table page (first byte even) or as the pool root (odd).
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "base/check.h"
#include "format/block_table.h"
#include "format/catalog.h"
#include "format/inspect.h"
#include "format/page.h"

namespace {

using namespace firn;
using namespace firn::format;

void block_page(View content) {
  CHECK(!inspect(Artifact::block_page, content).empty());
  if (!check_block_page(content)) return;
  for (size_t at = 0; at < content.size(); at += sizeof(BlockEntry)) {
    const auto entry = load<BlockEntry>(content.subspan(at));
    int bits = 0;
    for (const le64& word : entry.bitmap) bits += std::popcount(word.get());
    const bool allocated = static_cast<BlockState>(entry.state) == BlockState::allocated;
    CHECK(bits == entry.used && (bits != 0) == allocated && (entry.family != 0) == allocated);
    CHECK(static_cast<int>(entry.state) <= static_cast<int>(BlockState::bad));
  }
}

void believe(const TreeRoot& tree, uint64_t groups) {
  CHECK(tree.page < groups * kGroupPages && tree.page != kRootPage);
  CHECK(tree.page == kNoPage || !is_info_page(tree.page));
  CHECK(static_cast<int>(tree.level) <= (tree.page == kNoPage ? 0 : kLevelMax));
}

void pool_root(Bytes content) {
  const le64 magic(kPoolRootMagic);
  std::ranges::copy(view_of(magic), content.begin());
  CHECK(!inspect(Artifact::pool_root, content).empty());
  const Result<PoolRoot> root = decode_pool_root(content);
  if (!root) return;
  CHECK(root->blocks >= 1 && root->blocks <= kBlocksMax);
  CHECK(root->blocks * kBlockGrains - 1 <= UINT64_MAX / kGrainBytes, "no wrap");
  CHECK(root->groups >= 1 && root->groups * kGroupPages <= kPageNoMax + 1);
  CHECK(root->catalog_records <= kCatalogRecordsMax);
  CHECK(root->next_family != 0 && root->next_layer != 0);
  for (size_t i = 0; i < kTrees; ++i) {
    believe(root->trees[i], root->groups);
    CHECK(i < kTreesKnown || all_zero(view_of(root->trees[i])));
  }
  CHECK(root->next_family <= kFamiliesReserved);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data, size)).subspan(1);
  std::array<std::byte, kPageBytes> content{};
  std::ranges::copy(input.first(std::min(input.size(), content.size())), content.begin());
  if (data[0] % 2 == 0) {
    block_page(content);
  } else {
    pool_root(content);
  }
  return 0;
}
