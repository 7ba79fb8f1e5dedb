// SPDX-License-Identifier: Apache-2.0
#include "policy/io_coalesce.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "base/prng.h"

namespace firn::policy {
namespace {

using Mode = IoCoalesce::Mode;
using Op = CoalesceRequest::Op;
using std::chrono::microseconds;

struct Numbered : CoalesceRequest {
  uint64_t number = 0;
};

// A disk with a coalescer above and a device below that ends what the test says. Checks C1 to C5 at
// every step against a list of what is held.
class Bench {
 public:
  explicit Bench(IoCoalesce::Limits limits) : limits_(limits), coalesce_(limits) {}

  Numbered& submit(Op op, uint64_t at, uint64_t length = 4096, bool fua = false,
                   bool urgent = false) {
    auto request = std::make_unique<Numbered>();
    Numbered& it = *request;
    it.op = op, it.range = {at, length}, it.fua = fua, it.urgent = urgent;
    it.number = ++submitted_;
    held_.emplace(it.number, std::move(request));
    auto alone = std::make_unique<CoalesceBatch>();
    if (short_way && coalesce_.pass(it, *alone)) {
      inspect(*alone);
      below_.push_back(std::move(alone));
    } else {
      coalesce_.arrive(now_, it);
    }
    return it;
  }
  // Takes what is due; returns how many batches that made.
  size_t send() {
    size_t count = 0;
    for (;; ++count) {
      auto batch = std::make_unique<CoalesceBatch>();
      if (!coalesce_.take(*batch)) break;
      inspect(*batch);
      below_.push_back(std::move(batch));
    }
    check_liveness();
    return count;
  }
  size_t write(uint64_t at) {
    submit(Op::write, at);
    return send();
  }
  // Ends a batch; returns its number of requests. Sends nothing: see send().
  size_t end(size_t which = 0, bool metadata = false) {
    const std::unique_ptr<CoalesceBatch> batch = std::move(below_[which]);
    below_.erase(below_.begin() + static_cast<ptrdiff_t>(which));
    coalesce_.complete(*batch, metadata);
    for (CoalesceRequest *at = batch->first, *next = nullptr; at != nullptr; at = next) {
      next = at->next;
      const uint64_t number = static_cast<Numbered*>(at)->number;
      EXPECT_EQ(sent_.erase(number), 1U);  // C3
    }
    return batch->requests;
  }
  void pass(Duration time) {
    now_ = now_ + time;
    const std::optional<Time> limit = coalesce_.deadline();
    if (limit && *limit <= now_) {
      EXPECT_TRUE(coalesce_.tick(now_));  // C7
    } else {
      coalesce_.tick(now_);
    }
  }
  void check_liveness() const {
    EXPECT_EQ(coalesce_.held(), held_.size());
    EXPECT_EQ(coalesce_.in_flight(), below_.size());
    if (!held_.empty()) {
      // C1, C2; without a deadline all that is held waits by C4.
      EXPECT_GE(below_.size(), coalesce_.deadline() ? limits_.below_min : 1);
    }
  }

  Time now() const { return now_; }
  IoCoalesce& coalesce() { return coalesce_; }
  const CoalesceBatch& below(size_t i) const { return *below_[i]; }
  bool short_way = false;  // Requests try pass() first.
  size_t batches_below() const { return below_.size(); }
  size_t held() const { return held_.size(); }
  uint64_t submitted() const { return submitted_; }

 private:
  void inspect(const CoalesceBatch& batch) {
    uint64_t bytes = 0, requests = 0, extents = 0, covered = 0;
    for (CoalesceRequest* first = batch.first; first != nullptr; ++extents) {
      const CoalesceBatch::Extent extent = CoalesceBatch::extent_at(first);
      EXPECT_TRUE(extent.range.length <= limits_.extent_bytes_max || first->next == extent.end);
      covered += extent.range.length;
      first = extent.end;
    }
    const bool ordered = batch.first->op != Op::read;
    uint64_t end = 0;
    for (CoalesceRequest* at = batch.first; at != nullptr; at = at->next, ++requests) {
      EXPECT_EQ(at->op, batch.first->op);  // C5
      EXPECT_EQ(at->fua, batch.first->fua);
      EXPECT_TRUE(!ordered || at->range.at >= end);  // C4
      end = at->range.end(), bytes += at->range.length;
      const uint64_t number = static_cast<Numbered*>(at)->number;
      if (ordered && !at->urgent && limits_.mode != Mode::off) check_first(*at, number);
      const auto found = held_.find(number);
      ASSERT_TRUE(found != held_.end());  // C3
      sent_.insert(held_.extract(found));
    }
    EXPECT_EQ(bytes, batch.bytes);
    EXPECT_EQ(covered, batch.bytes);
    EXPECT_EQ(requests, batch.requests);
    EXPECT_EQ(extents, batch.extents);
    EXPECT_LE(extents, limits_.extents_max);
    EXPECT_TRUE(requests == 1 || bytes <= limits_.batch_bytes_max);
    EXPECT_TRUE(requests == 1 || !batch.first->urgent);  // C6
  }
  // No overlapping request of the kind that came earlier is still held.
  void check_first(const CoalesceRequest& sent, uint64_t number) const {
    for (const auto& [other_number, other] : held_) {
      if (other_number >= number) break;
      EXPECT_FALSE(other->op == sent.op && other->fua == sent.fua && !other->urgent &&
                   other->range.overlaps(sent.range));
    }
  }

