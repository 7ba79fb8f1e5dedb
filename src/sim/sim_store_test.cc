// SPDX-License-Identifier: Apache-2.0
// The simulated store: the contract when it is quiet, and what is left of it when it is not.
#include "sim/sim_store.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "io/blocking_io.h"
#include "io/object_store_conformance.h"
#include "sim/sim_io.h"

namespace firn {
namespace {

using namespace std::chrono_literals;
using sim::RequestKind;
using sim::SimBucket;
using sim::SimIo;
using sim::SimStore;
using sim::SimStoreFaults;

void with_seed(uint64_t seed, const SimStoreFaults& faults,
               const std::function<void(Io&, SimStore&)>& what) {
  sim::World world;
  SimIo io(world, seed);
  SimBucket bucket;
  SimStore store(bucket, {.seed = seed, .patience = 600s, .faults = faults});
  io.run([&] { what(io, store); });
}

StoreWorld seeded(uint64_t seed) {
  return {fmt::format("seed_{}", seed), [seed](const std::function<void(Io&, ObjectStore&)>& what) {
            with_seed(seed, {.latency_min = 1ms, .latency_max = 50ms}, what);
          }};
}

StoreWorld blocking() {
  return {"blocking",
          [](const std::function<void(Io&, ObjectStore&)>& what) {
            BlockingIo io;
            SimBucket bucket;
            SimStore store(bucket);
            what(io, store);
          },
          false};
}

INSTANTIATE_TEST_SUITE_P(Sim, ObjectStores,
                         ::testing::Values(seeded(1), seeded(2), seeded(3), blocking()),
                         name_of_world);

constexpr SimStoreFaults kRough{.latency_min = 1ms,
                                .latency_max = 200ms,
                                .lost_one_in = 10,
                                .dropped_one_in = 10,
                                .throttled_one_in = 5,
                                .torn_one_in = 10,
                                .stalled_one_in = 20};

std::vector<std::byte> body_of(uint64_t writer, uint64_t round) {
  return store_test_bytes(1 + (writer * 31 + round * 17) % 500, writer * 1000 + round);
}

Result<void> put(Io& io, ObjectStore& store, const std::string& key, View body, bool once = false) {
  const ::iovec slice = slice_of(body);
  return store.put(io, key, Iovec(&slice, 1), {.once = once});
}

// One writer for each key, so that what must be read is known: the last body that was acknowledged.
TEST(RoughStore, keeps_what_it_acknowledged) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    with_seed(seed, kRough, [seed](Io& io, SimStore& store) {
      Group group(io);
      for (uint64_t writer = 0; writer < 6; ++writer) {
        io.spawn(group, [&io, &store, writer, seed] {
          const std::string key = fmt::format("w/{}", writer);
          for (uint64_t round = 0; round < 8; ++round) {
            const auto body = body_of(writer, round + seed);
            EXPECT_GOOD(put(io, store, key, body));
            const auto read = get_whole(io, store, key, 1000);
            ASSERT_TRUE(read) << text_of(read.error());
            EXPECT_TRUE(*read == body);
            const auto listed = store.list(io, key, "", 2);
            ASSERT_TRUE(listed && listed->size() == 1);
            EXPECT_EQ(listed->front().bytes, body.size());
            if (round % 3 != 2) continue;
            EXPECT_GOOD(store.remove(io, key));
            EXPECT_EQ(store.head(io, key).error().code, Errc::not_found);
          }
        });
      }
      group.wait();
      EXPECT_GT(store.counters().retries, 0u);
    });
  }
}

TEST(RoughStore, lets_exactly_one_writer_make_an_object_and_tells_them) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    with_seed(seed, kRough, [](Io& io, SimStore& store) {
      for (int round = 0; round < 3; ++round) {
        const std::string key = fmt::format("catalog/{}", round);
        std::set<uint64_t> winners;
        Group group(io);
        for (uint64_t writer = 0; writer < 5; ++writer) {
          io.spawn(group, [&io, &store, &key, &winners, writer] {
            const auto done = put_once(io, store, key, body_of(writer, 0));
            if (done) {
              winners.insert(writer);
            } else {
              EXPECT_EQ(done.error().code, Errc::exists) << text_of(done.error());
            }
          });
        }
        group.wait();
        ASSERT_EQ(winners.size(), 1u);
        EXPECT_TRUE(get_whole(io, store, key, 1000).take() == body_of(*winners.begin(), 0));
      }
    });
  }
}

