// SPDX-License-Identifier: Apache-2.0
// Change tracking without a crash: what is told, to whom, and at what cost. The MUST-show items of
// the mechanism are named by number (M1 ...).
#include "disk/changes.h"

#include <gtest/gtest.h>

#include "base/log.h"
#include "base/prng.h"
#include "disk/changes_test_util.h"

namespace firn::disk {
namespace {

class ChangesTest : public testing::Test {
 protected:
  void SetUp() override {
    set_log_sink([](LogLevel, std::string_view) {});
  }
  void TearDown() override { set_log_sink(nullptr); }

  // A life of a tracked disk: opened, begun if it never was, closed at the end.
  void act(const std::function<void(Tracked&)>& what, uint64_t bytes = kTrackedBytes) {
    sim::SimIo io(world_, 1);
    io.run([&] {
      if (!made_) Tracked::make(io, bytes);
      Tracked t(io);
      const auto opened = t.open();
      ASSERT_TRUE(opened) << text_of(opened.error());
      if (!made_) {
        ASSERT_TRUE(t.begin());
      }
      made_ = true;
      what(t);
      if (t.pool != nullptr) t.close();
    });
  }
  sim::World world_;
  bool made_ = false;
};

uint64_t block(uint64_t number) { return number * kTrackedBlock; }

TEST_F(ChangesTest, M3_an_event_gives_its_counter_to_the_written_blocks_and_empties_the_bitmap) {
  act([](Tracked& t) {
    EXPECT_EQ(t.tracker->now().counter, 1U);
    ASSERT_TRUE(t.write(block(3), 'a'));
    ASSERT_TRUE(t.write(block(7) + 100, 'a', kTrackedBlock));  // Two blocks.
    EXPECT_EQ(t.changed(1).text(), "3 7-8") << "the live bitmap is told, too";
    const ChangeId second = t.event().take();
    EXPECT_EQ(second.counter, 2U);
    EXPECT_EQ(t.changed(1).text(), "3 7-8");
    EXPECT_EQ(t.changed(2).text(), "");
    ASSERT_TRUE(t.write(block(8), 'b'));
    EXPECT_EQ(t.changed(2).text(), "8");
    EXPECT_EQ(t.changed(1, 2).text(), "3 7-8") << "up to event 2, what came later is not told";
    ASSERT_EQ(t.event().take().counter, 3U);
    EXPECT_EQ(t.changed(2).text(), "8");
    EXPECT_EQ(t.changed(1).text(), "3 7-8");
  });
}

TEST_F(ChangesTest, M1_a_write_that_failed_and_changed_nothing_leaves_no_mark) {
  act([](Tracked& t) {
    {
      const auto flight = t.tracker->intend(t.io, {block(5), 4096}).take();
      // The back end says no.
    }
    EXPECT_EQ(t.changed(1).text(), "");
    {
      auto flight = t.tracker->intend(t.io, {block(6), 4096}).take();
      EXPECT_EQ(t.changed(1).text(), "") << "not at issue";
      flight.mark();
    }
    EXPECT_EQ(t.changed(1).text(), "6");
  });
}

TEST_F(ChangesTest, M8_a_block_carries_its_latest_event_and_is_told_to_all_who_ask_since_before) {
  act([](Tracked& t) {
    for (uint64_t event = 2; event <= 8; ++event) {
      if (event == 3 || event == 6) {
        ASSERT_TRUE(t.write(block(1), 'x'));
      }
      ASSERT_EQ(t.event().take().counter, event);
    }
    for (uint64_t since = 1; since <= 8; ++since) {
      EXPECT_EQ(t.changed(since).text(), since < 6 ? "1" : "") << since;
    }
  });
}

TEST_F(ChangesTest, M16_M17_beginning_on_a_disk_with_data_tells_what_is_allocated) {
  act([](Tracked& t) {
    {
      const auto admission = t.pool->pages().admit(t.io).take();
      t.tracker->invalidate();
    }
    const ChangeId old = t.tracker->now();
    ASSERT_TRUE(t.begin({{0, 4096}, {block(10), 3 * kTrackedBlock}, {block(600), 512}}));
    EXPECT_NE(t.tracker->now().branch, old.branch);
    EXPECT_EQ(t.changed(0).text(), "0 10-12 600");
    EXPECT_EQ(t.changed(1).text(), "");
    ASSERT_TRUE(t.write(block(50), 'x'));
    EXPECT_EQ(t.changed(0).text(), "0 10-12 50 600");
    EXPECT_EQ(t.changed(1).text(), "50");
  });
}

TEST_F(ChangesTest, writes_while_tracking_begins_belong_to_the_next_event) {
  sim::SimIo io(world_, 5);
  io.run([&] {
    Tracked::make(io);
    Tracked t(io);
    ASSERT_TRUE(t.open());
    EXPECT_FALSE(t.tracker->active());
    EXPECT_TRUE(t.write(block(9), 'n')) << "not tracked, not hindered";
    MapOnly map(t.tracker->bytes());
    map.data = {{block(1), kTrackedBlock}};
    {
      const auto admission = t.pool->pages().admit(io).take();
      t.tracker->activate();
    }
    ASSERT_TRUE(t.write(block(2), 'n'));
    EXPECT_FALSE(t.tracker->ready());
    EXPECT_FALSE(t.tracker->check(t.tracker->now()));
    ASSERT_TRUE(t.tracker->begin(io, map));
    EXPECT_EQ(t.changed(0).text(), "1-2");
    EXPECT_EQ(t.changed(1).text(), "2");
    t.close();
  });
}

TEST_F(ChangesTest, M11_change_ids_outlive_a_restart_exactly) {
  ChangeId first, second;
  act([&](Tracked& t) {
    first = t.tracker->now();
    ASSERT_TRUE(t.write(block(3), 'a'));
    second = t.event().take();
    ASSERT_TRUE(t.write(block(4), 'a'));
  });
  act([&](Tracked& t) {
    EXPECT_EQ(t.tracker->counters().recovered_blocks, 0U) << "it was closed";
    EXPECT_EQ(*t.tracker->check(first), 1U);
    EXPECT_EQ(*t.tracker->check(second), 2U);
    EXPECT_EQ(t.changed(1).text(), "3-4");
    EXPECT_EQ(t.changed(2).text(), "4");
    EXPECT_EQ(t.event().take().counter, 3U);
    EXPECT_EQ(t.changed(2).text(), "4");
  });
}

TEST_F(ChangesTest, change_ids_that_cannot_be_answered_say_why) {
  act([](Tracked& t) {
    const ChangeId good = t.event().take();
    const auto refused = [&](ChangeId id, std::string_view why) {
      const auto checked = t.tracker->check(id);
      ASSERT_FALSE(checked) << why;
      EXPECT_EQ(checked.error().code, Errc::invalid);
      const std::string text(text_of(checked.error()));
      EXPECT_NE(text.find("full copy needed because"), std::string::npos) << text;
      EXPECT_NE(text.find(why), std::string::npos) << text;
    };
    EXPECT_EQ(*t.tracker->check(good), 2U);
    ChangeId id = good;
    id.counter = 3;
    refused(id, "event 3 has not happened here, the last one is 2");
    id = good;
    id.disk[0] = std::byte{};
    refused(id, "of another disk");
    id = good;
    id.branch[0] ^= std::byte{1};
    refused(id, "was left");
    {
      const auto admission = t.pool->pages().admit(t.io).take();
      t.tracker->invalidate();  // As a revert does.
    }
    refused(good, "not tracked all the time");
    ASSERT_TRUE(t.begin());
    refused(good, "was left");
  });
}

TEST_F(ChangesTest, M13_growth_is_told_across_any_boundary) {
  act([](Tracked& t) {
    const auto resize = [&](uint64_t bytes) {
      const auto admission = t.pool->pages().admit(t.io).take();
      t.tracker->resize(bytes);
    };
    ASSERT_TRUE(t.write(block(2), 'a'));
    ASSERT_EQ(t.event().take().counter, 2U);
    resize(kTrackedBytes + 100 * kGiB + 512);  // Over many pages of the log, to half a block.
    EXPECT_EQ(t.changed(2).bytes(), 100 * kGiB + 512);
    EXPECT_EQ(t.changed(2).runs.front().at, kTrackedBytes);
    EXPECT_EQ(t.event().take().counter, 3U);
    EXPECT_EQ(t.changed(3).text(), "");
    EXPECT_EQ(t.changed(2).bytes(), 100 * kGiB + 512);
    ASSERT_TRUE(t.write(kTrackedBytes + 60 * kGiB, 'b'));
    EXPECT_EQ(t.changed(3).runs.front().at, kTrackedBytes + 60 * kGiB);
    resize(200 * kGiB);
    EXPECT_TRUE(t.changed(3).covers(kTrackedBytes + 100 * kGiB)) << "the half block, too";
    resize(kTrackedBytes);
    EXPECT_EQ(t.changed(3).text(), "");
    EXPECT_EQ(t.changed(1).text(), "2");
    resize(2 * kTrackedBytes);
    EXPECT_EQ(t.changed(3).bytes(), kTrackedBytes);
  });
  act([](Tracked& t) {
    EXPECT_EQ(t.tracker->bytes(), 2 * kTrackedBytes);
    EXPECT_EQ(t.changed(3).bytes(), kTrackedBytes);
    EXPECT_EQ(t.changed(1).text(), "2 640-1279");
  });
}

TEST_F(ChangesTest, answers_are_cut_to_the_range_and_stop_when_the_asker_has_enough) {
  act([](Tracked& t) {
    for (const uint64_t number : {0, 1, 5, 20, 21, 22, 639}) {
      ASSERT_TRUE(t.write(block(number), 'a'));
    }
    RunList list;
    ASSERT_TRUE(t.tracker->query(t.io, 1, {}, {block(1) + 100, block(20)}, list));
    ASSERT_EQ(list.runs.size(), 3U);
    EXPECT_EQ(list.runs[0], (Range{block(1) + 100, kTrackedBlock - 100}));
    EXPECT_EQ(list.runs[1], (Range{block(5), kTrackedBlock}));
    EXPECT_EQ(list.runs[2], (Range{block(20), kTrackedBlock + 100}));
    RunList two;
    two.limit = 2;
    ASSERT_TRUE(t.tracker->query(t.io, 1, {}, {0, t.tracker->bytes()}, two));
    EXPECT_EQ(two.text(), "0-1 5");
    RunList none;
    ASSERT_TRUE(t.tracker->query(t.io, 1, {}, {block(30), 0}, none));
    EXPECT_TRUE(none.runs.empty());
  });
}

TEST_F(ChangesTest, flushes_are_invisible_and_bring_an_idle_disk_to_rest) {
  act([](Tracked& t) {
    ASSERT_TRUE(t.write(block(3), 'a'));
    EXPECT_FALSE(t.tracker->wants_flush(t.io.now()));
    t.io.sleep(std::chrono::seconds(5));
    EXPECT_TRUE(t.tracker->wants_flush(t.io.now()));
    ASSERT_TRUE(t.tracker->flush(t.io));
    EXPECT_EQ(t.changed(1).text(), "3");
    EXPECT_EQ(t.tracker->now().counter, 1U);
    ASSERT_TRUE(t.write(block(4), 'a'));
    EXPECT_EQ(t.event().take().counter, 2U);
    EXPECT_EQ(t.changed(1).text(), "3-4");
    EXPECT_EQ(t.changed(2).text(), "");
    int flushes = 0;
    while (true) {
      t.io.sleep(std::chrono::seconds(5));
      if (!t.tracker->wants_flush(t.io.now())) break;
      ASSERT_TRUE(t.tracker->flush(t.io));
      ASSERT_LT(++flushes, 100);
    }
    ASSERT_TRUE(t.pool->flush(t.io));
    t.abandon();
  });
  act([](Tracked& t) {
    EXPECT_EQ(t.tracker->counters().recovered_blocks, 0U) << "it was killed, but at rest";
    EXPECT_EQ(t.changed(1).text(), "3-4");
    EXPECT_EQ(t.changed(2).text(), "");
  });
}

TEST_F(ChangesTest, M12_after_a_kill_whole_regions_count_as_changed) {
  ChangeId id;
  act([&](Tracked& t) {
    ASSERT_TRUE(t.write(block(100), 'a'));
    id = t.event().take();
    ASSERT_TRUE(t.write(block(100), 'b'));
    ASSERT_TRUE(t.write(block(200), 'b'));
    t.abandon();
  });
  act([&](Tracked& t) {
    EXPECT_EQ(*t.tracker->check(id), 2U);
    const RunList list = t.changed(2);
    EXPECT_TRUE(list.covers(block(100)));
    EXPECT_TRUE(list.covers(block(200)));
    EXPECT_GT(t.tracker->counters().recovered_blocks, 0U);
    EXPECT_LE(list.bytes(), 4 * kMiB) << "regions, not the disk: " << list.text();
    ASSERT_EQ(t.event().take().counter, 3U);
    EXPECT_EQ(t.changed(3).text(), "");
    EXPECT_TRUE(t.changed(1, 2).covers(block(100)));
  });
}

TEST_F(ChangesTest, a_read_only_look_at_a_killed_pool_tells_the_superset_and_changes_nothing) {
  act([&](Tracked& t) {
    ASSERT_TRUE(t.write(block(100), 'a'));
    t.abandon();
  });
  sim::SimIo io(world_, 3);
  io.run([&] {
    Tracked t(io);
    ASSERT_TRUE(t.open(true));
    EXPECT_TRUE(t.changed(1).covers(block(100)));
    ASSERT_TRUE(t.tracker->close(io));
    t.abandon_tracker();
    ASSERT_TRUE(t.pool->close(io));
  });
}

TEST_F(ChangesTest, M6_two_applications_with_their_own_rhythm_need_not_know_of_each_other) {
  constexpr uint64_t kBlocks = kTrackedBytes / kTrackedBlock;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    world_ = {};
    made_ = false;
    Prng prng(seed);
    std::vector<char> disk(kBlocks, 0);
    struct App {
      std::vector<char> image;
      std::optional<ChangeId> last;
      uint64_t copied = 0;
    };
    std::array<App, 3> apps;
    for (int life = 0; life < 3; ++life) {
      act([&](Tracked& t) {
        for (int step = 0; step < 60; ++step) {
          const uint64_t number = prng.below(kBlocks);
          ASSERT_TRUE(t.write(block(number), 'x'));
          disk[number] = static_cast<char>(prng.next());
          if (prng.one_in(10)) {
            ASSERT_TRUE(t.tracker->flush(t.io));
          }
          App& app = apps[prng.below(3)];
          if (!prng.one_in(8)) continue;
          const ChangeId id = t.event().take();
          if (!app.last) {
            app.image = disk;
          } else {
            const RunList list = t.changed(t.tracker->check(*app.last).take(), id.counter);
            for (const Range& run : list.runs) {
              for (uint64_t i = run.at / kTrackedBlock; i * kTrackedBlock < run.end(); ++i) {
                app.image[i] = disk[i];
                ++app.copied;
              }
            }
          }
          app.last = id;
          ASSERT_EQ(app.image, disk) << "seed " << seed << " step " << step;
        }
      });
      if (HasFailure()) return;
    }
  }
}

// Sixteen that ask cost as much as one: nothing is kept for any of them.
TEST_F(ChangesTest, the_cost_is_flat_in_the_number_of_applications) {
  uint64_t pages_of_one = 0;
  for (const int apps : {1, 16}) {
    world_ = {};
    made_ = false;
    act([&](Tracked& t) {
      const uint64_t memory = t.tracker->memory_bytes();
      std::vector<ChangeId> ids(static_cast<size_t>(apps), t.tracker->now());
      for (int round = 0; round < 16; ++round) {
        for (uint64_t i = 0; i < 10; ++i) {
          ASSERT_TRUE(t.write(block(i * 37 % 640), 'x'));
        }
        ids[static_cast<size_t>(round % apps)] = t.event().take();
      }
      for (const ChangeId& id : ids) EXPECT_TRUE(t.tracker->check(id));
      EXPECT_EQ(t.tracker->memory_bytes(), memory);
      if (apps == 1) pages_of_one = t.tracker->counters().log_pages;
      EXPECT_EQ(t.tracker->counters().log_pages, pages_of_one);
    });
  }
}

// M10: after warm-up a write costs the log and the journal nothing.
TEST_F(ChangesTest, M10_warm_writes_commit_nothing) {
  act([](Tracked& t) {
    Prng prng(1);
    for (int i = 0; i < 4000; ++i) {
      ASSERT_TRUE(t.tracker->intend(t.io, {prng.below(kTrackedBytes / 4096) * 4096, 4096}));
    }
    const uint64_t commits = t.pool->info().commits;
    const uint64_t misses = t.tracker->counters().intent_misses;
    EXPECT_LE(misses, 40U) << "one for each region of 1 MiB";
    for (int i = 0; i < 20000; ++i) {
      ASSERT_TRUE(t.write(prng.below(kTrackedBytes / 4096) * 4096, 'x'));
    }
    EXPECT_EQ(t.pool->info().commits, commits);
    EXPECT_EQ(t.tracker->counters().intent_misses, misses);
    EXPECT_EQ(t.tracker->counters().log_pages, 0U);
  });
}

TEST_F(ChangesTest, concurrent_misses_share_a_commit) {
  act([](Tracked& t) {
    const uint64_t commits = t.pool->info().commits;
    {
      Group writers(t.io);
      for (uint64_t i = 0; i < 32; ++i) {
        t.io.spawn(writers, [&t, i] { EXPECT_TRUE(t.write(i * kMiB, 'x')); });
      }
    }
    EXPECT_EQ(t.tracker->counters().intent_misses, 32U);
    EXPECT_LE(t.pool->info().commits - commits, 4U);
  });
}

TEST_F(ChangesTest, a_clone_or_a_disk_not_tracked_costs_nothing) {
  act([](Tracked& t) {
    {
      const auto admission = t.pool->pages().admit(t.io).take();
      t.tracker->invalidate();
    }
    ASSERT_TRUE(t.tracker->free_pages(t.io));
    ASSERT_TRUE(t.pool->flush(t.io));
    const uint64_t pages = t.pool->info().metadata_pages;
    const uint64_t commits = t.pool->info().commits;
    for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(t.write(i * kMiB, 'x'));
    EXPECT_EQ(t.pool->info().metadata_pages, pages);
    EXPECT_EQ(t.pool->info().commits, commits);
    EXPECT_LT(t.tracker->memory_bytes(), 2048U);
  });
}

TEST_F(ChangesTest, ending_gives_every_page_back) {
  uint64_t before = 0;
  act([&](Tracked& t) {
    before = t.pool->info().metadata_pages;
    for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(t.write(i * kMiB, 'x'));
    ASSERT_TRUE(t.event());
    EXPECT_GT(t.pool->info().metadata_pages, before);
    {
      const auto admission = t.pool->pages().admit(t.io).take();
      t.tracker->invalidate();
    }
    ASSERT_TRUE(t.tracker->free_pages(t.io));
    ASSERT_TRUE(t.pool->flush(t.io));
    EXPECT_EQ(t.pool->info().metadata_pages, before);
    ASSERT_TRUE(t.tracker->free_pages(t.io)) << "again is nothing";
  });
}

// A slow write outlives generations: its region's bit must not go (K4).
TEST_F(ChangesTest, K4_the_intent_of_a_write_in_flight_stays_however_long_it_takes) {
  act([](Tracked& t) {
    auto slow =
        std::make_unique<ChangeTracker::Flight>(t.tracker->intend(t.io, {block(100), 4096}).take());
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(t.write(block(500), 'x'));
      ASSERT_TRUE(t.event());
    }
    const std::vector<std::byte> bytes(4096, std::byte{'s'});
    ASSERT_TRUE(t.io.write(*t.file, block(100), View(bytes)));
    slow.reset();  // The process dies before anybody hears of it.
    t.abandon();
  });
  act([](Tracked& t) { EXPECT_TRUE(t.changed(6).covers(block(100))); });
}

TEST_F(ChangesTest, a_huge_disk_has_larger_blocks_and_bounded_memory) {
  act(
      [](Tracked& t) {
        EXPECT_EQ(t.tracker->block_bytes(), kMiB);
        EXPECT_LT(t.tracker->memory_bytes(), 24 * kMiB);
        ASSERT_TRUE(t.tracker->intend(t.io, {63 * kTiB, 4096}));
        t.tracker->mark({63 * kTiB + 5, 1});
        ASSERT_TRUE(t.tracker->event(t.io));
        RunList list;
        ASSERT_TRUE(t.tracker->query(t.io, 1, {}, {0, 64 * kTiB}, list));
        ASSERT_EQ(list.runs.size(), 1U);
        EXPECT_EQ(list.runs[0], (Range{63 * kTiB, kMiB}));
      },
      64 * kTiB);
}

}  // namespace
}  // namespace firn::disk
