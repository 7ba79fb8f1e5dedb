// SPDX-License-Identifier: Apache-2.0
// The MUST-show items of the micro-journal, on a region whose uncommitted writes may vanish.
#include "store/journal.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "base/prng.h"
#include "io/blocking_io.h"

namespace firn::store {
namespace {

// Durable bytes, and what was written since the last commit in 64-byte lines: a crash keeps any
// subset.
class LossyRegion final : public Region {
 public:
  explicit LossyRegion(uint64_t bytes) : seen_(bytes), durable_(bytes) {}
  uint64_t size() const override { return seen_.size(); }
  Result<void> read(Io&, uint64_t at, Bytes into) override {
    std::memcpy(into.data(), seen_.data() + at, into.size());
    return ok;
  }
  Result<void> write(Io&, uint64_t at, View from) override {
    std::memcpy(seen_.data() + at, from.data(), from.size());
    for (uint64_t line = at / kLine; line <= (at + from.size() - 1) / kLine; ++line)
      dirty_.insert(line);
    return ok;
  }
  Result<void> commit(Io&) override {
    ++commits;
    if (fail_commits) return fail(Errc::io, "the region fails on purpose");
    durable_ = seen_;
    dirty_.clear();
    return ok;
  }
  // The medium after a crash now.
  std::vector<std::byte> crash(Prng& prng) const {
    std::vector<std::byte> medium = durable_;
    for (const uint64_t line : dirty_) {
      if (prng.one_in(2)) continue;
      std::memcpy(medium.data() + line * kLine, seen_.data() + line * kLine, kLine);
    }
    return medium;
  }
  void restore(const std::vector<std::byte>& medium) { seen_ = durable_ = medium; }
  void flip(uint64_t at) { seen_[at] ^= std::byte{4}; }
  void duplicate(uint64_t from, uint64_t to, size_t bytes) {
    std::memcpy(seen_.data() + to, seen_.data() + from, bytes);
  }

  uint64_t commits = 0;
  bool fail_commits = false;

 private:
  static constexpr uint64_t kLine = 64;
  std::vector<std::byte> seen_;
  std::vector<std::byte> durable_;
  std::set<uint64_t> dirty_;
};

constexpr format::Uuid kUuid{std::byte{1}, std::byte{2}};

View bytes_of_text(const std::string& text) { return std::as_bytes(std::span(text)); }
std::string text_of_bytes(View bytes) {
  std::string text(bytes.size(), '\0');
  std::memcpy(text.data(), bytes.data(), bytes.size());
  return text;
}

class JournalTest : public testing::Test {
 protected:
  std::vector<Replayed> found(uint64_t epoch = 1) {
    auto replayed = find_transactions(io_, region_, shape_, kUuid, epoch);
    EXPECT_TRUE(replayed);
    return replayed.take();
  }
  uint64_t write(const std::string& text, uint64_t home_durable = 0) {
    const auto id = journal_.write(io_, bytes_of_text(text), home_durable);
    EXPECT_TRUE(id);
    return *id;
  }
  // Transactions "1" to "count", one slot and one commit each.
  void write_row(uint64_t count) {
    for (uint64_t i = 1; i <= count; ++i) {
      EXPECT_EQ(write(std::to_string(i)), i);
      ASSERT_TRUE(journal_.commit(io_));
    }
  }
  void expect_lost(uint64_t lost, uint64_t newest) {
    const auto replayed = find_transactions(io_, region_, shape_, kUuid, 1);
    ASSERT_FALSE(replayed);
    EXPECT_EQ(replayed.error().code, Errc::corrupt);
    EXPECT_EQ(text_of(replayed.error()),
              fmt::format("the journal lost transaction {} although {} is there", lost, newest));
  }

