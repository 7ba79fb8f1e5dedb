// SPDX-License-Identifier: Apache-2.0
// Many requests at once, in orders drawn from seeds.
#include <gtest/gtest.h>

#include "base/aligned.h"
#include "disk/catalog.h"
#include "disk/disks.h"
#include "disk/thin.h"
#include "sim/sim_io.h"

namespace firn::disk {
namespace {

// Whole-block first touches, more of them in flight than blocks are open: a block whose grains are
// all on their way, none yet used, must not look free to anybody.
TEST(ThinDiskSim, S6_large_first_touches_in_flight_never_share_a_block) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    sim::World world;
    sim::SimIo io(world, seed);
    io.run([&] {
      ASSERT_TRUE(store::Pool::create(io, "/p", {.bytes = 17 * kMiB, .journal_bytes = kMiB}));
      auto pool = store::Pool::open(io, "/p", {.background = false}).take();
      auto disks = Disks::open(io, *pool).take();
      ASSERT_TRUE(disks->create(io, "a", kGiB));
      ASSERT_TRUE(disks->create(io, "b", kGiB));
      auto a = disks->attach(io, "a").take();
      auto b = disks->attach(io, "b").take();
      {
        Group writers(io);
        for (uint64_t i = 0; i < 16; ++i) {
          io.spawn(writers, [&, i] {
            AlignedBuffer bytes(kMiB - (i % 3) * 4096);
            std::memset(bytes.data(), static_cast<int>(i + 1), bytes.size());
            const ::iovec slice = slice_of(bytes.bytes());
            BlockDevice& disk = i % 2 == 0 ? *a : *b;
            const auto wrote =
                disk.write(io, {i * 2 * kMiB + 4096, bytes.size()}, Iovec(&slice, 1), {});
            EXPECT_TRUE(wrote) << text_of(wrote.error());
          });
        }
      }
      {  // More than there is room for: what is refused must not have cost anybody anything.
        AlignedBuffer bytes(2 * kMiB);
        std::memset(bytes.data(), 0x77, bytes.size());
        const ::iovec slice = slice_of(bytes.bytes());
        const auto refused = a->write(io, {512 * kMiB, bytes.size()}, Iovec(&slice, 1), {});
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::no_space);
      }
      const auto report = disks->check(io, false);
      ASSERT_TRUE(report);
      EXPECT_TRUE(report->clean()) << report->findings.front();
      for (uint64_t i = 0; i < 16; ++i) {
        AlignedBuffer got(kMiB - (i % 3) * 4096);
        const ::iovec slice = slice_of(got.bytes());
        BlockDevice& disk = i % 2 == 0 ? *a : *b;
        ASSERT_TRUE(disk.read(io, {i * 2 * kMiB + 4096, got.size()}, Iovec(&slice, 1)));
        const auto expected = static_cast<std::byte>(i + 1);
        EXPECT_TRUE(
            std::ranges::all_of(got.bytes(), [&](std::byte byte) { return byte == expected; }))
            << "write " << i;
      }
      a.reset();
      b.reset();
      disks.reset();
      EXPECT_TRUE(pool->close(io));
    });
    if (HasFailure()) return;
  }
}

// P6: what guests feel of a job, and only that, makes its share smaller.
TEST(ThinDiskSim, P6_a_job_that_guests_feel_takes_less) {
  for (const bool felt : {false, true}) {
    sim::World world;
    sim::SimIo io(world, 1);
    io.run([&] {
      ASSERT_TRUE(store::Pool::create(io, "/p", {.bytes = 17 * kMiB, .journal_bytes = kMiB}));
      auto pool = store::Pool::open(io, "/p", {.background = false}).take();
      EXPECT_EQ(pool->guest_began(io).began, Time{}) << "nobody watches";
      pool->guest_ended(io, {});
      policy::JobPace pace;
      const uint32_t share = pace.share_permille();
      pool->watch(pace);
      for (int i = 0; i < 2000; ++i) {
        const auto mark = pool->guest_began(io);
        io.sleep(std::chrono::microseconds(100));
        if (i % 4 == 0) {
          pool->disturb();
          if (felt) io.sleep(std::chrono::milliseconds(1));
          pool->disturb();
        }
        pool->guest_ended(io, mark);
        static_cast<void>(pace.rest_after(std::chrono::microseconds(10), 1));
      }
      pool->unwatch();
      if (felt) {
        EXPECT_LT(pace.share_permille(), share);
      } else {
        EXPECT_EQ(pace.share_permille(), share);
      }
      EXPECT_EQ(pool->guests_in_flight(), 0u);
      EXPECT_TRUE(pool->close(io));
    });
  }
}

