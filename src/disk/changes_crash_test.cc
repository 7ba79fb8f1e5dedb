// SPDX-License-Identifier: Apache-2.0
// Change tracking when the power fails, when calls fail, and when pages rot: never a block that
// differs and is not told (K1).
#include <gtest/gtest.h>

#include <cerrno>
#include <unordered_set>

#include "base/log.h"
#include "base/prng.h"
#include "disk/changes_test_util.h"
#include "sim/crash.h"

namespace firn::disk {
namespace {

constexpr uint64_t kBlocks = kTrackedBytes / kTrackedBlock;
constexpr uint64_t kSpots = 24;  // Blocks that are written to, over several regions.

uint64_t spot(uint64_t number) { return number * 26 % kBlocks * kTrackedBlock; }

using Content = std::array<uint64_t, kSpots>;

// What somebody read of the disk, who knew of event `since` when reading began.
struct Copy {
  uint64_t since = 0;
  Content content{};
};

Content content_of(const sim::World& world) {
  Content content{};
  for (uint64_t i = 0; i < kSpots; ++i) {
    content[i] = load<le64>(world.content(kTrackedFile, {spot(i), 8}));
  }
  return content;
}

// A random life of a tracked disk: writers, flushes, events, readers of the live disk.
class Life {
 public:
  Life(sim::World& world, uint64_t seed) : world_(world), seed_(seed), prng_(seed) {}

  void run(const sim::Fault* fault = nullptr) {
    sim::SimIo io(world_, seed_);
    io.run([&] {
      Tracked t(io);
      ASSERT_TRUE(t.open());
      known_ = t.tracker->now().counter;
      remember();
      if (fault != nullptr) io.add_fault(*fault);
      {
        Group clients(io);
        for (uint64_t i = 0; i < 3; ++i) io.spawn(clients, [&] { write_much(t); });
        io.spawn(clients, [&] { hold_events(t); });
        io.spawn(clients, [&] { flush_now_and_then(t); });
      }
      struck_ = fault != nullptr && io.fault(0).struck > 0;
      io.clear_faults();
      if (fault == nullptr && seed_ % 3 == 0) {
        ASSERT_TRUE(t.tracker->close(io));
        ASSERT_TRUE(t.pool->flush(io));
      }
      alive_ = t.tracker->active();
      if (fault != nullptr && alive_) judge_live(t);
      t.abandon();
    });
  }
  const std::vector<Copy>& copies() const { return copies_; }
  bool struck() const { return struck_; }

 private:
  void write_much(Tracked& t) {
    for (int step = 0; step < 14; ++step) {
      const uint64_t at = spot(prng_.below(kSpots));
      const uint64_t stamp = next_stamp_++;
      std::vector<std::byte> bytes(4096);
      std::memcpy(bytes.data(), &stamp, sizeof stamp);
      auto flight = t.tracker->intend(t.io, {at, bytes.size()});
      if (!flight) continue;
      (void)t.io.write(*t.file, at, View(bytes));
      flight->mark();  // Failed or not: it was in place, nobody knows.
      if (prng_.one_in(6)) (void)t.io.flush(*t.file);
      if (prng_.one_in(5)) remember();
    }
  }
  void hold_events(Tracked& t) {
    for (int step = 0; step < 5; ++step) {
      t.io.sleep(std::chrono::microseconds(prng_.below(1500)));
      const auto id = t.event();
      if (!id) continue;
      known_ = id->counter;
      remember();
    }
  }
  void flush_now_and_then(Tracked& t) {
    for (int step = 0; step < 6; ++step) {
      t.io.sleep(std::chrono::microseconds(prng_.below(1200)));
      if (prng_.one_in(3)) {
        (void)t.pool->pages().write_home(t.io);
      } else {
        (void)t.tracker->flush(t.io);
      }
    }
  }
  void remember() {
    world_.mark(copies_.size());
    copies_.push_back({known_, content_of(world_)});
  }
  void judge_live(Tracked& t) {
    const Content now = content_of(world_);
    for (const Copy& copy : copies_) {
      const RunList list = t.changed(copy.since);
      for (uint64_t i = 0; i < kSpots; ++i) {
        EXPECT_TRUE(now[i] == copy.content[i] || list.covers(spot(i))) << "live, spot " << i;
      }
    }
  }

