// SPDX-License-Identifier: Apache-2.0
#include "disk/backed.h"

#include <numeric>

#include "base/prng.h"
#include "disk/pool_fixture.h"

namespace firn::disk {
namespace {

constexpr uint64_t kBytes = 9 * kMiB + 512;  // Three regions, a short last grain.
constexpr uint64_t kGrains = kBytes / kGrainBytes + 1;

// Every third run of 5 grains is zeroes there.
bool has_content(uint64_t grain) { return grain / 5 % 3 != 0; }

std::string content_of(uint64_t grain) {
  if (!has_content(grain)) return std::string(kGrainBytes, '\0');
  return std::string(kGrainBytes, static_cast<char>('A' + grain % 50));
}

struct Elsewhere {
  bool broken = false;
  uint64_t fetched = 0;
  std::function<void(uint64_t grain)> before_grain;  // What guests do meanwhile.
};

class TestBacking final : public Backing {
 public:
  explicit TestBacking(Elsewhere& of) : of_(of) {}
  Result<void> fetch(Io&, uint64_t first, uint64_t count, const Wanted& wanted,
                     const Sink& sink) override {
    for (uint64_t grain = first; grain < first + count; ++grain) {
      if (of_.broken) return fail(Errc::io, "the bucket is gone");
      if (!wanted(grain) || !has_content(grain)) continue;
      if (of_.before_grain) of_.before_grain(grain);
      ++of_.fetched;
      const std::string content = content_of(grain);
      TRY(sink(grain, std::as_bytes(std::span(content))));
    }
    return ok;
  }

 private:
  Elsewhere& of_;
};

class BackedDiskTest : public PoolFixture {
 protected:
  void SetUp() override {
    pool_bytes_ = 32 * kMiB;
    PoolFixture::SetUp();
    ASSERT_TRUE(disks_->create(io_, "a", kBytes));
    ASSERT_TRUE(disks_->set(io_, "a", kBackedKey, "file:///somewhere"));
    back();
    model_.clear();
    for (uint64_t grain = 0; grain < kGrains; ++grain) model_ += content_of(grain);
    model_.resize(kBytes);
  }
  void TearDown() override {
    backed_.reset();
    PoolFixture::TearDown();
  }
  // The disk as a daemon has it that was just started.
  void back() {
    attach("a");
    backed_ = std::make_shared<BackedDisk>(disk_, std::make_unique<TestBacking>(elsewhere_));
    disk_ = backed_;
  }
  void restart() {
    ASSERT_TRUE(disk_->flush(io_));
    backed_.reset();
    close();
    open();
    back();
  }
  void put(uint64_t at, const std::string& text) {
    write(at, text);
    model_.replace(at, text.size(), text);
  }
  void wipe(uint64_t at, uint64_t length) { model_.replace(at, length, length, '\0'); }
  void hydrate() {
    for (int i = 0; i < 10; ++i) {
      const Result<bool> all = backed_->hydrate(io_);
      ASSERT_TRUE(all) << text_of(all.error());
      if (*all) return;
    }
    FAIL() << "it never ends";
  }
  void expect_model() { EXPECT_TRUE(read(0, kBytes) == model_); }

