// SPDX-License-Identifier: Apache-2.0
#include "sim/crash.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "sim/sim_io.h"

namespace firn::sim {
namespace {

std::vector<std::byte> fill(size_t length, uint64_t value) {
  return std::vector<std::byte>(length, static_cast<std::byte>(value));
}

// A small world: "/f" of 8 KiB zeroes, durable.
World prepared() {
  World world;
  SimIo io(world, 1, {.order = Order::immediate});
  io.run([&] {
    auto file = io.open("/f", {.create = true}).take();
    const auto zero = fill(8192, 0);
    EXPECT_TRUE(io.write(*file, 0, View(zero)));
  });
  world.settle();
  return world;
}

size_t count_fates(World& world, size_t moment) {
  Crash crash(world);
  return crash.fates(moment, 1000, 1).size();
}

TEST(Crash, what_is_pending_survives_in_every_combination) {
  World world = prepared();
  SimIo io(world, 1, {.order = Order::immediate});
  io.run([&] {
    auto file = io.open("/f", {}).take();
    const auto bytes = fill(1536, 7);
    EXPECT_TRUE(io.write(*file, 512, View(bytes)));
  });
  Crash crash(world);
  EXPECT_EQ(crash.pending_at(0).size(), 0u);
  const size_t end = crash.events();
  EXPECT_EQ(crash.pending_at(end).size(), 3u);
  std::set<std::vector<std::byte>> seen;
  for (const Fate& fate : crash.fates(end, 100, 1)) {
    const World after = crash.image(end, fate);
    EXPECT_EQ(after.content("/f").size(), 8192u);
    EXPECT_TRUE(all_zero(after.content("/f", {2048, 6144})));
    seen.insert(after.content("/f"));
  }
  EXPECT_EQ(seen.size(), 8u);
}

TEST(Crash, a_flush_covers_only_what_completed_before_it_began) {
  World world = prepared();
  const FileId file = world.now().names.at("/f").file;
  const auto write = [&](uint64_t at) {
    Change change;
    change.file = file;
    change.at = at;
    change.data = fill(512, 5);
    return world.issue(std::move(change));
  };
  const uint64_t early = write(0);
  const uint64_t late = write(512);
  world.complete(early);
  const uint64_t flush = world.begin_flush(file);
  world.complete(late);  // Before the flush ends, but after it began.
  world.complete_flush(flush);
  Crash crash(world);
  crash.move_to(crash.events());
  ASSERT_EQ(crash.atoms().size(), 1u);
  EXPECT_EQ(crash.atoms()[0].change, late);
  const uint64_t again = world.begin_flush(file);
  EXPECT_EQ(crash.pending_at(crash.events()).size(), 1u);
  world.complete_flush(again);
  EXPECT_EQ(crash.pending_at(crash.events()).size(), 0u);
  EXPECT_EQ(crash.pending_at(2).size(), 2u);  // And back.
  EXPECT_EQ(crash.image(2, crash.fates(2, 1, 1)[0]).content("/f"), fill(8192, 0));
}

TEST(Crash, flushes_that_lie_or_fail_cover_nothing) {
  for (const Effect effect : {Effect::lie, Effect::fail}) {
    World world = prepared();
    SimIo io(world, 1, {.order = Order::immediate});
    io.add_fault({.verb = Verb::flush, .effect = effect});
    io.run([&] {
      auto file = io.open("/f", {}).take();
      const auto bytes = fill(512, 7);
      EXPECT_TRUE(io.write(*file, 0, View(bytes)));
      EXPECT_EQ(io.flush(*file).has_value(), effect == Effect::lie);
    });
    EXPECT_EQ(count_fates(world, world.events().size()), 2u);
  }
}

TEST(Crash, sizes_punches_and_names_are_pending_too) {
  World world = prepared();
  SimIo io(world, 1, {.order = Order::immediate});
  io.run([&] {
    auto file = io.open("/f", {}).take();
    EXPECT_TRUE(io.resize(*file, 100000));
    EXPECT_TRUE(io.make_directory("/d"));
    auto made = io.open("/d/new", {.create = true}).take();
    EXPECT_TRUE(io.flush(*made));
  });
  Crash crash(world);
  crash.move_to(crash.events());
  EXPECT_EQ(crash.atoms().size(), 3u);
  std::set<std::pair<uint64_t, size_t>> seen;  // Size of /f, number of names.
  for (const Fate& fate : crash.fates(100, 1)) {
    const World after = crash.image(fate);
    seen.emplace(after.content("/f").size(), after.now().names.size());
  }
  EXPECT_EQ(seen.size(), 6u);
  io.run([&] {
    auto file = io.open("/f", {}).take();
    EXPECT_TRUE(io.flush(*file));
    EXPECT_TRUE(io.flush_directory(""));
    EXPECT_TRUE(io.flush_directory("/d"));
  });
  EXPECT_EQ(crash.pending_at(crash.events()).size(), 0u);
}

TEST(Crash, atoms_are_larger_in_files_named_as_data_and_tear_only_when_asked) {
  for (const bool torn : {false, true}) {
    World world;
    SimIo io(world, 1, {.order = Order::immediate});
    io.run([&] {
      auto file = io.open("/data", {.create = true}).take();
      EXPECT_TRUE(io.resize(*file, 8192));
      world.settle();
      const auto bytes = fill(8192, 7);
      EXPECT_TRUE(io.write(*file, 0, View(bytes)));
    });
    Crash crash(world, {.torn_atoms = torn});
    crash.move_to(crash.events());
    EXPECT_EQ(crash.atoms().size(), 2u);
    bool cut = false;
    for (const Fate& fate : crash.fates(100, 1)) {
      const auto content = crash.image(fate).content("/data");
      for (const size_t at : {size_t{0}, size_t{4096}}) {
        cut |= content[at] != content[at + 4095];
        EXPECT_EQ(content[at], content[at + 511]);
      }
    }
    EXPECT_EQ(cut, torn);
  }
}

TEST(Crash, many_atoms_are_sampled_within_the_budget_without_repetition) {
  World world = prepared();
  SimIo io(world, 1, {.order = Order::immediate});
  io.run([&] {
    auto file = io.open("/f", {}).take();
    for (uint64_t i = 0; i < 5; ++i) {
      const auto bytes = fill(2048, i + 1);
      EXPECT_TRUE(io.write(*file, i * 1024, View(bytes)));
    }
  });
  Crash crash(world);
  crash.move_to(crash.events());
  EXPECT_EQ(crash.atoms().size(), 20u);
  const std::vector<Fate> fates = crash.fates(500, 9);
  EXPECT_EQ(fates.size(), 500u);
  std::set<uint64_t> keys;
  for (const Fate& fate : fates) keys.insert(crash.key(fate));
  EXPECT_EQ(keys.size(), 500u);
  // Nothing and everything are always among them, and everything is what the program saw.
  EXPECT_EQ(crash.image(fates[0]).content("/f"), fill(8192, 0));
  EXPECT_EQ(crash.image(fates[1]).content("/f"), world.content("/f"));
  EXPECT_NE(crash.describe(fates[2]).find("of 20 atoms"), std::string::npos);
  for (size_t i = 0; i < fates.size(); ++i) {  // The same seed, the same fates.
    EXPECT_EQ(crash.key(crash.fates(500, 9)[i]), crash.key(fates[i]));
    if (i == 3) break;
  }
}

TEST(Crash, a_failed_write_is_pending_as_far_as_it_came) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    World world = prepared();
    SimIo io(world, seed);
    io.add_fault({.verb = Verb::write});
    io.run([&] {
      auto file = io.open("/f", {}).take();
      const auto bytes = fill(2048, 7);
      EXPECT_FALSE(io.write(*file, 0, View(bytes)));
      EXPECT_TRUE(io.flush(*file));
    });
    Crash crash(world);
    crash.move_to(crash.events());
    EXPECT_EQ(crash.atoms().size(), 0u);
    EXPECT_EQ(crash.image(crash.fates(1, 1)[0]).content("/f"), world.content("/f"));
  }
}

