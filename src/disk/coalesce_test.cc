// SPDX-License-Identifier: Apache-2.0
#include "disk/coalesce.h"

#include "disk/layer_conformance.h"

namespace firn::disk {
namespace {

using Limits = CoalescedDevice::Limits;
using Mode = CoalescedDevice::Mode;
using std::chrono::microseconds;

class CoalescedTest : public testing::Test {
 protected:
  void run(const Limits& limits, const std::function<void()>& body) {
    io_.run([&] {
      SlowMemory memory(4 * kMiB, prng_);
      CoalescedDevice device(io_, memory, limits);
      memory_ = &memory;
      device_ = &device;
      body();
    });
  }
  Result<void> write(uint64_t at, bool fua = false) {
    const std::vector<std::byte> bytes(4096, static_cast<std::byte>(at / 4096 + 1));
    const ::iovec slice = slice_of(View(bytes));
    return device_->write(io_, {at, 4096}, Iovec(&slice, 1), {.fua = fua});
  }
  Result<void> read(uint64_t at) {
    std::vector<std::byte> bytes(4096);
    const ::iovec slice = slice_of(Bytes(bytes));
    return device_->read(io_, {at, 4096}, Iovec(&slice, 1));
  }
  // Until those who were spawned have been sent down, or are held.
  void settle() { io_.sleep(microseconds(1)); }
  // A guest that keeps `depth` requests in flight, at the offsets that `next` gives.
  template <class Next>
  void load(uint64_t depth, uint64_t count, bool writes, Next next) {
    Group group(io_);
    uint64_t left = count;
    for (uint64_t i = 0; i < depth; ++i) {
      io_.spawn(group, [&] {
        while (left > 0) {
          --left;
          const uint64_t at = next();
          EXPECT_TRUE(writes ? write(at) : read(at));
        }
      });
    }
    group.wait();
  }
  auto sequential() {
    return [at = uint64_t{0}]() mutable { return at++ * 4096 % (4 * kMiB); };
  }
  auto random() {
    return [this] { return prng_.below(kMiB / 1024) * 4096; };
  }
  const policy::IoCoalesce::Counters& decided() const { return device_->decided(); }

