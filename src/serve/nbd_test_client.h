// SPDX-License-Identifier: Apache-2.0
// A client of NBD for tests: speaks every form, byte by byte if the test wants to err. Runs as a
// fiber on the same Io as the server it talks to.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/prng.h"
#include "io/blocking_io.h"
#include "io/fiber_io.h"
#include "io/socket.h"
#include "serve/inbox.h"
#include "serve/memory_device.h"
#include "serve/nbd_server.h"
#include "sim/sim_io.h"
#include "wire/nbd.h"

namespace firn::serve {

namespace nbd = wire::nbd;
using Raw = std::vector<std::byte>;

inline Raw raw_of(View bytes) { return {bytes.begin(), bytes.end()}; }
inline Raw raw_of(std::string_view text) { return raw_of(std::as_bytes(std::span(text))); }
inline std::string text_in(View bytes) {
  std::string out;
  for (const std::byte byte : bytes) out += static_cast<char>(byte);
  return out;
}
inline Raw pattern(size_t bytes, uint64_t seed) {
  Prng prng(seed);
  Raw out(bytes);
  for (std::byte& byte : out) byte = static_cast<std::byte>(prng.next() | 1);
  return out;
}

class TestLog final : public Log {
 public:
  void line(Severity severity, std::string_view event, std::string_view object,
            std::string_view why) override {
    if (severity != Severity::info) lines.push_back(fmt::format("{}: {}: {}", event, object, why));
  }
  bool says(std::string_view words) const {
    for (const std::string& each : lines) {
      if (each.find(words) != std::string::npos) return true;
    }
    return false;
  }
  std::vector<std::string> lines;
};

class TestExports final : public ExportSource {
 public:
  Export& add(std::string name, std::shared_ptr<BlockDevice> device) {
    Export& made = all_[name];
    made.name = std::move(name);
    made.device = std::move(device);
    return made;
  }
  Result<Export> find(Io&, std::string_view name) override {
    if (broken) return fail(*broken, "the page at /secret/path is rotten");
    const auto found = all_.find(name);
    if (found == all_.end()) return fail(Errc::not_found, "no export '{}'", printable(name));
    ++finds;
    return Export(found->second);
  }
  std::vector<ExportEntry> list(Io&) override {
    std::vector<ExportEntry> entries;
    for (const auto& [name, each] : all_) entries.push_back({name, each.description});
    return entries;
  }
  size_t finds = 0;
  std::optional<Errc> broken;

 private:
  std::map<std::string, Export, std::less<>> all_;
};

struct OptionAnswer {
  nbd::OptionReply type{};
  Raw data;
};
struct TestReply {
  uint64_t cookie = 0;
  nbd::Errno error = nbd::Errno::none;
  std::string text;
  std::optional<uint64_t> error_at;
  std::map<uint64_t, Raw> data;        // By offset.
  std::map<uint64_t, uint64_t> holes;  // Length by offset.
  std::vector<nbd::StatusChunk> status;
  size_t chunks = 0;
  bool gone = false;  // The connection ended instead.

  // What a read of `length` bytes at `at` gave; empty when something is missing or overlaps.
  Raw assembled(uint64_t at, uint64_t length) const {
    Raw out(length, std::byte{0});
    uint64_t covered = 0;
    for (const auto& [offset, bytes] : data) {
      if (offset < at || offset + bytes.size() > at + length) return {};
      std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<ptrdiff_t>(offset - at));
      covered += bytes.size();
    }
    for (const auto& [offset, bytes] : holes) covered += bytes;
    return covered == length ? out : Raw{};
  }
};

class TestClient {
 public:
  TestClient(Io& io, std::unique_ptr<Socket> socket)
      : io_(io),
        socket_(std::move(socket)),
        stream_(std::make_unique<PlainStream>(*socket_)),
        inbox_(1 << 20) {}

