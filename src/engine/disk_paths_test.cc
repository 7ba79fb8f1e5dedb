// SPDX-License-Identifier: Apache-2.0
// Settings that change under those who have a disk, in simulated time.
#include "engine/disk_paths.h"

#include <gtest/gtest.h>

#include <functional>

#include "engine/engine.h"
#include "engine/exports.h"
#include "sim/sim_io.h"

namespace firn::engine {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using wire::ControlVerb;

class DiskPathsTest : public testing::Test {
 protected:
  void run(const std::function<void()>& body) {
    io_.run([&] {
      ASSERT_TRUE(store::Pool::create(io_, "/p", {.bytes = 64 * kMiB}));
      store::PoolSettings settings;
      settings.background = false;
      engine_ = Engine::open(io_, "/p", settings).take();
      ask({.verb = ControlVerb::disk_create, .name = "a", .bytes = 16 * kMiB});
      body();
      EXPECT_TRUE(engine_->close(io_));
      engine_.reset();
    });
  }
  void ask(const wire::ControlRequest& request) {
    const auto answer = engine_->answer(io_, request, Service());
    EXPECT_TRUE(answer) << text_of(answer.error());
  }
  void set(const std::string& key, const std::string& value) {
    ask({.verb = ControlVerb::disk_set, .name = "a", .settings = {{key, value}}});
  }
  serve::Export find(const char* name) {
    return DiskExports(engine_->disks(), &engine_->paths()).find(io_, name).take();
  }
  void read(BlockDevice& device) {
    std::array<std::byte, 4096> bytes{};
    const ::iovec slice = slice_of(Bytes(bytes));
    EXPECT_TRUE(device.read(io_, {0, 4096}, Iovec(&slice, 1)));
  }
  // How long `count` reads take that begin together.
  Duration reads(BlockDevice& device, int count) {
    const Time began = io_.now();
    Group group(io_);
    for (int i = 0; i < count; ++i) io_.spawn(group, [&] { read(device); });
    group.wait();
    return io_.now() - began;
  }
  DiskPaths::Parts parts(const char* name) { return engine_->paths().parts().at(name); }

  sim::World world_;
  sim::SimIo io_{world_, 1, {.latency_min = Duration::zero(), .latency_max = Duration::zero()}};
  std::unique_ptr<Engine> engine_;
};

TEST_F(DiskPathsTest, P1_all_users_get_one_device) {
  run([&] {
    const serve::Export one = find("a");
    const serve::Export two = find("a");
    EXPECT_EQ(one.device.get(), two.device.get());
    EXPECT_EQ(engine_->disks().info("a")->attached, 2u);
    ask({.verb = ControlVerb::disk_rename, .name = "a", .to = "b"});
    EXPECT_EQ(find("b").device.get(), one.device.get());
    EXPECT_EQ(engine_->disks().info("b")->attached, 2u);
  });
  EXPECT_FALSE(HasFailure());
}

TEST_F(DiskPathsTest, nobody_has_it_any_more) {
  run([&] {
    { const serve::Export one = find("a"); }
    EXPECT_TRUE(engine_->paths().parts().empty());
    EXPECT_EQ(engine_->disks().info("a")->attached, 0u);
    set("iops", "5");
    const serve::Export again = find("a");
    EXPECT_NE(parts("a").limits, nullptr);
  });
}

TEST_F(DiskPathsTest, P2_P3_limits_come_and_go_under_those_who_have_the_disk) {
  run([&] {
    const serve::Export one = find("a");
    EXPECT_EQ(parts("a").limits, nullptr);
    EXPECT_EQ(reads(*one.device, 1000), Duration::zero());
    set("iops", "10");
    EXPECT_EQ(reads(*one.device, 11), seconds(1)) << "one at once, the others each 100 ms";
    set("iops", "100");
    io_.sleep(seconds(1));
    EXPECT_EQ(reads(*one.device, 20), milliseconds(100)) << "ten at once";
    EXPECT_EQ(parts("a").limits->counters().waits, 20u);
    Group group(io_);
    io_.spawn(group, [&] { EXPECT_LT(reads(*find("a").device, 500), seconds(1)); });
    io_.sleep(milliseconds(500));
    set("iops", "");
    group.wait();
    EXPECT_EQ(reads(*one.device, 1000), Duration::zero());
    set("bandwidth", "64K");
    EXPECT_GE(reads(*one.device, 17), milliseconds(900)) << "a tenth of 64K at once";
  });
}

TEST_F(DiskPathsTest, P3_what_is_off_is_not_in_the_path) {
  run([&] {
    set("coalesce", "off");
    const serve::Export one = find("a");
    EXPECT_EQ(parts("a").coalesce, nullptr);
    set("coalesce", "auto");
    ASSERT_NE(parts("a").coalesce, nullptr);
    const uint64_t before = parts("a").coalesce->decided().requests;
    read(*one.device);
    EXPECT_EQ(parts("a").coalesce->decided().requests, before + 1);
    set("coalesce", "off");
    read(*one.device);
    EXPECT_EQ(parts("a").coalesce->decided().requests, before + 1);
  });
}

TEST_F(DiskPathsTest, P4_lifted_limits_stay_away) {
  run([&] {
    set("iops", "1");
    const serve::Export one = find("a");
    Group group(io_);
    io_.spawn(group, [&] {
      EXPECT_LE(reads(*one.device, 100), milliseconds(10) + disk::LimitedDevice::kLook);
    });
    io_.sleep(milliseconds(10));
    engine_->paths().lift(io_);
    set("iops", "2");
    group.wait();
    EXPECT_EQ(reads(*one.device, 100), Duration::zero());
  });
}

TEST_F(DiskPathsTest, a_lone_export_shares_the_limits) {
  run([&] {
    set("iops", "10");
    const serve::Export one = find("a");
    const auto lone = LoneExports(engine_->disks(), "a", &engine_->paths()).find(io_, "a").take();
    EXPECT_EQ(lone.device.get(), one.device.get());
  });
}

}  // namespace
}  // namespace firn::engine