  sim::World world_;
  sim::SimIo io_{world_, 1, {.order = sim::Order::in_order}};
  Prng prng_{1};
  SlowMemory* memory_ = nullptr;
  CoalescedDevice* device_ = nullptr;
};

TEST_F(CoalescedTest, D1_to_D6_in_every_mode) {
  for (const Mode mode : {Mode::adaptive, Mode::always, Mode::off}) {
    expect_layer_conforms([mode](Io& io, BlockDevice& below, Prng& prng) {
      Limits limits;
      limits.mode = mode;
      if (prng.one_in(2)) limits.capacity = 4;
      if (prng.one_in(2)) limits.extent_bytes_max = 16 * kKiB;
      if (prng.one_in(2)) limits.depth_min = 2;
      if (prng.one_in(2)) limits.probe_period = 8;
      return std::make_unique<CoalescedDevice>(io, below, limits);
    });
  }
}

TEST_F(CoalescedTest, K1_depth_1_is_never_held) {
  for (const Mode mode : {Mode::adaptive, Mode::always}) {
    run({.mode = mode}, [&] {
      load(1, 500, true, sequential());
      load(1, 500, false, random());
      EXPECT_EQ(decided().held, 0u);
      EXPECT_EQ(memory_->transfers(), 1000u);
    });
  }
}

TEST_F(CoalescedTest, sequential_and_deep_is_at_most_a_tenth) {
  for (const bool writes : {true, false}) {
    run({}, [&] {
      load(32, 20'000, writes, sequential());
      EXPECT_LE(memory_->transfers(), 2000u);
      EXPECT_EQ(decided().requests, 20'000u);
      EXPECT_EQ(decided().extents, memory_->transfers());
    });
  }
}

TEST_F(CoalescedTest, random_and_deep_stays_deep_below) {
  run({}, [&] {
    load(32, 20'000, false, random());
    EXPECT_LE(decided().held, 20'000u / 100);
    EXPECT_EQ(memory_->in_flight_max(), 32u);
  });
}

// Five neighbours go down with one that is bad: it alone fails.
TEST_F(CoalescedTest, K3_a_request_fails_for_its_own_range_only) {
  for (const bool writes : {true, false}) {
    run({.mode = Mode::always, .hold_max = std::chrono::seconds(1)}, [&] {
      memory_->set_latency(std::chrono::milliseconds(1));
      memory_->fail_at(5 * 4096 + 7);
      Group group(io_);
      io_.spawn(group, [&] { EXPECT_TRUE(read(kMiB)); });
      settle();
      uint64_t failed = 0;
      for (uint64_t i = 3; i < 9; ++i) {
        io_.spawn(group, [&, i] {
          const auto done = writes ? write(i * 4096) : read(i * 4096);
          EXPECT_EQ(done.has_value(), i != 5);
          if (!done) {
            ++failed;
            EXPECT_EQ(done.error().code, Errc::io);
          }
        });
      }
      group.wait();
      EXPECT_EQ(failed, 1u);
      EXPECT_EQ(device_->counters().retried, 6u);
    });
  }
}

TEST_F(CoalescedTest, K4_a_flush_sends_what_is_held_and_does_not_wait_for_it) {
  run({.mode = Mode::always, .hold_max = std::chrono::seconds(10)}, [&] {
    memory_->set_latency(std::chrono::milliseconds(1));
    Group group(io_);
    io_.spawn(group, [&] { EXPECT_TRUE(write(0)); });
    settle();
    io_.spawn(group, [&] { EXPECT_TRUE(write(8192)); });
    io_.spawn(group, [&] { EXPECT_TRUE(write(12288)); });
    settle();
    EXPECT_EQ(memory_->transfers(), 1u);
    EXPECT_TRUE(device_->flush(io_));
    EXPECT_EQ(memory_->transfers(), 2u);
    EXPECT_EQ(decided().by_drain, 1u);
    group.wait();
  });
}

TEST_F(CoalescedTest, what_is_held_goes_at_its_deadline_though_nothing_has_ended) {
  run({.mode = Mode::always}, [&] {
    memory_->set_latency(std::chrono::hours(1));
    Group group(io_);
    io_.spawn(group, [&] { EXPECT_TRUE(read(0)); });
    settle();
    memory_->set_latency(Duration::zero());
    const Time began = io_.now();
    EXPECT_TRUE(read(kMiB));
    EXPECT_EQ(io_.now() - began, Limits().hold_max);
    EXPECT_EQ(decided().by_deadline, 1u);
  });
}

TEST_F(CoalescedTest, switched_off_nothing_is_held_any_more) {
  run({.mode = Mode::always, .hold_max = std::chrono::seconds(1)}, [&] {
    memory_->set_latency(std::chrono::hours(1));
    Group group(io_);
    io_.spawn(group, [&] { EXPECT_TRUE(read(0)); });
    settle();
    for (uint64_t i = 1; i < 4; ++i) {
      io_.spawn(group, [&, i] { EXPECT_TRUE(read(i * 4096)); });
    }
    settle();
    EXPECT_EQ(memory_->transfers(), 1u);
    memory_->set_latency(Duration::zero());
    device_->set_mode(io_, Mode::off);
    settle();
    EXPECT_EQ(memory_->transfers(), 4u) << "what was held goes, one by one";
    EXPECT_TRUE(read(65536));
    EXPECT_EQ(memory_->transfers(), 5u);
  });
}

TEST_F(CoalescedTest, a_device_that_shrank_meanwhile_is_an_error) {
  run({.mode = Mode::always, .hold_max = std::chrono::seconds(1)}, [&] {
    memory_->set_latency(std::chrono::milliseconds(1));
    Group group(io_);
    io_.spawn(group, [&] { EXPECT_TRUE(read(0)); });
    settle();
    for (const uint64_t at : {kMiB - 4096, kMiB}) {
      io_.spawn(group, [&, at] { EXPECT_EQ(read(at).has_value(), at < kMiB); });
    }
    settle();
    memory_->shrink(kMiB);
    group.wait();
    EXPECT_EQ(device_->counters().retried, 2u);
  });
}

}  // namespace
}  // namespace firn::disk
