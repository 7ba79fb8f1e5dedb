// SPDX-License-Identifier: Apache-2.0
// Change tracking of real disks: what every kind of change marks, snapshots as events,
// applications,
// restarts and kills. Lists are compared with the bytes themselves.
#include "disk/tracking.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <set>

#include "base/aligned.h"
#include "base/log.h"
#include "base/prng.h"
#include "disk/changes.h"
#include "disk/disks.h"
#include "sim/sim_io.h"

namespace firn::disk {
namespace {

constexpr uint64_t kBlock = 64 * kKiB;
constexpr uint64_t kBytes = 32 * kMiB;

struct Scene {
  sim::SimIo& io;
  std::unique_ptr<store::Pool> pool;
  std::unique_ptr<Disks> disks;
  std::shared_ptr<BlockDevice> disk;

  Tracking& tracking() { return disks->tracking(); }
  Result<void> write(uint64_t at, char with, uint64_t bytes = 4096) {
    std::vector<std::byte> buffer(bytes, static_cast<std::byte>(with));
    const ::iovec slice = slice_of(Bytes(buffer));
    return disk->write(io, {at, bytes}, Iovec(&slice, 1), {});
  }
  std::vector<std::byte> content(const std::string& name = "disk") {
    const auto device = disks->attach(io, name).take();
    std::vector<std::byte> bytes(device->geometry().bytes);
    const ::iovec slice = slice_of(Bytes(bytes));
    EXPECT_TRUE(device->read(io, {0, bytes.size()}, Iovec(&slice, 1)));
    return bytes;
  }
  std::string begin(const std::string& app, const std::string& snapshot = {}) {
    const auto begun = tracking().begin(io, "disk", app, snapshot);
    EXPECT_TRUE(begun) << text_of(begun.error());
    return begun ? begun->change_id : "";
  }
  BegunInfo begun(const std::string& app, const std::string& snapshot = {}) {
    auto begun = tracking().begin(io, "disk", app, snapshot);
    EXPECT_TRUE(begun) << text_of(begun.error());
    return begun ? begun.take() : BegunInfo();
  }
  std::set<uint64_t> changed(const std::string& since) {
    std::set<uint64_t> blocks;
    uint64_t offset = 0;
    do {
      const auto list = tracking().list(io, "disk", since, offset, 3);  // Small pages.
      EXPECT_TRUE(list) << text_of(list.error());
      if (!list) return blocks;
      for (const Range& run : list->extents) {
        for (uint64_t at = run.at; at < run.end(); at += kBlock) blocks.insert(at / kBlock);
      }
      offset = list->next_offset;
    } while (offset != 0);
    return blocks;
  }
  std::set<uint64_t> view(const std::string& name, const std::string& app) {
    class Sink final : public ChangeSink {
     public:
      explicit Sink(std::set<uint64_t>& to) : blocks(to) {}
      bool add(Range run) override {
        for (uint64_t at = run.at; at < run.end(); at += kBlock) blocks.insert(at / kBlock);
        return true;
      }
      std::set<uint64_t>& blocks;
    };
    std::set<uint64_t> blocks;
    Sink sink(blocks);
    const auto views = tracking().views(io, name);
    EXPECT_TRUE(views);
    for (const auto& one : *views) {
      if (one.application != app) continue;
      EXPECT_TRUE(
          one.view->changed(io, {0, disks->attach(io, name).take()->geometry().bytes}, sink));
      return blocks;
    }
    ADD_FAILURE() << name << " has no view for " << app;
    return blocks;
  }
};

using Blocks = std::set<uint64_t>;

Blocks all_blocks(uint64_t bytes = kBytes) {
  Blocks all;
  for (uint64_t i = 0; i < bytes / kBlock; ++i) all.insert(i);
  return all;
}

class TrackingTest : public testing::Test {
 protected:
  void SetUp() override {
    set_log_sink([](LogLevel, std::string_view) {});
    sim::SimIo io(world_, 1, {.order = sim::Order::immediate});
    io.run([&] {
      ASSERT_TRUE(store::Pool::create(io, "/p", {.bytes = 48 * kMiB, .journal_bytes = kMiB}));
    });
  }
  void TearDown() override { set_log_sink(nullptr); }

