// SPDX-License-Identifier: Apache-2.0
// Jobs, clients and changes of the tree at once, in orders drawn from seeds: the races that the
// notes in thin_write.cc, consolidate.h and snapshots.cc reason about, one by one.
#include <gtest/gtest.h>

#include "disk/race_test_util.h"

namespace firn::disk {
namespace {

TEST(SnapshotRace, T8_a_grain_that_became_own_under_a_writer_is_freed_by_him) {
  race(
      150,
      [](Scene& s, Prng& prng) {
        s.forget("a", "s");
        const auto a = s.attach("a");
        Group group(s.io);
        s.io.spawn(group, [&] { s.ok(s.disks->sweep(s.io)); });
        for (const uint64_t spot : kSpots) {
          s.io.spawn(group, [&, spot, late = prng.below(4000)] {
            s.pause(late);
            s.write(*a, spot, 'b', 2 * kGrainBytes);
          });
        }
        group.wait();
        for (const uint64_t spot : kSpots) {
          EXPECT_EQ(s.read(*a, spot), 'b');
          EXPECT_EQ(s.read(*a, spot + 2 * kGrainBytes), 'a');
        }
        EXPECT_EQ(s.grains(), 6U * 4);
        EXPECT_EQ(s.disks->info("a")->mapped_bytes, 6 * 4 * kGrainBytes);
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s");
        s.write("a", kSpots[1] + 3 * kGrainBytes, 'a');  // One leaf is copied already.
      });
}

TEST(SnapshotRace, a_grain_that_became_own_under_a_discard_is_freed_by_it) {
  race(
      150,
      [](Scene& s, Prng& prng) {
        s.forget("a", "s");
        const auto a = s.attach("a");
        Group group(s.io);
        s.io.spawn(group, [&] { s.ok(s.disks->sweep(s.io)); });
        for (const uint64_t spot : kSpots) {
          s.io.spawn(group, [&, spot, late = prng.below(4000)] {
            s.pause(late);
            s.ok(a->discard(s.io, {spot, 3 * kGrainBytes}));
          });
        }
        group.wait();
        for (const uint64_t spot : kSpots) {
          EXPECT_EQ(s.read(*a, spot), '\0');
          EXPECT_EQ(s.read(*a, spot + 3 * kGrainBytes), 'a');
        }
        EXPECT_EQ(s.grains(), 6U);
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s");
      });
}

// While a job moves references the numbers that users see stay numbers.
TEST(SnapshotRace, N6_sizes_are_those_of_both_layers_while_they_are_merged) {
  race(
      60,
      [](Scene& s, Prng&) {
        s.forget("a", "s");
        const auto a = s.attach("a");
        bool done = false;
        Group group(s.io);
        s.io.spawn(group, [&] {
          s.ok(s.disks->sweep(s.io));
          done = true;
        });
        s.io.spawn(group, [&] {
          for (const uint64_t spot : kSpots) s.ok(a->discard(s.io, {spot, 4 * kGrainBytes}));
        });
        while (!done) {
          s.pause(50);
          EXPECT_LE(s.disks->info("a")->mapped_bytes, 6 * 4 * kGrainBytes);
          EXPECT_LE(s.disks->info("a")->metadata_bytes, 40 * kPageBytes);
        }
        group.wait();
        EXPECT_EQ(s.disks->info("a")->mapped_bytes, 0U);
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s");
      });
}

TEST(SnapshotRace, own_child_copies_a_page_that_is_just_taken_over) {
  race(
      150,
      [](Scene& s, Prng& prng) {
        s.forget("a", "s2");
        const auto a = s.attach("a");
        Group group(s.io);
        s.io.spawn(group, [&] { s.ok(s.disks->sweep(s.io)); });
        for (uint64_t i = 0; i < 6; ++i) {
          s.io.spawn(group, [&, i, late = prng.below(2500)] {
            s.pause(late);
            s.write(*a, kSpots[i] + 8 * kGrainBytes, 'c');
          });
        }
        group.wait();
        for (const uint64_t spot : kSpots) {
          EXPECT_EQ(s.read(*a, spot), 'b');
          EXPECT_EQ(s.read(*a, spot + 8 * kGrainBytes), 'c');
          EXPECT_EQ(s.read("a@s1", spot), 'a');
        }
        EXPECT_EQ(s.grains(), 6U * 9);
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s1");
        fill(s, 'b');
        s.snapshot("a", "s2");
      });
}

TEST(SnapshotRace, a_page_that_somebody_walks_through_is_freed_later) {
  struct Slow final : ExtentSink {
    uint64_t data = 0;
    bool add(ExtentRun run) override {
      if (run.kind == Extent::data) data += run.length;
      return true;
    }
  };
  race(
      200,
      [](Scene& s, Prng& prng) {
        s.forget("a", "s");
        const auto a = s.attach("a");
        Group group(s.io);
        s.io.spawn(group, [&] { s.ok(s.disks->sweep(s.io)); });
        for (int i = 0; i < 3; ++i) {
          s.io.spawn(group, [&, late = prng.below(3000)] {
            s.pause(late);
            Slow sink;
            s.ok(a->map(s.io, {0, 4 * kGiB}, sink));
            EXPECT_EQ(sink.data, 6 * 4 * kGrainBytes);
          });
        }
        group.wait();
        EXPECT_EQ(s.grains(), 6U * 4);
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s");
        fill(s, 'b');
      });
}

TEST(SnapshotRace, a_snapshot_in_the_middle_of_a_merge_into_the_live_layer) {
  race(
      150,
      [](Scene& s, Prng& prng) {
        s.forget("a", "s");
        const auto a = s.attach("a");
        Group group(s.io);
        s.io.spawn(group, [&] { s.ok(s.disks->sweep(s.io)); });
        s.io.spawn(group, [&, late = prng.below(5000)] {
          s.pause(late);
          s.snapshot("a", "t");
          for (const uint64_t spot : kSpots) s.write(*a, spot + kGrainBytes, 'c');
          s.pause(late / 2);
          s.snapshot("a", "u");
        });
        group.wait();
        for (const uint64_t spot : kSpots) {
          EXPECT_EQ(s.read("a@t", spot), 'b');
          EXPECT_EQ(s.read("a@t", spot + kGrainBytes), 'a');
          EXPECT_EQ(s.read("a@u", spot + kGrainBytes), 'c');
          EXPECT_EQ(s.read(*a, spot), 'b');
        }
        EXPECT_EQ(s.grains(), 6U * 5);
        EXPECT_EQ(s.disks->info("a")->layers, 3U);
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s");
        const auto a = s.attach("a");
        for (const uint64_t spot : kSpots) s.write(*a, spot, 'b');
      });
}

TEST(SnapshotRace, a_revert_drops_the_upper_layer_in_the_middle_of_its_merge) {
  race(
      200,
      [](Scene& s, Prng& prng) {
        s.forget("a", "s2");
        const auto a = s.attach("a");
        Group group(s.io);
        s.io.spawn(group, [&] { s.ok(s.disks->sweep(s.io)); });
        s.io.spawn(group, [&, late = prng.below(5000)] {
          s.pause(late);
          s.ok(s.disks->revert(s.io, "a", "s1", true));
          s.write(*a, 0, 'd');
        });
        for (int i = 0; i < 2; ++i) {  // Walks through maps that may go under them.
          s.io.spawn(group, [&, late = prng.below(5000)] {
            s.pause(late);
            struct Count final : ExtentSink {
              bool add(ExtentRun) override { return true; }
            } sink;
            s.ok(a->map(s.io, {0, 4 * kGiB}, sink));
            s.ok(a->discard(s.io, {900 * kLeaf, 100 * kLeaf}));
          });
        }
        group.wait();
        s.ok(s.disks->sweep(s.io));
        EXPECT_EQ(s.read(*a, 0), 'd');
        EXPECT_EQ(s.read(*a, kSpots[5]), 'a');
        EXPECT_EQ(s.grains(), 6U * 4 + 1);
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s1");
        fill(s, 'b');
        s.snapshot("a", "s2");
        fill(s, 'c');
      });
}

TEST(SnapshotRace, a_check_during_jobs_finds_nothing) {
  race(
      100,
      [](Scene& s, Prng& prng) {
        s.forget("a", "s1");
        s.forget("a", "s2");
        const auto a = s.attach("a");
        bool done = false;
        Group group(s.io);
        s.io.spawn(group, [&] {
          s.ok(s.disks->sweep(s.io));
          done = true;
        });
        s.io.spawn(group, [&, late = prng.below(3000)] {
          s.pause(late);
          s.write(*a, kSpots[2], 'd', 3 * kGrainBytes);
          s.ok(s.disks->revert(s.io, "a", "s3", true));
        });
        while (!done) {
          s.expect_clean();
          s.pause(1000 + prng.below(3000));
        }
        group.wait();
        s.ok(s.disks->sweep(s.io));
        EXPECT_EQ(s.read(*a, kSpots[2]), 'c');
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s1");
        fill(s, 'b');
        s.snapshot("a", "s2");
        s.write("a", 0, 'c');
        s.write("a", kSpots[2], 'c');
        s.snapshot("a", "s3");
        fill(s, 'd');
      });
}

TEST(SnapshotRace, the_disk_is_deleted_during_its_jobs) {
  race(
      150,
      [](Scene& s, Prng& prng) {
        s.forget("a", "s1");
        Group group(s.io);
        s.io.spawn(group, [&] { s.ok(s.disks->sweep(s.io)); });
        s.io.spawn(group, [&, late = prng.below(4000)] {
          s.pause(late);
          s.ok(s.disks->remove(s.io, "a", true));
        });
        group.wait();
        s.ok(s.disks->sweep(s.io));
        EXPECT_EQ(s.read("c", 0), 'b');
        EXPECT_EQ(s.read("c", kSpots[3]), 'b');
        EXPECT_EQ(s.grains(), 6U * 4);
        s.ok(s.disks->remove(s.io, "c", true));
        EXPECT_EQ(s.grains(), 0U);
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s1");
        fill(s, 'b');
        s.snapshot("a", "s2");
        fill(s, 'c');
        s.ok(s.disks->clone(s.io, "a", "s2", "c"));
      });
}

// A disk is gone or attached, never both.
TEST(SnapshotRace, who_attaches_while_the_name_goes_has_it_or_an_error) {
  race(
      300,
      [](Scene& s, Prng& prng) {
        const bool snapshot = prng.one_in(2);
        const std::string name = snapshot ? "a@s" : "a";
        Group group(s.io);
        bool gone = false;
        s.io.spawn(group, [&, late = prng.below(600)] {
          s.pause(late);
          const auto done = snapshot ? s.disks->remove_snapshot(s.io, "a", "s")
                                     : s.disks->remove(s.io, "a", true);
          gone = done.has_value();
          if (!done) {
            EXPECT_EQ(done.error().code, Errc::busy) << text_of(done.error());
          }
        });
        s.io.spawn(group, [&, late = prng.below(600)] {
          s.pause(late);
          auto device = s.disks->attach(s.io, name);
          if (!device) {
            EXPECT_EQ(device.error().code, Errc::not_found) << text_of(device.error());
            return;
          }
          EXPECT_FALSE(gone);
          s.pause(3000);
          EXPECT_FALSE(gone) << "deleted under a client";
          EXPECT_EQ(s.read(**device, 0), snapshot ? 'a' : 'b');
        });
        group.wait();
        s.ok(s.disks->sweep(s.io));
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s");
        fill(s, 'b');
      });
}

// A reader that began in the layer of before, which is now a snapshot's, and gone a moment later.
TEST(SnapshotRace, a_reader_outlives_the_layer_in_which_he_began) {
  race(
      200,
      [](Scene& s, Prng& prng) {
        const auto a = s.attach("a");
        Group group(s.io);
        for (int i = 0; i < 4; ++i) {
          s.io.spawn(group, [&, late = prng.below(800)] {
            s.pause(late);
            AlignedBuffer buffer(kMiB);
            const ::iovec slice = slice_of(buffer.bytes());
            s.ok(a->read(s.io, {600 * kLeaf + kLeaf - kMiB / 2, kMiB}, Iovec(&slice, 1)));
            struct Count final : ExtentSink {
              bool add(ExtentRun) override { return true; }
            } sink;
            s.ok(a->map(s.io, {0, 4 * kGiB}, sink));
            s.ok(a->discard(s.io, {900 * kLeaf, 100 * kLeaf}));
          });
        }
        s.io.spawn(group, [&] {
          s.snapshot("a", "s");
          s.forget("a", "s");
          s.ok(s.disks->sweep(s.io));
        });
        group.wait();
        EXPECT_EQ(s.read(*a, 0), 'a');
      },
      [](Scene& s) { fill(s, 'a'); });
}

TEST(SnapshotRace, a_diff_with_a_live_disk_whose_pages_are_copied_and_merged) {
  race(
      300,
      [](Scene& s, Prng& prng) {
        s.forget("a", "s2");
        const auto a = s.attach("a");
        Group group(s.io);
        s.io.spawn(group, [&] { s.ok(s.disks->sweep(s.io)); });
        for (const uint64_t spot : kSpots) {
          s.io.spawn(group, [&, spot, late = prng.below(4000)] {
            s.pause(late);
            s.write(*a, spot + 9 * kGrainBytes, 'c');
          });
        }
        for (int i = 0; i < 3; ++i) {
          s.io.spawn(group, [&, late = prng.below(4000)] {
            s.pause(late);
            Differ differ;
            s.ok(s.disks->diff(s.io, "a@s1", "a", {0, 4 * kGiB}, differ));
            for (const uint64_t spot : kSpots) {
              for (uint64_t grain = 0; grain < 10; ++grain) {
                const bool there = differ.grains.erase(spot / kGrainBytes + grain) > 0;
                const bool may = there ? grain < 4 || grain == 9 : grain >= 4;
                EXPECT_TRUE(may) << "grain " << grain << " of " << spot;
              }
            }
            EXPECT_TRUE(differ.grains.empty());
          });
        }
        group.wait();
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s1");
        fill(s, 'b');
        s.snapshot("a", "s2");
      });
}

TEST(SnapshotRace, a_diff_whose_disk_is_reverted_meanwhile) {
  race(
      200,
      [](Scene& s, Prng& prng) {
        Group group(s.io);
        s.io.spawn(group, [&, late = prng.below(600)] {
          s.pause(late);
          s.ok(s.disks->revert(s.io, "a", "s", true));
          s.ok(s.disks->sweep(s.io));
        });
        s.io.spawn(group, [&] {
          Differ differ;
          s.ok(s.disks->diff(s.io, "a@s", "a", {0, 4 * kGiB}, differ));
          EXPECT_TRUE(differ.grains.empty() || differ.grains.size() == 6 * 4)
              << differ.grains.size() << ": neither what was, nor what is";
        });
        group.wait();
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s");
        fill(s, 'b');
      });
}

// P5: the daemon goes in the middle of a job, and the next one goes on.
TEST(SnapshotRace, the_pool_is_closed_in_the_middle_of_a_job) {
  race(
      150,
      [](Scene& s, Prng& prng) {
        s.close();
        s.open(true);
        s.forget("a", "s1");
        s.forget("a", "s2");
        s.pause(prng.below(6000));
        s.close();
        s.open(true);
        s.expect_clean();
        EXPECT_EQ(s.read("a", 0), 'c');
        s.pause(prng.below(2000));
        s.close();
        s.open();
        EXPECT_TRUE(s.disks->jobs().empty());
        EXPECT_EQ(s.read("a", kSpots[4]), 'c');
        EXPECT_EQ(s.read("a", kSpots[4] + kGrainBytes), 'b');
        EXPECT_EQ(s.disks->info("a")->layers, 1U);
        EXPECT_EQ(s.grains(), 6U * 4);
      },
      [](Scene& s) {
        fill(s, 'a');
        s.snapshot("a", "s1");
        fill(s, 'b');
        s.snapshot("a", "s2");
        const auto a = s.attach("a");
        for (const uint64_t spot : kSpots) s.write(*a, spot, 'c');
      });
}

// A whole chain that goes is dropped from its end, not merged link by link.
TEST(SnapshotRace, a_chain_that_goes_as_a_whole_is_not_merged) {
  race(
      3,
      [](Scene& s, Prng&) {
        s.ok(s.disks->remove(s.io, "a", true));
        s.ok(s.disks->sweep(s.io));
        EXPECT_EQ(s.disks->job_counters().consolidated, 0U);
        EXPECT_EQ(s.disks->job_counters().dropped, 5U);
        EXPECT_EQ(s.grains(), 0U);
      },
      [](Scene& s) {
        for (const char* name : {"s1", "s2", "s3", "s4"}) {
          fill(s, name[1]);
          s.snapshot("a", name);
        }
      });
}

// Twenty storage blocks, all but full of what only "s1" shows.
void make_sparse(Scene& s) {
  const auto a = s.attach("a");
  for (uint64_t at = 0; at < 20 * kMiB; at += kMiB) s.write(*a, at, 'a', kMiB);
  s.snapshot("a", "s1");
  for (uint64_t at = 0; at < 20 * kMiB; at += 128 * 1024) {
    s.ok(a->discard(s.io, {at + kGrainBytes, 124 * 1024}));
  }
  s.snapshot("a", "s2");
  s.write(*a, kSpots[0], 'b');
}

// Whoever deletes a snapshot waits for that snapshot, and not for a shrink that nobody asked for.
TEST(SnapshotRace, a_shrink_gives_way_to_a_layer_that_is_due) {
  race(
      20,
      [](Scene& s, Prng& prng) {
        s.close();
        s.open(true);
        const auto runs = [&s](JobKind kind) {
          return std::ranges::any_of(s.disks->jobs(),
                                     [&](const JobInfo& job) { return job.kind == kind; });
        };
        s.forget("a", "s1");
        while (!runs(JobKind::shrink)) s.pause(100);
        s.pause(prng.below(500));
        EXPECT_GT(s.pool->info().allocated_bytes, 10 * kMiB);
        s.forget("a", "s2");
        while (runs(JobKind::consolidate)) s.pause(100);
        EXPECT_GT(s.pool->info().allocated_bytes, 10 * kMiB) << "it was shrunk first";
        while (s.pool->info().allocated_bytes > 4 * kMiB) s.pause(1000);  // It comes back.
        EXPECT_EQ(s.read("a", kSpots[0]), 'b');
        s.close();
        s.open();
      },
      make_sparse);
}

// P5, and nobody has to ask for it again: only its reads of data fail.
TEST(SnapshotRace, a_shrink_that_met_an_error_is_tried_again) {
  race(
      4,
      [](Scene& s, Prng&) {
        s.close();
        s.open(true);
        s.io.add_fault(
            {.files = "*/data", .verb = sim::Verb::read, .and_all_later = true, .error = EIO});
        s.forget("a", "s1");
        const auto failed = [&s] {
          const auto jobs = s.disks->jobs();
          return jobs.size() == 1 && jobs[0].kind == JobKind::shrink && jobs[0].failures >= 3 &&
                 jobs[0].state == JobState::failed && jobs[0].again_in;
        };
        while (!failed()) s.pause(10'000);
        EXPECT_GT(s.pool->info().allocated_bytes, 10 * kMiB);
        s.io.clear_faults();
        while (s.pool->info().allocated_bytes > 4 * kMiB) s.pause(10'000);
        while (!s.disks->jobs().empty()) s.pause(1000);
        EXPECT_EQ(s.read("a", kSpots[0]), 'b');
        s.close();
        s.open();
      },
      make_sparse);
}

}  // namespace
}  // namespace firn::disk