  // --- raw
  bool put(View bytes) {
    const ::iovec slice = slice_of(bytes);
    return stream_->send(io_, Iovec(&slice, 1)).has_value();
  }
  // Empty when the connection ended before.
  Raw get(size_t count) {
    Raw out;
    while (out.size() < count) {
      const Result<bool> there = inbox_.gather(io_, *stream_, 1);
      if (!there || !*there) return {};
      const size_t step = std::min(count - out.size(), inbox_.pending().size());
      out.insert(out.end(), inbox_.pending().begin(),
                 inbox_.pending().begin() + static_cast<ptrdiff_t>(step));
      inbox_.consume(step);
    }
    return out;
  }
  bool at_end() {
    const Result<bool> there = inbox_.gather(io_, *stream_, 1);
    return !there || !*there;
  }
  void leave() { io_.shutdown(*socket_); }
  Socket& socket() { return *socket_; }
  void use(std::unique_ptr<Stream> stream) { stream_ = std::move(stream); }

  // --- the handshake
  void greet(uint32_t flags = nbd::kFixedNewstyle | nbd::kNoZeroes) {
    ASSERT_TRUE(nbd::decode_greeting(get(sizeof(nbd::Greeting))));
    const be32 answer = flags;
    ASSERT_TRUE(put(view_of(answer)));
  }
  bool put_option(nbd::Option option, View data) {
    return put(nbd::encode(nbd::OptionHeader{option, static_cast<uint32_t>(data.size())})) &&
           (data.empty() || put(data));
  }
  // All replies up to the final one; the last is ack or an error.
  std::vector<OptionAnswer> option(nbd::Option which, View data = {}) {
    std::vector<OptionAnswer> answers;
    if (!put_option(which, data)) return answers;
    for (;;) {
      const Raw bytes = get(nbd::kOptionReplyHeaderBytes);
      const auto header = nbd::decode_option_reply_header(bytes);
      if (!header) return {};
      EXPECT_EQ(header->option, which);
      answers.push_back({header->reply, get(header->length)});
      if (header->reply == nbd::OptionReply::ack || nbd::is_error(header->reply)) return answers;
    }
  }
  nbd::OptionReply last(const std::vector<OptionAnswer>& answers) {
    return answers.empty() ? nbd::OptionReply{} : answers.back().type;
  }
  nbd::OptionReply form(nbd::Form wanted) {
    if (wanted == nbd::Form::simple) return nbd::OptionReply::ack;
    const auto answer = last(option(wanted == nbd::Form::extended ? nbd::Option::extended_headers
                                                                  : nbd::Option::structured_reply));
    if (answer == nbd::OptionReply::ack) form_ = wanted;
    return answer;
  }
  nbd::OptionReply select(std::string_view name, std::vector<std::string_view> queries) {
    const auto answers = option(nbd::Option::set_meta_context,
                                nbd::encode(nbd::MetaQueries{name, std::move(queries)}));
    for (const OptionAnswer& each : answers) {
      if (each.type != nbd::OptionReply::meta_context) continue;
      const auto entry = nbd::decode_meta_context_entry(each.data);
      contexts[std::string(entry->name)] = entry->id;
    }
    return last(answers);
  }
  nbd::OptionReply go(std::string_view name) {
    const auto answers =
        option(nbd::Option::go, nbd::encode(nbd::InfoRequest{name, false, false, true}));
    for (const OptionAnswer& each : answers) {
      if (each.type != nbd::OptionReply::info) continue;
      if (const auto size = nbd::decode_info_export(each.data)) {
        export_bytes = size->bytes;
        export_flags = size->flags;
      }
    }
    return last(answers);
  }
  void connect(std::string_view name, nbd::Form wanted,
               std::vector<std::string_view> queries = {"base:allocation"}) {
    greet();
    ASSERT_EQ(form(wanted), nbd::OptionReply::ack);
    if (wanted != nbd::Form::simple) {
      ASSERT_EQ(select(name, std::move(queries)), nbd::OptionReply::ack);
    }
    ASSERT_EQ(go(name), nbd::OptionReply::ack);
  }