TEST(RoughStore, lets_late_puts_arrive_after_newer_ones_but_never_over_what_is_there_once) {
  bool overtaken = false;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    with_seed(seed, {.late_one_in = 3}, [&overtaken](Io& io, SimStore& store) {
      for (uint64_t round = 0; round < 10; ++round) {
        EXPECT_GOOD(put(io, store, "often", body_of(1, round)));
        const std::string key = fmt::format("once/{}", round);
        EXPECT_GOOD(put_once(io, store, key, body_of(2, round)));
        EXPECT_EQ(put_once(io, store, key, body_of(3, round)).error().code, Errc::exists);
        EXPECT_TRUE(get_whole(io, store, key, 1000).take() == body_of(2, round));
        overtaken |= get_whole(io, store, "often", 1000).take() != body_of(1, round);
      }
      store.land();
      EXPECT_TRUE(get_whole(io, store, "once/0", 1000).take() == body_of(2, 0));
    });
  }
  EXPECT_TRUE(overtaken);
}

TEST(RoughStore, says_of_a_lost_acknowledgement_that_it_does_not_know) {
  with_seed(1, {.lost_one_in = 1}, [](Io& io, SimStore& store) {
    store.before = [&store](const sim::SimRequest& request) {
      if (request.number == 2) store.faults().lost_one_in = 0;
    };
    const auto done = put(io, store, "c/1", body_of(1, 1), true);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Errc::io) << text_of(done.error());
    EXPECT_TRUE(store.bucket().objects.contains("c/1"));
  });
}

TEST(RoughStore, waits_out_503s_until_its_patience_is_over) {
  with_seed(1, {}, [](Io& io, SimStore& store) {
    const Time begin = io.now();
    store.faults().throttled_until = begin + 120s;
    EXPECT_GOOD(put(io, store, "k", body_of(1, 1)));
    EXPECT_GE(io.now() - begin, 120s);
    EXPECT_LE(io.now() - begin, 130s);
    EXPECT_LT(store.counters().retries, 60u);
    store.faults().throttled_until = io.now() + 3600s;
    const auto late = put(io, store, "k", body_of(1, 2));
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Errc::timed_out) << text_of(late.error());
  });
}

