// SPDX-License-Identifier: Apache-2.0
// An archive among others: writers that come at the wrong moment, stores that go away, many fibers
// that look at the same metadata, and what a rebuild finds of blocks that were moved twice.
#include <gtest/gtest.h>

#include "archive/archive_test_util.h"
#include "archive/places.h"
#include "archive/push_commit.h"

namespace firn::archive {
namespace {

class ArchiveRace : public testing::Test {
 protected:
  ArchiveRace() : io(world, 1), store(bucket) {
    world.make_directory("/log");
    world.make_directory("/elsewhere");
  }
  void run(const std::function<void(Archive&)>& body) {
    io.run([&] {
      ASSERT_TRUE(create_archive(io, store, {}));
      const std::unique_ptr<Archive> archive = open_archive(io, store, "/log");
      ASSERT_NE(archive, nullptr);
      body(*archive);
      EXPECT_TRUE(archive->close(io));
    });
  }
  void push_now(Archive& to, TestDisk& disk, const std::string& name) {
    const PushRequest request = request_of(disk, name, ++uuids_);
    MemorySource source(disk.now);
    const Result<PushReport> report = push(io, to, request, source, {});
    ASSERT_TRUE(report) << text_of(report.error());
    disk.pushed = disk.now;
    shown[request.disk + "@" + name] = disk.now;
  }
  // As another host sees it now.
  bool is_complete(const std::string& name) {
    sim::SimStore elsewhere(bucket);
    const Result<std::unique_ptr<Archive>> reader = Archive::open(io, elsewhere, {});
    const bool there = reader && (*reader)->find(io, "disk1", name);
    if (reader) {
      EXPECT_TRUE((*reader)->close(io));
    }
    return there;
  }

