// SPDX-License-Identifier: Apache-2.0
// The C interface against a server in another thread, as another process would use it.
#include <firn.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

#include "base/prng.h"
#include "io/fiber_io.h"
#include "io/socket.h"
#include "serve/memory_device.h"
#include "serve/vhost_server.h"

namespace firn {
namespace {

class Exports final : public serve::ExportSource {
 public:
  explicit Exports(std::shared_ptr<BlockDevice> device) : device_(std::move(device)) {}
  Result<serve::Export> find(Io&, std::string_view name) override {
    serve::Export found;
    found.name = name;
    found.device = device_;
    return Result<serve::Export>(std::move(found));
  }
  std::vector<serve::ExportEntry> list(Io&) override { return {}; }

 private:
  std::shared_ptr<BlockDevice> device_;
};

class Silent final : public serve::Log {
  void line(serve::Severity, std::string_view, std::string_view, std::string_view) override {}
};

// A server of one disk on a socket, in a thread, as FiberIo wants it.
class ServerThread {
 public:
  ServerThread(const std::string& path, std::shared_ptr<serve::MemoryDevice> device)
      : exports_(std::move(device)) {
    std::unique_ptr<Socket> listener = listen_unix(path).take();
    thread_ = std::thread([this, held = std::move(listener)]() mutable {
      const auto io = FiberIo::make({.buffer_bytes = 2 * kMiB}).take();
      io->run([&] {
        serve::VhostServer server(*io, exports_, log_);
        server.offer("disk", std::move(held));
        io_ = io.get();
        io_.notify_one();
        while (!over_) io->park(ending_);
        server.drain(std::chrono::seconds(5));
      });
    });
    io_.wait(nullptr);
  }
  ~ServerThread() {
    io_.load()->post([this] {
      over_ = true;
      io_.load()->wake(ending_, SIZE_MAX);
    });
    thread_.join();
  }

