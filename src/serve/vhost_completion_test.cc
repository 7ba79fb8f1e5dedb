// SPDX-License-Identifier: Apache-2.0
// What a disk's rules of completion do to its guests and clients: signals gathered and answers held
// back, and nothing of it for longer than it may.
#include <gtest/gtest.h>

#include "serve/nbd_reply.h"
#include "serve/vhost_test_front.h"

namespace firn::serve {
namespace {

using policy::CompletionPace;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using virtio::BlkStatus;
using virtio::BlkType;
using R = vhost::Request;

// Requests take as long as the test says; those at kStuck until it lets them go.
class SlowDevice final : public BlockDevice {
 public:
  static constexpr uint64_t kStuck = 512 * kKiB;
  Duration service = microseconds(100);
  Duration more{};  // Up to so much.
  uint64_t begun = 0;

  Geometry geometry() const override { return {.bytes = 1 * kMiB}; }
  Result<void> read(Io& io, Range range, Iovec) override { return work(io, range); }
  Result<void> write(Io& io, Range range, Iovec, WriteFlags) override { return work(io, range); }
  Result<void> zero(Io& io, Range range, ZeroFlags) override { return work(io, range); }
  Result<void> discard(Io& io, Range range) override { return work(io, range); }
  Result<void> flush(Io& io) override { return work(io, {}); }
  Result<void> map(Io&, Range, ExtentSink&) override { return ok; }
  void stop() { stopped_ = true; }
  void let_go(Io& io) {
    stopped_ = false;
    io.wake(gate_);
  }

 private:
  Result<void> work(Io& io, Range range) {
    ++begun;
    if (range.at >= kStuck && !range.empty()) {
      while (stopped_) io.park(gate_);
    }
    Duration taken = service;
    if (more > Duration::zero())
      taken += Duration(io.random() % static_cast<uint64_t>(more.count()));
    if (taken > Duration::zero()) io.sleep(taken);
    return ok;
  }
  bool stopped_ = false;
  WaitList gate_;
};

struct RulesWorld {
  explicit RulesWorld(DriverRing::Shape shape = {}) : guest(shape) {
    world.exports.device = slow;
    world.exports.completion = rules;
  }
  void set(bool gathers, std::string_view pace, bool floor = false) {
    const uint64_t version = rules->version + 1;
    rules->gathers = gathers;
    rules->pace = *CompletionPace::preset(pace);
    if (floor) rules->pace.mode = CompletionPace::Mode::floor;
    rules->version = version;
  }
  // `depth` reads in flight until `count` have ended.
  void load(TestFront& front, uint16_t depth, uint32_t count, size_t ring = 0) {
    uint32_t begun = 0;
    for (uint16_t slot = 0; slot < depth; ++slot, ++begun) begin(front, slot, ring);
    for (uint32_t ended = 0; ended < count; ++ended) {
      front.publish(ring);
      const auto slot = front.finish(ring);
      ASSERT_TRUE(slot);
      EXPECT_EQ(front.status(*slot), BlkStatus::good);
      if (begun++ < count) begin(front, *slot, ring);
    }
  }
  static void begin(TestFront& front, uint16_t slot, size_t ring = 0, uint64_t at = 0) {
    ASSERT_TRUE(front.begin(ring, slot, BlkType::in, at / 512, 4096));
  }
  void end(TestFront& front) {
    seen = world.counters();
    front.hang_up();
  }
  double signals_per_request() const {
    return static_cast<double>(seen.calls + seen.calls_spared) /
           static_cast<double>(seen.requests[static_cast<size_t>(VhostOp::read)]);
  }

  VhostWorld world{1 * kMiB};
  VhostCounters seen;  // At the end.
  std::shared_ptr<SlowDevice> slow = std::make_shared<SlowDevice>();
  std::shared_ptr<CompletionRules> rules = std::make_shared<CompletionRules>();
  TestGuest guest;
};

TEST(VhostQueue, begins_all_that_is_offered_before_any_of_it_has_ended) {
  RulesWorld it;
  it.world.simulate(1, [&] {
    TestFront front(it.world, it.guest);
    front.set_up();
    it.slow->stop();
    for (uint16_t slot = 0; slot < 16; ++slot) {
      it.begin(front, slot, 0, SlowDevice::kStuck);
    }
    front.publish(0);
    while (it.slow->begun < 16) it.world.io().sleep(microseconds(10));
    it.slow->let_go(it.world.io());
    for (int i = 0; i < 16; ++i) EXPECT_TRUE(front.finish(0));
    front.hang_up();
  });
}

TEST(VhostQueue, a_device_that_answers_at_once_needs_no_fibers) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    auto& io = static_cast<FiberIo&>(world.io());
    const uint64_t before = io.counters().fibers_spawned;
    for (uint16_t slot = 0; slot < 32; ++slot) {
      RulesWorld::begin(front, slot);
    }
    front.publish(0);
    for (int i = 0; i < 32; ++i) EXPECT_TRUE(front.finish(0));
    EXPECT_LE(io.counters().fibers_spawned - before, 8u);
    front.hang_up();
  });
}

