// SPDX-License-Identifier: Apache-2.0
// Every moment at which the process or the machine may die: at each change of the bucket, each
// write and flush of the log, each acknowledgement; with subsets of what the log's disk had not
// flushed. Then: what readers of the store see is one instant, what was published or synced is
// there, all of one batch or nothing, and what is left over is found and removed.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <set>

#include "sim/crash.h"
#include "sim/sim_io.h"
#include "store/lsm.h"
#include "store/lsm_test_store.h"

namespace firn::store {
namespace {

using namespace std::chrono_literals;
using Model = std::map<std::string, std::string>;

constexpr int64_t kDay = 86'400'000'000'000;  // Recoveries happen later.

LsmHow small() {
  LsmHow how;
  how.capacity_bytes = 4 * kKiB;
  how.table_bytes = 1 * kKiB;
  how.block_bytes = 256;
  how.readers_grace = 1s;
  how.catalogs_kept = 2;
  how.background = false;
  how.uploads = 2;
  return how;
}

// What had been promised when a mark was made.
struct Promise {
  size_t mutations = 0;  // Of the bucket.
  uint64_t begun = 0;    // Batches.
  uint64_t synced = 0;
  uint64_t published = 0;
};

Model all_of(Io& io, Lsm& lsm) {
  Model all;
  auto cursor = lsm.scan(io, "", "");
  EXPECT_TRUE(cursor);
  while (true) {
    const auto more = (*cursor)->next(io);
    if (!more) ADD_FAILURE() << text_of(more.error());
    if (!more || !*more) return all;
    all.emplace((*cursor)->key(), (*cursor)->value());
  }
}

uint64_t count_of(const Model& model) {
  const auto found = model.find("count");
  return found == model.end() ? 0 : std::stoull(found->second);
}

// A life that is recorded.
class Recorded {
 public:
  explicit Recorded(uint64_t seed) : prng_(seed), io_(world, seed) {
    world.make_directory("/log");
    world.settle();
    history.emplace_back();
    store.changed = [this] {
      now_.mutations = store.mutations.size();
      mark();
    };
  }

  void live(int steps, bool errors) {
    io_.run([&] {
      open();
      for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
        store.lose_ack_one_in = errors ? 10 : 0;
        step();
      }
      store.lose_ack_one_in = 0;
      lsm_.reset();  // Without close(): the end of the recording is a crash like the others.
    });
  }

  sim::World world;
  TestStore store;
  std::vector<Model> history;  // By batch.
  std::vector<Promise> promises;

 private:
  void mark() {
    world.mark(promises.size());
    promises.push_back(now_);
  }
  void open() {
    auto opened = Lsm::open(io_, store, "/log", small());
    ASSERT_TRUE(opened) << text_of(opened.error());
    lsm_ = opened.take();
    EXPECT_TRUE(all_of(io_, *lsm_) == history.back());
  }
  void write() {
    Model next = history.back();
    LsmBatch batch;
    now_.begun = history.size();
    const std::string value = fmt::format("{}", now_.begun);
    for (uint64_t n = prng_.below(4); n > 0; --n) {
      const std::string key = fmt::format("k{}", prng_.below(40));
      if (prng_.one_in(3)) {
        batch.remove(key);
        next.erase(key);
      } else {
        next[key] = value + std::string(prng_.below(300), 'v');
        batch.put(key, next[key]);
      }
    }
    batch.put("a", value);
    batch.put("count", value);
    batch.put("z", value);
    next["a"] = next["count"] = next["z"] = value;
    history.push_back(std::move(next));
    mark();
    const auto written = lsm_->write(io_, std::move(batch));
    ASSERT_TRUE(written) << text_of(written.error());
  }
  void step() {
    switch (prng_.below(16)) {
      case 0:
      case 1: {
        const uint64_t before = history.size() - 1;
        if (lsm_->transfer(io_)) now_.published = now_.synced = before;
        return mark();
      }
      case 2:
      case 3:
      case 4: {
        const uint64_t before = history.size() - 1;
        const auto synced = lsm_->sync(io_);
        EXPECT_TRUE(synced);
        now_.synced = std::max(now_.synced, before);
        return mark();
      }
      case 5:
        static_cast<void>(lsm_->compact(io_).has_value());
        return;
      case 6:
        io_.sleep(600ms);
        static_cast<void>(lsm_->collect(io_).has_value());
        return;
      case 7:
        if (!prng_.one_in(4)) return write();
        lsm_.reset();  // The process dies; what it wrote to files stays.
        return reopen();
      default:
        return write();
    }
  }
  // After the death of the process what was not written out of its memory is gone.
  void reopen() {
    store.lose_ack_one_in = 0;
    auto opened = Lsm::open(io_, store, "/log", small());
    ASSERT_TRUE(opened) << text_of(opened.error());
    lsm_ = opened.take();
    const Model seen = all_of(io_, *lsm_);
    const uint64_t count = count_of(seen);
    ASSERT_LT(count, history.size());
    EXPECT_GE(count, now_.synced);
    EXPECT_TRUE(seen == history[count]);
    history.resize(count + 1);
    now_.begun = count;
    mark();
  }