  // --- transmission
  bool put_request(nbd::Request request, View payload = {}) {
    Raw bytes;
    append_request(bytes, request, payload);
    return put(bytes);
  }
  void append_request(Raw& into, nbd::Request request, View payload) {
    if (form_ == nbd::Form::extended && request.command == nbd::Command::write) {
      request.flags |= nbd::kFlagPayloadLen;
    }
    append_raw_request(into, request, payload);
  }
  bool put_raw_request(const nbd::Request& request, View payload = {}) {
    Raw bytes;
    append_raw_request(bytes, request, payload);
    return put(bytes);
  }
  void append_raw_request(Raw& into, const nbd::Request& request, View payload) {
    std::array<std::byte, nbd::kExtendedRequestBytes> header{};
    const size_t count = nbd::encode(request, form_, header);
    asked_[request.cookie] = {request.offset,
                              request.command == nbd::Command::read ? request.length : 0};
    into.insert(into.end(), header.begin(), header.begin() + static_cast<ptrdiff_t>(count));
    into.insert(into.end(), payload.begin(), payload.end());
  }
  // One whole reply, of whichever request is answered next; chunks of others may lie between.
  TestReply get_reply() {
    for (;;) {
      const Raw magic = get(4);
      if (magic.empty()) return gone();
      const uint32_t word = load<be32>(magic);
      if (word == nbd::kSimpleReplyMagic) return get_simple(magic);
      std::optional<TestReply> whole = get_chunk(magic);
      if (whole) return std::move(*whole);
    }
  }
  TestReply ask(nbd::Command command, uint64_t at, uint64_t length, uint16_t request_flags = 0,
                View payload = {}) {
    const nbd::Request request{request_flags, command, ++cookie_, at, length};
    if (!put_request(request, payload)) return gone();
    TestReply reply = get_reply();
    EXPECT_TRUE(reply.gone || reply.cookie == cookie_);
    return reply;
  }
  TestReply write(uint64_t at, View payload, uint16_t request_flags = 0) {
    return ask(nbd::Command::write, at, payload.size(), request_flags, payload);
  }
  Raw read(uint64_t at, uint64_t length, uint16_t request_flags = 0) {
    const TestReply reply = ask(nbd::Command::read, at, length, request_flags);
    if (reply.error != nbd::Errno::none) return {};
    return reply.assembled(at, length);
  }
  void disconnect() { put_request({0, nbd::Command::disconnect, 0, 0, 0}); }

  std::map<std::string, uint32_t> contexts;
  uint64_t export_bytes = 0;
  uint16_t export_flags = 0;

 private:
  static TestReply gone() {
    TestReply reply;
    reply.gone = true;
    return reply;
  }
  TestReply get_simple(Raw header) {
    const Raw rest = get(sizeof(nbd::SimpleReply) - 4);
    header.insert(header.end(), rest.begin(), rest.end());
    const auto simple = nbd::decode_simple_reply(header);
    if (!simple) return gone();
    TestReply reply;
    reply.cookie = simple->cookie;
    reply.error = static_cast<nbd::Errno>(uint32_t{simple->error});
    const Range asked = asked_[reply.cookie];
    if (reply.error == nbd::Errno::none && !asked.empty()) {
      EXPECT_EQ(form_, nbd::Form::simple);
      Raw data = get(asked.length);
      if (data.empty()) return gone();
      reply.data[asked.at] = std::move(data);
    }
    return reply;
  }
  std::optional<TestReply> get_chunk(Raw header) {
    const Raw rest = get(nbd::chunk_bytes(form_) - 4);
    header.insert(header.end(), rest.begin(), rest.end());
    const auto chunk = nbd::decode_reply_chunk(header, form_);
    if (!chunk || chunk->length > nbd::kPayloadMax + 8) {
      ADD_FAILURE() << "not a reply chunk";
      return gone();
    }
    const Raw payload = get(chunk->length);
    if (payload.size() != chunk->length) return gone();
    TestReply& reply = partial_[chunk->cookie];
    reply.cookie = chunk->cookie;
    ++reply.chunks;
    switch (chunk->type) {
      case nbd::Chunk::none:
        EXPECT_EQ(chunk->length, 0u);
        break;
      case nbd::Chunk::offset_data:
        reply.data[load<be64>(payload)] = raw_of(View(payload).subspan(8));
        break;
      case nbd::Chunk::offset_hole: {
        const auto hole = load<nbd::OffsetHole>(payload);
        reply.holes[hole.offset] = hole.length;
        break;
      }
      case nbd::Chunk::block_status:
      case nbd::Chunk::block_status_ext: {
        const auto status = nbd::decode_status_chunk(payload, chunk->type);
        EXPECT_TRUE(status);
        if (status) reply.status.push_back(*status);
        break;
      }
      case nbd::Chunk::error:
      case nbd::Chunk::error_offset: {
        const auto error = nbd::decode_error_chunk(payload, chunk->type);
        EXPECT_TRUE(error);
        if (!error) break;
        reply.error = error->error;
        reply.text = error->text;
        if (error->has_offset) reply.error_at = error->offset;
        break;
      }
    }
    if ((chunk->flags & nbd::kReplyDone) == 0) return std::nullopt;
    TestReply whole = std::move(reply);
    partial_.erase(whole.cookie);
    return whole;
  }