// --- a toy that keeps a promise: the typical bug of the field must be convicted

struct Slot {
  le32 crc;
  le32 spare;
  le64 sequence;
  std::array<std::byte, 1004> rest{};
  le32 data_crc;  // In the other sector than the sequence.
};
static_assert(OnDisk<Slot, 1024>);

struct Toy {
  bool flush_data = true;
  bool flush_slot = true;
  bool check_crc = true;
  bool alternate = true;

  uint64_t slot_of(uint64_t sequence) const { return alternate ? sequence % 2 : 0; }
  uint32_t crc_of(const Slot& slot) const { return crc32c(view_of(slot).subspan(4)); }

  void commit(SimIo& io, File& data, File& super, uint64_t sequence) const {
    const auto bytes = fill(1024, sequence);
    EXPECT_TRUE(io.write(data, (sequence % 2) * 1024, View(bytes)));
    if (flush_data) {
      EXPECT_TRUE(io.flush(data));
    }
    Slot slot;
    slot.sequence = sequence;
    slot.data_crc = crc32c(bytes);
    slot.rest.fill(static_cast<std::byte>(sequence));
    slot.crc = crc_of(slot);
    EXPECT_TRUE(io.write(super, slot_of(sequence) * 1024, view_of(slot)));
    if (flush_slot) {
      EXPECT_TRUE(io.flush(super));
    }
  }
  // The sequence found; -1 when nothing can be trusted.
  int64_t recover(SimIo& io) const {
    auto data = io.open("/bulk", {.writable = false}).take();
    auto super = io.open("/super", {.writable = false}).take();
    int64_t best = -1;
    for (uint64_t i = 0; i < 2; ++i) {
      Slot slot;
      std::vector<std::byte> bytes(1024);
      EXPECT_TRUE(io.read(*super, i * 1024, bytes_of(slot)));
      if (check_crc && slot.crc != crc_of(slot)) continue;
      EXPECT_TRUE(io.read(*data, (slot.sequence % 2) * 1024, Bytes(bytes)));
      const bool whole = slot.data_crc == crc32c(bytes);
      const auto sequence = static_cast<int64_t>(slot.sequence.get());
      if (sequence > best) best = whole ? sequence : -2;
    }
    return best;
  }
};