// Grains of a block, used by nobody whom a map knows.
void use(Io& io, store::Pool& pool, store::BlockNo block, uint32_t grains, uint32_t family) {
  store::OpenBlock open{.block = block};
  open.free.fill(~uint64_t{0});
  const auto admission = pool.pages().admit(io).take();
  const store::PageRef page = pool.blocks().pin(io, block).take();
  pool.blocks().mark_used(page, pool.blocks().carve(open, grains), family);
}

// Disk "a" has an index page and a first leaf that are full. No block is free; its family has 256
// holes, each in another block, no two of which have their entries in one page of the block table.
// Made by hand, for writes would take long to come to it.
void make_worst(Io& io, store::Pool& pool) {
  Catalog catalog(pool);
  ASSERT_TRUE(catalog.load(io));
  Catalog::LayerSeen& seen = catalog.layer(catalog.names().at("a").named.layer);
  Catalog::Slot slot = catalog.pin(io, seen.record).take();
  Layer layer(pool.pages(), std::move(slot.page), slot.at, seen.layer);
  for (uint64_t leaf = 0; leaf < format::kFanout; ++leaf) {
    const auto admission = pool.pages().admit(io).take();
    const store::PageRef page = layer.own_leaf(io, leaf).take();
    for (uint64_t i = 0; leaf == 0 && i < kLeafGrains; ++i) {
      pool.pages().set_word(page, i, format::encode({format::GrainType::data, true, i}));
    }
  }
  for (store::BlockNo block = 0; block < pool.blocks().blocks(); ++block) {
    const bool has_hole = block % format::kBlocksPerPage == 0;
    use(io, pool, block, has_hole ? kBlockGrains - 1 : 1, layer.family() + (has_hole ? 0 : 1));
  }
}

// G7: each admission is looked at by the page store; all of the write is more than one of them.
TEST(ThinDiskSim, G7_first_touches_that_go_to_the_last_holes_keep_to_their_admissions) {
  sim::World world;
  sim::SimIo io(world, 1, {.order = sim::Order::immediate});
  io.run([&] {
    const store::PoolShape shape{.bytes = kBlockGrains * format::kBlocksPerPage * kBlockBytes,
                                 .journal_bytes = kMiB};
    ASSERT_TRUE(store::Pool::create(io, "/p", shape));
    {
      auto pool = store::Pool::open(io, "/p", {.background = false}).take();
      auto disks = Disks::open(io, *pool).take();
      ASSERT_TRUE(disks->create(io, "a", kGiB));
      disks.reset();
      make_worst(io, *pool);
      ASSERT_TRUE(pool->close(io));
    }
    auto pool = store::Pool::open(io, "/p", {.background = false}).take();
    auto disks = Disks::open(io, *pool).take();
    ASSERT_TRUE(disks->snapshot(io, "a", "s"));
    auto a = disks->attach(io, "a").take();
    AlignedBuffer bytes(kMiB);
    std::memset(bytes.data(), 0x55, bytes.size());
    const ::iovec slice = slice_of(bytes.bytes());
    const uint64_t used = pool->info().used_bytes;
    const uint64_t changed = pool->pages().changed_bytes();
    const auto wrote = a->write(io, {0, kMiB}, Iovec(&slice, 1), {});
    ASSERT_TRUE(wrote) << text_of(wrote.error());
    EXPECT_GT(pool->pages().changed_bytes() - changed, store::PageStore::kAdmissionBytes);
    EXPECT_EQ(pool->info().used_bytes, used + kMiB);
    const ::iovec grain = slice_of(bytes.bytes().first(kGrainBytes));
    EXPECT_FALSE(a->write(io, {kMiB, kGrainBytes}, Iovec(&grain, 1), {})) << "it is full now";
    AlignedBuffer got(kMiB);
    const ::iovec into = slice_of(got.bytes());
    ASSERT_TRUE(a->read(io, {0, kMiB}, Iovec(&into, 1)));
    EXPECT_TRUE(std::ranges::equal(got.bytes(), bytes.bytes()));
    a.reset();
    disks.reset();
    EXPECT_TRUE(pool->close(io));
  });
}

}  // namespace
}  // namespace firn::disk