  // Opens, does `what`; closes, or leaves as kill -9 would.
  void act(const std::function<void(Scene&)>& what, bool kill = false, bool background = false) {
    sim::SimIo io(world_, ++lives_);  // Branches differ from life to life.
    io.run([&] {
      Scene s{io, store::Pool::open(io, "/p", {.background = background}).take(), {}, {}};
      s.disks = Disks::open(io, *s.pool).take();
      if (s.disks->list().empty()) {
        ASSERT_TRUE(s.disks->create(io, "disk", kBytes));
      }
      s.disk = s.disks->attach(io, "disk").take();
      what(s);
      const auto report = s.disks->check(io, false);
      ASSERT_TRUE(report) << text_of(report.error());
      for (const std::string& finding : report->findings) ADD_FAILURE() << finding;
      s.disk.reset();
      if (!kill) {
        ASSERT_TRUE(s.disks->close(io));
      }
      s.disks.reset();
      if (!kill) {
        ASSERT_TRUE(s.pool->close(io));
      }
    });
  }
  sim::World world_;
  uint64_t lives_ = 0;
};

TEST_F(TrackingTest, every_kind_of_change_is_marked_and_nothing_else) {
  act([](Scene& s) {
    ASSERT_TRUE(s.write(0, 'a', 20 * kBlock));
    ASSERT_TRUE(s.write(100 * kBlock, 'a', kBlock));
    const std::string id = s.begin("app");
    EXPECT_EQ(s.changed(id), Blocks());
    ASSERT_TRUE(s.write(2 * kBlock, 'b'));                // In place.
    ASSERT_TRUE(s.write(4 * kBlock + 100, 'b', 10));      // A part of a grain.
    ASSERT_TRUE(s.write(200 * kBlock, 'b', 2 * kBlock));  // New.
    EXPECT_EQ(s.changed(id), (Blocks{2, 4, 200, 201}));
    ASSERT_TRUE(s.disk->discard(s.io, {6 * kBlock, kBlock}));
    ASSERT_TRUE(s.disk->zero(s.io, {8 * kBlock, kBlock}, {}));
    ASSERT_TRUE(s.disk->zero(s.io, {10 * kBlock, kBlock}, {.keep_space = true}));
    ASSERT_TRUE(s.write(12 * kBlock, '\0'));
    EXPECT_EQ(s.changed(id), (Blocks{2, 4, 6, 8, 10, 12, 200, 201}));
    ASSERT_TRUE(s.disk->discard(s.io, {300 * kBlock, 20 * kBlock})) << "nothing is there";
    ASSERT_TRUE(s.disk->flush(s.io));
    s.content();
    EXPECT_EQ(s.changed(id), (Blocks{2, 4, 6, 8, 10, 12, 200, 201}));
    const std::string next = s.begin("app");
    EXPECT_EQ(s.changed(next), Blocks());
    EXPECT_EQ(s.changed(id), (Blocks{2, 4, 6, 8, 10, 12, 200, 201}));
  });
}

TEST_F(TrackingTest, M1_a_write_that_failed_marks_what_nobody_knows_and_nothing_else) {
  act([](Scene& s) {
    ASSERT_TRUE(s.write(0, 'a', 4 * kBlock));
    const std::string id = s.begin("app");
    s.io.add_fault({.files = "*/data", .verb = sim::Verb::write});
    EXPECT_FALSE(s.write(100 * kBlock, 'n')) << "a new grain";
    EXPECT_EQ(s.changed(id), Blocks());
    s.io.clear_faults();
    s.io.add_fault({.files = "*/data", .verb = sim::Verb::write});
    EXPECT_FALSE(s.write(kBlock, 'n')) << "in place";
    EXPECT_EQ(s.changed(id), (Blocks{1}));
  });
}

TEST_F(TrackingTest, M16_enabling_tells_what_holds_data) {
  act([](Scene& s) {
    ASSERT_TRUE(s.write(3 * kBlock, 'a'));
    ASSERT_TRUE(s.write(7 * kBlock + 8192, 'a', kBlock));
    ASSERT_TRUE(s.write(9 * kBlock, 'a'));
    ASSERT_TRUE(s.disk->discard(s.io, {9 * kBlock, kBlock}));
    std::string id = s.begin("app");
    id.replace(id.rfind('/') + 1, std::string::npos, "0");
    EXPECT_EQ(s.changed(id), (Blocks{3, 7, 8}));
  });
}

TEST_F(TrackingTest, M5_full_copy_and_increments_restore_every_snapshot) {
  for (uint64_t seed = 1; seed <= 6 && !HasFailure(); ++seed) {
    world_ = {};
    SetUp();
    Prng prng(seed);
    struct App {
      std::vector<std::byte> image;
      int snapshots = 0;
    };
    std::map<std::string, App> apps{{"fast", {}}, {"slow", {}}};
    for (int life = 0; life < 3 && !HasFailure(); ++life) {
      const bool kill = prng.one_in(2);
      act(
          [&](Scene& s) {
            for (int step = 0; step < 40; ++step) {
              const uint64_t at = prng.below(kBytes / 512) * 512;
              const uint64_t length = std::min(kBytes - at, (1 + prng.below(400)) * 512);
              switch (prng.below(6)) {
                case 0:
                  ASSERT_TRUE(s.disk->discard(s.io, {at, length}));
                  break;
                case 1:
                  ASSERT_TRUE(s.disk->zero(s.io, {at, length}, {}));
                  break;
                default:
                  ASSERT_TRUE(s.write(at, static_cast<char>(prng.next()), length));
              }
              if (!prng.one_in(5)) continue;
              const std::string name = prng.one_in(3) ? "slow" : "fast";
              App& app = apps[name];
              const std::string snapshot = fmt::format("{}-{}", name, ++app.snapshots);
              const auto begun = s.begun(name, snapshot);
              const std::string full = "disk@" + snapshot;
              const auto now = s.content(full);
              if (app.image.empty()) {
                EXPECT_TRUE(begun.previous.empty());
                EXPECT_EQ(s.view(full, name), all_blocks()) << "a full copy is needed";
                app.image = now;
              } else {
                EXPECT_FALSE(begun.previous.empty());
                const Blocks dirty = s.view(full, name);
                const Blocks listed = s.changed(begun.previous);
                EXPECT_TRUE(std::ranges::includes(listed, dirty));
                for (const uint64_t block : dirty) {
                  std::memcpy(&app.image[block * kBlock], &now[block * kBlock], kBlock);
                }
              }
              ASSERT_TRUE(app.image == now) << "seed " << seed << " step " << step;
              if (app.snapshots > 2 && prng.one_in(2)) {  // M14: consolidated meanwhile.
                ASSERT_TRUE(s.disks->remove_snapshot(
                    s.io, "disk", fmt::format("{}-{}", name, app.snapshots - 1)));
                ASSERT_TRUE(s.disks->sweep(s.io));
              }
            }
          },
          kill);
    }
  }
}

TEST_F(TrackingTest, M14_consolidation_and_shrink_move_references_and_mark_nothing) {
  act([](Scene& s) {
    ASSERT_TRUE(s.write(0, 'a', 30 * kBlock));
    const std::string id = s.begin("app");
    for (const char* name : {"one", "two"}) {
      ASSERT_TRUE(s.disks->snapshot(s.io, "disk", name));
      ASSERT_TRUE(s.write(5 * kBlock, name[0]));
    }
    const Blocks before = s.changed(id);
    EXPECT_EQ(before, (Blocks{5}));
    ASSERT_TRUE(s.disks->remove_snapshot(s.io, "disk", "one"));
    ASSERT_TRUE(s.disks->sweep(s.io));
    ASSERT_TRUE(s.disks->remove_snapshot(s.io, "disk", "two"));
    ASSERT_TRUE(s.disks->sweep(s.io));
    ASSERT_TRUE(s.disks->shrink(s.io, "disk"));
    EXPECT_EQ(s.changed(id), before);
  });
}

TEST_F(TrackingTest, M15_a_revert_refuses_the_ids_of_the_branch_that_was_left) {
  std::string old;
  act([&](Scene& s) {
    ASSERT_TRUE(s.write(0, 'a'));
    old = s.begin("app", "base");
    ASSERT_TRUE(s.write(kBlock, 'b'));
    s.disk.reset();
    ASSERT_TRUE(s.disks->revert(s.io, "disk", "base", false));
    s.disk = s.disks->attach(s.io, "disk").take();
    const auto refused = s.tracking().list(s.io, "disk", old, 0, 100);
    ASSERT_FALSE(refused);
    EXPECT_NE(text_of(refused.error()).find("full copy needed because"), std::string_view::npos);
    EXPECT_FALSE(s.tracking().applications(s.io, "disk")->front().current);
    EXPECT_EQ(s.view("disk", "app"), all_blocks());
    ASSERT_TRUE(s.write(2 * kBlock, 'c'));
  });
  act([&](Scene& s) {
    EXPECT_FALSE(s.tracking().list(s.io, "disk", old, 0, 100));
    const auto begun = s.begun("app", "again");
    EXPECT_TRUE(begun.previous.empty()) << "a full copy is needed";
    EXPECT_EQ(s.view("disk@again", "app"), all_blocks());
    const auto refused = s.tracking().list(s.io, "disk", old, 0, 100);
    EXPECT_NE(text_of(refused.error()).find("was left"), std::string_view::npos);
    ASSERT_TRUE(s.write(3 * kBlock, 'd'));
    EXPECT_EQ(s.changed(begun.change_id), (Blocks{3}));
    EXPECT_EQ(s.view("disk", "app"), (Blocks{3}));
  });
}

TEST_F(TrackingTest, M13_M15_a_revert_to_another_size_is_tracked_in_that_size) {
  act([&](Scene& s) {
    s.begin("app", "small");
    ASSERT_TRUE(s.disks->resize(s.io, "disk", 2 * kBytes));
    s.begin("app", "large");
    s.disk.reset();
    ASSERT_TRUE(s.disks->revert(s.io, "disk", "small", false));
    s.disk = s.disks->attach(s.io, "disk").take();
    const std::string since = s.begin("app");
    ASSERT_TRUE(s.write(kBlock, 'a'));
    EXPECT_EQ(s.changed(since), (Blocks{1}));
    s.disk.reset();
    ASSERT_TRUE(s.disks->revert(s.io, "disk", "large", false));
    s.disk = s.disks->attach(s.io, "disk").take();
  });
  act([&](Scene& s) {
    const std::string since = s.begin("app");
    ASSERT_TRUE(s.write(2 * kBytes - kBlock, 'a'));
    EXPECT_EQ(s.changed(since), (Blocks{2 * kBytes / kBlock - 1}));
  });
}

TEST_F(TrackingTest, M7_any_snapshot_is_an_event) {
  act([](Scene& s) {
    std::string id = s.begin("app");
    const std::string stem = id.substr(0, id.rfind('/') + 1);
    const uint64_t counter = std::stoull(id.substr(stem.size()));
    ASSERT_TRUE(s.write(0, 'a'));
    ASSERT_TRUE(s.disks->snapshot(s.io, "disk", "mark"));
    ASSERT_TRUE(s.write(kBlock, 'a'));
    EXPECT_EQ(s.changed(id), (Blocks{0, 1}));
    EXPECT_EQ(s.changed(fmt::format("{}{}", stem, counter + 1)), (Blocks{1}));
  });
}

TEST_F(TrackingTest, M13_growth_is_told_and_a_clone_is_another_disk) {
  act([](Scene& s) {
    ASSERT_TRUE(s.write(0, 'a'));
    const std::string id = s.begin("app", "base");
    ASSERT_TRUE(s.disks->resize(s.io, "disk", kBytes + 130 * kGiB));
    const auto list = s.tracking().list(s.io, "disk", id, 0, 100).take();
    ASSERT_EQ(list.extents.size(), 1U);
    EXPECT_EQ(list.extents[0], (Range{kBytes, 130 * kGiB}));
    ASSERT_TRUE(s.disks->clone(s.io, "disk", "base", "clone"));
    EXPECT_FALSE(s.tracking().list(s.io, "clone", id, 0, 100)) << "not tracked";
    EXPECT_TRUE(s.tracking().begin(s.io, "clone", "app", ""));
    const auto refused = s.tracking().list(s.io, "clone", id, 0, 100);
    ASSERT_FALSE(refused);
    EXPECT_NE(text_of(refused.error()).find("of another disk"), std::string_view::npos);
  });
}

TEST_F(TrackingTest, errors_say_what_is_wrong) {
  act([](Scene& s) {
    const auto refused = [&](const auto& result, Errc code, std::string_view part) {
      ASSERT_FALSE(result) << part;
      EXPECT_EQ(result.error().code, code) << text_of(result.error());
      EXPECT_NE(text_of(result.error()).find(part), std::string_view::npos)
          << text_of(result.error());
    };
    Tracking& t = s.tracking();
    refused(t.begin(s.io, "none", "app", ""), Errc::not_found, "no disk 'none'");
    refused(t.begin(s.io, "disk", "a/b", ""), Errc::invalid, "'a/b' is not a name");
    refused(t.begin(s.io, "disk", "app", "x@y"), Errc::invalid, "'x@y' is not a name");
    refused(t.list(s.io, "disk", "7", 0, 1), Errc::invalid, "'7' is not a change id");
    const std::string id = s.begin("app", "one");
    refused(t.begin(s.io, "disk", "app", "one"), Errc::exists, "'one' already");
    refused(t.list(s.io, "disk", id, kBytes + 1, 1), Errc::invalid, "behind its end");
    refused(t.end(s.io, "disk", "other"), Errc::not_found, "no application 'other'");
    ASSERT_TRUE(t.end(s.io, "disk", "app"));
    EXPECT_TRUE(t.list(s.io, "disk", id, 0, 1)) << "its change ids stay good";
    ASSERT_TRUE(t.off(s.io, "disk"));
    refused(t.list(s.io, "disk", id, 0, 1), Errc::invalid, "not tracked");
    ASSERT_TRUE(t.off(s.io, "disk")) << "again is nothing";
    ASSERT_TRUE(s.write(0, 'a'));
  });
}

TEST_F(TrackingTest, the_application_that_began_first_makes_room_for_the_65th) {
  act([](Scene& s) {
    for (int i = 0; i < 70; ++i) {
      s.begin(fmt::format("app-{}", i));
      s.io.sleep(std::chrono::milliseconds(1));
    }
    const auto apps = s.tracking().applications(s.io, "disk").take();
    EXPECT_EQ(apps.size(), 64U);
    for (const auto& app : apps) EXPECT_GE(std::stoi(app.name.substr(4)), 6);
  });
  act([](Scene& s) { EXPECT_EQ(s.tracking().applications(s.io, "disk")->size(), 64U); });
}

TEST_F(TrackingTest, a_disk_that_is_deleted_leaves_nothing) {
  uint64_t pages = 0;
  act([&](Scene& s) {
    ASSERT_TRUE(s.write(0, 'a'));  // The first page of the block table stays.
    pages = s.pool->info().metadata_pages;
    ASSERT_TRUE(s.disks->create(s.io, "other", kBytes));
    ASSERT_TRUE(s.tracking().begin(s.io, "other", "app", ""));
    {
      const auto other = s.disks->attach(s.io, "other").take();
      std::vector<std::byte> bytes(4096, std::byte{1});
      const ::iovec slice = slice_of(Bytes(bytes));
      ASSERT_TRUE(other->write(s.io, {0, 4096}, Iovec(&slice, 1), {}));
    }
    ASSERT_TRUE(s.tracking().begin(s.io, "other", "app", ""));
    EXPECT_GT(s.pool->info().metadata_pages, pages);
    ASSERT_TRUE(s.disks->remove(s.io, "other"));
    ASSERT_TRUE(s.disks->sweep(s.io));
    EXPECT_EQ(s.pool->info().metadata_pages, pages);
  });
}

TEST_F(TrackingTest, in_the_background_an_idle_disk_comes_to_rest) {
  std::string id;
  act(
      [&](Scene& s) {
        id = s.begin("app");
        ASSERT_TRUE(s.write(5 * kBlock, 'a'));
        ASSERT_TRUE(s.disk->flush(s.io));
        s.io.sleep(std::chrono::minutes(5));
        EXPECT_GT(s.tracking().tracked().front().flushes, 0U);
      },
      false, true);
  act([&](Scene& s) {
    EXPECT_EQ(s.tracking().tracked().front().recovered_bytes, 0U);
    EXPECT_EQ(s.changed(id), (Blocks{5}));
  });
}

}  // namespace
}  // namespace firn::disk
