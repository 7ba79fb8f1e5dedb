// SPDX-License-Identifier: Apache-2.0
// Seeded conversations of good, bad and mangled requests with a simulated server, checked against
// a model.
#include <gtest/gtest.h>

#include "serve/nbd_test_client.h"

namespace firn::serve {
namespace {

using nbd::Command;
using nbd::Errno;
using nbd::Form;

constexpr uint64_t kBytes = 512 * kKiB;

nbd::Request any_request(Prng& prng, uint64_t cookie) {
  static constexpr uint64_t kEdges[] = {0,
                                        1,
                                        511,
                                        4096,
                                        65536,
                                        65537,
                                        kBytes,
                                        kBytes - 1,
                                        kBytes + 1,
                                        UINT32_MAX,
                                        UINT64_MAX,
                                        UINT64_MAX - 4095,
                                        uint64_t{1} << 63};
  nbd::Request request;
  request.cookie = cookie;
  request.command = static_cast<Command>(prng.one_in(8) ? prng.next() & 0xffff : prng.below(8));
  if (request.command == Command::disconnect) request.command = Command::flush;
  request.flags = prng.one_in(3) ? static_cast<uint16_t>(prng.next() & 0x3f) : uint16_t{0};
  request.offset = prng.one_in(3) ? kEdges[prng.below(std::size(kEdges))] : prng.below(kBytes);
  request.length = prng.one_in(3) ? kEdges[prng.below(std::size(kEdges))] : prng.below(200000);
  return request;
}

// Every request that is sent whole is answered exactly once, however absurd, as long as its payload
// can be believed; and the connection is still in step afterwards.
void talk(TestServer& server, uint64_t seed, Form form) {
  Prng prng(seed);
  auto client = server.client();
  client->connect("disk", form, {"base:allocation", "qemu:allocation-depth"});
  std::map<uint64_t, nbd::Request> sent;
  Raw stream;
  for (uint64_t i = 0; i < 40; ++i) {
    nbd::Request request = any_request(prng, i);
    if (form != Form::extended) request.length &= UINT32_MAX;
    if (nbd::has_payload(request, form)) request.length %= 150000;
    const Raw payload = nbd::has_payload(request, form) ? pattern(request.length, seed + i) : Raw();
    client->append_raw_request(stream, request, payload);
    sent[i] = request;
  }
  Group sending(server.io());
  server.io().spawn(sending, [&] { client->put(stream); });
  std::map<uint64_t, size_t> answered;
  for (uint64_t i = 0; i < 40; ++i) {
    const TestReply reply = client->get_reply();
    ASSERT_FALSE(reply.gone) << "seed " << seed;
    ASSERT_TRUE(sent.contains(reply.cookie)) << "seed " << seed;
    ++answered[reply.cookie];
    const nbd::Request& request = sent[reply.cookie];
    const bool whole = Range{request.offset, request.length}.within(kBytes);
    if (reply.error == Errno::none && request.command == Command::read) {
      EXPECT_TRUE(whole);
      EXPECT_EQ(reply.assembled(request.offset, request.length).size(), request.length);
    }
    EXPECT_FALSE(request.command == Command::write && !whole && reply.error == Errno::none);
  }
  sending.wait();
  for (const auto& [cookie, count] : answered) EXPECT_EQ(count, 1u) << "seed " << seed;
  EXPECT_EQ(answered.size(), 40u) << "seed " << seed;
  const Raw mark = pattern(4096, seed);
  EXPECT_EQ(client->write(0, mark).error, Errno::none);
  EXPECT_EQ(client->read(0, 4096), mark);
}

TEST(NbdFuzz, every_request_is_answered_once) {
  for (uint64_t seed = 1; seed <= 600; ++seed) {
    TestServer server(kBytes, {.remember = false});
    server.settings.limits.requests = 1 + static_cast<uint32_t>(seed % 16);
    server.settings.limits.payload_bytes = 16 * kKiB << (seed % 4);
    server.settings.limits.piece_bytes = 32 * kKiB << (seed % 2);
    server.simulate(seed, [&] { talk(server, seed, static_cast<Form>(seed % 3)); });
    EXPECT_EQ(server.counters.protocol_errors, 0u) << "seed " << seed;
    if (testing::Test::HasFailure()) return;
  }
}

// Random bytes after a valid beginning: the connection ends, nothing else happens.
TEST(NbdFuzz, mangled_conversations_end) {
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    TestServer server(kBytes, {.remember = false});
    server.simulate(seed, [&] {
      Prng prng(seed);
      auto client = server.client();
      if (!prng.one_in(4)) client->greet();
      Raw bytes;
      for (uint64_t i = prng.below(5); i > 0; --i) {
        const Raw data = pattern(prng.below(200), prng.next());
        const auto header = nbd::encode(nbd::OptionHeader{static_cast<nbd::Option>(prng.below(13)),
                                                          static_cast<uint32_t>(data.size())});
        bytes.insert(bytes.end(), header.begin(), header.end());
        bytes.insert(bytes.end(), data.begin(), data.end());
      }
      const Raw junk = pattern(prng.below(3000), prng.next());
      bytes.insert(bytes.end(), junk.begin(), junk.end());
      Group sending(server.io());
      server.io().spawn(sending, [&] {
        client->put(bytes);
        server.io().sleep(std::chrono::seconds(60));  // Past every deadline, in simulated time.
        client->leave();
      });
      while (!client->get(1).empty()) {
      }
      sending.wait();
      EXPECT_TRUE(server.device->calls().empty());
    });
    if (testing::Test::HasFailure()) return;
  }
}

// Requests in flight together on separate ranges, over two connections, against a copy in memory.
TEST(NbdFuzz, content_agrees_with_a_model) {
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    TestServer server(kBytes, {.remember = false});
    server.simulate(seed, [&] {
      Prng prng(seed);
      std::array<std::unique_ptr<TestClient>, 2> clients{server.client(), server.client()};
      clients[0]->connect("disk", Form::structured);
      clients[1]->connect("disk", Form::extended);
      Raw model(kBytes);
      for (int step = 0; step < 60; ++step) {
        TestClient& client = *clients[prng.below(2)];
        const uint64_t at = prng.below(kBytes);
        const uint64_t length = 1 + prng.below(std::min<uint64_t>(kBytes - at, 150000));
        const auto begin = model.begin() + static_cast<ptrdiff_t>(at);
        switch (prng.below(4)) {
          case 0: {
            const Raw data = pattern(length, prng.next());
            ASSERT_EQ(client.write(at, data, prng.one_in(4) ? nbd::kFlagFua : uint16_t{0}).error,
                      Errno::none);
            std::copy(data.begin(), data.end(), begin);
            break;
          }
          case 1:
            ASSERT_EQ(client.ask(Command::write_zeroes, at, length).error, Errno::none);
            std::fill_n(begin, length, std::byte{0});
            break;
          case 2:
            ASSERT_EQ(client.ask(Command::trim, at, length).error, Errno::none);
            std::fill_n(begin, length, std::byte{0});
            break;
          default:
            ASSERT_EQ(client.read(at, length), raw_of(View(model).subspan(at, length)))
                << "seed " << seed << " step " << step;
        }
      }
      EXPECT_EQ(clients[0]->read(0, kBytes), model);
    });
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace firn::serve
