// SPDX-License-Identifier: Apache-2.0
// The medium fails under a pool that lives: what each failure does to the request that met it, to
// those after it, and to what was acknowledged before (P1, P3).
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>

#include "base/aligned.h"
#include "base/log.h"
#include "disk/disks.h"
#include "sim/sim_io.h"
#include "store/blocks.h"
#include "store/pages.h"

namespace firn::disk {
namespace {

using sim::Fault;
using sim::Verb;

constexpr const char* kPool = "/pool";
constexpr uint64_t kBlocks = 16;

// An open pool with a disk of 64 GiB, in a simulated world.
struct Scene {
  sim::SimIo& io;
  std::unique_ptr<store::Pool> pool;
  std::unique_ptr<Disks> disks;
  std::shared_ptr<BlockDevice> disk;

  Result<void> write(uint64_t at, char with, uint64_t bytes = kGrainBytes) {
    AlignedBuffer buffer(bytes);
    std::memset(buffer.data(), with, bytes);
    const ::iovec slice = slice_of(buffer.bytes());
    return disk->write(io, {at, bytes}, Iovec(&slice, 1), {});
  }
  // The first byte there, or '?'.
  char read(uint64_t at) {
    AlignedBuffer buffer(kGrainBytes);
    const ::iovec slice = slice_of(buffer.bytes());
    if (!disk->read(io, {at, kGrainBytes}, Iovec(&slice, 1))) return '?';
    return static_cast<char>(buffer.data()[0]);
  }
  void expect_fenced(const Result<void>& struck, const char* file) {
    ASSERT_FALSE(struck);
    EXPECT_NE(text_of(struck.error()).find(file), std::string_view::npos)
        << text_of(struck.error());
    EXPECT_TRUE(pool->info().fenced);
    for (const Result<void>& later :
         {write(0, 'z'), write(kGiB, 'z'), disk->flush(io), disk->discard(io, {0, kMiB}),
          disks->create(io, "other", kMiB), pool->grow(io, kGiB)}) {
      ASSERT_FALSE(later);
      EXPECT_EQ(name_of(later.error().code), name_of(Errc::fenced)) << text_of(later.error());
    }
    EXPECT_EQ(read(0), 'a') << "reads go on";
    EXPECT_FALSE(pool->close(io));
  }
};

class FaultTest : public testing::Test {
 protected:
  void SetUp() override {
    set_log_sink([](LogLevel, std::string_view) {});
    sim::SimIo io(world_, 1, {.order = sim::Order::immediate});
    io.run([&] {
      ASSERT_TRUE(store::Pool::create(
          io, kPool, {.bytes = kBlocks * kBlockBytes, .journal_bytes = 256 * kKiB}));
    });
    act([](Scene& s) {
      ASSERT_TRUE(s.write(0, 'a'));  // Grain 0 is own and acknowledged from here on.
      ASSERT_TRUE(s.disk->flush(s.io));
    });
  }
  void TearDown() override { set_log_sink(nullptr); }

  // Opens, does `what`, and closes unless `what` did.
  void act(const std::function<void(Scene&)>& what) {
    sim::SimIo io(world_, 7);
    io.run([&] {
      auto pool = store::Pool::open(io, kPool, {.background = false});
      ASSERT_TRUE(pool) << text_of(pool.error());
      Scene scene{io, pool.take(), {}, {}};
      auto disks = Disks::open(io, *scene.pool);
      ASSERT_TRUE(disks) << text_of(disks.error());
      scene.disks = disks.take();
      if (scene.disks->list().empty()) {
        ASSERT_TRUE(scene.disks->create(io, "disk", 64 * kGiB));
      }
      scene.disk = scene.disks->attach(io, "disk").take();
      what(scene);
      io.clear_faults();
      const bool fenced = scene.pool->info().fenced;
      scene.disk.reset();
      scene.disks.reset();
      if (fenced) return;
      const auto closed = scene.pool->close(io);
      EXPECT_TRUE(closed) << text_of(closed.error());
    });
  }
  void expect_clean_with(const std::map<uint64_t, char>& content) {
    act([&](Scene& s) {
      const auto report = s.disks->check(s.io, false);
      ASSERT_TRUE(report) << text_of(report.error());
      for (const std::string& finding : report->findings) ADD_FAILURE() << finding;
      for (const auto& [at, what] : content) EXPECT_EQ(s.read(at), what) << at;
    });
  }
  // The fault strikes when `trigger` acts; the pool is fenced then, and whole when reopened.
  void expect_fence(const Fault& fault, const char* file,
                    const std::function<Result<void>(Scene&)>& trigger) {
    act([&](Scene& s) {
      ASSERT_TRUE(s.write(kMiB, 'b'));
      ASSERT_TRUE(s.disk->flush(s.io));
      ASSERT_TRUE(s.write(2 * kMiB, 'c'));
      s.io.add_fault(fault);
      s.expect_fenced(trigger(s), file);
      EXPECT_EQ(s.io.fault(0).struck, 1U) << "a failed flush is never tried again";
    });
    expect_clean_with({{0, 'a'}, {kMiB, 'b'}});
  }

