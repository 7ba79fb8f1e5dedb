// SPDX-License-Identifier: Apache-2.0
#include "format/block_table.h"

#include <gtest/gtest.h>

#include <bit>

#include "format/catalog.h"
#include "format/format_test_util.h"

namespace firn::format {
namespace {

BlockEntry allocated(Prng& prng) {
  BlockEntry entry;
  entry.state = static_cast<std::byte>(BlockState::allocated);
  entry.family = static_cast<uint32_t>(1 + prng.below(UINT32_MAX));
  entry.generation = static_cast<uint32_t>(prng.next());
  unsigned used = 0;
  for (le64& word : entry.bitmap) {
    word = prng.next() | 1;
    used += static_cast<unsigned>(std::popcount(word.get()));
  }
  entry.used = static_cast<uint16_t>(used);
  return entry;
}

BlockEntry random_entry(Prng& prng) {
  BlockEntry entry;
  switch (prng.below(4)) {
    case 0:
      return allocated(prng);
    case 1:
      entry.state = static_cast<std::byte>(BlockState::ready);
      break;
    case 2:
      entry.state = static_cast<std::byte>(BlockState::bad);
      break;
    default:
      break;
  }
  entry.generation = static_cast<uint32_t>(prng.next());
  return entry;
}

Blob page_with(size_t at, const BlockEntry& entry) {
  Blob page(kPageBytes);
  put(Bytes(page), at * sizeof(BlockEntry), entry);
  return page;
}

TEST(BlockTable, pages_of_possible_entries_pass) {
  Prng prng(1);
  EXPECT_TRUE(check_block_page(Blob(kPageBytes))) << "a block never touched is RAW";
  for (int i = 0; i < 500; ++i) {
    Blob page(kPageBytes);
    for (size_t at = 0; at < kBlocksPerPage; ++at) {
      put(Bytes(page), at * sizeof(BlockEntry), random_entry(prng));
    }
    const auto checked = check_block_page(page);
    EXPECT_TRUE(checked) << text_of(checked.error());
  }
}

TEST(BlockTable, S1_used_counts_the_bitmap) {
  Prng prng(2);
  const BlockEntry entry = allocated(prng);
  for (size_t bit = 0; bit < 256; ++bit) {
    BlockEntry changed = entry;
    changed.bitmap[bit / 64] = changed.bitmap[bit / 64] ^ (uint64_t{1} << (bit % 64));
    expect_error(check_block_page(page_with(bit % 64, changed)), Errc::corrupt,
                 fmt::format("block entry {}:", bit % 64));
  }
  for (int bit = 0; bit < 16; ++bit) {
    BlockEntry changed = entry;
    changed.used = static_cast<uint16_t>(changed.used ^ (1U << bit));
    EXPECT_FALSE(check_block_page(page_with(0, changed))) << bit;
  }
  BlockEntry full = entry;
  full.bitmap.fill(UINT64_MAX);
  full.used = 256;
  EXPECT_TRUE(check_block_page(page_with(63, full)));
}

TEST(BlockTable, impossible_entries_are_refused) {
  struct Case {
    const char* what;
    void (*change)(BlockEntry&);
  };
  for (const Case& each : {
           Case{"allocated to nobody", [](BlockEntry& e) { e.family = 0; }},
           Case{"RAW with an owner", [](BlockEntry& e) { e.state = std::byte{0}; }},
           Case{"READY with an owner", [](BlockEntry& e) { e.state = std::byte{1}; }},
           Case{"BAD with an owner", [](BlockEntry& e) { e.state = std::byte{3}; }},
           Case{"a state of tomorrow", [](BlockEntry& e) { e.state = std::byte{4}; }},
           Case{"the last state", [](BlockEntry& e) { e.state = std::byte{255}; }},
           Case{"reserved0", [](BlockEntry& e) { e.reserved0 = std::byte{1}; }},
           Case{"reserved, first", [](BlockEntry& e) { e.reserved[0] = std::byte{1}; }},
           Case{"reserved, last", [](BlockEntry& e) { e.reserved[19] = std::byte{1}; }},
           Case{"allocated and empty",
                [](BlockEntry& e) {
                  e.bitmap = {};
                  e.used = 0;
                }},
           Case{"RAW with grains",
                [](BlockEntry& e) {
                  e.state = std::byte{0};
                  e.family = 0;
                }},
       }) {
    Prng prng(3);
    BlockEntry entry = allocated(prng);
    each.change(entry);
    SCOPED_TRACE(each.what);
    expect_error(check_block_page(page_with(17, entry)), Errc::corrupt, "block entry 17:");
  }
}

TEST(BlockTable, what_passes_obeys_the_invariants) {
  Prng prng(4);
  for (int i = 0; i < 50000; ++i) {
    BlockEntry entry = random_entry(prng);
    for (uint64_t changes = prng.below(3); changes > 0; --changes) {
      bytes_of(entry)[prng.below(sizeof entry)] = static_cast<std::byte>(prng.below(5));
    }
    if (!check_block_page(page_with(0, entry))) continue;
    const bool is_allocated = entry.state == static_cast<std::byte>(BlockState::allocated);
    EXPECT_EQ(is_allocated, entry.used != 0);
    EXPECT_EQ(is_allocated, entry.family != 0);
    EXPECT_LE(static_cast<uint8_t>(entry.state), 3);
  }
}

PoolRoot random_root(Prng& prng) {
  PoolRoot root;
  root.magic = kPoolRootMagic;
  root.blocks = 1 + prng.below(kBlocksMax);
  root.groups = 1 + prng.below(kPageNoMax / kGroupPages);
  const auto tree = [&](TreeRoot& at, PageNo page) {
    if (prng.one_in(3)) return;
    at.page = page;
    at.level = static_cast<std::byte>(prng.below(kLevelMax + 1));
  };
  tree(root.tree(Tree::block_table), 2 + prng.below(254));
  tree(root.tree(Tree::catalog), (root.groups - 1) * kGroupPages + 255);
  if (root.tree(Tree::block_table).page == root.tree(Tree::catalog).page) {
    root.tree(Tree::catalog) = {};
  }
  root.catalog_records = prng.below(kCatalogRecordsMax + 1);
  root.next_family = static_cast<uint32_t>(1 + prng.below(kFamiliesReserved));
  root.next_layer = static_cast<uint32_t>(1 + prng.below(UINT32_MAX));
  return root;
}

TEST(PoolRoot, what_is_valid_is_decoded) {
  Prng prng(5);
  for (int i = 0; i < 5000; ++i) {
    const PoolRoot root = random_root(prng);
    const auto decoded = decode_pool_root(view_of(root));
    ASSERT_TRUE(decoded) << text_of(decoded.error());
    EXPECT_TRUE(same(view_of(*decoded), view_of(root)));
  }
}

TEST(PoolRoot, what_cannot_be_is_refused) {
  struct Case {
    const char* text;
    void (*change)(PoolRoot&);
  };
  for (const Case& each : {
           Case{"magic", [](PoolRoot& r) { r.magic = 0; }},
           Case{"0 blocks", [](PoolRoot& r) { r.blocks = 0; }},
           Case{"blocks", [](PoolRoot& r) { r.blocks = kBlocksMax + 1; }},
           Case{"blocks", [](PoolRoot& r) { r.blocks = UINT64_MAX; }},
           Case{"0 groups", [](PoolRoot& r) { r.groups = 0; }},
           Case{"groups", [](PoolRoot& r) { r.groups = kPageNoMax / kGroupPages + 1; }},
           Case{"groups", [](PoolRoot& r) { r.groups = UINT64_MAX; }},
           Case{"at page 256", [](PoolRoot& r) { r.tree(Tree::catalog).page = 256; }},
           Case{"at page 1,", [](PoolRoot& r) { r.tree(Tree::catalog).page = kRootPage; }},
           Case{"at page 770", [](PoolRoot& r) { r.tree(Tree::block_table).page = 770; }},
           Case{"level 5", [](PoolRoot& r) { r.tree(Tree::block_table).level = std::byte{5}; }},
           Case{"at page 0, level 1",
                [](PoolRoot& r) {
                  r.tree(Tree::catalog).page = 0;
                  r.tree(Tree::catalog).level = std::byte{1};
                }},
           Case{"tree 1", [](PoolRoot& r) { r.tree(Tree::catalog).reserved[6] = std::byte{1}; }},
           Case{"both begin",
                [](PoolRoot& r) { r.tree(Tree::catalog).page = r.tree(Tree::block_table).page; }},
           Case{"catalog records", [](PoolRoot& r) { r.catalog_records = UINT64_MAX; }},
           Case{"next family 0", [](PoolRoot& r) { r.next_family = 0; }},
           Case{"next family 4294967041",
                [](PoolRoot& r) { r.next_family = kFamiliesReserved + 1; }},
           Case{"next layer 0", [](PoolRoot& r) { r.next_layer = 0; }},
           Case{"reserved", [](PoolRoot& r) { r.reserved[0] = std::byte{1}; }},
           Case{"reserved", [](PoolRoot& r) { r.reserved[3799] = std::byte{1}; }},
       }) {
    PoolRoot root;
    root.magic = kPoolRootMagic;
    root.blocks = 64;
    root.groups = 3;
    root.tree(Tree::block_table).page = 2;
    root.tree(Tree::catalog).page = 300;
    root.next_family = root.next_layer = 1;
    ASSERT_TRUE(decode_pool_root(view_of(root)));
    each.change(root);
    expect_error(decode_pool_root(view_of(root)), Errc::corrupt, each.text);
  }
  expect_error(decode_pool_root(Blob(kPageBytes)), Errc::corrupt, "magic");
}

}  // namespace
}  // namespace firn::format
