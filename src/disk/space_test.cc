// SPDX-License-Identifier: Apache-2.0
// The MUST-show items of free space in two structures, on a simulated world where every write is
// seen.
#include <gtest/gtest.h>

#include "base/aligned.h"
#include "disk/disks.h"
#include "disk/thin.h"
#include "sim/sim_io.h"
#include "store/pages.h"

namespace firn::disk {
namespace {

constexpr uint64_t kBlocks = 12;

class SpaceTest : public testing::Test {
 protected:
  // Runs `body` with an open pool; `background` lets the formatter and the ticker live.
  template <class Body>
  void with_pool(bool background, Body&& body) {
    sim::SimIo io(world_, 3);
    io.run([&] {
      const store::PoolShape shape{.bytes = kBlocks * kBlockBytes, .journal_bytes = kMiB};
      ASSERT_TRUE(store::Pool::create(io, "/p", shape));
      store::PoolSettings settings;
      settings.background = background;
      settings.ready_low_bytes = 4 * kBlockBytes;
      settings.ready_high_bytes = 4 * kBlockBytes;
      auto pool = store::Pool::open(io, "/p", settings).take();
      auto disks = Disks::open(io, *pool).take();
      ASSERT_TRUE(disks->create(io, "a", kGiB));
      auto disk = disks->attach(io, "a").take();
      body(io, *pool, *disks, *disk);
      disk.reset();
      disks.reset();
      EXPECT_TRUE(pool->close(io));
    });
  }
  static void fill(Io& io, BlockDevice& disk, uint64_t at, uint64_t bytes, int value) {
    AlignedBuffer data(bytes);
    std::memset(data.data(), value, data.size());
    const ::iovec slice = slice_of(data.bytes());
    const auto wrote = disk.write(io, {at, bytes}, Iovec(&slice, 1), {});
    ASSERT_TRUE(wrote) << text_of(wrote.error());
  }
  static std::byte first_byte(Io& io, BlockDevice& disk, uint64_t at) {
    std::byte byte{};
    const ::iovec slice = slice_of(Bytes(&byte, 1));
    EXPECT_TRUE(disk.read(io, {at, 1}, Iovec(&slice, 1)));
    return byte;
  }
  // Bytes written to the data file so far.
  uint64_t data_writes() const {
    uint64_t bytes = 0;
    for (const sim::Event& event : world_.events()) {
      if (event.kind != sim::EventKind::issued) continue;
      const sim::Change& change = world_.change(event.number);
      if (change.kind != sim::ChangeKind::write) continue;
      if (world_.now().files[change.file].path == "/p/data") bytes += change.length;
    }
    return bytes;
  }
  static uint64_t sum(const store::PoolInfo& info) {
    return info.allocated_bytes + info.freeing_bytes + info.raw_bytes + info.ready_bytes +
           info.bad_bytes;
  }