  sim::World& world_;
  uint64_t seed_;
  Prng prng_;
  uint64_t next_stamp_ = 1;
  uint64_t known_ = 0;
  std::vector<Copy> copies_;
  bool struck_ = false;
  bool alive_ = true;
};

sim::World begun() {
  sim::World world;
  sim::SimIo io(world, 1, {.order = sim::Order::immediate});
  io.run([&] {
    Tracked::make(io);
    Tracked t(io);
    EXPECT_TRUE(t.open());
    EXPECT_TRUE(t.begin());
    t.close();
  });
  world.settle();
  return world;
}

// Opens what the crash left, and asks for everybody. False: something was missed.
bool judge(sim::World& image, std::span<const Copy> copies, const std::string& where,
           bool again = true) {
  bool good = true;
  const Content now = content_of(image);
  sim::SimIo io(image, 1, {.order = sim::Order::immediate});
  io.run([&] {
    Tracked t(io);
    const auto opened = t.open();
    if (!opened) {
      ADD_FAILURE() << where << ": " << text_of(opened.error());
      good = false;
      return;
    }
    const auto ask = [&](const char* when) {
      for (const Copy& copy : copies) {
        ChangeId id = t.tracker->now();
        id.counter = copy.since;
        const auto since = t.tracker->check(id);
        if (!since) {
          ADD_FAILURE() << where << when << ": " << text_of(since.error());
          good = false;
          return;
        }
        const RunList list = t.changed(*since);
        for (uint64_t i = 0; i < kSpots && good; ++i) {
          if (now[i] == copy.content[i] || list.covers(spot(i))) continue;
          ADD_FAILURE() << where << when << ": spot " << i << " at block "
                        << spot(i) / kTrackedBlock << " differs from the copy of event "
                        << copy.since << " and is not told; told are " << list.text();
          good = false;
        }
      }
    };
    ask("");
    if (good && again) {
      EXPECT_TRUE(t.event());
      ask(", after the next event");
    }
    t.abandon();
  });
  return good;
}

// Every moment while the budget lasts; the states that were judged.
uint64_t enumerate(uint64_t seed, uint64_t states_max) {
  sim::World world = begun();
  Life life(world, seed);
  life.run();
  if (testing::Test::HasFailure()) return 0;
  sim::Crash crash(world);
  std::unordered_set<uint64_t> seen;
  Prng prng(seed);
  uint64_t states = 0;
  const std::vector<size_t> moments = crash.moments();
  constexpr size_t kFates = 6;
  for (const size_t moment : moments) {
    if (prng.below(moments.size()) >= states_max / kFates) continue;
    crash.move_to(moment);
    const auto known = std::span(life.copies()).first(crash.last_mark() + 1);
    for (const sim::Fate& fate : crash.fates(kFates, seed + moment)) {
      if (!seen.insert(crash.key(fate) ^ (known.size() * 0x9e3779b97f4a7c15ULL)).second) continue;
      sim::World image = crash.image(fate);
      ++states;
      const std::string where = fmt::format("seed {} {}", seed, crash.describe(fate));
      if (!judge(image, known, where)) return states;
    }
  }
  return states;
}

class ChangesCrash : public testing::Test {
 protected:
  void SetUp() override {
    set_log_sink([](LogLevel, std::string_view) {});
  }
  void TearDown() override { set_log_sink(nullptr); }
};

TEST_F(ChangesCrash, K1_no_false_clean_at_any_moment_of_any_life) {
  uint64_t states = 0;
  for (uint64_t seed = 1; seed <= 40 && !HasFailure(); ++seed) states += enumerate(seed, 300);
  EXPECT_GT(states, 8000U);
  std::cout << "change tracking: " << states << " crash states\n";
}

TEST_F(ChangesCrash, K1_no_false_clean_when_a_call_fails_and_the_power_as_well) {
  uint64_t lives = 0;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    for (const int error : {EIO, ENOSPC}) {
      for (uint64_t nth = 1; !HasFailure(); ++nth) {
        SCOPED_TRACE(fmt::format("seed {}, call {} fails with {}", seed, nth, error));
        sim::World world = begun();
        Life life(world, seed);
        const sim::Fault fault{.files = "*", .verb = sim::Verb::any, .nth = nth, .error = error};
        life.run(&fault);
        if (!life.struck()) break;
        ++lives;
        sim::World left = world;
        left.record(false);
        judge(left, life.copies(), "as it is");
      }
    }
  }
  EXPECT_GT(lives, 400U);
  std::cout << "change tracking: " << lives << " lives with one failure\n";
}

// --- pages that rot

store::PageNo page_of(const store::PageStore& pages, store::PageKind kind) {
  for (store::PageNo no = 0; no < pages.groups() * format::kGroupPages; ++no) {
    if (!format::is_info_page(no) && static_cast<store::PageKind>(pages.info(no).kind) == kind) {
      return no;
    }
  }
  ADD_FAILURE() << "no such page";
  return 0;
}

// A disk with changes of event 2 at spots 1 and 2, and a page of `kind` whose bytes are wrong.
sim::World rotten(store::PageKind kind, bool killed, uint64_t bytes = kTrackedBytes) {
  sim::World world;
  store::PageNo page = 0;
  sim::SimIo io(world, 1, {.order = sim::Order::immediate});
  io.run([&] {
    Tracked::make(io, bytes);
    Tracked t(io);
    EXPECT_TRUE(t.open());
    EXPECT_TRUE(t.begin());
    EXPECT_TRUE(t.write(spot(1), 'a'));
    t.close();  // A page whose birth is in the journal would be made whole by replay.
    EXPECT_TRUE(t.open());
    EXPECT_TRUE(t.write(spot(2), 'a'));
    EXPECT_TRUE(t.event());
    EXPECT_TRUE(t.pool->flush(io));
    EXPECT_TRUE(t.pool->pages().write_all_home(io));
    page = page_of(t.pool->pages(), kind);
    if (!killed) return t.close();
    t.abandon();
  });
  world.flip_bit("/p/meta", page * kPageBytes + 4000, 3);
  return world;
}

TEST_F(ChangesCrash, P3_a_rotten_page_of_the_log_makes_its_blocks_count_as_changed) {
  sim::World world = rotten(store::PageKind::change_log, false);
  sim::SimIo io(world, 1);
  io.run([&] {
    Tracked t(io);
    ASSERT_TRUE(t.open());
    EXPECT_EQ(t.changed(2).bytes(), kTrackedBytes);
    EXPECT_EQ(t.tracker->counters().lost_log_pages, 1U);
    ASSERT_TRUE(t.write(spot(3), 'b'));
    ASSERT_EQ(t.event().take().counter, 3U) << "it is made anew";
    EXPECT_EQ(t.changed(2).bytes(), kTrackedBytes);
    EXPECT_EQ(t.changed(3).text(), "");
    ASSERT_TRUE(t.write(spot(4), 'b'));
    ASSERT_EQ(t.event().take().counter, 4U);
    EXPECT_EQ(t.changed(3).bytes(), kTrackedBlock) << "and is exact again";
    t.close();
  });
}

TEST_F(ChangesCrash, P3_a_rotten_page_of_intents_makes_its_blocks_count_as_changed) {
  sim::World world = rotten(store::PageKind::change_intents, true);
  sim::SimIo io(world, 1);
  io.run([&] {
    Tracked t(io);
    ASSERT_TRUE(t.open());
    EXPECT_EQ(t.changed(2).bytes(), kTrackedBytes);
    ASSERT_TRUE(t.write(spot(3), 'b'));
    ASSERT_EQ(t.event().take().counter, 3U);
    EXPECT_EQ(t.changed(3).text(), "");
    t.close();
    ASSERT_TRUE(t.open());
    EXPECT_EQ(t.changed(3).text(), "");
    t.close();
  });
}

TEST_F(ChangesCrash, P3_a_rotten_index_page_ends_the_tracking_and_not_the_disk) {
  // Two pages of log or more have an index page above them.
  sim::World world = rotten(store::PageKind::change_log, true, 10 * kGiB);
  sim::SimIo io(world, 1);
  io.run([&] {
    Tracked t(io);
    ASSERT_TRUE(t.open());
    {  // Another leaf, so that there is an index page; then that one rots.
      auto flight = t.tracker->intend(io, {9 * kGiB, 4096}).take();
      flight.mark();
    }
    ASSERT_TRUE(t.event());
    ASSERT_TRUE(t.pool->flush(io));
    t.close();
  });
  store::PageNo page = 0;
  io.run([&] {
    Tracked t(io);
    ASSERT_TRUE(t.open());
    const auto record = load<format::ChangesRecord>(t.catalog->pin(io, 0).take().page.view());
    EXPECT_GT(static_cast<int>(record.log.level), 0);
    page = record.log.page;
    t.close();
  });
  world.flip_bit("/p/meta", page * kPageBytes + 40, 3);
  io.run([&] {
    Tracked t(io);
    ASSERT_TRUE(t.open());
    const ChangeId id = t.tracker->now();
    EXPECT_EQ(t.changed(id.counter).bytes(), 10 * kGiB) << "nothing is known, all is told";
    ASSERT_TRUE(t.write(spot(3), 'b')) << "the guest does not notice";
    const auto refused = t.event();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::corrupt);
    EXPECT_FALSE(t.tracker->active());
    ASSERT_TRUE(t.write(spot(4), 'b'));
    EXPECT_NE(text_of(t.tracker->check(id).error()).find("full copy needed"), std::string::npos);
    ASSERT_TRUE(t.begin()) << "tracking begins anew";
    EXPECT_TRUE(t.event());
    t.close();
  });
}

TEST_F(ChangesCrash, no_room_for_an_intent_ends_the_tracking_and_not_the_write) {
  sim::World world;
  sim::SimIo io(world, 1);
  io.run([&] {
    Tracked::make(io);
    Tracked t(io);
    ASSERT_TRUE(t.open());
    ASSERT_TRUE(t.begin());
    const ChangeId id = t.tracker->now();
    std::vector<store::PageReservation> all;  // Every free page.
    io.add_fault(
        {.files = "*/meta", .verb = sim::Verb::write, .and_all_later = true, .error = ENOSPC});
    while (true) {
      auto page = t.pool->pages().reserve(io);
      if (!page) break;
      all.push_back(page.take());
    }
    EXPECT_TRUE(t.write(spot(3), 'b')) << "the guest comes first";
    EXPECT_FALSE(t.tracker->active());
    EXPECT_FALSE(t.tracker->check(id));
    io.clear_faults();
    all.clear();
    t.abandon();
    ASSERT_TRUE(t.open());
    EXPECT_FALSE(t.tracker->active()) << "it was durable before the write";
    EXPECT_FALSE(t.tracker->check(id));
    t.close();
  });
}

}  // namespace
}  // namespace firn::disk
