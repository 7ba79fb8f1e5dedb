// SPDX-License-Identifier: Apache-2.0
// Lives of an archive in a simulated bucket against the model: pushes, deletions in any order,
// cleaning, rebuilding; and what each may cost.
#include <gtest/gtest.h>

#include "archive/archive_test_util.h"

namespace firn::archive {
namespace {

class ArchiveTest : public testing::Test {
 protected:
  ArchiveTest() : io(world, 1), store(bucket) { world.make_directory("/log"); }
  void run(const std::function<void()>& body) {
    io.run([&] {
      ASSERT_TRUE(create_archive(io, store, how_));
      archive = open_archive(io, store, "/log");
      if (archive == nullptr) return;
      body();
      if (archive == nullptr) return;
      EXPECT_TRUE(archive->close(io));
    });
  }
  PushReport push_now(TestDisk& disk, const std::string& name, bool compare = false) {
    PushRequest request = request_of(disk, name, ++uuids_);
    if (compare) {
      const std::vector<TouchedRun> whole{{0, kTestDiskGrains, true}};
      request.touched = merged(touched({}, disk.now), whole);
      request.compare = true;
    }
    MemorySource source(disk.now);
    const Result<PushReport> report = push(io, *archive, request, source, {});
    EXPECT_TRUE(report) << text_of(report.error());
    disk.pushed = disk.now;
    shown[request.disk + "@" + name] = disk.now;
    return report ? *report : PushReport();
  }
  void remove(const std::string& disk, const std::string& name) {
    const Result<Archive::Found> found = archive->find(io, disk, name);
    ASSERT_TRUE(found) << text_of(found.error());
    const Result<void> gone = delete_snapshot(io, *archive, *found);
    ASSERT_TRUE(gone) << text_of(gone.error());
    const auto done = finish_deletions(io, *archive);
    ASSERT_TRUE(done) << text_of(done.error());
    shown.erase(disk + "@" + name);
  }
  CleanReport clean_now() {
    CleanHow how;
    how.rule.min_age_ns = 0;
    how.garbage = true;
    const Result<CleanReport> report = clean(io, *archive, how);
    EXPECT_TRUE(report) << text_of(report.error());
    return report ? *report : CleanReport();
  }
  std::string bytes_of_rows(const std::string& kind) {
    std::string text;
    const auto cursor = archive->meta().scan(io, kind, format::end_of(kind));
    while (*(*cursor)->next(io)) {
      text += std::string((*cursor)->key()) + std::string((*cursor)->value());
    }
    return text;
  }