  sim::World world_;
};

TEST_F(SpaceTest, must1_must6_must11_freeing_costs_no_data_io_by_discard_and_by_zeroes) {
  with_pool(false, [&](Io& io, store::Pool& pool, Disks&, BlockDevice& disk) {
    fill(io, disk, 0, 8 * kMiB, 1);
    ASSERT_TRUE(disk.flush(io));
    const uint64_t written = data_writes();
    const auto before = pool.info();
    ASSERT_TRUE(disk.discard(io, {0, 3 * kMiB}));
    ASSERT_TRUE(disk.zero(io, {3 * kMiB, 2 * kMiB}, {}));
    EXPECT_EQ(data_writes(), written);  // S4
    auto info = pool.info();
    EXPECT_EQ(info.freeing_bytes, 5 * kMiB);  // Not RAW before the freeing is durable.
    EXPECT_EQ(info.raw_bytes, before.raw_bytes);
    ASSERT_TRUE(disk.flush(io));
    pool.blocks().settle();
    info = pool.info();
    EXPECT_EQ(info.freeing_bytes, 0U);
    EXPECT_EQ(info.raw_bytes, before.raw_bytes + 5 * kMiB);
    EXPECT_EQ(sum(info), kBlocks * kBlockBytes);
  });
}

TEST_F(SpaceTest, must2_must7_with_ready_space_a_write_formats_nothing) {
  with_pool(true, [&](Io& io, store::Pool& pool, Disks&, BlockDevice& disk) {
    for (int i = 0; i < 100 && pool.info().ready_bytes == 0; ++i) {
      io.sleep(std::chrono::milliseconds(50));
    }
    ASSERT_GT(pool.info().ready_bytes, 0U);
    EXPECT_EQ(pool.info().background_formatted_bytes, pool.info().ready_bytes);
    const uint64_t written = data_writes();
    fill(io, disk, 0, 4096, 1);
    EXPECT_EQ(data_writes() - written, 4096U);
    EXPECT_EQ(pool.info().inline_format_writes, 0U);
  });
}

TEST_F(SpaceTest, must3_without_a_formatter_the_write_formats_what_it_takes_and_no_more) {
  with_pool(false, [&](Io& io, store::Pool& pool, Disks&, BlockDevice& disk) {
    EXPECT_EQ(pool.info().ready_bytes, 0U);
    fill(io, disk, 0, 4096, 1);
    EXPECT_EQ(pool.info().inline_formatted_bytes, kBlockBytes);
    EXPECT_EQ(pool.info().inline_format_writes, 1U);
    fill(io, disk, 4096, kBlockBytes - 4096, 1);  // The rest of that block.
    EXPECT_EQ(pool.info().inline_format_writes, 1U);
  });
}

TEST_F(SpaceTest, must4_space_that_comes_back_never_shows_its_former_content) {
  with_pool(false, [&](Io& io, store::Pool&, Disks& disks, BlockDevice& disk) {
    fill(io, disk, 0, kBlocks * kBlockBytes, 0x5e);
    ASSERT_TRUE(disk.discard(io, {0, kBlocks * kBlockBytes}));
    ASSERT_TRUE(disks.create(io, "b", kGiB));
    auto other = disks.attach(io, "b").take();
    for (uint64_t i = 0; i < kBlocks; ++i) {
      AlignedBuffer sector(512);
      std::memset(sector.data(), 7, sector.size());
      const ::iovec slice = slice_of(sector.bytes());
      ASSERT_TRUE(other->write(io, {i * 16 * kMiB + 1024, 512}, Iovec(&slice, 1), {}));
      EXPECT_EQ(first_byte(io, *other, i * 16 * kMiB), std::byte{0});
      EXPECT_EQ(first_byte(io, *other, i * 16 * kMiB + 1024), std::byte{7});
      EXPECT_EQ(first_byte(io, *other, i * 16 * kMiB + 1536), std::byte{0});
    }
  });
}

TEST_F(SpaceTest, must5_must8_full_half_deleted_and_written_again_without_enospc) {
  with_pool(false, [&](Io& io, store::Pool& pool, Disks& disks, BlockDevice& disk) {
    fill(io, disk, 0, kBlocks * kBlockBytes, 1);
    for (int round = 0; round < 5; ++round) {
      ASSERT_TRUE(disk.discard(io, {0, kBlocks / 2 * kBlockBytes}));
      EXPECT_EQ(sum(pool.info()), kBlocks * kBlockBytes);  // S2
      fill(io, disk, 0, kBlocks / 2 * kBlockBytes, round);
      EXPECT_EQ(sum(pool.info()), kBlocks * kBlockBytes);
    }
    const auto report = disks.check(io, false);
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->clean()) << report->findings.front();
  });
}

TEST_F(SpaceTest, micro_journal_must9_an_idle_pool_comes_to_rest_by_itself) {
  with_pool(true, [&](Io& io, store::Pool& pool, Disks&, BlockDevice& disk) {
    for (uint64_t i = 0; i < 50; ++i) fill(io, disk, i * 3 * kMiB, 4096, 1);
    EXPECT_FALSE(pool.pages().quiet());
    for (int i = 0; i < 100 && !pool.pages().quiet(); ++i) io.sleep(std::chrono::milliseconds(50));
    EXPECT_TRUE(pool.pages().quiet());  // No pending change, no dirty page, no slot in use.
  });
}

}  // namespace
}  // namespace firn::disk
