// SPDX-License-Identifier: Apache-2.0
// No space, unreadable pages and rotten ones in trees of layers: what it costs whom.
#include <cerrno>
#include <fstream>
#include <set>

#include "base/log.h"
#include "disk/pool_fixture.h"
#include "sim/sim_io.h"
#include "store/pages.h"

namespace firn::disk {
namespace {

class SnapshotFault : public PoolFixture {
 protected:
  void SetUp() override {
    set_log_sink([](LogLevel, std::string_view) {});
    PoolFixture::SetUp();
    ASSERT_TRUE(disks_->create(io_, "a", 4 * kGiB));
    ASSERT_TRUE(disks_->create(io_, "other", kGiB));
    attach("other");
    write(0, "other");
    attach("a");
  }
  void TearDown() override {
    PoolFixture::TearDown();
    set_log_sink(nullptr);
  }
  void snapshot(const char* name) {
    const auto made = disks_->snapshot(io_, "a", name);
    ASSERT_TRUE(made) << text_of(made.error());
  }
  Result<std::string> try_read(const std::string& name, uint64_t at, size_t length) {
    const auto device = TRY(disks_->attach(io_, name));
    std::string text(length, '?');
    const ::iovec slice = slice_of(std::as_writable_bytes(std::span(text)));
    TRY(device->read(io_, {at, length}, Iovec(&slice, 1)));
    return text;
  }
  std::string read_of(const std::string& name, uint64_t at, size_t length) {
    const auto text = try_read(name, at, length);
    EXPECT_TRUE(text) << text_of(text.error());
    return text ? *text : "";
  }
  Result<void> try_write(uint64_t at, const std::string& text) {
    const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
    return disk_->write(io_, {at, text.size()}, Iovec(&slice, 1), {});
  }
  std::set<store::PageNo> pages_of(format::PageKind kind) {
    std::set<store::PageNo> found;
    const store::PageStore& pages = pool_->pages();
    for (store::PageNo no = 0; no < pages.groups() * format::kGroupPages; ++no) {
      if (format::is_info_page(no)) continue;
      if (static_cast<format::PageKind>(pages.info(no).kind) == kind) found.insert(no);
    }
    return found;
  }
  // The map page that `act` made.
  store::PageNo page_made_by(const std::function<void()>& act) {
    const auto before = pages_of(format::PageKind::map);
    act();
    for (const store::PageNo page : pages_of(format::PageKind::map)) {
      if (!before.contains(page)) return page;
    }
    ADD_FAILURE() << "no page was made";
    return 0;
  }
  void rot(store::PageNo page) {
    close();
    std::fstream file(path_ + "/meta", std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(page * kPageBytes + 1000);
    file.seekg(at);
    const int byte = file.get();
    file.seekp(at);
    file.put(static_cast<char>(byte ^ 0x10));
    file.close();
    ASSERT_TRUE(file.good());
    open();
    attach("a");
  }
};

TEST_F(SnapshotFault, no_space_in_the_middle_of_a_copy_on_write_hurts_that_write_only) {
  for (uint64_t at = 0; at < 10 * kMiB; at += kMiB) write(at, std::string(kMiB, 'a'));
  snapshot("s");
  uint64_t copied = 0;
  Result<void> wrote;
  for (; (wrote = try_write(copied, std::string(kMiB, 'b'))); copied += kMiB) {
  }
  EXPECT_EQ(wrote.error().code, Errc::no_space) << text_of(wrote.error());
  EXPECT_GE(copied, 4 * kMiB);
  EXPECT_FALSE(pool_->info().fenced);
  ASSERT_TRUE(try_write(0, std::string(kMiB, 'c'))) << "own grains need no space";
  ASSERT_TRUE(disk_->discard(io_, {9 * kMiB, kMiB})) << "nor does hiding what the snapshot has";
  ASSERT_TRUE(disk_->flush(io_));
  EXPECT_EQ(read_of("other", 0, 5), "other");
  EXPECT_EQ(read_of("a@s", 0, 1) + read_of("a@s", 9 * kMiB, 1), "aa");
  expect_clean();
  // A merge needs none: it gives some back, and the write that had to wait goes on.
  const uint64_t pages = pool_->info().metadata_pages;
  ASSERT_TRUE(disks_->remove_snapshot(io_, "a", "s"));
  const auto swept = disks_->sweep(io_);
  ASSERT_TRUE(swept) << text_of(swept.error());
  EXPECT_LE(pool_->info().metadata_pages, pages);
  EXPECT_EQ(pool_->info().used_bytes, 9 * kMiB + kGrainBytes);
  ASSERT_TRUE(try_write(copied, std::string(kMiB, 'b')));
  EXPECT_EQ(read(0, 1) + read(copied, 1) + read(8 * kMiB, 1), "cba");
  expect_clean();
}

// A rotten page of the layer in the middle, of three: s1 <- s2 <- s3 <- a.
class RottenMiddle : public SnapshotFault {
 protected:
  void SetUp() override {
    SnapshotFault::SetUp();
    write(0, "one");
    write(kGiB, "far one");
    snapshot("s1");
    page_ = page_made_by([this] { write(kGrainBytes, "two"); });  // Copies the leaf of byte 0.
    write(kGiB + kGrainBytes, "far two");
    snapshot("s2");
    write(2 * kGrainBytes, "three");
    snapshot("s3");
    write(kGiB, "far now");
    rot(page_);
  }
  void expect_named(const Result<std::string>& got, const std::string& whose) {
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, Errc::corrupt);
    const std::string text(text_of(got.error()));
    EXPECT_NE(text.find("'" + whose + "'"), std::string::npos) << text;
    EXPECT_NE(text.find(fmt::format("metadata page {} ", page_)), std::string::npos) << text;
  }
  void expect_others_usable() {
    EXPECT_EQ(read_of("a@s1", 0, 3), "one");
    EXPECT_EQ(read_of("a@s2", kGiB + kGrainBytes, 7), "far two");
    EXPECT_EQ(read_of("a@s3", 0, 3) + read_of("a@s3", 2 * kGrainBytes, 5), "onethree");
    EXPECT_EQ(read_of("a", 0, 3) + read_of("a", kGiB, 7), "onefar now");
    EXPECT_EQ(read_of("other", 0, 5), "other");
    ASSERT_TRUE(try_write(3 * kGrainBytes, "more"));
    ASSERT_TRUE(disk_->flush(io_));
    ASSERT_TRUE(disks_->create(io_, "later", kGiB));
    ASSERT_TRUE(disks_->remove(io_, "later"));
  }
  store::PageNo page_ = 0;
};

TEST_F(RottenMiddle, P3_is_contained_and_named) {
  expect_named(try_read("a@s2", 0, 1), "a@s2");
  expect_others_usable();
  const auto report = disks_->check(io_, true);
  ASSERT_TRUE(report) << text_of(report.error());
  EXPECT_EQ(report->corrupt_pages, 1U);
  EXPECT_EQ(report->repaired, 0U);
  EXPECT_NE(report->findings.at(0).find(fmt::format("page {}", page_)), std::string::npos);
}

// Its own merge cannot be done, nor that of the layer under it: both fail by name, all stay
// readable, and the merges of others go on.
TEST_F(RottenMiddle, P3_jobs_that_need_it_fail_by_name_and_the_others_go_on) {
  ASSERT_TRUE(disks_->remove_snapshot(io_, "a", "s2"));
  ASSERT_TRUE(disks_->create(io_, "b", kGiB));
  ASSERT_TRUE(disks_->snapshot(io_, "b", "x"));
  ASSERT_TRUE(disks_->remove_snapshot(io_, "b", "x"));
  const auto swept = disks_->sweep(io_);
  ASSERT_FALSE(swept);
  EXPECT_EQ(swept.error().code, Errc::corrupt);
  ASSERT_EQ(disks_->jobs().size(), 1U);
  const JobInfo job = disks_->jobs()[0];
  EXPECT_EQ(job.state, JobState::failed);
  EXPECT_FALSE(job.again_in) << "what is rotten stays so";
  EXPECT_NE(job.error.find("'a@s3'"), std::string::npos) << job.error;
  EXPECT_NE(job.error.find(fmt::format("metadata page {} ", page_)), std::string::npos)
      << job.error;
  EXPECT_EQ(disks_->info("b")->layers, 1U) << "another disk's job was done";
  EXPECT_EQ(read_of("a@s1", 0, 3), "one");
  EXPECT_EQ(read_of("a@s3", 0, 3) + read_of("a@s3", 2 * kGrainBytes, 5), "onethree");
  EXPECT_EQ(read_of("a@s3", kGiB + kGrainBytes, 7), "far two");
  EXPECT_EQ(read_of("a", kGiB, 7), "far now");
  // Opened again, tried again, still there.
  close();
  open();
  attach("a");
  ASSERT_EQ(disks_->jobs().size(), 1U);
  EXPECT_EQ(disks_->jobs()[0].state, JobState::failed);
  EXPECT_EQ(read_of("a@s3", 0, 3), "one");
  EXPECT_EQ(disks_->check(io_, false)->corrupt_pages, 1U);
}

// A read that fails once: the merge stays where it was, and is gone on with.
TEST(SnapshotFaultSim, a_merge_that_meets_an_error_is_done_at_the_next_opening) {
  set_log_sink([](LogLevel, std::string_view) {});
  sim::World world;
  uint64_t failures = 0;
  for (uint64_t nth = 1; nth <= 12; ++nth) {
    SCOPED_TRACE(fmt::format("read {}", nth));
    sim::SimIo io(world, nth, {.order = sim::Order::immediate});
    io.run([&] {
      const store::PoolSettings settings{.cache_bytes = 4 * kPageBytes, .background = false};
      const std::string path = fmt::format("/p{}", nth);
      ASSERT_TRUE(store::Pool::create(io, path, {.bytes = 16 * kMiB, .journal_bytes = kMiB}));
      const auto with = [&](const std::function<void(Disks&, BlockDevice&)>& act) {
        auto pool = store::Pool::open(io, path, settings).take();
        auto disks = Disks::open(io, *pool).take();
        if (disks->list().empty()) {
          ASSERT_TRUE(disks->create(io, "a", 4 * kGiB));
        }
        auto disk = disks->attach(io, "a").take();
        act(*disks, *disk);
        io.clear_faults();
        disk.reset();
        disks.reset();
        ASSERT_TRUE(pool->close(io));
      };
      const auto put = [&](BlockDevice& disk, uint64_t at, char what) {
        std::string text(kGrainBytes, what);
        const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
        ASSERT_TRUE(disk.write(io, {at, text.size()}, Iovec(&slice, 1), {}));
      };
      const auto get = [&](BlockDevice& disk, uint64_t at) {
        std::string text(kGrainBytes, '?');
        const ::iovec slice = slice_of(std::as_writable_bytes(std::span(text)));
        EXPECT_TRUE(disk.read(io, {at, text.size()}, Iovec(&slice, 1)));
        return text[0];
      };
      with([&](Disks& disks, BlockDevice& disk) {
        for (uint64_t i = 0; i < 6; ++i) put(disk, i * 300 * kMiB, 'a');
        ASSERT_TRUE(disks.snapshot(io, "a", "s"));
        for (uint64_t i = 0; i < 3; ++i) put(disk, i * 300 * kMiB, 'b');
      });
      with([&](Disks& disks, BlockDevice& disk) {
        ASSERT_TRUE(disks.remove_snapshot(io, "a", "s"));
        io.add_fault({.files = "*/meta", .verb = sim::Verb::read, .nth = nth, .error = EIO});
        const auto swept = disks.sweep(io);
        if (!swept) {
          ++failures;
          EXPECT_EQ(swept.error().code, Errc::io);
          EXPECT_EQ(disks.jobs().at(0).state, JobState::failed);
        }
        io.clear_faults();
        EXPECT_EQ(get(disk, 300 * kMiB), 'b');
        EXPECT_EQ(get(disk, 1500 * kMiB), 'a');
      });
      with([&](Disks& disks, BlockDevice& disk) {
        EXPECT_TRUE(disks.jobs().empty());
        EXPECT_EQ(disks.info("a")->layers, 1U);
        EXPECT_EQ(disks.info("a")->mapped_bytes, 6 * kGrainBytes);
        EXPECT_EQ(get(disk, 300 * kMiB), 'b');
        const auto report = disks.check(io, false);
        ASSERT_TRUE(report);
        EXPECT_TRUE(report->clean()) << report->findings.front();
      });
    });
    if (testing::Test::HasFailure()) break;
  }
  EXPECT_GE(failures, 4U);
  set_log_sink(nullptr);
}

// --- jobs that are tried again

// A pool with a daemon's fibers, and disk "a" whose snapshot "s" differs from it in six leaves.
struct Daemon {
  explicit Daemon(sim::SimIo& world) : io(world) {
    EXPECT_TRUE(store::Pool::create(io, "/p", {.bytes = 16 * kMiB, .journal_bytes = kMiB}));
    open();
    EXPECT_TRUE(disks->create(io, "a", 4 * kGiB));
    {
      auto disk = disks->attach(io, "a").take();
      for (const char what : {'a', 'b'}) {
        for (uint64_t i = 0; i < 6; ++i) {
          std::string text(kGrainBytes, what);
          const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
          EXPECT_TRUE(disk->write(io, {i * 300 * kMiB, text.size()}, Iovec(&slice, 1), {}));
        }
        const auto frozen = what == 'a' ? disks->snapshot(io, "a", "s") : Result<void>();
        EXPECT_TRUE(frozen);
      }
    }
    close();
    open();
  }
  void open() {
    pool = store::Pool::open(io, "/p", {.cache_bytes = 4 * kPageBytes}).take();
    disks = Disks::open(io, *pool).take();
  }
  void close() {
    io.clear_faults();
    disks.reset();
    (void)pool->close(io);
    pool.reset();
  }
  void fail_reads_of_meta() {
    io.add_fault({.files = "*/meta", .verb = sim::Verb::read, .and_all_later = true, .error = EIO});
  }
  // The one job, once it has failed so often.
  JobInfo failed(uint32_t times) {
    while (disks->jobs().empty() || disks->jobs()[0].failures < times) {
      io.sleep(std::chrono::milliseconds(10));
    }
    return disks->jobs()[0];
  }
  sim::SimIo& io;
  std::unique_ptr<store::Pool> pool;
  std::unique_ptr<Disks> disks;
};

TEST(SnapshotFaultSim, a_job_that_met_an_error_is_tried_again_until_it_is_done) {
  set_log_sink([](LogLevel, std::string_view) {});
  for (const bool drop : {false, true}) {
    SCOPED_TRACE(drop);
    sim::World world;
    sim::SimIo io(world, 1);
    io.run([&] {
      Daemon d(io);
      auto gone = drop ? d.disks->remove(io, "a", true) : d.disks->remove_snapshot(io, "a", "s");
      ASSERT_TRUE(gone) << text_of(gone.error());
      d.fail_reads_of_meta();
      const Time began = io.now();
      const JobInfo once = d.failed(1);
      EXPECT_EQ(once.state, JobState::failed);
      EXPECT_EQ(once.kind, drop ? JobKind::drop : JobKind::consolidate);
      EXPECT_NE(once.error.find("stays for now"), std::string::npos) << once.error;
      ASSERT_TRUE(once.again_in);
      EXPECT_LE(*once.again_in, std::chrono::seconds(1));
      const JobInfo often = d.failed(4);
      EXPECT_GE(io.now() - began, std::chrono::seconds(1 + 2 + 4));
      EXPECT_LE(io.now() - began, std::chrono::seconds(10));
      ASSERT_TRUE(often.again_in);
      EXPECT_GT(*often.again_in, std::chrono::seconds(4));
      io.clear_faults();
      const Time mended = io.now();
      while (!d.disks->jobs().empty()) io.sleep(std::chrono::milliseconds(10));
      EXPECT_LE(io.now() - mended, std::chrono::seconds(10));
      EXPECT_EQ(d.pool->info().used_bytes, drop ? 0 : 6 * kGrainBytes);
      const auto report = d.disks->check(io, false);
      ASSERT_TRUE(report);
      EXPECT_TRUE(report->clean()) << report->findings.front();
      d.close();
    });
    if (testing::Test::HasFailure()) break;
  }
  set_log_sink(nullptr);
}

TEST(SnapshotFaultSim, who_asks_for_a_job_does_not_wait_for_the_end_of_its_pause) {
  set_log_sink([](LogLevel, std::string_view) {});
  sim::World world;
  sim::SimIo io(world, 1);
  io.run([&] {
    Daemon d(io);
    ASSERT_TRUE(d.disks->remove_snapshot(io, "a", "s"));
    d.fail_reads_of_meta();
    const JobInfo job = d.failed(5);
    io.clear_faults();
    ASSERT_TRUE(job.again_in);
    EXPECT_GT(*job.again_in, std::chrono::seconds(10));
    EXPECT_TRUE(d.disks->sweep(io));
    EXPECT_TRUE(d.disks->jobs().empty());
    d.close();
  });
  set_log_sink(nullptr);
}

TEST(SnapshotFaultSim, a_job_of_a_fenced_pool_is_not_tried_again) {
  set_log_sink([](LogLevel, std::string_view) {});
  sim::World world;
  sim::SimIo io(world, 1);
  io.run([&] {
    Daemon d(io);
    ASSERT_TRUE(d.disks->remove_snapshot(io, "a", "s"));
    d.fail_reads_of_meta();
    d.failed(2);
    io.add_fault({.files = "*/journal", .verb = sim::Verb::flush, .error = EIO});
    (void)d.disks->create(io, "b", kGiB);
    ASSERT_TRUE(d.pool->info().fenced);
    io.clear_faults();
    io.sleep(std::chrono::minutes(5));
    ASSERT_EQ(d.disks->jobs().size(), 1U);
    const JobInfo job = d.disks->jobs()[0];
    EXPECT_EQ(job.state, JobState::failed);
    EXPECT_FALSE(job.again_in);
    EXPECT_LE(job.failures, 3U);
    d.close();
    d.open();
    while (!d.disks->jobs().empty()) io.sleep(std::chrono::milliseconds(10));
    EXPECT_EQ(d.disks->info("a")->layers, 1U);
    d.close();
  });
  set_log_sink(nullptr);
}

}  // namespace
}  // namespace firn::disk