  Prng prng_;
  sim::SimIo io_;
  std::unique_ptr<Lsm> lsm_;
  Promise now_;
};

// One crash state, brought back to life.
class Recovery {
 public:
  Recovery(const Recorded& life, sim::World image, TestStore::Objects objects,
           const Promise& promise)
      : life_(life),
        promise_(promise),
        world_(std::move(image)),
        store_(std::move(objects)),
        io_(world_, 1,
            {.order = sim::Order::immediate,
             .wall_clock_ns = sim::SimOptions().wall_clock_ns + kDay}) {
    world_.record(false);
  }

  void check() {
    io_.run([&] {
      const uint64_t before = reader_sees(promise_.published, false);
      auto opened = Lsm::open(io_, store_, "/log", small());
      ASSERT_TRUE(opened) << text_of(opened.error());
      Lsm& lsm = **opened;
      const Model seen = all_of(io_, lsm);
      const uint64_t count = count_of(seen);
      EXPECT_GE(count, promise_.synced) << "a synced batch is lost";
      EXPECT_GE(count, before);
      EXPECT_LE(count, promise_.begun);
      ASSERT_LT(count, life_.history.size());
      EXPECT_TRUE(seen == life_.history[count]) << "not the state after batch " << count;
      const auto moved = lsm.transfer(io_);
      EXPECT_TRUE(moved);
      EXPECT_EQ(reader_sees(count, true), count);
      collect(lsm);
      EXPECT_EQ(reader_sees(count, true), count) << "too much was removed";
      const auto closed = lsm.close(io_);
      EXPECT_TRUE(closed);
    });
  }

 private:
  uint64_t reader_sees(uint64_t at_least, bool must_be_there) {
    auto reader = Lsm::open_reader(io_, store_, small());
    if (!reader && !must_be_there && at_least == 0 && reader.error().code == Errc::not_found) {
      return 0;
    }
    EXPECT_TRUE(reader) << text_of(reader.error());
    if (!reader) return 0;
    const Model seen = all_of(io_, **reader);
    const uint64_t count = count_of(seen);
    EXPECT_GE(count, at_least) << "a published batch is lost";
    EXPECT_LT(count, life_.history.size());
    if (count < life_.history.size()) {
      EXPECT_TRUE(seen == life_.history[count]) << "half a generation is visible";
    }
    return count;
  }
  void collect(Lsm& lsm) {
    for (int i = 0; i < 3; ++i) {
      const auto collected = lsm.collect(io_);
      EXPECT_TRUE(collected) << text_of(collected.error());
      io_.sleep(2s);
    }
    uint64_t tables = 0;
    for (const auto& [key, body] : store_.objects) tables += key.starts_with("m/table/") ? 1 : 0;
    EXPECT_EQ(tables, lsm.stats().tables) << "orphans are left";
  }

  const Recorded& life_;
  Promise promise_;
  sim::World world_;
  TestStore store_;
  sim::SimIo io_;
};

size_t judge(const Recorded& life, size_t fates_per_moment) {
  sim::Crash crash(life.world, {});
  TestStore::Objects objects;
  size_t applied = 0;
  std::set<std::pair<uint64_t, size_t>> seen;
  for (const size_t moment : crash.moments()) {
    crash.move_to(moment);
    const Promise promise = crash.marks().empty() ? Promise{} : life.promises[crash.last_mark()];
    for (; applied < promise.mutations; ++applied) {
      const TestStore::Mutation& mutation = life.store.mutations[applied];
      if (mutation.body) {
        objects[mutation.key] = mutation.body;
      } else {
        objects.erase(mutation.key);
      }
    }
    for (const sim::Fate& fate : crash.fates(fates_per_moment, moment)) {
      if (!seen.emplace(crash.key(fate), promise.mutations).second) continue;
      SCOPED_TRACE(crash.describe(fate));
      Recovery(life, crash.image(fate), objects, promise).check();
      if (testing::Test::HasFailure()) return seen.size();
    }
  }
  return seen.size();
}

void live_and_judge(uint64_t first_seed, uint64_t lives, bool errors) {
  size_t states = 0;
  for (uint64_t seed = first_seed; seed < first_seed + lives; ++seed) {
    SCOPED_TRACE(seed);
    Recorded life(seed);
    life.live(80, errors);
    if (testing::Test::HasFailure()) return;
    states += judge(life, 6);
    if (testing::Test::HasFailure()) return;
  }
  fmt::print("{} crash states\n", states);
  EXPECT_GT(states, lives * 100);
}

TEST(LsmCrash, at_every_request_and_every_write_of_the_log) { live_and_judge(1, 12, false); }
TEST(LsmCrash, when_acknowledgements_were_lost_before) { live_and_judge(50, 8, true); }

}  // namespace
}  // namespace firn::store