  sim::World world;
  sim::SimIo io;
  sim::SimBucket bucket;
  sim::SimStore store;
  Shown shown;
  uint64_t uuids_ = 0;
};

// The writer sleeps between the request that publishes its snapshot and the one that asks whether
// it is still the writer. Meanwhile another host stands on that snapshot.
TEST_F(ArchiveRace, what_was_published_before_another_took_over_stands) {
  run([&](Archive& archive) {
    Prng prng(8);
    TestDisk disk;
    scribble(prng, disk.now, 20);
    push_now(archive, disk, "a");
    scribble(prng, disk.now, 20);
    const Content second = disk.now;
    bool met = false;
    store.before = [&](const sim::SimRequest& request) {
      const bool asks =
          request.kind == sim::RequestKind::head && request.key.find("epoch/") != std::string::npos;
      if (met || !asks || !is_complete("b")) return;
      met = true;
      sim::SimStore elsewhere(bucket);
      const std::unique_ptr<Archive> other = open_archive(io, elsewhere, "/elsewhere");
      ASSERT_NE(other, nullptr);
      TestDisk theirs{1, second, second};
      scribble(prng, theirs.now, 3);
      uuids_ += 100;
      push_now(*other, theirs, "c");
      EXPECT_TRUE(other->close(io));
    };
    push_now(archive, disk, "b");
    store.before = nullptr;
    EXPECT_TRUE(met);
    expect_shown(io, archive, shown);
  });
}

TEST_F(ArchiveRace, a_store_that_is_gone_when_it_is_opened_again_may_come_back) {
  run([&](Archive& archive) {
    Prng prng(3);
    TestDisk disk;
    scribble(prng, disk.now, 5);
    push_now(archive, disk, "a");
    store.faults().refuses_all = true;
    EXPECT_FALSE(archive.reopen(io));
    archive.forget();
    archive.meta().put("x", "y");
    EXPECT_FALSE(archive.publish(io));
    archive.forget();
    EXPECT_FALSE(archive.reopen(io));
    store.faults().refuses_all = false;
    const Result<void> again = archive.reopen(io);
    ASSERT_TRUE(again) << text_of(again.error());
    scribble(prng, disk.now, 5);
    push_now(archive, disk, "b");
    expect_shown(io, archive, shown);
  });
}

// M3, M4: more rows than are kept, walked by several fibers at a time.
TEST_F(ArchiveRace, walkers_see_every_row_whatever_others_make_it_forget) {
  constexpr int kRows = 400;
  run([&](Archive& archive) {
    Prng prng(5);
    for (int i = 0; i < kRows; ++i) {
      std::string value(64 * kKiB, '\0');
      for (char& c : value) c = static_cast<char>(prng.next());
      archive.meta().put(fmt::format("x{:04}", i), value);
      if (!archive.full()) continue;
      ASSERT_TRUE(archive.apply(io));
    }
    ASSERT_TRUE(archive.publish(io));
    ASSERT_TRUE(archive.reopen(io));
    store.faults().latency_min = std::chrono::milliseconds(1);
    store.faults().latency_max = std::chrono::milliseconds(20);
    {
      Group group(io);
      for (int walker = 0; walker < 3; ++walker) {
        io.spawn(group, [&, walker] {
          std::string at = "x";
          for (int seen = 0; seen < kRows; ++seen) {
            const auto row = archive.meta().first(io, at, "y");
            ASSERT_TRUE(row && row->has_value()) << walker << " ends after " << seen;
            ASSERT_EQ((*row)->key, fmt::format("x{:04}", seen)) << walker;
            at = (*row)->key + '\0';
            if (walker > 0) io.sleep(std::chrono::milliseconds(walker));
          }
        });
      }
    }
    store.faults() = {};
  });
}

// A terabyte takes its time, and whoever cleans meanwhile lets it.
TEST_F(ArchiveRace, a_large_push_is_not_taken_for_dead_after_an_hour) {
  run([&](Archive& archive) {
    PushRequest request;
    request.disk_uuid = uuid_of(9);
    request.snapshot_uuid = uuid_of(10);
    request.disk = "large";
    request.name = "s";
    request.holder = "test";
    request.bytes = uint64_t{1} << 40;
    request.touched = {{0, request.bytes / kGrainBytes, false}};
    ASSERT_TRUE(begin_push(io, archive, request));
    const auto pushes_left = [&](Duration later) {
      io.sleep(later);
      EXPECT_TRUE(clean(io, archive, {}));
      return rows_of(io, archive).size();
    };
    EXPECT_EQ(pushes_left(std::chrono::hours(24)), 1U);
    EXPECT_EQ(pushes_left(std::chrono::hours(24 * 6)), 0U);
    request.touched = {{0, 100, false}};
    ASSERT_TRUE(begin_push(io, archive, request));
    EXPECT_EQ(pushes_left(std::chrono::minutes(59)), 1U);
    EXPECT_EQ(pushes_left(std::chrono::minutes(2)), 0U);
  });
}

TEST_F(ArchiveRace, a_push_sets_aside_as_many_segments_as_it_can_need) {
  run([&](Archive& archive) {
    PushRequest request;
    request.disk_uuid = uuid_of(9);
    request.snapshot_uuid = uuid_of(10);
    request.disk = "large";
    request.name = "s";
    request.holder = "test";
    request.bytes = uint64_t{1} << 45;
    const uint64_t grains = request.bytes / kGrainBytes;
    request.touched = {{0, grains, false}};
    const Result<Begun> begun = begin_push(io, archive, request);
    ASSERT_TRUE(begun) << text_of(begun.error());
    const uint64_t reserved = begun->row.segment_end - begun->row.segment_first;
    EXPECT_GE(reserved, request.bytes / archive.label().segment_bytes * 2);
    ASSERT_TRUE(abort_push(io, archive, begun->disk, begun->row));
  });
  EXPECT_EQ(segments_to_reserve(1, 1, 16 * kMiB), uint64_t{1} << 20);
}

// An object that somebody has put in the place of another: intact heads, fewer blocks.
TEST_F(ArchiveRace, a_scrub_believes_the_metadata_and_not_the_object) {
  run([&](Archive& archive) {
    Prng prng(12);
    TestDisk disk;
    scribble(prng, disk.now, 40);
    push_now(archive, disk, "a");
    const auto found = std::ranges::find_if(
        bucket.objects, [](const auto& object) { return object.first.starts_with("d/"); });
    ASSERT_NE(found, bucket.objects.end());
    const std::string key = found->first;
    const auto head = archive.reader().read_head(io, key, 0);
    ASSERT_TRUE(head && (*head)->header.present > 64);
    {
      format::SegmentHeader header;
      header.disk = (*head)->header.disk;
      header.segment_id = (*head)->header.segment_id;
      header.created_ns = (*head)->header.created_ns;
      SegmentBuilder small(io, archive.forge(), header);
      const std::vector<std::byte> content(kGrainBytes, std::byte{7});
      for (uint16_t i = 0; i < 4; ++i) small.add({i, uint64_t{i} + 1, i, 1, {}}, content);
      small.finish({});
      const std::vector<::iovec> body = small.object();
      ASSERT_TRUE(store.put(io, key, body, {}));
      bucket.flip_bit(key, (small.bytes() - 1) * 8);
    }
    const Result<ScrubReport> report = scrub(io, archive, {});
    ASSERT_TRUE(report) << text_of(report.error());
    ASSERT_EQ(report->damages.size(), 1U);
    ASSERT_EQ(report->damages[0].hurts.size(), 1U);
    EXPECT_EQ(report->damages[0].hurts[0].snapshot, "disk1@a");
  });
}

// --- readers beside whom others work

class MeddledTarget final : public RestoreTarget {
 public:
  MeddledTarget(uint64_t bytes, std::function<void()> meddle)
      : inner(bytes), meddle_(std::move(meddle)) {}
  unsigned lanes() const override { return 1; }
  Result<void> write(Io& io, unsigned lane, uint64_t at, View from) override {
    if (meddle_) std::exchange(meddle_, nullptr)();
    return inner.write(io, lane, at, from);
  }
  MemoryTarget inner;

