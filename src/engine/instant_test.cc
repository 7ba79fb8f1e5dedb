// SPDX-License-Identifier: Apache-2.0
// Disks that are served while they are fetched: a pool and an archive in a scratch directory.
#include "engine/instant.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "archive/archive_test_util.h"
#include "engine/engine.h"
#include "io/directory_store.h"
#include "io/fiber_io.h"

namespace firn::engine {
namespace {

class InstantTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/firn-instant-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    scratch_ = path;
    Result<std::unique_ptr<FiberIo>> io = FiberIo::make();
    ASSERT_TRUE(io) << text_of(io.error());
    io_ = io.take();
  }
  void TearDown() override { std::filesystem::remove_all(scratch_); }

  // A snapshot disk1@s in scratch_/bucket.
  void make_archive() {
    Prng prng(1);
    archive::scribble(prng, disk_.now, 20);
    std::filesystem::create_directory(scratch_ + "/log");
    const auto store = DirectoryStore::open(*io_, scratch_ + "/bucket", {.create = true});
    ASSERT_TRUE(store) << text_of(store.error());
    ASSERT_TRUE(archive::create_archive(*io_, **store, {}));
    const auto opened = archive::open_archive(*io_, **store, scratch_ + "/log");
    ASSERT_NE(opened, nullptr);
    archive::MemorySource source(disk_.now);
    const auto pushed =
        archive::push(*io_, *opened, archive::request_of(disk_, "s", 1), source, {});
    EXPECT_TRUE(pushed) << text_of(pushed.error());
    EXPECT_TRUE(opened->close(*io_));
  }
  std::unique_ptr<Engine> open_engine() {
    store::PoolShape shape;
    shape.bytes = 256 * kMiB;
    EXPECT_TRUE(store::Pool::create(*io_, scratch_ + "/pool", shape));
    store::PoolSettings settings;
    settings.background = false;
    Result<std::unique_ptr<Engine>> engine = Engine::open(*io_, scratch_ + "/pool", settings);
    EXPECT_TRUE(engine) << text_of(engine.error());
    return engine ? engine.take() : nullptr;
  }
  InstantFrom from() const {
    return {{"url", "file://" + scratch_ + "/bucket"}, {"snapshot", "disk1@s"}};
  }

  std::string scratch_;
  std::unique_ptr<FiberIo> io_;
  archive::TestDisk disk_;
};

TEST_F(InstantTest, of_two_that_make_the_same_disk_one_does) {
  io_->run([this] {
    make_archive();
    const std::unique_ptr<Engine> engine = open_engine();
    ASSERT_NE(engine, nullptr);
    Instant& instant = engine->instant();
    instant.begin(*io_);
    std::vector<std::string> outcomes;
    {
      Group group(*io_);
      for (int i = 0; i < 2; ++i) {
        io_->spawn(group, [&] {
          const Result<void> made = instant.make(*io_, "copy", from());
          outcomes.push_back(made ? "made" : std::string(name_of(made.error().code)));
        });
      }
    }
    std::ranges::sort(outcomes);
    EXPECT_EQ(outcomes, (std::vector<std::string>{"busy", "made"}));
    const Result<disk::DiskInfo> info = engine->disks().info("copy");
    ASSERT_TRUE(info) << text_of(info.error());
    EXPECT_EQ(engine->disks().list().size(), 1U);
    {
      const auto device = engine->paths().attach(*io_, "copy");
      ASSERT_TRUE(device) << text_of(device.error());
      std::vector<std::byte> content(disk_.now.size());
      const ::iovec slice = slice_of(Bytes(content));
      const Result<void> got = (*device)->read(*io_, {0, content.size()}, Iovec(&slice, 1));
      EXPECT_TRUE(got) << text_of(got.error());
      EXPECT_TRUE(content == disk_.now);
    }
    EXPECT_EQ(instant.make(*io_, "copy", from()).error().code, Errc::exists);
    instant.end(*io_);
    EXPECT_TRUE(engine->close(*io_));
  });
}

}  // namespace
}  // namespace firn::engine