  BlockingIo io_;
  JournalShape shape_{512, 8, 0, true};
  LossyRegion region_{8 * 512};
  CommitIds ids_;
  Journal journal_{region_, shape_, kUuid, 1, ids_};
};

TEST_F(JournalTest, must1_a_steady_stream_costs_one_commit_a_transaction) {
  const uint64_t before = region_.commits;
  for (int i = 0; i < 100; ++i) {
    const uint64_t applied = journal_.applied();
    const uint64_t id = write("transaction " + std::to_string(i), applied);
    ASSERT_TRUE(journal_.commit(io_));
    journal_.applied(id);
  }
  EXPECT_EQ(region_.commits - before, 100U);
  EXPECT_EQ(journal_.free_slots(), shape_.slots - 1);  // Only the last one is still in flight.
}

TEST_F(JournalTest, must3_a_slot_holds_one_transaction_and_chains_are_whole_or_nothing) {
  write("one");
  write(std::string(1000, 'x'));  // Three slots.
  ASSERT_TRUE(journal_.commit(io_));
  EXPECT_EQ(journal_.free_slots(), 4U);
  auto all = found();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(text_of_bytes(all[0].payload), "one");
  EXPECT_EQ(text_of_bytes(all[1].payload), std::string(1000, 'x'));
  region_.flip(2 * 512 + 100);  // The second slot of the chain.
  all = found();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(text_of_bytes(all[0].payload), "one");
}

TEST_F(JournalTest, must4_in_flight_transactions_are_freed_in_one_step_by_a_covering_commit) {
  for (int i = 0; i < 3; ++i) write("t");
  ASSERT_TRUE(journal_.commit(io_));
  EXPECT_EQ(journal_.in_flight_slots(), 0U);
  journal_.applied(2);
  EXPECT_EQ(journal_.in_flight_slots(), 2U);
  EXPECT_EQ(journal_.free_slots(), 5U);
  ASSERT_TRUE(journal_.commit(io_));
  EXPECT_EQ(journal_.free_slots(), 5U) << "no transaction says that they are not needed (J5)";
  write("t");
  ASSERT_TRUE(journal_.commit(io_));
  EXPECT_EQ(journal_.free_slots(), 4U) << "it does not vouch for home writes (J5)";
  write("t", 2);
  EXPECT_EQ(journal_.free_slots(), 3U) << "it is not committed yet";
  ASSERT_TRUE(journal_.commit(io_));
  EXPECT_EQ(journal_.free_slots(), 5U);
  EXPECT_EQ(journal_.in_flight_slots(), 0U);
}

TEST_F(JournalTest, must6_two_slots_suffice_for_one_thread_and_one_would_block) {
  CommitIds ids;
  Journal two(region_, {512, 2, 0}, kUuid, 1, ids);
  for (int i = 0; i < 10; ++i) {
    ASSERT_GE(two.free_slots(), 1U);
    const uint64_t applied = two.applied();
    const auto id = two.write(io_, bytes_of_text("t"), applied);
    ASSERT_TRUE(two.commit(io_));
    two.applied(*id);
    EXPECT_EQ(two.free_slots(), 1U);  // With a single slot there would be none left for the next.
  }
}

TEST_F(JournalTest, must8_a_torn_transaction_never_happened) {
  write("kept");
  ASSERT_TRUE(journal_.commit(io_));
  write(std::string(400, 'n'));
  for (uint64_t bit = 0; bit < 512; bit += 7) {
    region_.flip(512 + bit % 464);
    EXPECT_EQ(found().size(), 1U) << bit;
    region_.flip(512 + bit % 464);
  }
  EXPECT_EQ(found().size(), 2U);
}

TEST_F(JournalTest, J3_slots_of_another_epoch_or_pool_are_void) {
  write("old");
  ASSERT_TRUE(journal_.commit(io_));
  EXPECT_EQ(found(2).size(), 0U);
  constexpr format::Uuid kOther{std::byte{9}};
  EXPECT_EQ(find_transactions(io_, region_, shape_, kOther, 1)->size(), 0U);
}

TEST_F(JournalTest, a_failed_commit_frees_nothing) {
  write("t");
  ASSERT_TRUE(journal_.commit(io_));
  journal_.applied(1);
  region_.fail_commits = true;
  write("t", 1);
  EXPECT_FALSE(journal_.commit(io_));
  EXPECT_EQ(journal_.free_slots(), 6U);
}

TEST_F(JournalTest, P3_rot_in_any_needed_slot_is_named) {
  write_row(6);
  EXPECT_EQ(found().size(), 6U);
  for (uint64_t lost = 1; lost < 6; ++lost) {
    for (const uint64_t at : {0U, 20U, 45U, 64U}) {  // Magic, header, payload.
      region_.flip((lost - 1) * 512 + at);
      expect_lost(lost, 6);
      region_.flip((lost - 1) * 512 + at);
    }
  }
  region_.flip(5 * 512);  // The newest may be torn: whoever waited for it has no answer yet.
  EXPECT_EQ(found().size(), 5U);
}

TEST_F(JournalTest, rot_in_a_slot_that_is_not_needed_any_more_is_ignored) {
  write_row(4);
  journal_.applied(3);
  write("5", 3);
  ASSERT_TRUE(journal_.commit(io_));
  for (uint64_t lost = 1; lost <= 3; ++lost) {
    const auto needed = found();
    ASSERT_EQ(needed.size(), 2U);
    EXPECT_EQ(needed[0].id, 4U);
    region_.flip((lost - 1) * 512 + 64);
  }
  EXPECT_EQ(found().size(), 2U);
  region_.flip(3 * 512 + 64);
  expect_lost(4, 5);
}

TEST_F(JournalTest, P3_a_torn_newest_one_proves_that_the_one_before_was_committed) {
  write_row(2);
  write(std::string(1000, 'x'));  // Three slots.
  region_.flip(4 * 512 + 70);
  EXPECT_EQ(found().size(), 2U);
  region_.flip(1 * 512 + 64);
  expect_lost(2, 3);
}

TEST_F(JournalTest, a_misdirected_copy_is_ignored_and_a_forged_one_voids_its_chain) {
  write_row(3);
  region_.duplicate(1 * 512, 6 * 512, 512);
  EXPECT_EQ(found().size(), 3U);
  format::SlotHeader header;
  header.commit_id = 2;
  header.oldest_needed = 1;
  header.epoch = 1;
  header.parts = 1;
  header.flags = format::kSlotDense;
  const auto put = [&](const std::string& text) {
    format::seal(kUuid, header, bytes_of_text(text));
    ASSERT_TRUE(region_.write(io_, 6 * 512, view_of(header)));
    ASSERT_TRUE(region_.write(io_, 6 * 512 + 64, bytes_of_text(text)));
  };
  put("other");
  expect_lost(2, 3);
  header.commit_id = 9;
  header.parts = 9;  // More than the ring has slots: it cannot be.
  put("long");
  EXPECT_EQ(found().size(), 3U);
}

TEST_F(JournalTest, a_ring_with_shared_ids_has_gaps) {
  shape_.dense = false;
  Journal shared(region_, shape_, kUuid, 2, ids_);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(shared.write(io_, bytes_of_text("mine"), 0));
    ASSERT_TRUE(shared.commit(io_));
    ids_.take();  // Somebody else's.
  }
  EXPECT_EQ(found(2).size(), 3U);
  region_.flip(512);
  EXPECT_EQ(found(2).size(), 2U);
}

// Must 5, 7, 10: a store of 64 words changed by random transactions through the ring, with home
// writes and crashes at random moments: recovery yields a prefix of the commit order that contains
// everything durable.
class RingStore {
 public:
  RingStore(BlockingIo& io, LossyRegion& home, LossyRegion& ring, uint64_t epoch)
      : io_(io), home_(home), journal_(ring, kShape, kUuid, epoch, ids_) {}

