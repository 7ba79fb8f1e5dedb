// SPDX-License-Identifier: Apache-2.0
// What a snapshot must not meet in the middle: a write on its way, and somebody who still walks
// through the layer that it freezes.
#include "disk/race_test_util.h"

namespace firn::disk {
namespace {

// T7: what was acknowledged is in it, and nothing comes into it afterwards.
TEST(FenceRace, T7_a_snapshot_lies_between_two_writes) {
  race(
      200,
      [](Scene& s, Prng& prng) {
        const auto a = s.attach("a");
        std::map<uint64_t, char> acknowledged;  // Before the call.
        bool called = false;
        Group group(s.io);
        for (const uint64_t spot : kSpots) {
          for (const uint64_t grain : {0, 7}) {  // In place, and new.
            s.io.spawn(group, [&, at = spot + grain * kGrainBytes, late = prng.below(900)] {
              s.pause(late);
              s.write(*a, at, 'b');
              if (!called) acknowledged[at] = 'b';
            });
          }
        }
        s.pause(prng.below(1200));
        called = true;
        s.snapshot("a", "s");
        std::map<uint64_t, char> shown;
        const auto frozen = s.attach("a@s");
        for (const uint64_t spot : kSpots) {
          for (uint64_t at = spot; at < spot + 8 * kGrainBytes; at += kGrainBytes) {
            shown[at] = s.read(*frozen, at);
          }
        }
        for (const auto& [at, what] : acknowledged) EXPECT_EQ(shown.at(at), what) << at;
        group.wait();
        for (const auto& [at, what] : shown) EXPECT_EQ(s.read(*frozen, at), what) << at;
        for (const uint64_t spot : kSpots) {
          EXPECT_EQ(s.read(*a, spot), 'b');
          EXPECT_EQ(s.read(*a, spot + 7 * kGrainBytes), 'b');
        }
      },
      [](Scene& s) { fill(s, 'a'); });
}

// A diff holds a page of the one disk while it waits for the other's; the layer that it began in
// has meanwhile become a snapshot's, was written over, and is merged.
TEST(FenceRace, a_page_that_a_diff_holds_is_freed_later) {
  constexpr uint64_t kLeaves = 40;
  race(
      60,
      [](Scene& s, Prng& prng) {
        const auto a = s.attach("a");
        Group group(s.io);
        for (int i = 0; i < 6; ++i) {
          s.io.spawn(group, [&, late = prng.below(3000)] {
            s.pause(late);
            Differ differ;
            s.ok(s.disks->diff(s.io, "a", "a@s1", {0, 4 * kGiB}, differ));
            EXPECT_LE(differ.grains.size(), 2 * kLeaves);
          });
        }
        s.pause(prng.below(1000));
        s.snapshot("a", "s2");
        {
          Group writers(s.io);
          for (uint64_t leaf = 0; leaf < kLeaves; ++leaf) {
            s.io.spawn(writers, [&, leaf] { s.write(*a, leaf * kLeaf + kGrainBytes, 'c'); });
          }
        }
        s.forget("a", "s2");
        s.ok(s.disks->sweep(s.io));
        group.wait();
        for (uint64_t leaf = 0; leaf < kLeaves; ++leaf) {
          EXPECT_EQ(s.read(*a, leaf * kLeaf), 'b');
          EXPECT_EQ(s.read(*a, leaf * kLeaf + kGrainBytes), 'c');
        }
        EXPECT_EQ(s.grains(), 3 * kLeaves);
      },
      [](Scene& s) {
        const auto a = s.attach("a");
        for (const char what : {'a', 'b'}) {
          for (uint64_t leaf = 0; leaf < kLeaves; ++leaf) s.write(*a, leaf * kLeaf, what);
          if (what == 'a') s.snapshot("a", "s1");
        }
      });
}

}  // namespace
}  // namespace firn::disk