  sim::World world_;
};

Result<void> flush(Scene& s) { return s.disk->flush(s.io); }
Result<void> write_all_home(Scene& s) { return s.pool->pages().write_all_home(s.io); }

TEST_F(FaultTest, a_data_write_that_fails_is_the_guest_s_and_nobody_else_s) {
  act([](Scene& s) {
    s.io.add_fault({.files = "*/data", .verb = Verb::write});
    const auto wrote = s.write(0, 'b');
    ASSERT_FALSE(wrote);
    EXPECT_EQ(wrote.error().code, Errc::io);
    ASSERT_TRUE(s.write(kGrainBytes, 'n'));
    ASSERT_TRUE(s.write(0, 'c'));
    ASSERT_TRUE(flush(s));
    EXPECT_FALSE(s.pool->info().fenced);
  });
  expect_clean_with({{0, 'c'}, {kGrainBytes, 'n'}});
}

TEST_F(FaultTest, a_new_grain_whose_write_fails_is_not_mapped) {
  act([](Scene& s) {
    s.io.add_fault({.files = "*/data", .verb = Verb::write});
    EXPECT_FALSE(s.write(kMiB, 'n'));
    EXPECT_EQ(s.read(kMiB), '\0');
    EXPECT_EQ(s.disks->info("disk")->mapped_bytes, kGrainBytes);
    ASSERT_TRUE(s.write(kMiB, 'm'));
    ASSERT_TRUE(flush(s));
  });
  expect_clean_with({{0, 'a'}, {kMiB, 'm'}});
}

TEST_F(FaultTest, a_data_read_that_fails_is_told) {
  act([](Scene& s) {
    s.io.add_fault({.files = "*/data", .verb = Verb::read});
    EXPECT_EQ(s.read(0), '?');
    EXPECT_EQ(s.read(0), 'a');
    s.io.clear_faults();
    s.io.add_fault({.files = "*/data", .verb = Verb::read});
    AlignedBuffer sector(512);
    std::memset(sector.data(), 'b', sector.size());
    const ::iovec slice = slice_of(sector.bytes());
    EXPECT_FALSE(s.disk->write(s.io, {512, 512}, Iovec(&slice, 1), {})) << "it cannot be merged";
    EXPECT_EQ(s.read(0), 'a');
    EXPECT_FALSE(s.pool->info().fenced);
  });
  expect_clean_with({{0, 'a'}});
}

TEST_F(FaultTest, a_block_that_cannot_be_formatted_is_set_aside) {
  act([](Scene& s) {
    ASSERT_TRUE(s.write(kMiB, 'f', kBlockBytes - kGrainBytes));  // The open block is full.
    s.io.add_fault({.files = "*/data", .verb = Verb::write});
    ASSERT_TRUE(s.write(8 * kMiB, 'n')) << "the next block serves";
    EXPECT_EQ(s.pool->info().bad_bytes, kBlockBytes);
    ASSERT_TRUE(flush(s));
  });
  expect_clean_with({{0, 'a'}, {kMiB, 'f'}, {8 * kMiB, 'n'}});
}

TEST_F(FaultTest, P3_a_failed_flush_of_the_data_fences) {
  expect_fence({.files = "*/data", .verb = Verb::flush}, "/data", flush);
}
TEST_F(FaultTest, P3_a_failed_write_of_the_journal_fences) {
  expect_fence({.files = "*/journal", .verb = Verb::write}, "/journal", flush);
}
TEST_F(FaultTest, P3_a_failed_flush_of_the_journal_fences) {
  expect_fence({.files = "*/journal", .verb = Verb::flush}, "/journal", flush);
}
TEST_F(FaultTest, P3_a_failed_home_write_fences) {
  expect_fence({.files = "*/meta", .verb = Verb::write}, "/meta", write_all_home);
}
TEST_F(FaultTest, P3_a_failed_flush_of_the_metadata_fences) {
  expect_fence({.files = "*/meta", .verb = Verb::flush}, "/meta", write_all_home);
}

TEST_F(FaultTest, opening_fails_with_the_file_that_failed_and_can_be_tried_again) {
  act([](Scene& s) {
    ASSERT_TRUE(s.write(kMiB, 'b'));
    ASSERT_TRUE(flush(s));
    s.pool->pages().fence(fail(Errc::io, "as if killed"));  // Leaves something to replay.
  });
  for (const char* file : {"superblock", "meta", "journal", "data"}) {
    for (const Verb verb : {Verb::open, Verb::read, Verb::write, Verb::flush}) {
      sim::SimIo io(world_, 3);
      io.add_fault({.files = std::string("*/") + file, .verb = verb});
      io.run([&] {
        const auto pool = store::Pool::open(io, kPool, {.background = false});
        if (io.fault(0).struck == 0) {  // It replays and is closed, but for what is read later.
          ASSERT_TRUE(pool) << text_of(pool.error());
          return;
        }
        ASSERT_FALSE(pool) << file;
        EXPECT_EQ(pool.error().code, Errc::io) << text_of(pool.error());
        EXPECT_NE(text_of(pool.error()).find(file), std::string_view::npos)
            << text_of(pool.error());
      });
    }
  }
  expect_clean_with({{0, 'a'}, {kMiB, 'b'}});
}

TEST_F(FaultTest, no_room_on_the_host_for_data_fails_that_write_only) {
  act([](Scene& s) {
    s.io.add_fault(
        {.files = "*/data", .verb = Verb::write, .and_all_later = true, .error = ENOSPC});
    const auto wrote = s.write(40 * kMiB, 'n', kBlockBytes);  // Needs a RAW block to be formatted.
    ASSERT_FALSE(wrote);
    EXPECT_EQ(wrote.error().code, Errc::no_space);
    EXPECT_FALSE(s.pool->info().fenced);
    EXPECT_EQ(s.pool->info().bad_bytes, 0U) << "the block is not to blame";
    s.io.clear_faults();
    ASSERT_TRUE(s.write(0, 'b')) << "own grains need no space";
    ASSERT_TRUE(s.write(40 * kMiB, 'n', kBlockBytes));
    ASSERT_TRUE(flush(s));
  });
  expect_clean_with({{0, 'b'}, {40 * kMiB, 'n'}});
}

TEST_F(FaultTest, no_room_on_the_host_for_metadata_fails_that_write_only) {
  std::map<uint64_t, char> written;
  act([&](Scene& s) {
    s.io.add_fault(
        {.files = "*/meta", .verb = Verb::write, .and_all_later = true, .error = ENOSPC});
    // One map page each, until the group is full.
    Result<void> wrote;
    uint64_t at = kGiB;
    for (; (wrote = s.write(at, 'n')); at += 2 * kMiB) written[at] = 'n';
    EXPECT_EQ(wrote.error().code, Errc::no_space) << text_of(wrote.error());
    EXPECT_GT(written.size(), 200U);
    EXPECT_FALSE(s.pool->info().fenced);
    ASSERT_TRUE(s.write(0, 'b'));
    ASSERT_TRUE(s.write(kGiB + kGrainBytes, 'm')) << "its map page is there";
    written[0] = 'b';
    ASSERT_TRUE(flush(s));
    EXPECT_EQ(s.write(at, 'n').error().code, Errc::no_space);
    s.io.clear_faults();
    ASSERT_TRUE(s.write(at, 'o')) << "the host has room again";
    written[at] = 'o';
    ASSERT_TRUE(flush(s));
  });
  expect_clean_with(written);
}

TEST_F(FaultTest, growth_that_the_host_refuses_changes_nothing) {
  act([](Scene& s) {
    s.io.add_fault({.files = "*/data", .verb = Verb::resize, .error = ENOSPC});
    EXPECT_EQ(s.pool->grow(s.io, 32 * kMiB).error().code, Errc::no_space);
    EXPECT_EQ(s.pool->info().capacity_bytes, kBlocks * kBlockBytes);
    ASSERT_TRUE(s.pool->grow(s.io, 32 * kMiB));
    EXPECT_EQ(s.pool->info().capacity_bytes, 32 * kMiB);
  });
  expect_clean_with({{0, 'a'}});
}

}  // namespace
}  // namespace firn::disk
