// SPDX-License-Identifier: Apache-2.0
// The client against our own server, over a pool on this machine: what is read, written and
// mapped, how errors arrive, and how a crew ends.
#include "cmd/nbd_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>

#include "cmd/crew.h"
#include "cmd/sesparse.h"
#include "engine/daemon.h"
#include "io/io_test_dir.h"
#include "io/socket.h"
#include "serve/memory_device.h"
#include "serve/nbd_server.h"

namespace firn::cmd {
namespace {

using Kind = NbdClient::Kind;
constexpr uint64_t kBytes = 40 * kMiB + 512;

class OneExport final : public serve::ExportSource {
 public:
  explicit OneExport(std::shared_ptr<BlockDevice> device) : device_(std::move(device)) {}
  Result<serve::Export> find(Io&, std::string_view name) override {
    if (name != "disk") return fail(Errc::not_found, "no such export");
    serve::Export found;
    found.name = "disk";
    found.device = device_;
    return found;
  }
  std::vector<serve::ExportEntry> list(Io&) override { return {{"disk", ""}}; }

 private:
  std::shared_ptr<BlockDevice> device_;
};

class Silence final : public serve::Log {
 public:
  void line(serve::Severity, std::string_view, std::string_view, std::string_view) override {}
};

class NbdClientTest : public testing::Test {
 protected:
  // `body` gets the socket of a disk of kBytes, in a fiber.
  void with_disk(const std::function<void(FiberIo&, const std::string&)>& body) {
    engine::block_signals();
    Result<std::unique_ptr<FiberIo>> io = FiberIo::make();
    ASSERT_TRUE(io) << text_of(io.error());
    (*io)->run([&] {
      const std::string path = directory / "s";
      OneExport source(device);
      Silence log;
      serve::NbdServer server(**io, source, log, {});
      Result<std::unique_ptr<Socket>> listener = listen_unix(path);
      ASSERT_TRUE(listener) << text_of(listener.error());
      server.listen(listener.take(), "test");
      body(**io, path);
      server.drain(std::chrono::seconds(10));
    });
  }

