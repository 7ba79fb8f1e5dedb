// SPDX-License-Identifier: Apache-2.0
// In simulated time: nothing here depends on speed.
#include "disk/limits.h"

#include "disk/layer_conformance.h"

namespace firn::disk {
namespace {

using Limits = LimitedDevice::Limits;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Limits kNone;
Limits rates(uint64_t requests, uint64_t bytes) {
  return {.requests = {requests, 1}, .bytes = {bytes, 4096}};
}

class LimitedTest : public testing::Test {
 protected:
  void run(const Limits& limits, const std::function<void()>& body) {
    io_.run([&] {
      SlowMemory memory(kMiB, prng_);
      memory.set_latency(Duration::zero());
      LimitedDevice device(io_.now(), memory, limits);
      memory_ = &memory;
      device_ = &device;
      began_ = io_.now();
      body();
    });
  }
  void read(uint64_t length) {
    std::vector<std::byte> bytes(length);
    const ::iovec slice = slice_of(Bytes(bytes));
    EXPECT_TRUE(device_->read(io_, {0, length}, Iovec(&slice, 1)));
  }
  // `count` reads at once; when each ended.
  std::vector<Duration> reads(uint64_t count, uint64_t length) {
    std::vector<Duration> ends;
    Group group(io_);
    for (uint64_t i = 0; i < count; ++i) {
      io_.spawn(group, [&] {
        read(length);
        ends.push_back(passed());
      });
    }
    group.wait();
    return ends;
  }
  Duration passed() { return io_.now() - began_; }

  sim::World world_;
  sim::SimIo io_{world_, 1, {.order = sim::Order::in_order}};
  Prng prng_{1};
  SlowMemory* memory_ = nullptr;
  LimitedDevice* device_ = nullptr;
  Time began_;
};

TEST_F(LimitedTest, Q1_requests_wait_for_the_stricter_limit) {
  run(rates(100, 0), [&] {
    const auto ends = reads(11, 4096);
    for (size_t i = 0; i < ends.size(); ++i) EXPECT_EQ(ends[i], milliseconds(10 * i));
    EXPECT_EQ(device_->counters().requests, 11u);
    EXPECT_EQ(device_->counters().waits, 10u);
    EXPECT_EQ(device_->counters().wait_ns, 550'000'000u);
  });
  run(rates(1'000'000, 1 << 20), [&] {
    EXPECT_EQ(reads(2, 512 * 1024).back(), seconds(1) - std::chrono::nanoseconds(3'906'250));
  });
}

TEST_F(LimitedTest, Q1_what_moves_counts_as_bytes) {
  run(rates(0, 4096), [&] {
    read(4096);  // The burst.
    const Range all{0, kMiB};
    EXPECT_TRUE(device_->discard(io_, all));
    EXPECT_TRUE(device_->zero(io_, all, {}));
    EXPECT_EQ(passed(), Duration::zero());
    EXPECT_TRUE(device_->zero(io_, {0, 8192}, {.keep_space = true}));
    EXPECT_EQ(passed(), seconds(2));
    const std::vector<std::byte> bytes(4096);
    const ::iovec slice = slice_of(View(bytes));
    EXPECT_TRUE(device_->write(io_, {0, 4096}, Iovec(&slice, 1), {}));
    EXPECT_EQ(passed(), seconds(3));
  });
}

TEST_F(LimitedTest, Q2_flushes_and_looks_pass) {
  run(rates(1, 0), [&] {
    Group group(io_);
    for (int i = 0; i < 5; ++i) io_.spawn(group, [&] { read(512); });
    io_.yield();
    class Nobody final : public ExtentSink {
      bool add(ExtentRun) override { return true; }
    } nobody;
    EXPECT_EQ(device_->waiting(), 4u);
    EXPECT_TRUE(device_->flush(io_));
    EXPECT_TRUE(device_->map(io_, {0, 4096}, nobody));
    EXPECT_EQ(passed(), Duration::zero());
    group.wait();
    EXPECT_EQ(passed(), seconds(4));
  });
}

TEST_F(LimitedTest, Q3_new_limits_hold_for_those_who_wait) {
  run(rates(1, 0), [&] {
    Group group(io_);
    std::vector<Duration> ends;
    for (int i = 0; i < 21; ++i) {
      io_.spawn(group, [&] {
        read(512);
        ends.push_back(passed());
      });
    }
    io_.sleep(milliseconds(1500));
    EXPECT_EQ(ends.size(), 2u);
    device_->set_limits(io_.now(), rates(10, 0));  // 19 wait: until 1.5 s + 1.9 s at most.
    group.wait();
    EXPECT_LE(passed(), milliseconds(3400) + LimitedDevice::kLook);
    EXPECT_GE(passed(), milliseconds(3300));
    EXPECT_TRUE(std::ranges::is_sorted(ends));
  });
  run(rates(1, 0), [&] {
    Group group(io_);
    for (int i = 0; i < 100; ++i) io_.spawn(group, [&] { read(512); });
    io_.sleep(milliseconds(10));
    device_->set_limits(io_.now(), kNone);
    group.wait();
    EXPECT_LE(passed(), milliseconds(10) + LimitedDevice::kLook);
    read(512);
    EXPECT_LE(passed(), milliseconds(10) + LimitedDevice::kLook);
  });
}

TEST_F(LimitedTest, a_device_that_shrank_meanwhile_is_an_error) {
  run(rates(1, 0), [&] {
    read(512);
    Group group(io_);
    io_.spawn(group, [&] {
      std::vector<std::byte> bytes(4096);
      const ::iovec slice = slice_of(Bytes(bytes));
      const auto got = device_->read(io_, {kMiB - 4096, 4096}, Iovec(&slice, 1));
      ASSERT_FALSE(got);
      EXPECT_EQ(got.error().code, Errc::invalid);
    });
    io_.yield();
    memory_->shrink(kMiB / 2);
  });
}

TEST(Limited, D1_to_D6) {
  expect_layer_conforms([](Io& io, BlockDevice& below, Prng& prng) {
    const bool tight = prng.one_in(2);
    return std::make_unique<LimitedDevice>(io.now(), below,
                                           rates(tight ? 2000 : 0, prng.one_in(2) ? 20 << 20 : 0));
  });
}

// Two users, one bucket: what one does not use the other may.
TEST_F(LimitedTest, Q4_users_share) {
  run(rates(100, 0), [&] {
    uint64_t done[2] = {0, 0};
    Group group(io_);
    for (auto& count : done) {
      io_.spawn(group, [&] {
        for (; passed() < seconds(1); ++count) read(512);
      });
    }
    group.wait();
    EXPECT_NEAR(static_cast<double>(done[0] + done[1]), 101, 3);
    EXPECT_NEAR(static_cast<double>(done[0]), static_cast<double>(done[1]), 2);
  });
}

}  // namespace
}  // namespace firn::disk
