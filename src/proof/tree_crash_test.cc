// SPDX-License-Identifier: Apache-2.0
// Crashes in the middle of each kind of change of a tree, one script each: what random lives meet
// sooner or later is here by name. Every moment of the script, many fates of each, and recoveries
// that are crashed in turn, in the middle of the job that they went on with.
#include <gtest/gtest.h>

#include "proof/tree_trial.h"

namespace firn::proof {
namespace {

struct Story {
  const char* name;
  TreeTrial::Script before;
  TreeTrial::Script act;
  uint64_t merges = 0;  // What the sweeper must have done in it.
  uint64_t drops = 0;
  bool shrinks = false;  // Grains were moved, and blocks emptied.
};

// Grain 0 of what the first client has in the leaf at each level.
constexpr uint64_t kLow = 0, kNear = 3 * 512, kFar = 700 * 512;

void write_everywhere(TreeTrial& t) {
  for (const uint64_t at : {kLow, kNear, kFar}) t.write("main", at, 4);
}
void delete_and_sweep(TreeTrial& t, const char* name) {
  t.unsnapshot("main", name);
  t.sweep();
}
void written_and_frozen(TreeTrial& t) {
  write_everywhere(t);
  t.snapshot("main", "s");
}

// Four storage blocks with a few grains each, of layers that inherit from one another.
void sparse_clones(TreeTrial& t) {
  written_and_frozen(t);
  for (const char* clone : {"c", "d", "e"}) {
    t.clone("main", "s", clone);
    t.write(clone, kLow + 1, 2);
    t.write(clone, kFar, 2);
  }
  t.snapshot("c", "x");
  t.write("c", kLow + 3);
}

const Story kStories[] = {
    {"snapshot_created", [](TreeTrial& t) { write_everywhere(t); },
     [](TreeTrial& t) {
       t.write("main", kLow, 2);
       t.snapshot("main", "s");
       t.write("main", kLow + 1, 2);
       t.snapshot("main", "t");
       t.flush("main");
     }},
    {"first_touch_copies_a_leaf_that_is_the_root",
     [](TreeTrial& t) {
       t.write("main", kLow, 4);
       t.snapshot("main", "s");
     },
     [](TreeTrial& t) {
       t.write("main", kLow + 1, 2);
       t.flush("main");
       t.discard("main", kLow);
       t.flush("main");
     }},
    {"first_touch_copies_root_index_and_leaf", written_and_frozen,
     [](TreeTrial& t) {
       t.write("main", kFar + 1, 2);
       t.flush("main");
       t.write("main", kNear, 2);
       t.discard("main", kLow + 3);
       t.flush("main");
     }},
    {"levels_are_added_over_an_inherited_root_and_merged",
     [](TreeTrial& t) {
       t.write("main", kLow, 4);
       t.snapshot("main", "s");
     },
     [](TreeTrial& t) {
       t.write("main", kNear, 2);
       t.flush("main");
       t.snapshot("main", "t");
       t.write("main", kFar, 2);
       t.write("main", kLow + 1);
       t.flush("main");
       delete_and_sweep(t, "s");
       delete_and_sweep(t, "t");
     },
     2},
    {"merge_takes_over_an_inherited_root", written_and_frozen,
     [](TreeTrial& t) { delete_and_sweep(t, "s"); }, 1},
    {"merge_takes_over_an_inherited_index_page",
     [](TreeTrial& t) {
       written_and_frozen(t);
       t.write("main", kLow + 5);
     },
     [](TreeTrial& t) { delete_and_sweep(t, "s"); }, 1},
    {"merge_of_index_pages_and_leaves_that_both_own",
     [](TreeTrial& t) {
       written_and_frozen(t);
       for (const uint64_t at : {kLow, kNear, kFar}) t.write("main", at + 2, 4);
     },
     [](TreeTrial& t) { delete_and_sweep(t, "s"); }, 1},
    {"merge_of_a_middle_layer_then_the_last_then_the_base",
     [](TreeTrial& t) {
       for (const char* name : {"r", "s", "t"}) {
         write_everywhere(t);
         t.write("main", kLow + 5);
         t.snapshot("main", name);
       }
       t.write("main", kNear + 1);
     },
     [](TreeTrial& t) {
       delete_and_sweep(t, "s");
       delete_and_sweep(t, "t");
       delete_and_sweep(t, "r");
     },
     3},
    {"merge_of_zeroes_over_data_and_data_over_zeroes",
     [](TreeTrial& t) {
       write_everywhere(t);
       t.snapshot("main", "r");
       t.discard("main", kLow, 3);
       t.discard("main", kFar, 2);
       t.snapshot("main", "s");
       t.write("main", kLow + 1);
       t.discard("main", kNear, 4);
     },
     [](TreeTrial& t) {
       delete_and_sweep(t, "s");
       delete_and_sweep(t, "r");
     },
     2},
    {"merge_while_a_client_writes", written_and_frozen,
     [](TreeTrial& t) {
       t.unsnapshot("main", "s");
       Group group(t.io());
       t.io().spawn(group, [&] { t.sweep(); });
       for (const uint64_t at : {kFar, kLow, kNear}) {
         t.write("main", at + 1, 2);
         t.discard("main", at);
         t.flush("main");
       }
     },
     1},
    {"merge_while_a_snapshot_is_taken",
     [](TreeTrial& t) {
       written_and_frozen(t);
       t.write("main", kLow + 2, 4);
     },
     [](TreeTrial& t) {
       t.unsnapshot("main", "s");
       Group group(t.io());
       t.io().spawn(group, [&] { t.sweep(); });
       t.snapshot("main", "t");
       t.write("main", kLow + 1, 3);
       t.snapshot("main", "u");
       t.flush("main");
     },
     1},
    {"revert", written_and_frozen,
     [](TreeTrial& t) {
       t.write("main", kNear + 1, 4);
       t.revert("main", "s");
       t.write("main", kLow, 2);
       t.flush("main");
       t.sweep();
       t.revert("main", "s");
       t.sweep();
     },
     0, 2},
    {"revert_in_the_middle_of_a_merge",
     [](TreeTrial& t) {
       written_and_frozen(t);
       t.write("main", kLow + 1, 4);
       t.snapshot("main", "t");
       t.write("main", kNear + 1, 4);
     },
     [](TreeTrial& t) {
       t.unsnapshot("main", "t");
       Group group(t.io());
       t.io().spawn(group, [&] { t.sweep(); });
       t.revert("main", "s");
       t.write("main", kFar, 1);
       t.flush("main");
       group.wait();
       t.sweep();
     }},
    {"clones_made_written_and_dropped", written_and_frozen,
     [](TreeTrial& t) {
       t.clone("main", "s", "c");
       t.write("c", kLow + 1, 2);
       t.flush("c");
       t.clone("main", "s", "d");
       t.write("d", kFar);
       t.snapshot("d", "x");
       t.remove("c");
       t.remove("d");
       t.sweep();
     },
     0, 3},
    {"a_layer_with_several_children_waits_for_the_last_but_one",
     [](TreeTrial& t) {
       written_and_frozen(t);
       t.clone("main", "s", "c");
       t.clone("main", "s", "d");
       t.write("c", kLow + 1, 2);
       t.write("d", kNear, 2);
     },
     [](TreeTrial& t) {
       delete_and_sweep(t, "s");
       t.remove("c");
       t.sweep();
       t.remove("d");
       t.sweep();
     },
     1, 2},
    {"a_disk_goes_with_its_snapshots_and_a_clone_stays",
     [](TreeTrial& t) {
       written_and_frozen(t);
       t.clone("main", "s", "c");
       t.write("main", kLow + 1, 4);
       t.snapshot("main", "t");
       t.write("main", kNear + 1, 4);
       t.write("c", kFar);
     },
     [](TreeTrial& t) {
       t.remove("main");
       t.sweep();
     },
     1, 2},
    {"tracking_begins_on_a_disk_with_data", write_everywhere,
     [](TreeTrial& t) {
       t.begin("main", "x");
       t.write("main", kLow, 2);
       t.list("main");
       t.begin("main", "y", "b");
       t.write("main", kNear + 1);
       t.begin("main", "x", "c");
       t.discard("main", kFar, 2);
       t.flush("main");
       t.list("main");
       t.untrack("main");
     }},
    {"tracked_grains_are_overwritten_in_place",
     [](TreeTrial& t) {
       write_everywhere(t);
       t.begin("main", "x");
     },
     [](TreeTrial& t) {
       t.write("main", kLow + 1, 2);
       t.write("main", kNear);
       t.begin("main", "y");
       t.write("main", kLow + 1);
       t.write("main", kFar + 2, 2);
       t.list("main");
       t.flush("main");
       t.begin("main", "x");
       t.write("main", kNear + 1);
       t.list("main");
     }},
    {"events_while_a_client_writes",
     [](TreeTrial& t) {
       write_everywhere(t);
       t.begin("main", "x");
     },
     [](TreeTrial& t) {
       Group group(t.io());
       t.io().spawn(group, [&] {
         for (uint64_t i = 0; i < 4; ++i) {
           for (const uint64_t at : {kLow, kNear, kFar}) t.write("main", at + i % 3, 2);
         }
       });
       t.io().spawn(group, [&] {
         for (uint64_t i = 0; i < 8; ++i) t.list("main");
       });
       for (const char* app : {"x", "y", "x", "y"}) t.begin("main", app);
     }},
    {"an_event_meets_the_first_write_to_a_region",
     [](TreeTrial& t) {
       write_everywhere(t);
       t.begin("main", "x");
     },
     [](TreeTrial& t) {
       for (uint64_t i = 0; i < 9; ++i) {  // No region twice in neighbouring generations.
         Group group(t.io());
         t.io().spawn(group, [&t, i] {
           t.write("main", (i % 3 == 0 ? kLow : i % 3 == 1 ? kNear : kFar) + i / 3);
         });
         t.begin("main", i % 2 == 0 ? "x" : "y");
       }
       t.list("main");
     }},
    {"a_tracked_disk_grows_and_is_reverted",
     [](TreeTrial& t) {
       written_and_frozen(t);
       t.begin("main", "x");
     },
     [](TreeTrial& t) {
       t.resize("main", TreeTrial::kDiskBytes + 192 * kKiB);
       t.write("main", kLow);
       t.list("main");
       t.revert("main", "s");
       t.list("main");
       t.begin("main", "y");
       t.write("main", kNear);
       t.resize("main", TreeTrial::kDiskBytes + 576 * kKiB);
       t.list("main");
       t.sweep();
     },
     0, 1},
    {"a_tracked_disk_whose_snapshots_are_merged_meanwhile",
     [](TreeTrial& t) {
       written_and_frozen(t);
       t.begin("main", "x", "b");
       t.write("main", kLow + 1, 4);
     },
     [](TreeTrial& t) {
       t.unsnapshot("main", "s");
       t.unsnapshot("main", "b");
       Group group(t.io());
       t.io().spawn(group, [&] { t.sweep(); });
       for (const uint64_t at : {kFar, kLow, kNear}) t.write("main", at + 1, 2);
       t.begin("main", "y");
       t.write("main", kFar);
       group.wait();
       t.list("main");
     },
     2},
    {"a_tracked_disk_is_deleted",
     [](TreeTrial& t) {
       write_everywhere(t);
       t.begin("main", "x", "b");
       t.begin("main", "y");
     },
     [](TreeTrial& t) {
       t.write("main", kLow);
       t.remove("main");
       t.sweep();
     },
     0, 2},
    {"shrink_moves_grains_that_snapshots_and_clones_show", sparse_clones,
     [](TreeTrial& t) {
       t.shrink("main");
       t.look_at_all();
       t.write("c", kLow, 2);
       t.flush("c");
     },
     0, 0, true},
    {"shrink_while_clients_write_and_a_snapshot_is_taken", sparse_clones,
     [](TreeTrial& t) {
       Group group(t.io());
       t.io().spawn(group, [&] {
         for (const uint64_t at : {kLow, kNear, kFar}) t.write("c", at + 1, 2);
         t.snapshot("c", "y");
         t.write("c", kLow + 1);
       });
       t.io().spawn(group, [&] {
         for (const uint64_t at : {kLow, kFar}) t.write("d", at + 1);  // In place.
         t.flush("d");
         for (const uint64_t at : {kLow, kNear, kFar}) t.discard("d", at);
       });
       t.io().spawn(group, [&] {
         for (const uint64_t at : {kFar, kLow}) t.write("e", at + 1);
         t.flush("e");
       });
       t.shrink("main");
       group.wait();
       t.look_at_all();
       t.flush("c");
     },
     0, 0, true},
    {"shrink_under_a_client_who_overwrites_in_place", sparse_clones,
     [](TreeTrial& t) {
       Group group(t.io());
       for (const char* clone : {"c", "d", "e"}) {
         t.io().spawn(group, [&t, clone] {
           for (uint64_t i = 0; i < 16; ++i) {
             t.write(clone, (i % 4 < 2 ? kLow + 1 : kFar) + i % 2);
             t.io().sleep(std::chrono::microseconds(i * 67 % 250));
             t.verify(clone);
           }
           t.flush(clone);
         });
       }
       t.io().sleep(std::chrono::microseconds(300));
       t.shrink("main");
     },
     0, 0, true},
    {"shrink_beside_a_merge", sparse_clones,
     [](TreeTrial& t) {
       t.unsnapshot("c", "x");
       Group group(t.io());
       t.io().spawn(group, [&] { t.sweep(); });
       t.shrink("d");
       group.wait();
       t.shrink("d");
       t.look_at_all();
     },
     1, 0, true},
};

// Of these, some commit between the steps of a job now and then (Io::sometimes), others do not.
constexpr uint64_t kSeeds[] = {1, 2, 3};

class TreeStory : public testing::TestWithParam<Story> {};

TEST_P(TreeStory, P2_P5_recovers_from_every_crash) {
  const Story& story = GetParam();
  Verdict verdict;
  for (const uint64_t seed : kSeeds) {
    TreeTrial trial(seed, {.clients = 1, .pool_blocks = 8});
    trial.prepare(story.before);
    trial.live(nullptr, &story.act);
    EXPECT_GE(trial.jobs_done().consolidated, story.merges);
    EXPECT_GE(trial.jobs_done().dropped, story.drops);
    EXPECT_EQ(trial.shrunk().moved_bytes > 0, story.shrinks);
    EXPECT_EQ(trial.shrunk().emptied_bytes > 0, story.shrinks);
    EXPECT_EQ(trial.jobs_done().moved_bytes, trial.shrunk().moved_bytes);
    trial.judge_end(verdict);
    trial.enumerate(verdict, 6, 400, 50);
    for (const std::string& violation : verdict.violations) ADD_FAILURE() << violation;
    if (HasFailure()) return;
  }
  EXPECT_GE(verdict.crash_states, 100U);
  std::cout << "crash states: " << verdict.crash_states
            << ", recoveries crashed: " << verdict.recoveries_crashed << '\n';
}
INSTANTIATE_TEST_SUITE_P(Trial, TreeStory, testing::ValuesIn(kStories),
                         [](const auto& story) { return std::string(story.param.name); });

}  // namespace
}  // namespace firn::proof