TEST(Completion, fewer_signals_at_depth_and_none_less_at_depth_1) {
  const auto run = [](bool gathers, uint16_t depth) {
    RulesWorld it;
    it.set(gathers, "none");
    it.slow->more = milliseconds(2);
    it.world.simulate(7, [&] {
      TestFront front(it.world, it.guest);
      front.set_up();
      it.load(front, depth, depth == 1 ? 500 : 16000);
      it.end(front);
    });
    return it.signals_per_request();
  };
  // The first epoch is like the other run; then 1 of 4.
  EXPECT_LT(run(true, 32), 0.7 * run(false, 32));
  EXPECT_EQ(run(true, 1), 1.0);
}

// Completions beside commands that are stuck: the delay cap is all that helps them.
TEST(Completion, no_answer_waits_beyond_its_cap) {
  RulesWorld it;
  it.set(true, "none");
  it.slow->more = milliseconds(2);
  it.world.simulate(3, [&] {
    TestFront front(it.world, it.guest);
    front.set_up();
    it.load(front, 32, 16000);  // Now it gathers.
    it.slow->more = Duration::zero();
    it.slow->stop();
    for (uint16_t slot = 20; slot < 30; ++slot) {
      it.begin(front, slot, 0, SlowDevice::kStuck);
    }
    front.publish(0);
    Duration worst{};
    for (int i = 0; i < 300; ++i) {
      const Time begun = it.world.io().now();
      it.begin(front, 0);
      front.publish(0);
      EXPECT_EQ(front.finish(0), 0);
      worst = std::max(worst, it.world.io().now() - begun);
    }
    // The device's time, the cap, and what the world takes for kicks and signals.
    EXPECT_LE(worst, it.slow->service + microseconds(200) + milliseconds(1));
    EXPECT_GT(it.world.counters().calls_late, 0u);
    it.slow->let_go(it.world.io());
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(front.finish(0));
    it.end(front);
  });
}

TEST(Completion, floor_is_the_time_of_the_device_and_stable_is_sooner) {
  for (const DriverRing::Shape shape :
       {DriverRing::Shape{}, DriverRing::Shape{128, false, false, false},
        DriverRing::Shape{128, true, true, true}, DriverRing::Shape{128, true, false, false}}) {
    RulesWorld it(shape);
    it.world.simulate(5, [&] {
      TestFront front(it.world, it.guest);
      front.set_up();
      const auto once = [&] {
        const Time begun = it.world.io().now();
        EXPECT_EQ(front.request(BlkType::in, 0, 4096), BlkStatus::good);
        return it.world.io().now() - begun;
      };
      EXPECT_LT(once(), milliseconds(2));
      it.set(false, "hdd-7200", true);
      const Duration floor = once();
      EXPECT_GE(floor, milliseconds(8));
      EXPECT_LT(floor, milliseconds(10));
      it.set(false, "hdd-7200");
      EXPECT_LT(once(), milliseconds(4));  // It listens: it can take it.
      it.slow->service = milliseconds(12);
      const Duration slow = once();
      EXPECT_LT(slow, milliseconds(13));
      it.set(false, "none");
      it.slow->service = Duration::zero();
      EXPECT_LT(once(), milliseconds(2));
      it.end(front);
    });
    EXPECT_EQ(it.seen.paced, 0u);
  }
}

// A driver that is busy elsewhere sees nothing before the device's time is over.
TEST(Completion, a_guest_that_does_not_listen_is_left_alone_until_maturity) {
  RulesWorld it;
  it.set(false, "hdd-7200");
  it.world.simulate(6, [&] {
    TestFront front(it.world, it.guest);
    front.set_up();
    EXPECT_EQ(front.request(BlkType::in, 0, 4096), BlkStatus::good);
    const Time begun = it.world.io().now();
    it.begin(front, 0);
    // It has not asked for a signal since the last one. Offering this was a sign of life; what
    // ends later has none.
    front.publish(0);
    it.begin(front, 1);
    while (!it.guest.rings[0]->take()) it.world.io().sleep(microseconds(20));
    EXPECT_GE(it.world.io().now() - begun, it.slow->service);
    front.publish(0);
    while (!it.guest.rings[0]->take()) it.world.io().sleep(microseconds(20));
    it.end(front);
  });
  EXPECT_GT(it.seen.paced_by_maturity + it.seen.paced_by_safepoint, 0u);
}

