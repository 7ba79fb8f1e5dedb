// SPDX-License-Identifier: Apache-2.0
// Snapshots as what disks rest on: the content, from a bucket that fails, and is cleaned meanwhile.
#include "archive/snapshot_backing.h"

#include <gtest/gtest.h>

#include "archive/archive_test_util.h"

namespace firn::archive {
namespace {

class SnapshotBackingTest : public testing::Test {
 protected:
  SnapshotBackingTest() : io(world, 1), store(bucket) { world.make_directory("/log"); }
  void run(const std::function<void()>& body) {
    io.run([&] {
      ASSERT_TRUE(create_archive(io, store, {}));
      archive = open_archive(io, store, "/log");
      ASSERT_NE(archive, nullptr);
      body();
      EXPECT_TRUE(archive->close(io));
    });
  }
  void push_now(const std::string& name) {
    const PushRequest request = request_of(disk, name, ++uuids_);
    MemorySource source(disk.now);
    const Result<PushReport> report = push(io, *archive, request, source, {});
    ASSERT_TRUE(report) << text_of(report.error());
    disk.pushed = disk.now;
  }
  void remove(const std::string& name) {
    const Result<Archive::Found> found = archive->find(io, "disk1", name);
    ASSERT_TRUE(found) << text_of(found.error());
    ASSERT_TRUE(delete_snapshot(io, *archive, *found));
    ASSERT_TRUE(finish_deletions(io, *archive));
  }
  void clean_now() {
    CleanHow how;
    how.rule.min_age_ns = 0;
    how.garbage = true;
    const Result<CleanReport> report = clean(io, *archive, how);
    ASSERT_TRUE(report) << text_of(report.error());
  }
  // A client of its own, as another host has.
  SnapshotBacking backing_of(const std::string& name) {
    SnapshotPlace place;
    place.url = "sim://bucket";
    place.disk = "disk1";
    place.snapshot = name;
    return {
        place, [this](Io&, const SnapshotPlace&) -> Result<std::unique_ptr<ObjectStore>> {
          ++opened;
          sim::SimStore::Settings settings;
          settings.faults = faults;
          return std::unique_ptr<ObjectStore>(std::make_unique<sim::SimStore>(bucket, settings));
        }};
  }
  // What a range shows of the wanted grains; nothing else may be given, and nothing twice.
  Result<Content> fetch(SnapshotBacking& backing, uint64_t first, uint64_t count,
                        const disk::Backing::Wanted& wanted) {
    Content content(count * kGrainBytes);
    std::vector<bool> given(count, false);
    TRY(backing.fetch(io, first, count, wanted, [&](uint64_t grain, View part) -> Result<void> {
      io.yield();
      for (uint64_t i = 0; i < part.size() / kGrainBytes; ++i) {
        const uint64_t place = grain + i - first;
        EXPECT_LT(place, count);
        EXPECT_TRUE(wanted(grain + i));
        EXPECT_FALSE(given.at(place)) << "grain " << grain + i << " is given twice";
        given.at(place) = true;
      }
      std::ranges::copy(part,
                        content.begin() + static_cast<ptrdiff_t>((grain - first) * kGrainBytes));
      return ok;
    }));
    return content;
  }
  void expect_shows(SnapshotBacking& backing, const Content& shown) {
    const auto all = [](uint64_t) { return true; };
    const Result<Content> whole = fetch(backing, 0, kTestDiskGrains, all);
    ASSERT_TRUE(whole) << text_of(whole.error());
    EXPECT_TRUE(*whole == shown);
  }

  sim::World world;
  sim::SimIo io;
  sim::SimBucket bucket;
  sim::SimStore store;
  sim::SimStoreFaults faults;
  std::unique_ptr<Archive> archive;
  TestDisk disk;
  int opened = 0;

 private:
  uint64_t uuids_ = 0;
};

TEST_F(SnapshotBackingTest, gives_what_is_wanted_of_any_range) {
  run([&] {
    Prng prng(5);
    for (int i = 0; i < 6; ++i) {
      scribble(prng, disk.now, 25);
      push_now(fmt::format("s{}", i));
    }
    const Content shown = disk.now;
    scribble(prng, disk.now, 40);
    push_now("later");
    SnapshotBacking backing = backing_of("s5");
    expect_shows(backing, shown);
    for (int i = 0; i < 50; ++i) {
      const uint64_t first = prng.below(kTestDiskGrains);
      const uint64_t count = 1 + prng.below(std::min<uint64_t>(300, kTestDiskGrains - first));
      const uint64_t step = 1 + prng.below(4);
      const auto wanted = [&](uint64_t grain) { return grain % step == 0; };
      const Result<Content> got = fetch(backing, first, count, wanted);
      ASSERT_TRUE(got) << text_of(got.error());
      for (uint64_t at = 0; at < count; ++at) {
        const View grain = View(*got).subspan(at * kGrainBytes, kGrainBytes);
        const View right = View(shown).subspan((first + at) * kGrainBytes, kGrainBytes);
        ASSERT_TRUE(wanted(first + at) ? std::ranges::equal(grain, right) : all_zero(grain));
      }
    }
    EXPECT_EQ(opened, 1);
  });
}

TEST_F(SnapshotBackingTest, N1_a_bucket_that_is_cleaned_meanwhile_is_looked_at_again) {
  run([&] {
    Prng prng(6);
    scribble(prng, disk.now, 60);
    push_now("gone");
    scribble(prng, disk.now, 30);
    push_now("kept");
    const Content shown = disk.now;
    SnapshotBacking backing = backing_of("kept");
    ASSERT_TRUE(backing.look(io));  // It knows the segments as they are now.
    remove("gone");
    clean_now();
    expect_shows(backing, shown);
    EXPECT_LE(opened, 2);
  });
}

TEST_F(SnapshotBackingTest, faults_pass_and_what_is_gone_is_an_error) {
  run([&] {
    Prng prng(8);
    scribble(prng, disk.now, 60);
    push_now("s");
    faults.throttled_one_in = faults.dropped_one_in = faults.torn_one_in = 6;
    SnapshotBacking shaky = backing_of("s");
    expect_shows(shaky, disk.now);

    SnapshotBacking backing = backing_of("s");
    ASSERT_TRUE(backing.look(io));
    remove("s");
    clean_now();
    const auto got = fetch(backing, 0, kTestDiskGrains, [](uint64_t) { return true; });
    ASSERT_FALSE(got) << "zeroes instead of an error";
    EXPECT_EQ(got.error().code, Errc::io);
    EXPECT_NE(std::string(text_of(got.error())).find("disk1@s"), std::string::npos);
  });
}

TEST_F(SnapshotBackingTest, an_error_of_the_sink_comes_back_as_it_is) {
  run([&] {
    Prng prng(9);
    scribble(prng, disk.now, 60);
    push_now("s");
    SnapshotBacking backing = backing_of("s");
    const Result<void> done = backing.fetch(
        io, 0, kTestDiskGrains, [](uint64_t) { return true; },
        [](uint64_t, View) -> Result<void> { return fail(Errc::no_space, "the pool is full"); });
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Errc::no_space);
    EXPECT_EQ(opened, 1) << "the archive is not at fault";
  });
}

}  // namespace
}  // namespace firn::archive
