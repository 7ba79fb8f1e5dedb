// SPDX-License-Identifier: Apache-2.0
// Listeners, limits, and the orderly end.
#include "serve/nbd_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "serve/nbd_test_client.h"

namespace firn::serve {
namespace {

using nbd::Command;
using nbd::Errno;
using nbd::Form;

class Directory {
 public:
  Directory() {
    char name[] = "/tmp/firn-serve-XXXXXX";
    CHECK(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  std::string operator/(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

TEST(NbdServer, listens_on_unix_and_tcp) {
  const Directory directory;
  TestServer server;
  server.run([&] {
    const std::string path = directory / "nbd.sock";
    auto unix_listener = listen_at("unix:" + path, 0600);
    ASSERT_TRUE(unix_listener);
    server.server->listen(unix_listener.take(), "unix:" + path);
    auto tcp_listener = listen_at("tcp:127.0.0.1:0", 0);
    ASSERT_TRUE(tcp_listener);
    const uint16_t port = local_port(**tcp_listener);
    server.server->listen(tcp_listener.take(), "tcp");
    auto there = connect_unix(server.io(), path);
    ASSERT_TRUE(there);
    TestClient one(server.io(), there.take());
    one.connect("disk", Form::structured);
    const Raw data = pattern(100000, 1);
    EXPECT_EQ(one.write(5, data).error, Errno::none);
    auto far = connect_tcp(server.io(), fmt::format("127.0.0.1:{}", port));
    ASSERT_TRUE(far);
    TestClient two(server.io(), far.take());
    two.connect("disk", Form::extended);
    EXPECT_EQ(two.read(5, data.size()), data);
    EXPECT_EQ(server.server->counters().connections, 2u);
    one.disconnect();
    EXPECT_TRUE(one.at_end());
  });
  EXPECT_EQ(server.counters.connections_total, 2u);
  EXPECT_FALSE(listen_at("disk.sock", 0600));
  EXPECT_FALSE(listen_at("tcp:nowhere", 0600));
}

TEST(NbdServer, V2_connections_beyond_the_limit_are_refused) {
  const Directory directory;
  TestServer server;
  server.settings.limits.connections = 3;
  server.run([&] {
    const std::string path = directory / "nbd.sock";
    server.server->listen(listen_at("unix:" + path, 0600).take(), path);
    std::vector<std::unique_ptr<TestClient>> clients;
    for (int i = 0; i < 3; ++i) {
      clients.push_back(
          std::make_unique<TestClient>(server.io(), connect_unix(server.io(), path).take()));
      clients.back()->connect("disk", Form::structured);
    }
    TestClient refused(server.io(), connect_unix(server.io(), path).take());
    EXPECT_TRUE(refused.at_end());
    EXPECT_EQ(server.server->counters().connections_refused, 1u);
    clients.pop_back();
    EXPECT_TRUE(server.wait_until([&] { return server.server->counters().connections == 2; }));
    TestClient welcome(server.io(), connect_unix(server.io(), path).take());
    welcome.connect("disk", Form::structured);
    EXPECT_EQ(welcome.read(0, 512).size(), 512u);
  });
}

TEST(NbdServer, V3_drain_answers_what_is_in_flight) {
  for (const Form form : {Form::simple, Form::structured, Form::extended}) {
    TestServer server;
    server.run([&] {
      auto busy = server.client();
      busy->connect("disk", form);
      auto idle = server.client();
      idle->connect("disk", form);
      auto shaking = server.client();
      shaking->greet();
      server.device->hold();
      for (uint64_t i = 0; i < 10; ++i) {
        busy->put_request({0, Command::write, i, i * 4096, 4096}, pattern(4096, i));
      }
      busy->put_request({0, Command::write, 10, kMiB, 2 * kMiB}, pattern(2 * kMiB, 10));
      EXPECT_TRUE(server.wait_until([&] { return server.device->waiting() == 12; }));
      Group draining(server.io());
      bool drained = false;
      server.io().spawn(draining, [&] {
        server.server->drain(std::chrono::seconds(30));
        drained = true;
      });
      EXPECT_TRUE(idle->at_end());
      EXPECT_TRUE(shaking->at_end());
      busy->put_request({0, Command::read, 99, 0, 4096});  // Too late: not accepted, not answered.
      EXPECT_FALSE(drained);
      server.device->let_go(server.io());
      size_t answered = 0;
      for (;;) {
        const TestReply reply = busy->get_reply();
        if (reply.gone) break;
        EXPECT_EQ(reply.error, Errno::none);
        EXPECT_LE(reply.cookie, 10u);
        ++answered;
      }
      EXPECT_EQ(answered, 11u);
      draining.wait();
      EXPECT_TRUE(drained);
    });
    EXPECT_TRUE(server.log.lines.empty()) << server.log.lines[0];
    EXPECT_EQ(raw_of(server.device->content().subspan(kMiB, 2 * kMiB)), pattern(2 * kMiB, 10));
  }
}

TEST(NbdServer, V3_drain_cuts_off_who_does_not_read) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::structured);
    Group sending(server.io());
    server.io().spawn(sending, [&] {
      for (uint64_t i = 0; i < 64; ++i) {
        if (!client->put_request({nbd::kFlagDf, Command::read, i, 0, kMiB})) return;
      }
    });
    EXPECT_TRUE(
        server.wait_until([&] { return server.device->count(MemoryDevice::Verb::read) >= 4; }));
    server.server->drain(std::chrono::milliseconds(20));
    EXPECT_EQ(server.server->counters().connections, 0u);
    sending.wait();
  });
  EXPECT_TRUE(server.log.says("client cut off"));
}

TEST(NbdServer, V3_drain_waits_for_a_cut_conversation_too) {
  TestServer server;
  server.simulate(1, [&] {
    auto client = server.client();  // Its session runs in a fiber that is not the server's.
    client->connect("disk", Form::structured);
    server.device->hold();
    client->put_request({0, Command::write, 1, 0, 4096}, pattern(4096, 1));
    EXPECT_TRUE(server.wait_until([&] { return server.device->waiting() == 1; }));
    Group draining(server.io());
    bool drained = false;
    server.io().spawn(draining, [&] {
      server.server->drain(std::chrono::milliseconds(0));
      EXPECT_EQ(server.server->counters().connections, 0u);
      drained = true;
    });
    EXPECT_TRUE(server.wait_until([&] { return server.log.says("client cut off"); }));
    server.io().sleep(std::chrono::minutes(1));
    EXPECT_FALSE(drained) << "a device still has a request";
    server.device->let_go(server.io());
    draining.wait();
    EXPECT_TRUE(drained);
  });
}

TEST(NbdServer, one_conversation_over_a_pair_of_pipes) {
  TestServer server;
  server.run([&] {
    int to[2] = {-1, -1};
    int from[2] = {-1, -1};
    ASSERT_EQ(::pipe2(to, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(from, O_CLOEXEC), 0);
    server.io().spawn(server.group(), [&server, in = to[0], out = from[1]] {
      server.server->converse(adopt_pair(in, out, "stdio").take());
    });
    TestClient client(server.io(), adopt_pair(from[0], to[1], "server").take());
    client.connect("disk", Form::structured);
    const Raw data = pattern(300000, 1);
    EXPECT_EQ(client.write(77, data).error, Errno::none);
    EXPECT_EQ(client.read(77, data.size()), data);
    client.disconnect();
    EXPECT_TRUE(client.at_end());
  });
}

TEST(NbdServer, live_growth_is_seen_by_requests) {
  TestServer server(kMiB - 512);
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::structured);
    EXPECT_EQ(client->write(kMiB - 512, pattern(512, 1)).error, Errno::no_space);
    server.device->grow(kMiB);
    EXPECT_EQ(client->write(kMiB - 512, pattern(512, 1)).error, Errno::none);
  });
}

}  // namespace
}  // namespace firn::serve