  sim::World world;
  sim::SimIo io;
  sim::SimBucket bucket;
  sim::SimStore store;
  CreateHow how_;
  std::unique_ptr<Archive> archive;
  Shown shown;
  uint64_t uuids_ = 0;
};

TEST_F(ArchiveTest, what_is_pushed_is_shown) {
  run([&] {
    Prng prng(7);
    TestDisk disk;
    for (int i = 0; i < 20; ++i) {  // Beyond the sixteenth row of a region.
      scribble(prng, disk.now, 6);
      push_now(disk, fmt::format("s{}", i));
    }
    expect_shown(io, *archive, shown);
  });
}

TEST_F(ArchiveTest, random_lives_agree_with_the_model) {
  run([&] {
    Prng prng(11);
    std::map<uint64_t, TestDisk> disks;
    int count = 0;
    for (int step = 0; step < 60 && !HasFailure(); ++step) {
      const uint64_t kind = prng.below(10);
      if (kind < 6) {
        TestDisk& disk = disks[1 + prng.below(2)];
        disk.number = disks.begin()->second.number == disk.number && &disk != &disks.begin()->second
                          ? 2
                          : disk.number;
        scribble(prng, disk.now, 4);
        push_now(disk, fmt::format("s{}", count++), prng.one_in(5));
      } else if (kind < 9 && shown.size() > 1) {
        auto victim = shown.begin();
        std::advance(victim, static_cast<ptrdiff_t>(prng.below(shown.size())));
        const std::string name = victim->first;
        const size_t at = name.find('@');
        for (auto& [number, disk] : disks) {  // The base of the next push is another one then.
          if (fmt::format("disk{}", number) != name.substr(0, at)) continue;
          const Result<BaseInfo> bases = bases_of(io, *archive, uuid_of(disk.number));
          ASSERT_TRUE(bases);
          remove(name.substr(0, at), name.substr(at + 1));
          const size_t left = bases->complete.size();
          if (bases->complete.back().name != name.substr(at + 1)) continue;
          disk.pushed = left < 2
                            ? Content()
                            : shown.at(name.substr(0, at) + "@" + bases->complete[left - 2].name);
        }
      } else {
        clean_now();
      }
      if (step % 10 == 9) expect_shown(io, *archive, shown);
    }
    clean_now();
    expect_shown(io, *archive, shown);
  });
}

TEST_F(ArchiveTest, one_block_changed_is_one_block_read_and_stored) {
  run([&] {
    Prng prng(3);
    TestDisk disk;
    scribble(prng, disk.now, 60);
    push_now(disk, "a");
    const uint64_t puts = store.counters().puts;
    const uint64_t lists = store.counters().lists;
    for (int i = 0; i < 8; ++i) disk.now[5 * kGrainBytes + static_cast<size_t>(i)] = std::byte{9};
    const PushReport report = push_now(disk, "b");
    EXPECT_EQ(report.read_bytes, kGrainBytes);
    EXPECT_EQ(report.new_grains, 1U);
    EXPECT_EQ(report.segments, 1U);
    EXPECT_LT(report.stored_bytes, 12 * kKiB);
    EXPECT_EQ(store.counters().lists, lists) << "nothing is listed in steady state";
    EXPECT_LE(store.counters().puts - puts, 16U);
  });
}

TEST_F(ArchiveTest, a_copy_stores_nothing) {
  run([&] {
    Prng prng(4);
    TestDisk disk;
    scribble(prng, disk.now, 60);
    const PushReport first = push_now(disk, "a");
    TestDisk other;
    other.number = 2;
    other.now = disk.now;
    const PushReport second = push_now(other, "a");
    EXPECT_EQ(second.new_grains, 0U) << "of " << first.new_grains;
    EXPECT_LT(second.hint_lookups * 50, second.duplicate_grains + 50);
    expect_shown(io, *archive, shown);
  });
}

TEST_F(ArchiveTest, shrinking_changes_no_map) {
  run([&] {
    Prng prng(5);
    TestDisk disk;
    for (size_t i = 0; i < disk.now.size(); i += 8) {
      const uint64_t word = prng.next();
      std::memcpy(disk.now.data() + i, &word, 8);
    }
    push_now(disk, "a");
    Content half = disk.now;
    for (size_t i = 0; i < half.size() * 6 / 10; ++i) half[i] ^= std::byte{1};
    disk.now = half;
    push_now(disk, "b");
    remove("disk1", "a");
    const std::string logical = bytes_of_rows("l");
    const std::string chunks = bytes_of_rows("c");
    const uint64_t before = bucket.bytes();
    CleanHow how;
    how.rule.min_age_ns = 0;
    how.rule.threshold = 0.9;
    const Result<CleanReport> report = clean(io, *archive, how);
    ASSERT_TRUE(report) << text_of(report.error());
    EXPECT_EQ(report->shrunk + report->coalesced > 0, true);
    if (report->coalesced == 0) {
      EXPECT_EQ(bytes_of_rows("c"), chunks);
    }
    EXPECT_EQ(bytes_of_rows("l"), logical);
    clean_now();
    EXPECT_LT(bucket.bytes(), before);
    expect_shown(io, *archive, shown);
  });
}

TEST_F(ArchiveTest, the_segments_are_the_whole_truth) {
  run([&] {
    Prng prng(6);
    TestDisk disk;
    for (int i = 0; i < 6; ++i) {
      scribble(prng, disk.now, 10);
      push_now(disk, fmt::format("s{}", i));
    }
    remove("disk1", "s2");
    remove("disk1", "s0");
    clean_now();
    ASSERT_TRUE(archive->close(io));
    archive.reset();
    std::erase_if(bucket.objects,
                  [](const auto& object) { return !object.first.starts_with("d/"); });
    world.make_directory("/log2");
    const Result<RebuildReport> report = rebuild(io, store, {}, "/log2");
    ASSERT_TRUE(report) << text_of(report.error());
    EXPECT_TRUE(report->findings.empty()) << report->findings.front();
    EXPECT_EQ(report->snapshots, 4U);
    world.make_directory("/log3");
    archive = open_archive(io, store, "/log3");
    expect_shown(io, *archive, shown);
    scribble(prng, disk.now, 10);
    push_now(disk, "after");
    expect_shown(io, *archive, shown);
  });
}

TEST_F(ArchiveTest, a_fenced_writer_does_its_commit_again) {
  run([&] {
    Prng prng(8);
    TestDisk disk;
    scribble(prng, disk.now, 20);
    push_now(disk, "a");
    scribble(prng, disk.now, 20);
    sim::SimStore elsewhere(bucket);
    PushRequest request = request_of(disk, "b", ++uuids_);
    struct Meddler final : PushSource {
      Meddler(const Content& content, std::function<void()> act)
          : inner(content), act_(std::move(act)) {}
      unsigned lanes() const override { return 1; }
      Result<void> read(Io& io, unsigned lane, uint64_t at, Bytes into) override {
        if (act_) std::exchange(act_, nullptr)();
        return inner.read(io, lane, at, into);
      }
      MemorySource inner;
      std::function<void()> act_;
    };
    world.make_directory("/elsewhere");
    Meddler source(disk.now, [&] {
      const std::unique_ptr<Archive> other = open_archive(io, elsewhere, "/elsewhere");
      ASSERT_NE(other, nullptr);
      EXPECT_TRUE(other->publish(io));
      EXPECT_TRUE(other->close(io));
    });
    const Result<PushReport> report = push(io, *archive, request, source, {});
    ASSERT_TRUE(report) << text_of(report.error());
    shown["disk1@b"] = disk.now;
    expect_shown(io, *archive, shown);
  });
}

}  // namespace
}  // namespace firn::archive