  IoCoalesce::Limits limits_;
  IoCoalesce coalesce_;
  std::map<uint64_t, std::unique_ptr<Numbered>> held_, sent_;
  std::vector<std::unique_ptr<CoalesceBatch>> below_;
  uint64_t submitted_ = 0;
  Time now_{};
};

// --- what must be shown (the numbers are those of the mechanism's claims)

TEST(IoCoalesce, show_1_held_while_one_is_in_flight) {
  Bench bench({.mode = Mode::always});
  EXPECT_EQ(bench.write(0), 1U);
  for (uint64_t i = 1; i <= 64; ++i) EXPECT_EQ(bench.write(i * 8192), 0U);
  EXPECT_EQ(bench.held(), 64U);
}

TEST(IoCoalesce, show_2_a_full_queue_is_sent_together_with_the_next) {
  Bench bench({.mode = Mode::always, .capacity = 4});
  bench.write(0);
  for (uint64_t i = 1; i <= 4; ++i) EXPECT_EQ(bench.write(i * 8192), 0U);
  EXPECT_EQ(bench.write(5 * 8192), 1U);
  EXPECT_EQ(bench.below(1).requests, 5U);
  EXPECT_EQ(bench.coalesce().counters().by_full, 1U);
}

TEST(IoCoalesce, show_3_lower_requests_grow_with_batches) {
  Bench bench({.mode = Mode::always});
  for (uint64_t i = 0; i < 33; ++i) bench.write(i * 4096);
  bench.end();
  bench.send();
  EXPECT_EQ(bench.coalesce().counters().requests, 33U);
  EXPECT_EQ(bench.coalesce().counters().batches, 2U);
  EXPECT_EQ(bench.coalesce().counters().extents, 2U);
}

TEST(IoCoalesce, show_4_a_completion_alone_sends_what_is_held) {
  Bench bench({.mode = Mode::always});
  for (uint64_t i = 0; i < 100; ++i) bench.write(i * 1'000'000);
  while (bench.batches_below() > 0) {
    bench.end();
    bench.send();
  }
  EXPECT_TRUE(bench.coalesce().idle());
}

TEST(IoCoalesce, show_5_one_batch_carries_all_adjacent_or_not) {
  Bench bench({.mode = Mode::always});
  for (uint64_t i = 0; i < 33; ++i) bench.write((i * 7 % 64) * 1'000'000);
  bench.end();
  EXPECT_EQ(bench.send(), 1U);
  EXPECT_EQ(bench.below(0).requests, 32U);
  EXPECT_EQ(bench.below(0).extents, 32U);
}

TEST(IoCoalesce, show_6_switched_off_each_request_goes_by_itself) {
  Bench bench({.mode = Mode::off});
  for (uint64_t i = 0; i < 32; ++i) bench.submit(Op::write, (i / 2) * 4096);  // Even overlapping.
  EXPECT_EQ(bench.send(), 32U);
}

TEST(IoCoalesce, show_7_the_number_in_flight_is_a_condition) {
  Bench bench({.mode = Mode::always, .below_min = 3});
  for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(bench.write(i * 8192), 1U);
  EXPECT_EQ(bench.write(3 * 8192), 0U);
  bench.end();
  EXPECT_EQ(bench.send(), 1U);
}

TEST(IoCoalesce, show_8_sizes_are_a_condition) {
  Bench bench({.mode = Mode::always, .batch_bytes_max = 32768, .extent_bytes_max = 16384});
  for (uint64_t i = 0; i < 17; ++i) bench.write(i * 4096);
  bench.end();
  EXPECT_EQ(bench.send(), 2U);
  EXPECT_EQ(bench.below(0).requests, 8U);
  EXPECT_EQ(bench.below(0).extents, 2U);
}

TEST(IoCoalesce, show_9_depth_one_is_never_held) {
  for (const Mode mode : {Mode::always, Mode::adaptive}) {
    Bench bench({.mode = mode});
    for (uint64_t i = 0; i < 10'000; ++i) {
      ASSERT_EQ(bench.write(i * 4096), 1U);
      bench.end();
      ASSERT_EQ(bench.send(), 0U);
    }
    EXPECT_EQ(bench.coalesce().counters().held, 0U);
  }
}

// A guest that keeps `depth` requests outstanding; `next` says where.
template <class Next>
IoCoalesce::Counters drive(Bench& bench, size_t depth, uint64_t requests, Next next, bool bursts) {
  const IoCoalesce::Counters before = bench.coalesce().counters();
  Prng prng(17);
  size_t outstanding = 0;
  for (const uint64_t limit = bench.submitted() + requests; bench.submitted() < limit;) {
    while (outstanding < depth) {
      bench.submit(Op::write, next());
      ++outstanding;
      if (!bursts) bench.send();
    }
    bench.send();
    outstanding -= bench.end(prng.below(bench.batches_below()));
    bench.send();
    bench.pass(microseconds(2));
  }
  while (bench.batches_below() > 0) {
    bench.end();
    bench.send();
  }
  IoCoalesce::Counters after = bench.coalesce().counters();
  after.requests -= before.requests, after.extents -= before.extents, after.held -= before.held;
  after.batches -= before.batches, after.probes -= before.probes;
  return after;
}

TEST(IoCoalesce, the_short_way_is_open_while_nothing_is_held) {
  Bench bench({.mode = Mode::always});
  bench.short_way = true;
  bench.submit(Op::read, 0);
  EXPECT_EQ(bench.batches_below(), 0U) << "it could bring others";
  bench.send();
  Bench shallow({});
  shallow.short_way = true;
  for (uint64_t i = 0; i < 4; ++i) shallow.submit(Op::read, i * 4096);
  EXPECT_EQ(shallow.batches_below(), 4U);
  EXPECT_EQ(shallow.coalesce().counters().requests, 4U);
  EXPECT_EQ(shallow.coalesce().counters().extents, 4U);
  shallow.submit(Op::write, 0);
  shallow.submit(Op::write, 0);
  EXPECT_EQ(shallow.batches_below(), 6U) << "what is in flight may be overlapped (D5)";
}

TEST(IoCoalesce, show_10_random_loads_are_not_held) {
  for (const size_t depth : {2U, 8U, 32U, 128U}) {
    Prng prng(depth);
    Bench bench({});
    const auto counters = drive(
        bench, depth, 100'000, [&] { return prng.below(1 << 24) * 4096; }, false);
    EXPECT_LT(counters.held, counters.requests / 50) << depth;  // The probes.
    EXPECT_GT(counters.extents, counters.requests * 49 / 50) << depth;
    EXPECT_EQ(counters.probes > 0, depth >= 8) << depth;
  }
}

TEST(IoCoalesce, sequential_requests_at_depth_32_need_a_tenth_of_the_device_requests) {
  for (const bool bursts : {false, true}) {
    uint64_t at = 0;
    Bench bench({});
    const auto counters = drive(
        bench, 32, 100'000, [&] { return 4096 * at++; }, bursts);
    EXPECT_LE(counters.extents * 10, counters.requests) << bursts;
  }
}

TEST(IoCoalesce, C6_the_gate_follows_a_change_of_pattern_both_ways) {
  Prng prng(1);
  Bench bench({});
  uint64_t at = 0;
  const auto random = [&] { return prng.below(1 << 24) * 4096; };
  const auto sequential = [&] { return 4096 * at++; };
  for (int round = 0; round < 3; ++round) {
    drive(bench, 32, 2'000, sequential, true);
    EXPECT_TRUE(bench.coalesce().holding());
    EXPECT_LE(drive(bench, 32, 10'000, sequential, true).extents, 1'000U);
    drive(bench, 32, 2'000, random, true);
    EXPECT_LT(drive(bench, 32, 10'000, random, true).held, 400U);
  }
}

// Neighbours that come shuffled beyond recognition: only a probe can see them.
TEST(IoCoalesce, C6_a_probe_finds_what_arrives_shuffled) {
  Prng prng(4);
  Bench bench({});
  std::vector<uint64_t> window;
  uint64_t at = 0;
  const auto shuffled = [&] {
    if (window.empty()) {
      for (uint64_t i = 0; i < 32; ++i) window.push_back(4096 * (at + i));
      at += 32;
    }
    const uint64_t which = prng.below(window.size());
    const uint64_t chosen = window[which];
    window[which] = window.back();
    window.pop_back();
    return chosen;
  };
  drive(bench, 32, 20'000, shuffled, true);
  EXPECT_LE(drive(bench, 32, 20'000, shuffled, true).extents, 10'000U);
}

TEST(IoCoalesce, C4_an_overlapping_write_waits_for_the_end_of_the_earlier) {
  Bench bench({.mode = Mode::always});
  bench.write(1 << 20);
  bench.submit(Op::write, 4096, 8192);
  bench.submit(Op::write, 8192, 8192);
  bench.submit(Op::write, 12288, 8192);
  bench.submit(Op::write, 65536, 4096);
  bench.end();
  EXPECT_EQ(bench.send(), 1U);  // The first of them and the one beside.
  EXPECT_EQ(bench.below(0).requests, 2U);
  bench.end();
  EXPECT_EQ(bench.send(), 1U);
  EXPECT_EQ(bench.below(0).requests, 1U);
  bench.end();
  EXPECT_EQ(bench.send(), 1U);
  bench.end();
  EXPECT_EQ(bench.send(), 0U);
  EXPECT_TRUE(bench.coalesce().idle());
}

TEST(IoCoalesce, C5_FUA_and_plain_writes_do_not_mix) {
  Bench bench({.mode = Mode::always});
  bench.write(1 << 20);
  bench.submit(Op::write, 0);
  bench.submit(Op::write, 4096, 4096, true);
  bench.submit(Op::write, 8192);
  bench.submit(Op::zero, 12288);
  bench.submit(Op::discard, 16384);
  bench.submit(Op::read, 16384);
  bench.end();
  EXPECT_EQ(bench.send(), 5U);
  EXPECT_EQ(bench.below(0).first->op, Op::read);  // Reads first.
}

TEST(IoCoalesce, C6_urgent_requests_pass) {
  Bench bench({.mode = Mode::always});
  bench.write(0);
  EXPECT_EQ(bench.write(8192), 0U);
  bench.submit(Op::read, 0, 4096, false, true);
  EXPECT_GE(bench.send(), 1U);
  EXPECT_TRUE(bench.below(1).first->urgent);
}

TEST(IoCoalesce, C7_a_deadline_sends_what_waits_for_a_slow_device) {
  Bench bench({.mode = Mode::always});
  bench.write(0);
  bench.write(8192);
  bench.pass(microseconds(499));
  EXPECT_EQ(bench.send(), 0U);
  bench.pass(microseconds(1));
  EXPECT_EQ(bench.send(), 1U);
  EXPECT_FALSE(bench.coalesce().deadline());
  EXPECT_EQ(bench.coalesce().counters().by_deadline, 1U);
}

TEST(IoCoalesce, a_drain_leaves_nothing_held) {
  Bench bench({.mode = Mode::always});
  for (uint64_t i = 0; i < 10; ++i) bench.write(i * 8192);
  bench.coalesce().drain();
  EXPECT_EQ(bench.send(), 1U);
  EXPECT_EQ(bench.held(), 0U);
  bench.write(1 << 20);
  bench.coalesce().set_mode(Mode::off);
  EXPECT_EQ(bench.send(), 1U);
}

TEST(IoCoalesce, C1_to_C7_in_a_million_events) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Prng prng(seed);
    Bench bench({.mode = static_cast<Mode>(1 + seed % 2),
                 .below_min = static_cast<uint32_t>(1 + prng.below(3)),
                 .capacity = static_cast<uint32_t>(1 + prng.below(40)),
                 .batch_bytes_max = 4096 * (1 + prng.below(64)),
                 .extent_bytes_max = 4096 * (1 + prng.below(32)),
                 .extents_max = static_cast<uint32_t>(1 + prng.below(20))});
    const uint64_t span = 1 + prng.below(200);
    bench.short_way = seed % 4 >= 2;
    for (int i = 0; i < 100'000; ++i) {
      const uint64_t what = prng.below(16);
      if (what < 8 && bench.submitted() < UINT64_MAX && bench.held() < 200) {
        bench.submit(static_cast<Op>(prng.below(4)), 4096 * prng.below(span),
                     4096 * (1 + prng.below(4)), prng.one_in(4), prng.one_in(20));
        if (prng.one_in(2)) bench.send();
      } else if (what < 13 && bench.batches_below() > 0) {
        bench.end(prng.below(bench.batches_below()), prng.one_in(9));
        if (!prng.one_in(4)) bench.send();
      } else if (what == 13) {
        bench.pass(Duration(prng.below(100'000)));
        bench.send();
      } else if (prng.one_in(50)) {
        bench.coalesce().drain();
        bench.send();
      }
      if (::testing::Test::HasFailure()) FAIL() << "seed " << seed << ", event " << i;
    }
    bench.send();
    while (bench.batches_below() > 0) {  // Without another arrival everything ends.
      bench.end(prng.below(bench.batches_below()));
      bench.send();
    }
    EXPECT_TRUE(bench.coalesce().idle());
  }
}

}  // namespace
}  // namespace firn::policy
