// SPDX-License-Identifier: Apache-2.0
#include "disk/thin.h"

#include "disk/pool_fixture.h"

namespace firn::disk {
namespace {

using ThinDiskTest = PoolFixture;

TEST_F(ThinDiskTest, what_is_written_is_read_after_reopening) {
  ASSERT_TRUE(disks_->create(io_, "a", kGiB));
  attach("a");
  EXPECT_EQ(read(123456, 5), std::string(5, '\0'));
  write(123456, "hello");
  write(999 * kMiB - 3, std::string(9000, 'x'));
  EXPECT_EQ(read(123455, 7), std::string("\0hello\0", 7));
  ASSERT_TRUE(disk_->flush(io_));
  expect_clean();
  close();
  open();
  attach("a");
  EXPECT_EQ(pool_->info().replayed_transactions, 0U);
  EXPECT_EQ(read(123456, 5), "hello");
  EXPECT_EQ(read(999 * kMiB - 3, 9000), std::string(9000, 'x'));
  expect_clean();
}

TEST_F(ThinDiskTest, T1_an_overwrite_changes_no_metadata) {
  ASSERT_TRUE(disks_->create(io_, "a", kGiB));
  attach("a");
  write(0, std::string(8192, 'a'));
  ASSERT_TRUE(disk_->flush(io_));
  const uint64_t before = pool_->info().transactions;
  write(0, std::string(8192, 'b'));
  write(1000, "in the middle");
  ASSERT_TRUE(disk_->flush(io_));
  EXPECT_EQ(pool_->info().transactions, before);
  EXPECT_EQ(read(1000, 13), "in the middle");
}

TEST_F(ThinDiskTest, T4_zeroes_and_discards_give_space_back) {
  ASSERT_TRUE(disks_->create(io_, "a", kGiB));
  attach("a");
  write(0, std::string(3 * kMiB, 'a'));
  EXPECT_EQ(disks_->info("a")->mapped_bytes, 3 * kMiB);
  ASSERT_TRUE(disk_->discard(io_, {kMiB, kMiB}));
  write(0, std::string(4096, '\0'));
  EXPECT_EQ(disks_->info("a")->mapped_bytes, 2 * kMiB - 4096);
  EXPECT_EQ(read(kMiB - 1, 2), std::string("a\0", 2));
  ASSERT_TRUE(disk_->zero(io_, {2 * kMiB + 10, kMiB - 20}, {}));
  EXPECT_EQ(read(2 * kMiB + 9, 3), std::string("a\0\0", 3));
  EXPECT_EQ(read(3 * kMiB - 11, 3), std::string("\0aa", 3));
  expect_clean();
  ASSERT_TRUE(disk_->zero(io_, {0, 3 * kMiB}, {.keep_space = true}));
  EXPECT_EQ(disks_->info("a")->mapped_bytes, 3 * kMiB);
  EXPECT_EQ(read(3 * kMiB - 11, 3), std::string(3, '\0'));
  expect_clean();
}

TEST_F(ThinDiskTest, a_full_pool_refuses_that_write_only_and_goes_on_after_space_is_freed) {
  ASSERT_TRUE(disks_->create(io_, "a", kGiB));
  attach("a");
  uint64_t at = 0;
  Result<void> wrote;
  const std::string mib(kMiB, 'z');
  const ::iovec slice = slice_of(std::as_bytes(std::span(mib)));
  while ((wrote = disk_->write(io_, {at, kMiB}, Iovec(&slice, 1), {}))) at += kMiB;
  EXPECT_EQ(wrote.error().code, Errc::no_space);
  EXPECT_EQ(at, 16 * kMiB);
  write(5 * kMiB, std::string(4096, 'y'));  // Own grains need no space.
  ASSERT_TRUE(disk_->flush(io_));
  ASSERT_TRUE(disk_->discard(io_, {0, kMiB}));
  write(100 * kMiB, std::string(4096, 'n'));
  ASSERT_TRUE(disk_->discard(io_, {kMiB + 4096, 4096}));  // A single grain, inside a full block.
  write(101 * kMiB, std::string(kMiB - 4096, 'm'));
  write(102 * kMiB, std::string(4096, 'o'));
  EXPECT_EQ(read(102 * kMiB, 1), "o");
  EXPECT_EQ(read(2 * kMiB, 1), "z");
  expect_clean();
}

TEST_F(ThinDiskTest, sizes_up_to_64_tib_and_resizing) {
  ASSERT_TRUE(disks_->create(io_, "big", 64 * kTiB));
  attach("big");
  write(64 * kTiB - 5, "tail!");
  write(17 * kTiB, "middle");
  EXPECT_EQ(read(64 * kTiB - 5, 5), "tail!");
  ASSERT_TRUE(disk_->discard(io_, {0, 64 * kTiB}));
  EXPECT_EQ(read(17 * kTiB, 6), std::string(6, '\0'));
  EXPECT_EQ(disks_->info("big")->mapped_bytes, 0U);
  expect_clean();
  EXPECT_EQ(disks_->resize(io_, "big", kTiB).error().code, Errc::busy);
  write(17 * kTiB, "middle");
  disk_.reset();
  ASSERT_TRUE(disks_->resize(io_, "big", 17 * kTiB));
  ASSERT_TRUE(disks_->resize(io_, "big", 18 * kTiB));
  attach("big");
  EXPECT_EQ(read(17 * kTiB, 6), std::string(6, '\0'));
  expect_clean();
}

TEST_F(ThinDiskTest, removal_gives_everything_back) {
  ASSERT_TRUE(disks_->create(io_, "a", kGiB));
  ASSERT_TRUE(disks_->create(io_, "b", kGiB));
  EXPECT_EQ(disks_->create(io_, "b", kGiB).error().code, Errc::exists);
  const uint64_t pages = pool_->info().metadata_pages;
  attach("a");
  write(0, std::string(5 * kMiB, 'q'));
  EXPECT_EQ(disks_->remove(io_, "a").error().code, Errc::busy);
  disk_.reset();
  ASSERT_TRUE(disks_->remove(io_, "a"));
  EXPECT_FALSE(disks_->info("a"));
  expect_clean();
  const auto info = pool_->info();
  EXPECT_EQ(info.allocated_bytes, 0U);
  EXPECT_EQ(info.used_bytes, 0U);
  EXPECT_EQ(info.allocated_bytes + info.freeing_bytes + info.raw_bytes + info.ready_bytes,
            16 * kMiB);
  EXPECT_LE(info.metadata_pages, pages + 1);  // The block table grew a page.
  EXPECT_EQ(disks_->list().size(), 1U);
}

TEST_F(ThinDiskTest, a_journal_too_small_for_a_change_is_refused_at_creation) {
  const auto small =
      store::Pool::create(io_, directory_ + "/small", {.bytes = kMiB, .journal_bytes = 32 * kKiB});
  ASSERT_FALSE(small);
  EXPECT_EQ(small.error().code, Errc::invalid);
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/small"));
}

TEST_F(ThinDiskTest, names_settings_and_renaming_survive) {
  EXPECT_EQ(disks_->create(io_, "a@b", kGiB).error().code, Errc::invalid);
  EXPECT_EQ(disks_->create(io_, "-a", kGiB).error().code, Errc::invalid);
  EXPECT_EQ(disks_->create(io_, "a", 100).error().code, Errc::invalid);
  ASSERT_TRUE(disks_->create(io_, "a", kGiB));
  ASSERT_TRUE(disks_->set(io_, "a", "description", "the first"));
  EXPECT_EQ(disks_->set(io_, "a", "description", std::string(500, 'x')).error().code,
            Errc::no_space);
  ASSERT_TRUE(disks_->rename(io_, "a", "z"));
  close();
  open();
  EXPECT_FALSE(disks_->info("a"));
  EXPECT_EQ(disks_->info("z")->settings.at("description"), "the first");
}

TEST_F(ThinDiskTest, an_appending_disk_gives_overwrites_a_new_place_and_frees_the_old) {
  ASSERT_TRUE(disks_->create(io_, "a", kGiB));
  EXPECT_EQ(disks_->set(io_, "a", "placement", "elsewhere").error().code, Errc::invalid);
  ASSERT_TRUE(disks_->set(io_, "a", "placement", "append"));
  attach("a");
  write(0, std::string(kMiB, 'a'));
  for (int round = 0; round < 40; ++round) {
    for (uint64_t grain = 0; grain < 256; grain += 3) {
      write(grain * kGrainBytes, std::string(4096, static_cast<char>('A' + round % 26)));
    }
    ASSERT_TRUE(disk_->flush(io_));
  }
  EXPECT_EQ(pool_->info().used_bytes, kMiB);
  EXPECT_EQ(read(4095, 2), std::string("Na"));
  expect_clean();
  close();
  open();
  attach("a");
  EXPECT_EQ(read(3 * kGrainBytes, 2), "NN");
  expect_clean();
}

}  // namespace
}  // namespace firn::disk