 private:
  std::atomic<FiberIo*> io_ = nullptr;
  Exports exports_;
  Silent log_;
  bool over_ = false;
  WaitList ending_;
  std::thread thread_;
};

class ChannelTest : public testing::TestWithParam<uint32_t> {
 protected:
  ChannelTest() : path(fmt::format("/tmp/libfirn-test-{}.sock", ::getpid())) { begin(); }
  ~ChannelTest() override {
    firn_disconnect(channel);
    server.reset();
    ::unlink(path.c_str());
  }
  void begin() {
    ::unlink(path.c_str());
    server = std::make_unique<ServerThread>(path, device);
  }
  void connect(firn_options options = {}) {
    options.size = sizeof(options);
    options.flags = GetParam();
    ASSERT_EQ(firn_connect(path.c_str(), &options, &channel), 0) << firn_error();
  }
  firn_completion one(uint16_t op, uint64_t at, void* buffer, uint32_t length) {
    firn_request request{};
    request.cookie = ++cookie;
    request.offset = at;
    request.buffer = buffer;
    request.length = length;
    request.op = op;
    EXPECT_EQ(firn_submit(channel, &request), 0) << firn_error();
    firn_completion done{};
    EXPECT_EQ(firn_wait(channel, &done, 1, 20'000), 1) << firn_error();
    EXPECT_EQ(done.cookie, cookie);
    EXPECT_EQ(done.op, op);
    return done;
  }

  std::string path;
  std::shared_ptr<serve::MemoryDevice> device = std::make_shared<serve::MemoryDevice>(64 * kMiB);
  std::unique_ptr<ServerThread> server;
  firn_channel* channel = nullptr;
  uint64_t cookie = 0;
};
INSTANTIATE_TEST_SUITE_P(Rings, ChannelTest,
                         testing::Values(0u, FIRN_PACKED, FIRN_NO_EVENT, FIRN_NO_INDIRECT,
                                         FIRN_PACKED | FIRN_NO_EVENT | FIRN_NO_INDIRECT));

TEST_P(ChannelTest, every_verb) {
  connect();
  struct firn_geometry geometry {};
  ASSERT_EQ(firn_get_geometry(channel, &geometry), 0) << firn_error();
  EXPECT_EQ(geometry.bytes, 64 * kMiB);
  EXPECT_EQ(geometry.block, 512u);
  EXPECT_EQ(geometry.can_discard, 1);
  auto* const buffer = static_cast<char*>(firn_allocate(channel, kMiB));
  auto* const other = static_cast<char*>(firn_allocate(channel, kMiB));
  ASSERT_NE(other, nullptr);
  std::memset(buffer, 7, kMiB);
  EXPECT_EQ(one(FIRN_WRITE, 4096, buffer, kMiB).result, 0);
  EXPECT_EQ(one(FIRN_READ, 4096, other, kMiB).result, 0);
  EXPECT_EQ(std::memcmp(buffer, other, kMiB), 0);
  EXPECT_EQ(one(FIRN_FLUSH, 0, nullptr, 0).result, 0);
  EXPECT_EQ(one(FIRN_ZERO, 4096, nullptr, 8192).result, 0);
  EXPECT_EQ(one(FIRN_DISCARD, 65536, nullptr, 8192).result, 0);
  EXPECT_EQ(one(FIRN_READ, 8192, other, 512).result, 0);
  EXPECT_EQ(other[0], 0);
  EXPECT_EQ(one(FIRN_READ, 64 * kMiB, other, 512).result, -EIO);
  EXPECT_EQ(device->count(serve::MemoryDevice::Verb::flush), 1u);
}

TEST_P(ChannelTest, what_cannot_be_is_refused) {
  connect({.depth = 4});
  char outside[512];
  firn_request request{};
  request.length = 512;
  request.buffer = outside;
  EXPECT_EQ(firn_submit(channel, &request), -EFAULT);
  request.buffer = firn_allocate(channel, 4096);
  request.length = 100;
  EXPECT_EQ(firn_submit(channel, &request), -EINVAL);
  request.length = 8192;
  request.op = 9;
  EXPECT_EQ(firn_submit(channel, &request), -EINVAL);
  request.op = FIRN_READ;
  request.length = 512;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(firn_submit(channel, &request), 0);
  EXPECT_EQ(firn_submit(channel, &request), -EAGAIN);
  firn_completion done[8];
  for (int left = 4; left > 0;) left -= firn_wait(channel, done, 8, 20'000);
  EXPECT_EQ(firn_wait(channel, done, 8, -1), 0);  // Nothing is in flight.
  EXPECT_EQ(firn_allocate(channel, size_t{1} << 40), nullptr);
  firn_channel* none = nullptr;
  EXPECT_EQ(firn_connect("/nowhere/at/all", nullptr, &none), -ENOENT);
}

TEST_P(ChannelTest, memory_of_the_callers) {
  connect();
  const int fd = ::memfd_create("theirs", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(fd, 1 << 20), 0);
  void* const at = ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(at, MAP_FAILED);
  ASSERT_EQ(firn_register(channel, fd, 0, at, 1 << 20), 0) << firn_error();
  std::memset(at, 3, 4096);
  EXPECT_EQ(one(FIRN_WRITE, 0, at, 4096).result, 0);
  EXPECT_EQ(device->content()[4095], std::byte{3});
  ::munmap(at, 1 << 20);
  ::close(fd);
}

// Some in flight on each of two queues, by the event descriptor; nothing is lost, nothing comes
// twice.
TEST_P(ChannelTest, random_loads_and_a_server_that_goes_and_comes) {
  connect({.queues = 2, .depth = 16, .spin_us = FIRN_NO_SPIN});
  auto* const memory = static_cast<char*>(firn_allocate(channel, 32 * 4096));
  ASSERT_NE(memory, nullptr);
  Prng prng(GetParam() + 1);
  std::map<uint64_t, int> open;
  uint64_t ended = 0;
  uint64_t begun = 0;
  firn_completion done[16];
  while (ended < 4000) {
    while (begun < 4000 && !prng.one_in(8)) {
      firn_request request{};
      request.cookie = begun;
      request.offset = prng.below(1000) * 4096;
      request.buffer = memory + prng.below(32) * 4096;
      request.length = 4096;
      request.op = prng.one_in(2) ? FIRN_READ : FIRN_WRITE;
      request.queue = static_cast<uint16_t>(prng.below(2));
      if (firn_submit(channel, &request) != 0) break;
      ++open[begun++];
    }
    if (ended / 1000 != (ended + open.size()) / 1000) {
      server.reset();
      begin();
    }
    if (prng.one_in(4)) {
      ASSERT_GE(firn_arm(channel), 0) << firn_error();
    }
    const int count = firn_wait(channel, done, 16, 20'000);
    ASSERT_GE(count, 0) << firn_error();
    for (int i = 0; i < count; ++i) {
      EXPECT_EQ(done[i].result, 0);
      EXPECT_EQ(--open[done[i].cookie], 0);
      open.erase(done[i].cookie);
      ++ended;
    }
  }
  EXPECT_TRUE(open.empty());
  firn_statistics seen;
  firn_get_statistics(channel, &seen);
  EXPECT_GT(seen.reconnects, 0u);
}

TEST_P(ChannelTest, without_a_server_everything_ends_with_an_error) {
  connect({.patience_ms = 50});
  server.reset();
  ::unlink(path.c_str());
  firn_request request{};
  request.buffer = firn_allocate(channel, 4096);
  request.length = 4096;
  ASSERT_EQ(firn_submit(channel, &request), 0);
  firn_completion done{};
  ASSERT_EQ(firn_wait(channel, &done, 1, 20'000), 1) << firn_error();
  EXPECT_EQ(done.result, -ECONNRESET);
  EXPECT_EQ(firn_submit(channel, &request), -ECONNRESET);
}

}  // namespace
}  // namespace firn
