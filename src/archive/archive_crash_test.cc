// SPDX-License-Identifier: Apache-2.0
// A push, a deletion, a cleaning, each killed at each of its requests, before and after it took
// effect, with the host and its log lost. What had been acknowledged is there, bit for bit; nothing
// half done shows; the counters agree; what was done is done to the end by the next writer; and
// rebuilding from the segments gives the same.
#include <gtest/gtest.h>

#include "archive/archive_test_util.h"

namespace firn::archive {
namespace {

struct Scene {
  sim::SimBucket bucket;
  Shown shown;
  TestDisk disk{1, Content(1100 * kGrainBytes), {}};  // Two regions.
};

void with_io(const std::function<void(sim::World&, Io&)>& body) {
  sim::World world;
  sim::SimIo io(world, 1, {.order = sim::Order::in_order});
  world.make_directory("/a");
  world.make_directory("/b");
  world.make_directory("/c");
  io.run([&] { body(world, io); });
}

Scene make_scene() {
  Scene scene;
  with_io([&](sim::World&, Io& io) {
    sim::SimStore store(scene.bucket);
    ASSERT_TRUE(create_archive(io, store, {}));
    const std::unique_ptr<Archive> archive = open_archive(io, store, "/a");
    Prng prng(21);
    for (int i = 0; i < 4; ++i) {
      scribble(prng, scene.disk.now, i == 0 ? 10 : 4);
      const PushRequest request =
          request_of(scene.disk, fmt::format("s{}", i), static_cast<uint64_t>(i));
      MemorySource source(scene.disk.now);
      ASSERT_TRUE(push(io, *archive, request, source, {}));
      scene.disk.pushed = scene.disk.now;
      scene.shown[fmt::format("disk1@s{}", i)] = scene.disk.now;
    }
    scribble(prng, scene.disk.now, 4);
    ASSERT_TRUE(archive->close(io));
  });
  return scene;
}

// What an operation may leave: the state before it, or after.
struct Operation {
  std::function<Result<void>(Io&, Archive&, Scene&)> act;
  Shown after;
};

void expect_either(Io& io, Archive& archive, const Shown& a, const Shown& b) {
  size_t there = 0;
  for (const Archive::Found& each : rows_of(io, archive)) {
    if (each.snapshot.state == format::SnapshotState::complete) ++there;
  }
  expect_shown(io, archive, there == a.size() ? a : b);
}

// Returns false when the operation ended before its Nth request.
bool one_crash(const Scene& scene, const Operation& operation, uint64_t nth, bool after) {
  Scene now = scene;
  bool killed = false;
  bool acknowledged = false;
  with_io([&](sim::World&, Io& io) {
    sim::SimStore store(now.bucket);
    store.kill_at(nth, after);
    Archive::How how;
    how.log_directory = "/b";
    how.grace_ns = 0;
    Result<std::unique_ptr<Archive>> archive = Archive::open(io, store, how);
    if (archive) {
      acknowledged = operation.act(io, **archive, now).has_value();
      static_cast<void>((*archive)->close(io).has_value());
    }
    killed = store.killed();
  });
  with_io([&](sim::World&, Io& io) {  // Another host.
    sim::SimStore store(now.bucket);
    const std::unique_ptr<Archive> archive = open_archive(io, store, "/c");
    ASSERT_NE(archive, nullptr);
    EXPECT_TRUE(finish_deletions(io, *archive));
    const Shown& before = acknowledged ? operation.after : scene.shown;
    expect_either(io, *archive, before, operation.after);
    CleanHow how;
    how.rule.min_age_ns = 0;
    how.garbage = true;
    for (const Archive::Found& each : rows_of(io, *archive)) {  // As after the lease.
      if (each.snapshot.state != format::SnapshotState::uploading) continue;
      format::SnapshotRow old = each.snapshot;
      old.pushed_ns = 0;
      archive->meta().put(format::snapshot_key(each.disk.number, old.seq), format::encode(old));
    }
    ASSERT_TRUE(archive->publish(io));
    const Result<CleanReport> cleaned = clean(io, *archive, how);
    ASSERT_TRUE(cleaned) << text_of(cleaned.error());
    ASSERT_TRUE(clean(io, *archive, how));  // What was put together is empty now.
    expect_either(io, *archive, before, operation.after);
    EXPECT_TRUE(archive->close(io));
    if (nth % 5 != 0) return;
    std::erase_if(now.bucket.objects,
                  [](const auto& object) { return !object.first.starts_with("d/"); });
    const Result<RebuildReport> rebuilt = rebuild(io, store, {}, "/a");
    ASSERT_TRUE(rebuilt) << text_of(rebuilt.error());
    EXPECT_TRUE(rebuilt->findings.empty()) << rebuilt->findings.front();
    const std::unique_ptr<Archive> again = open_archive(io, store, "/b");
    expect_either(io, *again, before, operation.after);
    EXPECT_TRUE(again->close(io));
  });
  return killed;
}

void crash_everywhere(const Scene& scene, const Operation& operation) {
  uint64_t nth = 1;
  for (; nth < 500 && !testing::Test::HasFailure(); ++nth) {
    SCOPED_TRACE(fmt::format("request {}", nth));
    const bool before = one_crash(scene, operation, nth, /*after=*/false);
    const bool after = one_crash(scene, operation, nth, /*after=*/true);
    if (!before && !after) break;
  }
  EXPECT_GT(nth, 5U);
  EXPECT_LT(nth, 500U);
}

Result<void> push_next(Io& io, Archive& archive, Scene& scene) {
  const PushRequest request = request_of(scene.disk, "next", 77);
  MemorySource source(scene.disk.now);
  TRY(push(io, archive, request, source, {}));
  return ok;
}

TEST(ArchiveCrash, push) {
  const Scene scene = make_scene();
  Operation operation{push_next, scene.shown};
  operation.after["disk1@next"] = scene.disk.now;
  crash_everywhere(scene, operation);
}

TEST(ArchiveCrash, deletion) {
  const Scene scene = make_scene();
  for (const char* name : {"s1", "s3"}) {
    Operation operation{[name](Io& io, Archive& archive, Scene&) -> Result<void> {
                          const Archive::Found found = TRY(archive.find(io, "disk1", name));
                          TRY(delete_snapshot(io, archive, found));
                          return ok;
                        },
                        scene.shown};
    operation.after.erase(std::string("disk1@") + name);
    Operation whole = operation;
    whole.act = [act = operation.act](Io& io, Archive& archive, Scene& now) -> Result<void> {
      TRY(act(io, archive, now));
      static_cast<void>(finish_deletions(io, archive).has_value());
      return ok;  // Decided is done.
    };
    crash_everywhere(scene, whole);
  }
}

TEST(ArchiveCrash, cleaning) {
  Scene scene = make_scene();
  with_io([&](sim::World&, Io& io) {
    sim::SimStore store(scene.bucket);
    const std::unique_ptr<Archive> archive = open_archive(io, store, "/a");
    for (const char* name : {"s0", "s1", "s2"}) {
      const Result<Archive::Found> found = archive->find(io, "disk1", name);
      ASSERT_TRUE(found);
      ASSERT_TRUE(delete_snapshot(io, *archive, *found));
      scene.shown.erase(std::string("disk1@") + name);
    }
    ASSERT_TRUE(finish_deletions(io, *archive));
    ASSERT_TRUE(archive->close(io));
  });
  const Operation operation{[](Io& io, Archive& archive, Scene&) -> Result<void> {
                              CleanHow how;
                              how.rule.min_age_ns = 0;
                              how.rule.threshold = 0.95;
                              how.garbage = true;
                              TRY(clean(io, archive, how));
                              return ok;
                            },
                            scene.shown};
  crash_everywhere(scene, operation);
}

}  // namespace
}  // namespace firn::archive