  static constexpr JournalShape kShape{512, 6, 0, true};
  static constexpr size_t kWords = 64;
  using Image = std::array<uint64_t, kWords>;

  static Image image_of(BlockingIo& io, LossyRegion& home) {
    Image image;
    EXPECT_TRUE(home.read(io, 0, std::as_writable_bytes(std::span(image))));
    return image;
  }
  static uint64_t recover(BlockingIo& io, LossyRegion& home, LossyRegion& ring, uint64_t epoch) {
    const auto transactions = find_transactions(io, ring, kShape, kUuid, epoch);
    EXPECT_TRUE(transactions) << "no crash leaves a gap";
    if (!transactions) return 0;
    uint64_t last = 0;
    for (const Replayed& one : *transactions) {
      EXPECT_GT(one.id, last);  // Must 7: unique and ascending.
      last = one.id;
      for (size_t at = 0; at < one.payload.size(); at += 16) {
        uint64_t pair[2];
        std::memcpy(pair, one.payload.data() + at, 16);
        EXPECT_TRUE(home.write(io, pair[0] * 8, std::as_bytes(std::span(&pair[1], 1))));
      }
    }
    return transactions->size();
  }

  void step(Prng& prng) {
    // One slot is for the transaction that frees others.
    while (journal_.free_slots() <= 1) {
      write_home(prng);
      commit(prng, {0, now[0]}, true);
      if (stopped) return;
    }
    std::vector<uint64_t> payload;
    const uint64_t changes = 1 + prng.below(prng.one_in(3) ? 50 : 20);  // Up to two slots.
    if (changes > 28 && journal_.free_slots() < 3) return;
    for (uint64_t i = 0; i < changes; ++i) {
      const uint64_t word = prng.below(kWords);
      const uint64_t value = prng.next();
      payload.push_back(word);
      payload.push_back(value);
      now[word] = value;
    }
    commit(prng, payload, prng.one_in(2));
    if (!stopped && prng.one_in(2)) write_home(prng);
  }
  void write_home(Prng& prng) {
    const size_t count = 1 + prng.below(unhomed_.size() + 1);
    for (size_t i = 0; i < count && !unhomed_.empty(); ++i) {
      const auto first = unhomed_.begin();
      for (size_t at = 0; at < first->second.size(); at += 2) {
        EXPECT_TRUE(home_.write(io_, first->second[at] * 8,
                                std::as_bytes(std::span(&first->second[at + 1], 1))));
      }
      journal_.applied(first->first);
      unhomed_.erase(first);
    }
  }
  // One transaction; when the home medium is committed before, it says so. It may end torn.
  void commit(Prng& prng, const std::vector<uint64_t>& payload, bool home) {
    history.push_back(now);
    if (home) {
      EXPECT_TRUE(home_.commit(io_));
      home_durable_ = journal_.applied();
    }
    const auto id = journal_.write(io_, std::as_bytes(std::span(payload)), home_durable_);
    ASSERT_TRUE(id);
    unhomed_[*id] = payload;
    if (stopped) return;
    EXPECT_TRUE(journal_.commit(io_));
    durable = history.size();
    if (prng.one_in(4)) {
      EXPECT_TRUE(home_.commit(io_));  // At any time, said or not.
    }
  }