TEST(Completion, a_ring_that_stops_gives_back_what_it_held) {
  RulesWorld it;
  it.set(true, "hdd-7200", true);
  it.world.simulate(9, [&] {
    TestFront front(it.world, it.guest);
    front.set_up();
    for (uint16_t slot = 0; slot < 100; ++slot) it.begin(front, slot);
    front.publish(0);
    while (it.world.counters().paced < 100) it.world.io().sleep(microseconds(50));
    const Time begun = it.world.io().now();
    front.stop_ring(0);
    EXPECT_LT(it.world.io().now() - begun, milliseconds(5));
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(it.guest.rings[0]->take()) << i;
    front.start_ring(0);
    EXPECT_EQ(front.request(BlkType::in, 0, 4096), BlkStatus::good);
    it.end(front);
  });
}

// Rules that change, depths, stuck requests, memory that moves: everything is answered.
TEST(Completion, random_histories_leave_nothing_unanswered) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    RulesWorld it({static_cast<uint16_t>(32 << (seed % 3)), seed % 2 == 0, seed % 3 != 0, true});
    it.world.simulate(seed, [&] {
      TestFront front(it.world, it.guest);
      front.set_up();
      Prng prng(seed);
      bool over = false;
      Group group(it.world.io());
      it.world.io().spawn(group, [&] {
        constexpr std::array<std::string_view, 3> kPaces{"none", "ssd-sata", "hdd-7200"};
        while (!over) {
          it.set(prng.one_in(2), kPaces[prng.below(3)], prng.one_in(2));
          it.slow->service = microseconds(prng.below(300));
          it.world.io().sleep(milliseconds(1 + prng.below(30)));
          if (prng.one_in(3)) front.give_memory();
        }
      });
      for (int i = 0; i < 12; ++i) {
        it.load(front, static_cast<uint16_t>(1 + prng.below(30)),
                static_cast<uint32_t>(30 + prng.below(200)));
      }
      over = true;
      group.wait();
      it.end(front);
    });
    EXPECT_EQ(it.seen.paced, 0u);
    if (testing::Test::HasFailure()) FAIL() << "seed " << seed;
  }
}

// --- NBD

TEST(Completion, replies_are_gathered_and_none_waits_beyond_its_cap) {
  sim::World world;
  sim::SimIo io(world, 11, {.buffer_bytes = 2 * kMiB});
  CompletionRules rules;
  rules.gathers = true;
  NbdServerCounters counters;
  uint32_t handed_back = 0;
  io.run([&] {
    struct Owner final : NbdReplies::Owner {
      Owner(Io& world, uint32_t& count) : io(world), back(count) {}
      void sent(Reply& reply) override {
        auto& each = static_cast<Timed&>(reply);
        worst = std::max(worst, io.now() - each.pushed);
        ++back;
      }
      void all_sent() override {}
      struct Timed : Reply {
        Time pushed;
      };
      Io& io;
      uint32_t& back;
      Duration worst{};
    };
    sim::SocketPair pair = io.pipe_pair();
    PlainStream stream(*pair.a);
    Owner owner(io, handed_back);
    NbdReplies replies(io, stream, owner, counters, &rules);
    Group group(io);
    io.spawn(group, [&] { replies.run(); });
    io.spawn(group, [&] {
      std::array<std::byte, 4096> room;
      for (;;) {
        const Result<size_t> got = io.receive(*pair.b, room);
        if (!got || *got == 0) return;
      }
    });
    std::vector<Owner::Timed> slots(16);
    for (auto& each : slots) {
      each.last = true;
      each.head_bytes = 16;
    }
    Prng prng(1);
    for (uint32_t i = 0; i < 16; ++i) replies.expect();
    for (uint32_t i = 0; i < 20000; ++i) {
      while (handed_back + slots.size() <= i) io.sleep(microseconds(5));
      Owner::Timed& reply = slots[i % slots.size()];
      reply.pushed = io.now();
      replies.push(reply, prng.one_in(1000));
      replies.expect();
      if (i % 1000 == 999) io.sleep(milliseconds(3));  // All is stuck: what was said must go.
      io.sleep(microseconds(prng.below(40)));
    }
    while (handed_back < 20000) io.sleep(microseconds(20));
    // The cap, and what the world takes for a send.
    EXPECT_LE(owner.worst, microseconds(200) + milliseconds(1));
    replies.finish();
    io.shutdown(*pair.a);
    group.wait();
  });
  EXPECT_EQ(counters.replies, 20000u);
  EXPECT_LT(counters.sends, 16000u);
  EXPECT_GT(counters.replies_held, 1000u);
}

}  // namespace
}  // namespace firn::serve