  TestDir directory;
  std::shared_ptr<serve::MemoryDevice> device = std::make_shared<serve::MemoryDevice>(kBytes);
};

TEST_F(NbdClientTest, reads_writes_and_maps) {
  with_disk([this](FiberIo& io, const std::string& socket) {
    auto made = NbdClient::connect(io, socket, "disk");
    ASSERT_TRUE(made) << text_of(made.error());
    NbdClient& client = **made;
    EXPECT_EQ(client.bytes(), kBytes);
    const std::vector<std::byte> ones(2 * kMiB, std::byte{1});
    ASSERT_TRUE(client.write(kMiB, ones));
    ASSERT_TRUE(device->zero(io, {8 * kMiB, 64 * kKiB}, {}));
    ASSERT_TRUE(client.write(kBytes - 512, View(ones).first(512)));
    std::vector<std::byte> back(4 * kMiB, std::byte{7});
    ASSERT_TRUE(client.read(0, back));
    EXPECT_TRUE(all_zero(View(back).first(kMiB)));
    EXPECT_TRUE(std::ranges::equal(View(back).subspan(kMiB, ones.size()), ones));
    EXPECT_TRUE(all_zero(View(back).subspan(3 * kMiB)));

    std::vector<NbdClient::Run> runs;
    ASSERT_TRUE(client.map({0, kBytes}, runs));
    std::vector<std::pair<Kind, uint64_t>> merged;
    for (const NbdClient::Run& run : runs) {
      if (merged.empty() || merged.back().first != run.kind) merged.emplace_back(run.kind, 0);
      merged.back().second += run.length;
    }
    const std::vector<std::pair<Kind, uint64_t>> expected{{Kind::hole, kMiB},
                                                          {Kind::data, 2 * kMiB},
                                                          {Kind::hole, 5 * kMiB},
                                                          {Kind::zero, 64 * kKiB},
                                                          {Kind::hole, 32 * kMiB - 64 * kKiB},
                                                          {Kind::data, 512}};
    EXPECT_EQ(merged, expected);
    client.end();
    EXPECT_FALSE(client.read(0, back));
  });
}

// Holes, zeroes and data go out as three types, and come in again as what they were.
TEST_F(NbdClientTest, seSparse_goes_out_and_comes_in) {
  with_disk([this](FiberIo& io, const std::string& socket) {
    namespace sesparse = format::sesparse;
    const std::vector<std::byte> ones(20 * kMiB, std::byte{1});
    const ::iovec slice = slice_of(View(ones));
    ASSERT_TRUE(device->write(io, {15 * kMiB, ones.size()}, Iovec(&slice, 1), {}));
    ASSERT_TRUE(device->zero(io, {8 * kMiB, 64 * kKiB}, {}));
    const std::string path = directory / "x.vmdk";
    const Result<void> out = export_sesparse(io, socket, "disk", path, "out");
    ASSERT_TRUE(out) << text_of(out.error());
    auto image = look_at_sesparse(io, path, "", false);
    ASSERT_TRUE(image) << text_of(image.error());
    ASSERT_TRUE(image->has_value());
    const sesparse::Layout layout = (*image)->layout;
    EXPECT_EQ(layout.bytes, kBytes);
    EXPECT_EQ(layout.grain_count, ones.size() / kGrainBytes);
    std::vector<le64> first(sesparse::kTableEntries);  // The first 16 MiB come first.
    ASSERT_TRUE(io.read(*(*image)->file, layout.tables, std::as_writable_bytes(std::span(first))));
    for (size_t i = 0; i < first.size(); ++i) {
      const uint64_t at = i * kGrainBytes;
      const bool zero = at >= 8 * kMiB && at < 8 * kMiB + 64 * kKiB;
      sesparse::Entry expected{zero ? sesparse::EntryType::zero : sesparse::EntryType::unallocated};
      if (at >= 15 * kMiB) expected = {sesparse::EntryType::data, i - 15 * kMiB / kGrainBytes};
      ASSERT_EQ(first[i], encode(expected)) << i;
    }
    ASSERT_TRUE(device->discard(io, {0, kBytes}));
    const Result<void> in = import_sesparse(io, **image, socket, "disk", "in");
    ASSERT_TRUE(in) << text_of(in.error());
    std::vector<std::byte> back(ones.size());
    const ::iovec into = slice_of(Bytes(back));
    ASSERT_TRUE(device->read(io, {15 * kMiB, back.size()}, Iovec(&into, 1)));
    EXPECT_EQ(back, ones);
  });
}

TEST_F(NbdClientTest, what_is_not_there_is_named) {
  with_disk([](FiberIo& io, const std::string& socket) {
    const auto other = NbdClient::connect(io, socket, "other");
    ASSERT_FALSE(other);
    EXPECT_NE(text_of(other.error()).find("disk other: its server refuses"), std::string::npos)
        << text_of(other.error());
    EXPECT_FALSE(NbdClient::connect(io, socket + "x", "disk"));
  });
}

TEST_F(NbdClientTest, W1_the_first_error_ends_the_crew) {
  with_disk([](FiberIo& io, const std::string& socket) {
    Crew crew(io, socket, "disk");
    int started = 0;
    const Result<void> done = crew.run([&](NbdClient& client) -> Result<void> {
      if (++started == 2) return fail(Errc::no_space, "the second one");
      std::vector<std::byte> room(4096);
      while (!crew.stopped()) TRY(client.read(0, room));
      return ok;
    });
    ASSERT_FALSE(done);
    EXPECT_EQ(text_of(done.error()), "the second one");
    EXPECT_GE(started, 2);
  });
}

TEST_F(NbdClientTest, W2_a_signal_ends_the_crew) {
  with_disk([](FiberIo& io, const std::string& socket) {
    Crew crew(io, socket, "disk");
    bool sent = false;
    const Result<void> done = crew.run([&](NbdClient& client) -> Result<void> {
      if (!sent) ::kill(::getpid(), SIGTERM);
      sent = true;
      std::vector<std::byte> room(4096);
      while (true) TRY(client.read(0, room));
    });
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Errc::cancelled) << text_of(done.error());
    EXPECT_TRUE(crew.stopped());
  });
}

// A server that lies in each of the first messages is believed in none.
TEST(NbdClientLies, C2_noise_is_no_server) {
  TestDir directory;
  Result<std::unique_ptr<FiberIo>> made = FiberIo::make();
  ASSERT_TRUE(made) << text_of(made.error());
  FiberIo& io = **made;
  namespace nbd = wire::nbd;
  io.run([&] {
    const std::string path = directory / "s";
    auto listener = listen_unix(path);
    ASSERT_TRUE(listener) << text_of(listener.error());
    const nbd::Greeting greeting;
    std::vector<std::byte> noise(64, std::byte{0x5a});
    std::vector<std::byte> old(view_of(greeting).begin(), view_of(greeting).end());
    old[17] = std::byte{};  // No fixed newstyle.
    std::vector<std::byte> longer(view_of(greeting).begin(), view_of(greeting).end());
    const auto head = nbd::encode(
        nbd::OptionReplyHeader{nbd::Option::structured_reply, nbd::OptionReply::ack, 0xffffffff});
    longer.insert(longer.end(), head.begin(), head.end());
    for (const std::vector<std::byte>& words :
         {std::vector<std::byte>{}, noise, old, longer,
          std::vector<std::byte>(longer.begin(), longer.begin() + 30)}) {
      Group server(io);
      io.spawn(server, [&] {
        auto client = io.accept(**listener);
        ASSERT_TRUE(client);
        const ::iovec slice = slice_of(View(words));
        std::array<std::byte, 64> room{};
        if (!words.empty()) {
          EXPECT_TRUE(io.send(**client, Iovec(&slice, 1)));
          static_cast<void>(io.receive(**client, room).has_value());
        }
        io.shutdown(**client);
      });
      const auto client = NbdClient::connect(io, path, "disk");
      ASSERT_FALSE(client) << words.size();
      EXPECT_FALSE(text_of(client.error()).empty());
    }
  });
}

TEST(Sesparse, extents_are_named_after_their_descriptor) {
  EXPECT_EQ(sesparse_extent_of("web.vmdk"), "web-sesparse.vmdk");
  EXPECT_EQ(sesparse_extent_of("/a.vmdk/web"), "/a.vmdk/web-sesparse.vmdk");
  EXPECT_EQ(sesparse_extent_of("dir/.vmdk"), "dir/.vmdk-sesparse.vmdk");
  EXPECT_EQ(sesparse_extent_of("x.img"), "x.img-sesparse.vmdk");
}

}  // namespace
}  // namespace firn::cmd