  Image now{};
  std::vector<Image> history{Image{}};
  size_t durable = 1;    // How many of `history` are acknowledged.
  bool stopped = false;  // The power fails before the next commit.

 private:
  BlockingIo& io_;
  LossyRegion& home_;
  CommitIds ids_;
  Journal journal_;
  uint64_t home_durable_ = 0;
  std::map<uint64_t, std::vector<uint64_t>> unhomed_;
};

TEST(JournalCrash, must5_must10_recovery_yields_what_was_acknowledged_and_is_idempotent) {
  constexpr int kRuns = 5000;
  for (int run = 0; run < kRuns; ++run) {
    Prng prng(static_cast<uint64_t>(run));
    BlockingIo io;
    LossyRegion home(RingStore::kWords * 8), ring(6 * 512);
    RingStore store(io, home, ring, 1);
    const uint64_t steps = 1 + prng.below(40);
    for (uint64_t i = 0; i < steps; ++i) store.step(prng);
    if (prng.one_in(2)) store.write_home(prng);
    if (prng.one_in(2)) {
      store.stopped = true;
      store.step(prng);
    }
    LossyRegion home_after(home.size()), ring_after(ring.size());
    home_after.restore(home.crash(prng));
    ring_after.restore(ring.crash(prng));
    RingStore::recover(io, home_after, ring_after, 1);
    const auto once = RingStore::image_of(io, home_after);
    // All that was acknowledged; of what was under way everything or nothing.
    EXPECT_TRUE(once == store.history[store.durable - 1] || once == store.history.back())
        << "run " << run;
    // Crash during recovery, again and again: any subset of its writes, then recovery once more.
    LossyRegion home_again(home.size());
    home_again.restore(home_after.crash(prng));
    RingStore::recover(io, home_again, ring_after, 1);
    EXPECT_EQ(RingStore::image_of(io, home_again), once) << "run " << run;
  }
}

// Must 3 and 7 under threads: several journals with slots of their own share one source of ids.
TEST(JournalThreads, ids_are_unique_and_no_slot_has_two_owners) {
  constexpr uint64_t kThreads = 8, kEach = 400, kSlots = 4;
  char directory[] = "/tmp/firn-journal-XXXXXX";
  ASSERT_NE(mkdtemp(directory), nullptr);
  const std::string path = std::string(directory) + "/pmem";
  {
    BlockingIo setup;
    PmemRegion region(PmemMapping::open(path, kThreads * kSlots * 512, true).take());
    CommitIds ids;
    std::vector<std::vector<uint64_t>> given(kThreads);
    std::vector<std::thread> threads;
    std::vector<std::unique_ptr<PmemRegion>> mappings;
    for (uint64_t t = 0; t < kThreads; ++t) {
      // Each thread has a mapping of its own: a fence covers its own stores only.
      mappings.push_back(std::make_unique<PmemRegion>(
          PmemMapping::open(path, kThreads * kSlots * 512, false).take()));
    }
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        BlockingIo io;
        Journal journal(*mappings[t], {512, kSlots, t * kSlots * 512}, kUuid, 1, ids);
        for (uint64_t i = 0; i < kEach; ++i) {
          const uint64_t applied = journal.applied();
          const std::string text = fmt::format("{} {}", t, i);
          const auto id = journal.write(io, bytes_of_text(text), applied);
          if (!id || !journal.commit(io)) return;
          journal.applied(*id);
          given[t].push_back(*id);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::set<uint64_t> all;
    for (const auto& ids_of_one : given) {
      ASSERT_EQ(ids_of_one.size(), kEach);
      EXPECT_TRUE(std::is_sorted(ids_of_one.begin(), ids_of_one.end()));
      all.insert(ids_of_one.begin(), ids_of_one.end());
    }
    EXPECT_EQ(all.size(), kThreads * kEach);
    const auto found = find_transactions(setup, region, {512, kThreads * kSlots, 0}, kUuid, 1);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->size(), kThreads * kSlots);  // The last four of each thread, each whole.
    for (const Replayed& one : *found) {
      const std::string text = text_of_bytes(one.payload);
      EXPECT_NE(text.find(' '), std::string::npos) << text;
    }
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace firn::store
