// SPDX-License-Identifier: Apache-2.0
// Two writers on one tree: taking over, a writer that stalls and wakes up after everybody has
// forgotten it, answers that get lost, a log that comes back too late.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include "sim/sim_io.h"
#include "store/lsm.h"
#include "store/lsm_test_store.h"

namespace firn::store {
namespace {

using namespace std::chrono_literals;

struct TwoHosts {
  explicit TwoHosts(uint64_t seed = 1) : io(world, seed) {
    world.record(false);
    world.make_directory("/a");
    world.make_directory("/b");
    how.background = false;
    how.readers_grace = 1s;
    how.catalogs_kept = 2;
  }
  std::unique_ptr<Lsm> open(const std::string& directory) {
    auto opened = Lsm::open(io, store, directory, how);
    EXPECT_TRUE(opened) << text_of(opened.error());
    return opened ? opened.take() : nullptr;
  }
  void put(Lsm& lsm, std::string_view key, std::string_view value) {
    LsmBatch batch;
    batch.put(key, value);
    const auto written = lsm.write(io, std::move(batch));
    EXPECT_TRUE(written) << text_of(written.error());
  }
  std::string get(Lsm& lsm, std::string_view key) {
    const auto found = lsm.get(io, key);
    return found ? found->value_or("nothing") : std::string(name_of(found.error().code));
  }
  std::string seen(std::string_view key) {
    const auto reader = Lsm::open_reader(io, store, how);
    EXPECT_TRUE(reader);
    return get(**reader, key);
  }
  sim::World world;
  sim::SimIo io;
  TestStore store;
  LsmHow how;
};

TEST(LsmFence, the_former_writer_learns_at_its_next_publish) {
  TwoHosts hosts;
  hosts.io.run([&] {
    const auto a = hosts.open("/a");
    hosts.put(*a, "k", "a1");
    EXPECT_TRUE(a->transfer(hosts.io));
    hosts.put(*a, "k", "a2");
    const auto b = hosts.open("/b");
    EXPECT_EQ(hosts.get(*b, "k"), "a1");
    hosts.put(*b, "k", "b1");
    const auto fenced = a->transfer(hosts.io);
    ASSERT_FALSE(fenced);
    EXPECT_EQ(fenced.error().code, Errc::fenced) << text_of(fenced.error());
    EXPECT_TRUE(a->stats().fenced);
    LsmBatch batch;
    batch.put("k", "a3");
    EXPECT_EQ(a->write(hosts.io, std::move(batch)).error().code, Errc::fenced);
    EXPECT_EQ(a->sync(hosts.io).error().code, Errc::fenced);
    EXPECT_EQ(a->collect(hosts.io).error().code, Errc::fenced);
    EXPECT_TRUE(b->transfer(hosts.io));
    EXPECT_EQ(hosts.seen("k"), "b1");
    EXPECT_TRUE(a->close(hosts.io));
    EXPECT_TRUE(b->close(hosts.io));
  });
}

// The classic loss: A's catalog number is taken by B, B goes on, prunes the number, and then A's
// request arrives and makes the object. A must not acknowledge, and nobody may see it.
TEST(LsmFence, a_writer_that_sleeps_until_its_number_is_free_again_is_fenced) {
  for (const bool hint_lost : {false, true}) {
    TwoHosts hosts;
    hosts.io.run([&] {
      const auto a = hosts.open("/a");
      hosts.put(*a, "k", "a1");
      EXPECT_TRUE(a->transfer(hosts.io));
      hosts.put(*a, "k", "a2");
      WaitList asleep;
      bool sleeping = false;
      hosts.store.before_put = [&](const std::string& key) {
        if (sleeping || key.find("catalog") == std::string::npos) return;
        sleeping = true;
        hosts.io.park(asleep);
      };
      std::optional<Errc> outcome;
      Group group(hosts.io);
      hosts.io.spawn(group, [&] {
        const auto moved = a->transfer(hosts.io);
        EXPECT_FALSE(moved);
        outcome = moved.error().code;
      });
      while (!sleeping) hosts.io.sleep(1ms);
      const std::string number = fmt::format("m/catalog/{:016x}", a->stats().version + 1);
      const auto b = hosts.open("/b");
      EXPECT_TRUE(hosts.store.objects.contains(number)) << "taken by the takeover";
      for (int i = 0; hosts.store.objects.contains(number); ++i) {
        ASSERT_LT(i, 200);
        hosts.put(*b, "k", fmt::format("b{}", i));
        EXPECT_TRUE(b->transfer(hosts.io));
        EXPECT_TRUE(b->collect(hosts.io));
        hosts.io.sleep(2s);
      }
      hosts.put(*b, "k", "last");
      EXPECT_TRUE(b->transfer(hosts.io));
      hosts.io.wake(asleep, 1);
      group.wait();
      EXPECT_TRUE(hosts.store.objects.contains(number)) << "A's request went through";
      EXPECT_EQ(outcome, Errc::fenced);
      if (hint_lost) hosts.store.objects.erase("m/newest");
      EXPECT_EQ(hosts.seen("k"), "last");
      EXPECT_TRUE(a->close(hosts.io));
      EXPECT_TRUE(b->close(hosts.io));
      const auto c = hosts.open("/b");
      EXPECT_EQ(hosts.get(*c, "k"), "last");
      EXPECT_TRUE(c->collect(hosts.io));
      EXPECT_FALSE(hosts.store.objects.contains(number)) << "what it left is removed";
      EXPECT_TRUE(c->close(hosts.io));
    });
  }
}

// The collector must not take what a younger writer has put and not yet published, nor must a
// fenced one remove anything.
TEST(LsmFence, a_fenced_collector_removes_nothing) {
  TwoHosts hosts;
  hosts.io.run([&] {
    const auto a = hosts.open("/a");
    for (int i = 0; i < 5; ++i) {
      hosts.put(*a, "k", fmt::format("a{}", i));
      EXPECT_TRUE(a->transfer(hosts.io));
    }
    EXPECT_TRUE(a->compact(hosts.io));
    EXPECT_GT(a->stats().retired_objects, 0U);
    hosts.io.sleep(5s);
    const auto b = hosts.open("/b");
    const size_t objects = hosts.store.objects.size();
    EXPECT_EQ(a->collect(hosts.io).error().code, Errc::fenced);
    EXPECT_EQ(hosts.store.objects.size(), objects);
    EXPECT_EQ(hosts.get(*b, "k"), "a4");
    EXPECT_TRUE(b->close(hosts.io));
    static_cast<void>(a->close(hosts.io).has_value());
  });
}

TEST(LsmFence, what_a_takeover_left_in_the_old_log_is_refused_not_replayed) {
  TwoHosts hosts;
  hosts.io.run([&] {
    auto a = hosts.open("/a");
    hosts.put(*a, "k", "a1");
    EXPECT_TRUE(a->sync(hosts.io));
    a.reset();  // Host A dies.
    const auto b = hosts.open("/b");
    hosts.put(*b, "k", "b1");
    EXPECT_TRUE(b->transfer(hosts.io));
    const auto refused = Lsm::open(hosts.io, hosts.store, "/a", hosts.how);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::fenced);
    hosts.put(*b, "k", "b2");
    EXPECT_TRUE(b->transfer(hosts.io)) << "a refused one fences nobody";
    hosts.how.drop_stale_log = true;
    a = hosts.open("/a");
    EXPECT_EQ(hosts.get(*a, "k"), "b2");
    EXPECT_TRUE(a->close(hosts.io));
    static_cast<void>(b->close(hosts.io).has_value());
  });
}

TEST(LsmFence, one_process_at_a_time_uses_a_log) {
  TwoHosts hosts;
  hosts.io.run([&] {
    const auto a = hosts.open("/a");
    const auto again = Lsm::open(hosts.io, hosts.store, "/a", hosts.how);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, Errc::busy);
    hosts.put(*a, "k", "v");
    EXPECT_TRUE(a->transfer(hosts.io)) << "and is not fenced by it";
    EXPECT_TRUE(a->close(hosts.io));
  });
}

