// SPDX-License-Identifier: Apache-2.0
#include "base/prng.h"
#include "disk/pool_fixture.h"

namespace firn::disk {
namespace {

class ShrinkTest : public PoolFixture {
 protected:
  void SetUp() override {
    pool_bytes_ = 64 * kMiB;
    PoolFixture::SetUp();
    ASSERT_TRUE(disks_->create(io_, "a", kGiB));
    attach("a");
  }
  std::string content(const std::string& name, uint64_t bytes) {
    auto device = disks_->attach(io_, name);
    EXPECT_TRUE(device) << text_of(device.error());
    std::string text(bytes, '?');
    const ::iovec slice = slice_of(std::as_writable_bytes(std::span(text)));
    EXPECT_TRUE((*device)->read(io_, {0, bytes}, Iovec(&slice, 1)));
    return text;
  }
  ShrinkInfo shrink() {
    const auto info = disks_->shrink(io_, "a");
    EXPECT_TRUE(info) << text_of(info.error());
    return info ? *info : ShrinkInfo{};
  }
  uint64_t allocated() const { return pool_->info().allocated_bytes; }
};

TEST_F(ShrinkTest, sparse_blocks_are_emptied_and_the_content_stays) {
  Prng prng(3);
  for (uint64_t i = 0; i < 16; ++i) {
    write(i * kMiB, std::string(kMiB, static_cast<char>('a' + i)));
  }
  for (uint64_t grain = 0; grain < 16 * 256; ++grain) {
    if (prng.below(8) == 0) continue;
    ASSERT_TRUE(disk_->discard(io_, {grain * kGrainBytes, kGrainBytes}));
  }
  ASSERT_TRUE(disk_->flush(io_));
  const std::string before = content("a", 16 * kMiB);
  EXPECT_EQ(allocated(), 16 * kMiB);
  const ShrinkInfo info = shrink();
  EXPECT_GE(info.emptied_bytes, 13 * kMiB);
  EXPECT_LE(info.moved_bytes, 2 * kMiB);
  EXPECT_EQ(info.skipped_bytes, 0U);
  EXPECT_GE(info.returned_bytes, 13 * kMiB);
  EXPECT_LE(allocated(), 3 * kMiB);
  EXPECT_EQ(content("a", 16 * kMiB), before);
  expect_clean();
  EXPECT_EQ(shrink().moved_bytes, 0U);  // Nothing more to win.
  close();
  open();
  EXPECT_EQ(content("a", 16 * kMiB), before);
  expect_clean();
}

TEST_F(ShrinkTest, grains_that_snapshots_and_clones_share_move_for_all_of_them) {
  Prng prng(4);
  for (uint64_t i = 0; i < 8; ++i) {
    write(i * kMiB, std::string(kMiB, static_cast<char>('a' + i)));
  }
  ASSERT_TRUE(disks_->snapshot(io_, "a", "s1"));
  for (int i = 0; i < 40; ++i) write(prng.below(2048) * kGrainBytes, "s2");
  ASSERT_TRUE(disks_->snapshot(io_, "a", "s2"));
  ASSERT_TRUE(disks_->clone(io_, "a", "s2", "c"));
  disk_.reset();
  attach("c");
  for (int i = 0; i < 40; ++i) write(prng.below(2048) * kGrainBytes, "clone");
  disk_.reset();
  attach("a");
  for (uint64_t grain = 0; grain < 2048; ++grain) {
    if (prng.below(8) != 0) write(grain * kGrainBytes, std::string(4096, 'n'));
  }
  ASSERT_TRUE(disks_->remove_snapshot(io_, "a", "s1"));
  ASSERT_TRUE(disks_->sweep(io_));
  disk_.reset();
  ASSERT_TRUE(disks_->remove(io_, "c", false));
  ASSERT_TRUE(disks_->clone(io_, "a", "s2", "d"));
  ASSERT_TRUE(disks_->remove_snapshot(io_, "a", "s2"));
  attach("a");
  for (uint64_t grain = 0; grain < 2048; grain += 3) {
    ASSERT_TRUE(disk_->discard(io_, {grain * kGrainBytes, kGrainBytes}));
  }
  const std::string a = content("a", 9 * kMiB), d = content("d", 9 * kMiB);
  const uint64_t before = allocated();
  const ShrinkInfo info = shrink();
  EXPECT_GT(info.moved_bytes, 0U);
  EXPECT_EQ(before - allocated(), info.emptied_bytes);
  EXPECT_EQ(content("a", 9 * kMiB), a);
  EXPECT_EQ(content("d", 9 * kMiB), d);
  expect_clean();
}

TEST_F(ShrinkTest, a_full_pool_needs_no_free_block) {
  for (uint64_t i = 0; i < 63; ++i) write(i * kMiB, std::string(kMiB, 'x'));
  ASSERT_TRUE(disk_->flush(io_));
  for (uint64_t i = 0; i < 63; ++i) {
    ASSERT_TRUE(disk_->discard(io_, {i * kMiB, kMiB / 2 + kGrainBytes}));
  }
  const std::string before = content("a", 63 * kMiB);
  const ShrinkInfo info = shrink();
  EXPECT_GE(info.emptied_bytes, 30 * kMiB);
  EXPECT_EQ(content("a", 63 * kMiB), before);
  expect_clean();
}

}  // namespace
}  // namespace firn::disk
