// SPDX-License-Identifier: Apache-2.0
// Random lives of the tree against std::map: batches, removals, transfers, merging, collecting,
// scans that stay open, clean and unclean ends, with a store that loses requests and answers. After
// each publish a second reader, which has the store alone, must see one instant.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <deque>

#include "sim/sim_io.h"
#include "store/lsm.h"
#include "store/lsm_test_store.h"

namespace firn::store {
namespace {

using namespace std::chrono_literals;
using Model = std::map<std::string, std::string>;

class Life {
 public:
  Life(uint64_t seed, bool background, bool errors)
      : prng_(seed), errors_(errors), io_(world_, seed) {
    world_.record(false);
    world_.make_directory("/log");
    how_.capacity_bytes = 16 * kKiB;
    how_.table_bytes = 4 * kKiB;
    how_.block_bytes = 512;
    how_.cache_bytes = 64 * kKiB;
    how_.index_cache_bytes = 8 * kKiB;
    how_.interval = 200ms;
    how_.readers_grace = 2s;
    how_.catalogs_kept = 4;
    how_.background = background;
  }

  void live(int steps) {
    io_.run([&] {
      open();
      for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) step();
      calm();
      check_all();
      calm();
      ASSERT_TRUE(lsm_->close(io_));
      lsm_.reset();
      calm();
      check_reader(model_);
      open();
      check_all();
      calm();
      EXPECT_TRUE(lsm_->collect(io_));
      io_.sleep(how_.readers_grace + 1s);
      EXPECT_TRUE(lsm_->collect(io_));
      EXPECT_EQ(lsm_->stats().retired_objects, 0U);
      check_no_garbage();
      cursors_.clear();
      EXPECT_TRUE(lsm_->close(io_));
    });
    for (const std::string& key : store_.overwritten) EXPECT_EQ(key, "m/newest") << "L6";
  }

 private:
  struct OpenCursor {
    std::unique_ptr<Lsm::Cursor> cursor;
    Model expected;
    Model::iterator at;
  };

  void storms(bool on) {
    store_.fail_one_in = on && errors_ ? 40 : 0;
    store_.lose_ack_one_in = on && errors_ ? 20 : 0;
  }
  void calm() { storms(false); }

  void open() {
    calm();
    auto opened = Lsm::open(io_, store_, "/log", how_);
    ASSERT_TRUE(opened) << text_of(opened.error());
    lsm_ = opened.take();
    EXPECT_GT(lsm_->stats().epoch, epoch_);
    epoch_ = lsm_->stats().epoch;
    storms(true);
  }

  std::string random_key() {
    return fmt::format("{}{}", prng_.one_in(3) ? "a long common beginning of keys " : "k",
                       prng_.below(400));
  }
  std::string random_value() {
    return std::string(prng_.below(prng_.one_in(10) ? 3000 : 100),
                       static_cast<char>('a' + prng_.below(26)));
  }

  // Pairs: x/N and y/N are always written together.
  void write() {
    LsmBatch batch;
    Model next = model_;
    for (uint64_t n = prng_.below(6) + 1; n > 0; --n) {
      const std::string key = random_key();
      if (prng_.one_in(4)) {
        batch.remove(key);
        next.erase(key);
      } else {
        const std::string value = random_value();
        batch.put(key, value);
        next[key] = value;
      }
    }
    const std::string pair = fmt::format("{}", prng_.below(20));
    const std::string value = fmt::format("{}", ++batches_);
    batch.put("x/" + pair, value);
    batch.put("y/" + pair, value);
    batch.put("count", value);
    next["x/" + pair] = next["y/" + pair] = next["count"] = value;
    const auto written = lsm_->write(io_, std::move(batch));
    ASSERT_TRUE(written) << text_of(written.error());
    model_ = std::move(next);
    history_[batches_] = model_;
    if (history_.size() > 400) history_.erase(history_.begin());
  }

  void step() {
    switch (prng_.below(20)) {
      case 0:
        return transfer();
      case 1:
        if (errors_ && prng_.one_in(2)) return;
        static_cast<void>(lsm_->compact(io_).has_value());
        return;
      case 2:
        static_cast<void>(lsm_->collect(io_).has_value());
        return;
      case 3:
        io_.sleep(std::chrono::milliseconds(prng_.below(300)));
        return;
      case 4:
        return scan_some();
      case 5:
        return move_cursors();
      case 6:
        if (prng_.one_in(10)) reopen();
        return;
      case 7:
      case 8:
      case 9:
        return get();
      default:
        return write();
    }
  }

  void transfer() {
    const auto moved = lsm_->transfer(io_);
    if (!moved) {
      EXPECT_TRUE(errors_) << text_of(moved.error());
      return;
    }
    calm();
    check_reader(std::nullopt);
    storms(true);
  }