  Elsewhere elsewhere_;
  std::shared_ptr<BackedDisk> backed_;
  std::string model_;
};

TEST_F(BackedDiskTest, reads_are_right_from_the_beginning_and_fetch_once) {
  EXPECT_EQ(read(20 * kGrainBytes - 3, 6), model_.substr(20 * kGrainBytes - 3, 6));
  const uint64_t fetched = elsewhere_.fetched;
  EXPECT_GT(fetched, 0U);
  EXPECT_LE(fetched, 32U);
  EXPECT_EQ(read(20 * kGrainBytes - 3, 6), model_.substr(20 * kGrainBytes - 3, 6));
  EXPECT_EQ(elsewhere_.fetched, fetched);
  expect_model();
  hydrate();
  expect_model();
  uint64_t there = 0;
  for (uint64_t grain = 0; grain < kGrains; ++grain) there += has_content(grain) ? 1 : 0;
  EXPECT_EQ(elsewhere_.fetched, there);
  expect_clean();
}

TEST_F(BackedDiskTest, B2_what_guests_leave_survives_fetching_and_restarts) {
  put(10 * kGrainBytes, std::string(3 * kGrainBytes, 'w'));
  put(100 * kGrainBytes + 100, "in the middle of a grain");
  put(kBytes - 100, std::string(100, 'e'));
  put(50 * kGrainBytes, std::string(2 * kGrainBytes, '\0'));  // Zeroes that are written.
  ASSERT_TRUE(disk_->discard(io_, {600 * kGrainBytes, 600 * kGrainBytes}));
  wipe(600 * kGrainBytes, 600 * kGrainBytes);
  ASSERT_TRUE(disk_->zero(io_, {2000 * kGrainBytes + 7, 5 * kGrainBytes}, {}));
  wipe(2000 * kGrainBytes + 7, 5 * kGrainBytes);
  expect_clean();
  restart();
  ASSERT_TRUE(backed_->hydrate(io_));
  restart();
  expect_model();
  hydrate();
  restart();
  elsewhere_.broken = true;
  ASSERT_TRUE(disks_->set(io_, "a", kBackedKey, ""));
  backed_.reset();
  attach("a");
  expect_model();
  expect_clean();
}

TEST_F(BackedDiskTest, B2_a_write_that_comes_while_its_grain_is_on_the_way_wins) {
  const auto meanwhile = [&](uint64_t grain) {
    if (grain % 7 == 0) put(grain * kGrainBytes, std::string(kGrainBytes, 'n'));
    if (grain % 7 == 1) {
      ASSERT_TRUE(disk_->discard(io_, {grain * kGrainBytes, kGrainBytes}));
      wipe(grain * kGrainBytes, kGrainBytes);
    }
  };
  elsewhere_.before_grain = [&](uint64_t grain) {
    if (grain + 1 < kGrains) meanwhile(grain);
  };
  hydrate();
  elsewhere_.before_grain = nullptr;
  expect_model();
  expect_clean();
}

TEST_F(BackedDiskTest, B4_what_is_fetched_in_the_background_is_no_guests_request) {
  const uint64_t requests = pool_->guest_requests();
  hydrate();
  EXPECT_GT(elsewhere_.fetched, 0U);
  EXPECT_EQ(pool_->guest_requests(), requests);
  put(0, "a guest's");
  EXPECT_EQ(pool_->guest_requests(), requests + 1);
}

// By uuid: between its last grain and this the disk may be called something else.
TEST_F(BackedDiskTest, what_has_arrived_forgets_where_it_came_from) {
  ASSERT_TRUE(disks_->set(io_, "a", "base.snapshot", "x@y"));
  ASSERT_TRUE(disks_->set(io_, "a", "description", "stays"));
  const std::string uuid = disks_->info("a")->uuid;
  ASSERT_TRUE(disks_->rename(io_, "a", "b"));
  ASSERT_TRUE(disks_->create(io_, "a", kMiB));
  ASSERT_TRUE(disks_->set(io_, "a", kBackedKey, "file:///elsewhere"));
  const uint64_t commits = pool_->info().commits;
  ASSERT_TRUE(disks_->arrived(io_, uuid));
  EXPECT_EQ(pool_->info().commits, commits + 1) << "all in one transaction";
  ASSERT_TRUE(disks_->arrived(io_, "of nobody"));
  backed_.reset();
  close();
  open();
  const std::map<std::string, std::string> left{{"description", "stays"}};
  EXPECT_EQ(disks_->info("b")->settings, left);
  EXPECT_TRUE(disks_->info("a")->settings.contains(std::string(kBackedKey)));
}

TEST_F(BackedDiskTest, B3_what_cannot_be_fetched_fails_and_is_there_later) {
  EXPECT_EQ(read(30 * kGrainBytes, 5), model_.substr(30 * kGrainBytes, 5));
  elsewhere_.broken = true;
  std::string text(10, '?');
  const ::iovec slice = slice_of(std::as_writable_bytes(std::span(text)));
  const auto got = disk_->read(io_, {100 * kGrainBytes, 10}, Iovec(&slice, 1));
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Errc::io);
  EXPECT_FALSE(backed_->hydrate(io_));
  const std::string part = "part";
  const ::iovec from = slice_of(std::as_bytes(std::span(part)));
  EXPECT_FALSE(disk_->write(io_, {200 * kGrainBytes + 9, 4}, Iovec(&from, 1), {}));
  EXPECT_EQ(read(30 * kGrainBytes, 5), model_.substr(30 * kGrainBytes, 5));
  put(300 * kGrainBytes, std::string(kGrainBytes, 'x'));  // A whole grain needs nothing.
  EXPECT_EQ(read(300 * kGrainBytes, 5), "xxxxx");
  elsewhere_.broken = false;
  expect_model();
  hydrate();
  expect_model();
}

TEST_F(BackedDiskTest, what_is_not_here_is_data) {
  class Extents final : public ExtentSink {
   public:
    bool add(ExtentRun run) override {
      total += run.length;
      if (run.kind == Extent::data) data += run.length;
      return true;
    }
    uint64_t total = 0, data = 0;
  };
  ASSERT_TRUE(disk_->discard(io_, {0, 100 * kGrainBytes}));
  Extents before;
  ASSERT_TRUE(disk_->map(io_, {0, kBytes}, before));
  EXPECT_EQ(before.total, kBytes);
  EXPECT_EQ(before.data, kBytes - 100 * kGrainBytes);
  hydrate();
  Extents after;
  ASSERT_TRUE(disk_->map(io_, {0, kBytes}, after));
  EXPECT_EQ(after.total, kBytes);
  // The last grain is a short one.
  EXPECT_EQ(round_up(after.data, kGrainBytes), elsewhere_.fetched * kGrainBytes);
}

// What lies below says what it has found a while after it has looked.
class SlowToTell final : public BlockDevice {
 public:
  explicit SlowToTell(std::shared_ptr<BlockDevice> below) : below_(std::move(below)) {}
  std::function<void()> meanwhile;