// Writers that take the tree from each other in turn, with a store that loses answers: what each
// acknowledged by a transfer is there for all that come after.
TEST(LsmFence, writers_in_turn_lose_nothing_that_was_published) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    TwoHosts hosts(seed);
    hosts.how.drop_stale_log = true;
    hosts.io.run([&] {
      Prng prng(seed);
      std::map<std::string, std::string> published;
      std::unique_ptr<Lsm> writers[2];
      for (int step = 0; step < 60; ++step) {
        const size_t who = prng.below(2);
        auto& lsm = writers[who];
        hosts.store.lose_ack_one_in = 0;
        if (!lsm || lsm->stats().fenced || prng.one_in(12)) {
          lsm.reset();
          lsm = hosts.open(who == 0 ? "/a" : "/b");
          if (!lsm) return;
          for (const auto& [key, value] : published) ASSERT_EQ(hosts.get(*lsm, key), value);
        }
        hosts.store.lose_ack_one_in = 4;
        std::map<std::string, std::string> written;
        for (int i = 0; i < 5; ++i) {
          const std::string key = fmt::format("{}", prng.below(30));
          const std::string value = fmt::format("{} {} {}", who, step, i);
          LsmBatch batch;
          batch.put(key, value);
          if (lsm->write(hosts.io, std::move(batch))) written[key] = value;
        }
        const auto moved = lsm->transfer(hosts.io);
        if (moved) {
          for (const auto& [key, value] : written) published[key] = value;
        } else if (moved.error().code != Errc::fenced) {
          hosts.store.lose_ack_one_in = 0;  // In doubt: settled before anybody else writes.
          if (lsm->transfer(hosts.io)) {
            for (const auto& [key, value] : written) published[key] = value;
          }
        }
        if (lsm->stats().fenced) {
          // Its last generation may be there, whole, or not: ask who knows.
          hosts.store.lose_ack_one_in = 0;
          const auto reader = Lsm::open_reader(hosts.io, hosts.store, hosts.how);
          ASSERT_TRUE(reader);
          size_t there = 0;
          for (const auto& [key, value] : written) there += hosts.get(**reader, key) == value;
          EXPECT_TRUE(there == 0 || there == written.size()) << there;
          for (const auto& [key, value] : written) {
            if (there > 0) published[key] = value;
          }
        }
      }
      hosts.store.lose_ack_one_in = 0;
      for (const auto& [key, value] : published) EXPECT_EQ(hosts.seen(key), value);
    });
  }
}

}  // namespace
}  // namespace firn::store
