// SPDX-License-Identifier: Apache-2.0
// Many requests at once, in orders drawn from seeds.
#include <gtest/gtest.h>

#include "base/aligned.h"
#include "disk/catalog.h"
#include "disk/disks.h"
#include "disk/steps.h"
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

// P6: what guests feel of a job's steps, and only that, makes its share smaller.
TEST(ThinDiskSim, P6_a_job_that_guests_feel_takes_less) {
  for (const bool felt : {false, true}) {
    sim::World world;
    sim::SimIo io(world, 1);
    io.run([&] {
      ASSERT_TRUE(store::Pool::create(io, "/p", {.bytes = 17 * kMiB, .journal_bytes = kMiB}));
      auto pool = store::Pool::open(io, "/p", {.background = false}).take();
      EXPECT_EQ(pool->guest_began(io).began, Time{}) << "nobody watches";
      pool->guest_ended(io, {});
      Gate gate;
      policy::JobPace pace;
      const uint32_t share = pace.share_permille();
      {
        const bool stopping = false;
        Steps steps(*pool, gate, pace, stopping);
        for (int i = 0; i < 2000; ++i) {
          const auto mark = pool->guest_began(io);
          EXPECT_NE(mark.began, Time{});
          io.sleep(std::chrono::microseconds(100));
          if (i % 4 != 0) {
            pool->guest_ended(io, mark);
            continue;
          }
          ASSERT_TRUE(steps.step(io, [&]() -> Result<void> {
            if (felt) io.sleep(std::chrono::milliseconds(1));
            pool->guest_ended(io, mark);  // While the step is under way.
            return ok;
          }));
        }
      }
      if (felt) {
        EXPECT_LT(pace.share_permille(), share);
      } else {
        EXPECT_EQ(pace.share_permille(), share);
      }
      EXPECT_EQ(pool->guest_began(io).began, Time{}) << "nobody watches any more";
      pool->guest_ended(io, {});
      EXPECT_EQ(pool->guests_in_flight(), 0u);
      EXPECT_TRUE(pool->close(io));
    });
  }
}

}  // namespace
}  // namespace firn::disk