struct Verdict {
  uint64_t images = 0;
  uint64_t violations = 0;
};

Verdict enumerate(const Toy& toy) {
  World world;
  SimIo io(world, 1);
  io.run([&] {
    auto data = io.open("/bulk", {.create = true}).take();
    auto super = io.open("/super", {.create = true}).take();
    EXPECT_TRUE(io.resize(*super, 2048));
    toy.commit(io, *data, *super, 0);
    toy.commit(io, *data, *super, 1);
    world.settle();
    world.mark(1);
    for (uint64_t sequence = 2; sequence < 6; ++sequence) {
      toy.commit(io, *data, *super, sequence);
      world.mark(sequence);
    }
  });
  Verdict verdict;
  Crash crash(world);
  for (const size_t moment : crash.moments()) {
    crash.move_to(moment);
    for (const Fate& fate : crash.fates(64, moment)) {
      World after = crash.image(fate);
      SimIo again(after, 1, {.order = Order::immediate});
      int64_t found = -1;
      again.run([&] { found = toy.recover(again); });
      const auto acked = static_cast<int64_t>(crash.last_mark());
      ++verdict.images;
      if (found < acked || found > acked + 1) ++verdict.violations;
    }
  }
  return verdict;
}

TEST(CrashToy, two_slots_and_two_flushes_keep_the_promise) {
  const Verdict verdict = enumerate({});
  EXPECT_EQ(verdict.violations, 0u);
  EXPECT_GT(verdict.images, 40u);
}
TEST(CrashToy, a_missing_flush_of_data_is_convicted) {
  EXPECT_GT(enumerate({.flush_data = false}).violations, 0u);
}
TEST(CrashToy, a_missing_flush_of_the_slot_is_convicted) {
  EXPECT_GT(enumerate({.flush_slot = false}).violations, 0u);
}
TEST(CrashToy, torn_slots_are_seen_when_nobody_checks_them) {
  EXPECT_GT(enumerate({.check_crc = false}).violations, 0u);
}
TEST(CrashToy, one_slot_is_not_enough) {
  EXPECT_GT(enumerate({.alternate = false}).violations, 0u);
}

}  // namespace
}  // namespace firn::sim
