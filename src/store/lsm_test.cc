// SPDX-License-Identifier: Apache-2.0
// What the tree in the bucket must show: generations, parallel transfers, triggers, requests,
// back-pressure, damage.
#include "store/lsm.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "sim/sim_io.h"
#include "store/lsm_cache.h"
#include "store/lsm_test_store.h"

namespace firn::store {
namespace {

using namespace std::chrono_literals;

struct Place {
  explicit Place(uint64_t seed = 1) : io(world, seed) {
    world.record(false);
    world.make_directory("/log");
    how.capacity_bytes = 1 * kMiB;
    how.interval = 1h;
    how.table_bytes = 64 * kKiB;
  }
  std::unique_ptr<Lsm> open() {
    auto opened = Lsm::open(io, store, "/log", how);
    EXPECT_TRUE(opened) << text_of(opened.error());
    return opened ? opened.take() : nullptr;
  }
  std::unique_ptr<Lsm> reader(uint64_t version = 0) {
    auto opened = Lsm::open_reader(io, store, how, version);
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
    if (!found) return std::string(name_of(found.error().code));
    return found->value_or("nothing");
  }
  sim::World world;
  sim::SimIo io;
  TestStore store;
  LsmHow how;
};

TEST(Lsm, a_transfer_makes_the_live_cache_stable_and_its_clone_live) {
  Place place;
  place.store.put_time = 500ms;
  place.io.run([&] {
    const auto lsm = place.open();
    place.put(*lsm, "old", "1");
    place.put(*lsm, "both", "1");
    const LsmStats before = lsm->stats();
    EXPECT_EQ(before.live_generation, 1U);
    EXPECT_EQ(before.stable_generation, 0U);
    uint64_t version = 0;
    Group group(place.io);
    place.io.spawn(group, [&] {
      const auto moved = lsm->transfer(place.io);
      if (moved) version = *moved;
    });
    place.io.sleep(100ms);
    const LsmStats during = lsm->stats();
    EXPECT_EQ(during.stable_generation, 1U);
    EXPECT_EQ(during.live_generation, 2U);
    EXPECT_EQ(during.stable_root, before.live_root) << "the same tree";
    EXPECT_EQ(during.live_root, before.live_root) << "a clone copies nothing";
    place.put(*lsm, "new", "2");
    place.put(*lsm, "both", "2");
    EXPECT_NE(lsm->stats().live_root, during.stable_root);
    while (version == 0) {  // Readable at every moment, with the right content.
      EXPECT_EQ(place.get(*lsm, "old"), "1");
      EXPECT_EQ(place.get(*lsm, "both"), "2");
      place.io.sleep(10ms);
    }
    group.wait();
    EXPECT_EQ(lsm->stats().stable_generation, 0U);
    const auto then = place.reader(version);
    EXPECT_EQ(place.get(*then, "both"), "1") << "the state at the instant of the transfer";
    EXPECT_EQ(place.get(*then, "new"), "nothing");
    EXPECT_TRUE(lsm->transfer(place.io));
    EXPECT_EQ(place.get(*then, "new"), "nothing") << "a version does not change";
    EXPECT_TRUE(then->refresh(place.io));
    EXPECT_EQ(place.get(*then, "new"), "2");
    EXPECT_EQ(place.get(*then, "both"), "2");
    EXPECT_TRUE(lsm->close(place.io));
  });
}

TEST(Lsm, the_interval_starts_a_transfer) {
  Place place;
  place.how.interval = 5s;
  place.io.run([&] {
    const auto lsm = place.open();
    for (int round = 0; round < 3; ++round) {
      place.io.sleep(7s);
      const uint64_t before = place.store.count("put m/table");
      const Time begin = place.io.now();
      place.put(*lsm, "a", "b");
      while (place.store.count("put m/table") == before) place.io.sleep(1ms);
      EXPECT_GE(place.io.now() - begin, 5s);
      EXPECT_LE(place.io.now() - begin, 5500ms);
    }
    EXPECT_TRUE(lsm->close(place.io));
  });
}

TEST(Lsm, exceeded_capacity_starts_a_transfer) {
  Place place;
  place.io.run([&] {
    const auto lsm = place.open();
    const std::string value(64 * kKiB, 'v');
    for (int i = 0; i < 15; ++i) place.put(*lsm, fmt::format("{}", i), value);
    place.io.sleep(30min);
    EXPECT_EQ(place.store.count("put m/table"), 0U);
    for (int i = 15; i < 17; ++i) place.put(*lsm, fmt::format("{}", i), value);
    place.io.sleep(1s);
    EXPECT_GE(place.store.count("put m/table"), 1U);
    EXPECT_EQ(lsm->stats().transfers, 1U);
    EXPECT_TRUE(lsm->close(place.io));
  });
}

TEST(Lsm, nothing_is_asked_of_the_store_while_nothing_happens) {
  Place place;
  place.io.run([&] {
    const auto lsm = place.open();
    place.put(*lsm, "a", "b");
    EXPECT_TRUE(lsm->transfer(place.io));
    place.io.sleep(10s);
    const size_t before = place.store.requests.size();
    place.io.sleep(1h);
    EXPECT_EQ(place.store.requests.size(), before);
    EXPECT_TRUE(lsm->close(place.io));
  });
}

TEST(Lsm, the_store_sees_tables_and_catalogs_made_once) {
  Place place;
  place.io.run([&] {
    auto lsm = place.open();
    place.store.requests.clear();
    for (int round = 0; round < 30; ++round) {
      for (int i = 0; i < 100; ++i) {
        place.put(*lsm, fmt::format("{}", i * 7 % 100 + round), std::string(1000, 'x'));
      }
      EXPECT_TRUE(lsm->transfer(place.io));
    }
    place.io.sleep(1min);
    EXPECT_EQ(place.store.count("list"), 2U) << "orphans, once";
    for (const std::string& request : place.store.requests) {
      if (!request.starts_with("put ")) continue;
      EXPECT_TRUE(request.starts_with("put m/table/") || request.starts_with("put m/catalog/") ||
                  request == "put m/newest")
          << request;
    }
    for (const std::string& key : place.store.overwritten) EXPECT_EQ(key, "m/newest");
    EXPECT_GT(lsm->stats().compactions, 0U);
    EXPECT_LE(lsm->stats().runs, 9U);
    EXPECT_TRUE(lsm->close(place.io));
  });
}

TEST(Lsm, a_reader_asks_little) {
  Place place;
  place.how.compress = false;
  place.io.run([&] {
    const auto lsm = place.open();
    for (int i = 0; i < 5000; ++i) place.put(*lsm, fmt::format("{:05}", i), std::string(100, 'x'));
    EXPECT_TRUE(lsm->transfer(place.io));
    EXPECT_GT(lsm->stats().tables, 3U);
    EXPECT_TRUE(lsm->close(place.io));
    place.store.requests.clear();
    const auto reader = place.reader();
    EXPECT_EQ(place.store.count("get m/catalog"), 1U);
    EXPECT_EQ(place.store.count("list"), 0U);
    EXPECT_EQ(place.store.count("head"), 2U) << "the one that the hint names, and the next";
    EXPECT_EQ(place.store.count("get m/table"), 0U);
    EXPECT_EQ(place.get(*reader, "01234"), std::string(100, 'x'));
    EXPECT_EQ(place.store.count("get m/table"), 2U) << "an index and a block";
    EXPECT_EQ(place.get(*reader, "01234"), std::string(100, 'x'));
    EXPECT_EQ(place.store.count("get m/table"), 2U) << "remembered";
    EXPECT_EQ(place.get(*reader, "01240"), std::string(100, 'x'));
    EXPECT_EQ(place.store.count("get m/table"), 3U) << "the index is known";
    EXPECT_EQ(place.get(*reader, "01234x"), "nothing");
    EXPECT_EQ(reader->stats().filtered, 1U);
    LsmBatch batch;
    batch.put("a", "b");
    EXPECT_EQ(reader->write(place.io, std::move(batch)).error().code, Errc::invalid);
    EXPECT_EQ(reader->transfer(place.io).error().code, Errc::invalid);
    EXPECT_TRUE(reader->close(place.io));
  });
}

// p99 of durable writes while tables and catalogs take 500 ms a PUT, in simulated time.
TEST(Lsm, writers_do_not_feel_a_transfer) {
  Place place(7);
  place.how.capacity_bytes = 64 * kMiB;
  place.store.put_time = 500ms;
  place.io.run([&] {
    const auto lsm = place.open();
    const auto measure = [&](int writes) {
      std::vector<Duration> times;
      for (int i = 0; i < writes; ++i) {
        const Time begin = place.io.now();
        place.put(*lsm, fmt::format("{}", i % 700), std::string(4096, 'v'));
        EXPECT_TRUE(lsm->sync(place.io));
        times.push_back(place.io.now() - begin);
        place.io.sleep(100us);
      }
      std::ranges::sort(times);
      return times[times.size() * 99 / 100];
    };
    const Duration idle = measure(2000);
    bool over = false;
    Group group(place.io);
    place.io.spawn(group, [&] {
      EXPECT_TRUE(lsm->transfer(place.io));
      over = true;
    });
    const Duration busy = measure(1500);
    EXPECT_FALSE(over) << "all of it was measured during the transfer";
    EXPECT_LE(busy, 2 * idle);
    group.wait();
    EXPECT_EQ(lsm->stats().latch_max, 0ns) << "no wait under the latch";
    EXPECT_TRUE(lsm->close(place.io));
  });
}

TEST(Lsm, a_clone_copies_nothing_at_any_size) {
  for (const int entries : {100, 20000}) {
    LsmCache cache;
    for (int i = 0; i < entries; ++i) cache.put(fmt::format("{}", i), std::string(100, 'x'), false);
    while (cache.sweep(1000)) {
    }
    const uint64_t before = cache.bytes();
    LsmCache::Snapshot stable = cache.freeze();
    EXPECT_EQ(cache.bytes(), before);
    cache.put("5", "changed", false);
    EXPECT_LE(cache.bytes() - before, 5000U) << "one path is copied, whatever the size";
    cache.put("5", "again", false);
    EXPECT_LE(cache.bytes() - before, 5000U) << "once a generation";
  }
}

// The store is gone for minutes: writes go on up to the limits, wait there, and nothing is lost.
TEST(Lsm, a_store_that_is_down_for_minutes_loses_nothing) {
  Place place;
  place.how.capacity_bytes = 256 * kKiB;
  place.io.run([&] {
    const auto lsm = place.open();
    place.put(*lsm, "before", "1");
    EXPECT_TRUE(lsm->transfer(place.io));
    place.store.down = true;
    int written = 0;
    bool through = false;
    Group group(place.io);
    place.io.spawn(group, [&] {
      for (; written < 1000; ++written) {
        place.put(*lsm, fmt::format("{}", written), std::string(4096, 'v'));
      }
      through = true;
    });
    place.io.sleep(5min);
    EXPECT_FALSE(through);
    EXPECT_GE(written, 2 * 60) << "free up to twice the capacity";
    EXPECT_LE(written, 3 * 64 + 1) << "and bounded";
    EXPECT_LE(lsm->stats().log_bytes, 3 * place.how.capacity_bytes + 8 * kKiB);
    EXPECT_GT(lsm->stats().delayed, 1s);
    EXPECT_TRUE(lsm->sync(place.io)) << "the log is durable all the same";
    EXPECT_EQ(place.get(*lsm, "0"), std::string(4096, 'v'));
    EXPECT_FALSE(lsm->transfer(place.io));
    place.store.down = false;
    group.wait();
    EXPECT_TRUE(through);
    EXPECT_TRUE(lsm->close(place.io));
    const auto reader = place.reader();
    for (int i = 0; i < 1000; ++i) {
      ASSERT_EQ(place.get(*reader, fmt::format("{}", i)), std::string(4096, 'v')) << i;
    }
  });
}

// Each catalog gets through at the second try, when the next transfer settles it first.
TEST(Lsm, publishes_that_are_always_settled_later_leave_no_log_behind) {
  Place place;
  place.how.background = false;
  place.io.run([&] {
    const auto lsm = place.open();
    for (int i = 0; i < 12; ++i) {
      const std::string key = fmt::format("{}", i);
      place.put(*lsm, key, "v");
      bool failed = false;
      place.store.before_put = [&](const std::string& name) {
        place.store.down =
            name.find("catalog/") != std::string::npos && !std::exchange(failed, true);
      };
      EXPECT_FALSE(lsm->transfer(place.io));
      place.store.down = false;
      place.store.before_put = nullptr;
      EXPECT_TRUE(lsm->transfer(place.io));
    }
    EXPECT_TRUE(lsm->close(place.io));
    const auto reader = place.reader();
    for (int i = 0; i < 12; ++i) EXPECT_EQ(place.get(*reader, fmt::format("{}", i)), "v");
  });
}

TEST(Lsm, a_hot_key_fills_neither_memory_nor_the_log) {
  Place place;
  place.how.capacity_bytes = 128 * kKiB;
  place.how.cache_bytes = 128 * kKiB;
  place.io.run([&] {
    const auto lsm = place.open();
    for (int i = 0; i < 3000; ++i) {
      place.put(*lsm, "hot", std::string(4096, 'v'));
      if (i % 100 == 0) place.io.sleep(1ms);
      ASSERT_LE(lsm->stats().log_bytes, 3 * place.how.capacity_bytes + 8 * kKiB);
      ASSERT_LE(lsm->stats().cache_bytes, 64 * kKiB);
    }
    EXPECT_TRUE(lsm->close(place.io));
  });
}

TEST(Lsm, memory_is_bounded_and_what_was_evicted_is_read_again) {
  Place place;
  place.how.capacity_bytes = 64 * kKiB;
  place.how.cache_bytes = 128 * kKiB;
  place.io.run([&] {
    const auto lsm = place.open();
    for (int i = 0; i < 3000; ++i) {
      place.put(*lsm, fmt::format("{:05}", i), fmt::format("{:0500}", i));
      if (i % 50 == 0) place.io.sleep(10ms);
      ASSERT_LE(lsm->stats().cache_bytes, 1 * kMiB);
    }
    EXPECT_GT(lsm->stats().evicted, 1000U);
    for (int i = 0; i < 3000; ++i) {
      ASSERT_EQ(place.get(*lsm, fmt::format("{:05}", i)), fmt::format("{:0500}", i));
    }
    EXPECT_TRUE(lsm->close(place.io));
  });
}

TEST(Lsm, what_was_flushed_stays_as_a_read_cache) {
  Place place;
  place.io.run([&] {
    const auto lsm = place.open();
    for (int i = 0; i < 100; ++i) place.put(*lsm, fmt::format("{}", i), "v");
    EXPECT_TRUE(lsm->transfer(place.io));
    const uint64_t gets = place.store.counters().gets;
    for (int i = 0; i < 100; ++i) EXPECT_EQ(place.get(*lsm, fmt::format("{}", i)), "v");
    EXPECT_EQ(place.store.counters().gets, gets);
    EXPECT_TRUE(lsm->close(place.io));
  });
}

// Every object of the bucket damaged in turn: an error that names it, or the right answer.
TEST(Lsm, damage_is_named_and_never_believed) {
  Place place;
  place.io.run([&] {
    const auto lsm = place.open();
    for (int i = 0; i < 300; ++i) place.put(*lsm, fmt::format("{}", i), std::string(100, 'x'));
    EXPECT_TRUE(lsm->close(place.io));
    const TestStore::Objects good = place.store.objects;
    Prng prng(3);
    for (const auto& [key, body] : good) {
      for (int kind = 0; kind < 12; ++kind) {
        place.store.objects = good;
        auto bytes = *body;
        if (kind == 0) bytes.clear();
        if (kind == 1) bytes.resize(bytes.size() / 2);
        if (kind == 2) bytes.push_back(std::byte{1});
        if (kind > 2) bytes[prng.below(bytes.size())] ^= std::byte{1} << prng.below(8);
        place.store.objects[key] = std::make_shared<const std::vector<std::byte>>(bytes);
        auto reader = Lsm::open_reader(place.io, place.store, place.how);
        if (!reader) {
          EXPECT_TRUE(key.find("catalog") != std::string::npos) << key;
          EXPECT_EQ(reader.error().code, Errc::corrupt) << text_of(reader.error());
          continue;
        }
        for (int i = 0; i < 300; i += 7) {
          const auto found = (*reader)->get(place.io, fmt::format("{}", i));
          if (!found) {
            EXPECT_EQ(found.error().code, Errc::corrupt) << text_of(found.error());
          } else {
            EXPECT_EQ(*found, std::string(100, 'x'));
          }
        }
      }
    }
    for (const auto& [key, body] : good) {  // A table that is missing.
      if (!key.starts_with("m/table/")) continue;
      place.store.objects = good;
      place.store.objects.erase(key);
      const auto reader = place.reader();
      EXPECT_EQ(place.get(*reader, "5"), "not_found");
    }
  });
}

TEST(Lsm, a_log_that_fails_stops_writes_and_the_cache_is_still_saved) {
  Place place;
  place.io.run([&] {
    auto lsm = place.open();
    place.put(*lsm, "a", "1");
    EXPECT_TRUE(lsm->sync(place.io));
    place.put(*lsm, "b", "2");
    place.io.add_fault({.files = "/log/log-*", .verb = sim::Verb::flush, .and_all_later = true});
    EXPECT_FALSE(lsm->sync(place.io));
    place.io.clear_faults();
    EXPECT_FALSE(lsm->sync(place.io)) << "a failed flush is final";
    LsmBatch batch;
    batch.put("c", "3");
    EXPECT_FALSE(lsm->write(place.io, std::move(batch)));
    EXPECT_TRUE(lsm->transfer(place.io)) << "what the cache has can be saved";
    EXPECT_TRUE(lsm->close(place.io));
    lsm.reset();
    lsm = place.open();
    EXPECT_EQ(place.get(*lsm, "a"), "1");
    EXPECT_EQ(place.get(*lsm, "b"), "2");
    EXPECT_TRUE(lsm->close(place.io));
  });
}

}  // namespace
}  // namespace firn::store