  Io& io_;
  std::unique_ptr<Socket> socket_;
  std::unique_ptr<Stream> stream_;
  Inbox inbox_;
  nbd::Form form_ = nbd::Form::simple;
  uint64_t cookie_ = 1000;
  std::map<uint64_t, Range> asked_;  // By cookie; reads' lengths.
  std::map<uint64_t, TestReply> partial_;
};

// A server with one device "disk" in a world of its own; the body of run() is a fiber beside it.
class TestServer {
 public:
  explicit TestServer(uint64_t bytes = 64 * kMiB, MemoryDevice::Settings how = {})
      : device(std::make_shared<MemoryDevice>(bytes, how)) {
    exports.add("disk", device).description = "a test";
  }
  // The real world.
  template <class Body>
  void run(Body&& body) {
    Result<std::unique_ptr<FiberIo>> made = FiberIo::make();
    ASSERT_TRUE(made) << text_of(made.error());
    pair_ = [] {
      int ends[2] = {-1, -1};
      CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
      return std::make_pair(adopt_socket(ends[0]).take(), adopt_socket(ends[1]).take());
    };
    const std::unique_ptr<FiberIo> io = made.take();
    io->run([&] { serve(*io, body); });
    check_after();
  }
  // A seeded one, whose time is its own.
  template <class Body>
  void simulate(uint64_t seed, Body&& body) {
    sim::World world;
    sim::SimIo io(world, seed);
    pair_ = [&io] {
      sim::SocketPair both = io.pipe_pair();
      return std::make_pair(std::move(both.a), std::move(both.b));
    };
    io.run([&] { serve(io, body); });
    check_after();
  }
  // A new connection; the server's end of it is being served.
  std::unique_ptr<TestClient> client() {
    auto [ours, theirs] = pair_();
    io_->spawn(*group_,
               [this, socket = std::move(ours)]() mutable { server->converse(std::move(socket)); });
    return std::make_unique<TestClient>(*io_, std::move(theirs));
  }
  Io& io() { return *io_; }
  Group& group() { return *group_; }
  // Lets everybody else run until `done()`; gives up after ten seconds.
  template <class Done>
  bool wait_until(Done&& done) {
    const Time until = io_->now() + std::chrono::seconds(10);
    while (!done()) {
      if (io_->now() > until) return false;
      io_->sleep(std::chrono::microseconds(200));
    }
    return true;
  }

  std::shared_ptr<MemoryDevice> device;
  TestExports exports;
  TestLog log;
  NbdServer::Settings settings;
  NbdServer* server = nullptr;
  NbdServerCounters counters;  // After run().
  std::map<std::string, NbdExportCounters, std::less<>> by_export;

 private:
  template <class Body>
  void serve(Io& io, Body& body) {
    io_ = &io;
    NbdServer made(io, exports, log, settings);
    server = &made;
    {
      Group clients(io);
      group_ = &clients;
      body();
    }
    made.drain(std::chrono::seconds(10));
    counters = made.counters();
    by_export = made.exports();
    server = nullptr;
    EXPECT_EQ(io.buffers().bytes_in_use(), 0u);
  }
  void check_after() const {
    EXPECT_EQ(counters.connections, 0u);
    for (const auto& [name, each] : by_export) {
      EXPECT_EQ(each.in_flight, 0u) << name;
      EXPECT_EQ(each.connections, 0u) << name;
    }
  }

  Io* io_ = nullptr;
  Group* group_ = nullptr;
  std::function<std::pair<std::unique_ptr<Socket>, std::unique_ptr<Socket>>()> pair_;
};

}  // namespace firn::serve