 private:
  std::function<void()> meddle_;
};

// Many snapshots, of which the last one shows a little of each; then all others are deleted, what
// is left is put together, and what is empty goes.
class ReaderRace : public ArchiveRace {
 protected:
  void make_snapshots(Archive& archive) {
    Prng prng(77);
    for (int i = 0; i < 8; ++i) {
      scribble(prng, disk_.now, 70);
      push_now(archive, disk_, fmt::format("s{}", i));
    }
  }
  void delete_and_clean(Archive& archive, int snapshots) {
    for (int i = 0; i < snapshots; ++i) {
      const auto gone = archive.find(io, "disk1", fmt::format("s{}", i));
      ASSERT_TRUE(gone && delete_snapshot(io, archive, *gone));
    }
    ASSERT_TRUE(finish_deletions(io, archive));
    CleanHow how;
    how.rule.min_age_ns = 0;
    how.garbage = true;
    uint64_t removed = 0;
    for (int i = 0; i < 2; ++i) {
      const Result<CleanReport> done = clean(io, archive, how);
      ASSERT_TRUE(done) << text_of(done.error());
      removed += done->removed_segments;
    }
    ASSERT_GT(removed, 2U);
  }
  Result<RestoreReport> restore_beside(Archive& archive, int deleted) {
    make_snapshots(archive);
    const std::unique_ptr<Archive> reader = TRY(Archive::open(io, elsewhere_, {}));
    const Archive::Found found = TRY(reader->find(io, "disk1", "s7"));
    MeddledTarget target(disk_.now.size(), [&] { delete_and_clean(archive, deleted); });
    Result<RestoreReport> report = restore(io, *reader, found, target, {});
    EXPECT_EQ(target.inner.content == disk_.now, deleted < 8);
    EXPECT_TRUE(reader->close(io));
    return report;
  }

  sim::SimStore elsewhere_{bucket};
  TestDisk disk_;
};

TEST_F(ReaderRace, what_was_moved_meanwhile_is_found_where_it_is_now) {
  run([&](Archive& archive) {
    const Result<RestoreReport> report = restore_beside(archive, 7);
    ASSERT_TRUE(report) << text_of(report.error());
    EXPECT_TRUE(report->damaged.empty()) << report->damaged.front().why;
  });
}

TEST_F(ReaderRace, a_snapshot_that_is_deleted_meanwhile_is_not_restored_as_another) {
  run([&](Archive& archive) {
    const Result<RestoreReport> report = restore_beside(archive, 8);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, Errc::cancelled);
  });
}

TEST_F(ReaderRace, what_was_cleaned_meanwhile_is_no_damage) {
  run([&](Archive& archive) {
    make_snapshots(archive);
    const Result<std::unique_ptr<Archive>> reader = Archive::open(io, elsewhere_, {});
    ASSERT_TRUE(reader) << text_of(reader.error());
    bool begun = false;
    bool cleaning = false;
    elsewhere_.before = [&](const sim::SimRequest& request) {  // All is read after it was cleaned.
      if (!request.key.starts_with("d/")) return;
      while (cleaning) io.sleep(std::chrono::milliseconds(1));
      if (std::exchange(begun, true)) return;
      cleaning = true;
      delete_and_clean(archive, 7);
      cleaning = false;
    };
    const Result<ScrubReport> report = scrub(io, **reader, {});
    elsewhere_.before = nullptr;
    ASSERT_TRUE(report) << text_of(report.error());
    EXPECT_TRUE(report->damages.empty()) << report->damages.front().why;
    EXPECT_TRUE((*reader)->close(io));
  });
}

// --- rebuilding

TEST(Places, the_youngest_of_many_counts) {
  const auto place = [](uint64_t first, uint64_t end, uint64_t segment) {
    return Place{first, end - first, 1, segment, static_cast<uint16_t>(first)};
  };
  // Moved twice, the second time beyond the part that was moved first.
  EXPECT_EQ(
      settled({place(0, 100, 1), place(10, 20, 2), place(15, 30, 3)}),
      (std::vector<Place>{place(0, 10, 1), place(10, 15, 2), place(15, 30, 3), place(30, 100, 1)}));
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Prng prng(seed);
    std::vector<Place> places;
    std::vector<uint64_t> model(300);
    for (uint64_t segment = 1; segment <= 12; ++segment) {
      const uint64_t first = prng.below(250);
      const uint64_t end = first + 1 + prng.below(50);
      places.push_back(place(first, end, segment));
      for (uint64_t at = first; at < end; ++at) model[at] = segment;
    }
    for (size_t i = places.size(); i > 1; --i) std::swap(places[i - 1], places[prng.below(i)]);
    std::vector<uint64_t> got(300);
    uint64_t last = 0;
    for (const Place& each : settled(places)) {
      ASSERT_GT(each.count, 0U);
      ASSERT_GE(each.first, last) << "seed " << seed;
      ASSERT_EQ(each.slot, each.first);
      last = each.end();
      for (uint64_t at = each.first; at < each.end(); ++at) got[at] = each.segment;
    }
    ASSERT_EQ(got, model) << "seed " << seed;
  }
}

}  // namespace
}  // namespace firn::archive