  Geometry geometry() const override { return below_->geometry(); }
  Result<void> read(Io& io, Range range, Iovec into) override {
    return below_->read(io, range, into);
  }
  Result<void> write(Io& io, Range range, Iovec from, WriteFlags flags) override {
    return below_->write(io, range, from, flags);
  }
  Result<void> zero(Io& io, Range range, ZeroFlags flags) override {
    return below_->zero(io, range, flags);
  }
  Result<void> discard(Io& io, Range range) override { return below_->discard(io, range); }
  Result<void> flush(Io& io) override { return below_->flush(io); }
  Result<void> map(Io& io, Range range, ExtentSink& sink) override {
    class Runs final : public ExtentSink {
     public:
      bool add(ExtentRun run) override {
        runs.push_back(run);
        return true;
      }
      std::vector<ExtentRun> runs;
    };
    Runs found;
    TRY(below_->map(io, range, found));
    if (meanwhile) std::exchange(meanwhile, nullptr)();
    for (const ExtentRun& run : found.runs) {
      if (!sink.add(run)) break;
    }
    return ok;
  }

 private:
  const std::shared_ptr<BlockDevice> below_;
};

TEST_F(BackedDiskTest, what_arrives_while_the_map_is_read_is_no_hole) {
  class Holes final : public ExtentSink {
   public:
    bool add(ExtentRun run) override {
      for (uint64_t grain = at / kGrainBytes; grain * kGrainBytes < at + run.length; ++grain) {
        if (run.kind == Extent::hole && has_content(grain)) wrong.push_back(grain);
      }
      at += run.length;
      return true;
    }
    uint64_t at = 0;
    std::vector<uint64_t> wrong;
  };
  backed_.reset();
  attach("a");
  const auto slow = std::make_shared<SlowToTell>(disk_);
  backed_ = std::make_shared<BackedDisk>(slow, std::make_unique<TestBacking>(elsewhere_));
  disk_ = backed_;
  for (const uint64_t before : {0U, 1U}) {  // Nothing is known yet; then a part.
    slow->meanwhile = [&] {
      if (before == 0) read(0, 3 * kMiB);
      if (before == 1) hydrate();
    };
    Holes holes;
    ASSERT_TRUE(disk_->map(io_, {0, kBytes}, holes));
    EXPECT_EQ(holes.at, kBytes);
    EXPECT_TRUE(holes.wrong.empty()) << "grain " << holes.wrong.front() << " of round " << before;
  }
}

}  // namespace
}  // namespace firn::disk