TEST(RoughStore, is_the_same_for_the_same_seed) {
  const auto run = [](uint64_t seed) {
    uint64_t requests = 0;
    int64_t end = 0;
    with_seed(seed, kRough, [&](Io& io, SimStore& store) {
      for (uint64_t round = 0; round < 30; ++round) {
        EXPECT_GOOD(put(io, store, "k", body_of(1, round)));
      }
      requests = store.requests();
      end = io.now().since_origin.count();
    });
    return std::pair(requests, end);
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

TEST(SimStore, fails_the_request_it_was_told_to) {
  for (uint64_t nth = 1;; ++nth) {
    SimBucket bucket;
    SimStore store(bucket);
    BlockingIo io;
    store.fail_nth(nth, RequestKind::put, Errc::io);
    bool failed = false;
    for (uint64_t i = 0; i < 3; ++i) {
      failed |= !put(io, store, fmt::format("k{}", i), body_of(1, i));
      EXPECT_TRUE(store.list(io, "", "", 1));
    }
    EXPECT_EQ(failed, store.has_failed());
    EXPECT_EQ(bucket.objects.size(), failed ? 2u : 3u);
    if (!failed) {
      EXPECT_EQ(nth, 4u);
      break;
    }
  }
}

TEST(SimStore, dies_with_or_without_the_effect_and_stays_dead) {
  for (const bool after : {false, true}) {
    SimBucket bucket;
    SimStore store(bucket);
    BlockingIo io;
    store.kill_at(2, after);
    EXPECT_GOOD(put(io, store, "k1", body_of(1, 1)));
    EXPECT_EQ(put(io, store, "k2", body_of(1, 2)).error().code, Errc::cancelled);
    EXPECT_EQ(put(io, store, "k3", body_of(1, 3)).error().code, Errc::cancelled);
    EXPECT_EQ(store.head(io, "k1").error().code, Errc::cancelled);
    EXPECT_EQ(bucket.objects.size(), after ? 2u : 1u);
    SimStore other(bucket);
    EXPECT_TRUE(other.head(io, "k1"));
  }
}

TEST(SimStore, is_copied_at_each_request) {
  SimBucket bucket;
  SimStore store(bucket);
  BlockingIo io;
  std::vector<SimBucket> images;
  store.before = [&](const sim::SimRequest&) { images.push_back(bucket); };
  for (int i = 0; i < 3; ++i) EXPECT_GOOD(put(io, store, fmt::format("k{}", i), body_of(1, 1)));
  EXPECT_GOOD(store.remove(io, "k0"));
  ASSERT_EQ(images.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(images[i].objects.size(), i);
}

TEST(SimStore, lies_when_told_to) {
  SimBucket bucket;
  SimStore store(bucket);
  BlockingIo io;
  store.faults().ignores_once = true;
  EXPECT_GOOD(put(io, store, "c", body_of(1, 1), true));
  EXPECT_GOOD(put(io, store, "c", body_of(2, 1), true));
  store.faults().lists_late = true;
  EXPECT_TRUE(store.list(io, "", "", 10).take().empty());
  bucket.flip_bit("c", 3);
  EXPECT_FALSE(get_whole(io, store, "c", 1000).take() == body_of(2, 1));
  bucket.cut("c", 1);
  EXPECT_EQ(store.head(io, "c").take().bytes, 1u);
}

TEST(SimStore, freezes_and_thaws) {
  SimBucket bucket;
  SimStore store(bucket);
  BlockingIo io;
  const auto body = body_of(1, 1);
  const ::iovec slice = slice_of(View(body));
  EXPECT_GOOD(store.put(io, "deep", Iovec(&slice, 1), {.storage_class = "DEEP_ARCHIVE"}));
  const auto state = [&] { return store.head(io, "deep").take().state; };
  EXPECT_EQ(state(), ObjectInfo::State::frozen);
  EXPECT_EQ(get_whole(io, store, "deep", 1000).error().code, Errc::busy);
  EXPECT_GOOD(store.thaw(io, "deep", 2));
  EXPECT_EQ(state(), ObjectInfo::State::thawing);
  bucket.pass(13h);
  EXPECT_EQ(state(), ObjectInfo::State::ready);
  EXPECT_TRUE(get_whole(io, store, "deep", 1000).take() == body);
  bucket.pass(48h);
  EXPECT_EQ(state(), ObjectInfo::State::frozen);
  EXPECT_EQ(store.thaw(io, "none", 1).error().code, Errc::not_found);
}

TEST(SimStore, keeps_a_ledger) {
  SimBucket bucket;
  SimStore store(bucket);
  BlockingIo io;
  const std::vector<std::byte> body(10'000'000);
  const ::iovec slice = slice_of(View(body));
  const auto now = [&] { return store.wall_clock_ns(io).take(); };
  EXPECT_GOOD(store.put(io, "hot", Iovec(&slice, 1), {}));
  EXPECT_GOOD(store.put(io, "cold", Iovec(&slice, 1), {.storage_class = "GLACIER_IR"}));
  bucket.pass(std::chrono::hours(30 * 24));
  const double month = 0.01 * (0.023 + 0.004);
  EXPECT_NEAR(bucket.ledger.storage_fees(now()), month, month / 1e4);
  EXPECT_GOOD(store.remove(io, "hot"));
  EXPECT_EQ(bucket.ledger.early_deaths(), 0u);
  EXPECT_GOOD(store.remove(io, "cold"));
  EXPECT_EQ(bucket.ledger.early_deaths(), 1u);
  EXPECT_NEAR(bucket.ledger.early_fees(), 0.01 * 0.004 * 2, 1e-7);
  bucket.pass(std::chrono::hours(30 * 24));
  EXPECT_NEAR(bucket.ledger.storage_fees(now()), month, month / 1e4);
  EXPECT_EQ(bucket.ledger.requests(RequestKind::put), 2u);
  EXPECT_NEAR(bucket.ledger.request_fees(), (0.005 + 0.02) / 1000, 1e-9);
  EXPECT_EQ(bucket.ledger.bytes_in(), 20'000'000u);
}

}  // namespace
}  // namespace firn