  // What the store shows is one of the states that were, and not an older one than before.
  void check_reader(const std::optional<Model>& exactly) {
    LsmHow how = how_;
    auto reader = Lsm::open_reader(io_, store_, how);
    ASSERT_TRUE(reader) << text_of(reader.error());
    const Model seen = all_of(**reader);
    EXPECT_TRUE((*reader)->close(io_));
    if (exactly) {
      EXPECT_TRUE(seen == *exactly);
      return;
    }
    const auto count = seen.find("count");
    if (count == seen.end()) return;
    const uint64_t batch = std::stoull(count->second);
    EXPECT_GE(batch, seen_by_reader_);
    seen_by_reader_ = batch;
    const auto then = history_.find(batch);
    if (then == history_.end()) return;
    EXPECT_TRUE(seen == then->second) << "L3: another state than any";
  }

  Model all_of(Lsm& lsm) {
    Model all;
    auto cursor = lsm.scan(io_, "", "");
    EXPECT_TRUE(cursor);
    while (true) {
      const auto more = (*cursor)->next(io_);
      if (!more) ADD_FAILURE() << text_of(more.error());
      if (!more || !*more) return all;
      const bool fresh =
          all.emplace(std::string((*cursor)->key()), std::string((*cursor)->value())).second;
      EXPECT_TRUE(fresh);
    }
  }

  void check_all() {
    if (!lsm_) return;
    calm();
    EXPECT_TRUE(all_of(*lsm_) == model_);
    storms(true);
  }

  void get() {
    const std::string key = prng_.one_in(4) ? fmt::format("x/{}", prng_.below(25)) : random_key();
    const auto found = lsm_->get(io_, key);
    if (!found) {
      EXPECT_TRUE(errors_) << text_of(found.error());
      return;
    }
    const auto expected = model_.find(key);
    if (expected == model_.end()) {
      EXPECT_FALSE(found->has_value()) << key;
    } else {
      EXPECT_EQ(*found, expected->second) << key;
    }
  }

  void scan_some() {
    if (cursors_.size() > 3) cursors_.pop_front();
    std::string from = prng_.one_in(3) ? "" : random_key();
    std::string to = prng_.one_in(3) ? "" : random_key();
    if (!to.empty() && to < from) std::swap(from, to);
    auto cursor = lsm_->scan(io_, from, to);
    ASSERT_TRUE(cursor);
    OpenCursor open{cursor.take(), {}, {}};
    for (auto at = model_.lower_bound(from); at != model_.end() && (to.empty() || at->first < to);
         ++at) {
      open.expected.insert(*at);
    }
    cursors_.push_back(std::move(open));
    cursors_.back().at = cursors_.back().expected.begin();
  }

  void move_cursors() {
    calm();  // A cursor that failed is over; this is about what it shows.
    for (OpenCursor& open : cursors_) {
      for (uint64_t n = prng_.below(60); n > 0; --n) {
        const auto more = open.cursor->next(io_);
        ASSERT_TRUE(more) << text_of(more.error());
        ASSERT_EQ(*more, open.at != open.expected.end());
        if (!*more) break;
        ASSERT_EQ(open.cursor->key(), open.at->first);
        ASSERT_EQ(open.cursor->value(), open.at->second);
        ++open.at;
      }
    }
    storms(true);
  }

  void reopen() {
    cursors_.clear();
    const auto closed = lsm_->close(io_);
    EXPECT_TRUE(closed || errors_) << text_of(closed.error());
    lsm_.reset();
    open();
    check_all();
  }

  void check_no_garbage() {
    const LsmStats stats = lsm_->stats();
    uint64_t tables = 0;
    uint64_t catalogs = 0;
    for (const auto& [key, body] : store_.objects) {
      tables += key.starts_with("m/table/") ? 1 : 0;
      catalogs += key.starts_with("m/catalog/") ? 1 : 0;
    }
    EXPECT_EQ(tables, stats.tables) << "orphans";
    EXPECT_LE(catalogs, stats.version);
  }

  Prng prng_;
  bool errors_;
  sim::World world_;
  sim::SimIo io_;
  TestStore store_;
  LsmHow how_;
  std::unique_ptr<Lsm> lsm_;
  Model model_;
  std::map<uint64_t, Model> history_;
  std::deque<OpenCursor> cursors_;
  uint64_t batches_ = 0;
  uint64_t seen_by_reader_ = 0;
  uint64_t epoch_ = 0;
};

TEST(LsmModel, lives_with_transfers_of_its_own) {
  for (uint64_t seed = 1; seed <= 4 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Life(seed, true, false).live(1200);
  }
}
TEST(LsmModel, lives_whose_writers_transfer) {
  for (uint64_t seed = 100; seed < 104 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Life(seed, false, false).live(1200);
  }
}
TEST(LsmModel, lives_with_a_bad_store) {
  for (uint64_t seed = 200; seed < 206 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Life(seed, seed % 2 == 0, true).live(1200);
  }
}

}  // namespace
}  // namespace firn::store
