// SPDX-License-Identifier: Apache-2.0
// Any bytes as a whole conversation, in a simulated world: the first byte chooses how far a valid
// client has come before the input begins, and the seed of the schedule. Whatever is sent: the
// session ends, every accepted request ends, every buffer comes back, and what the device was asked
// lay within it (D6).
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "serve/memory_device.h"
#include "serve/nbd_server.h"
#include "sim/sim_io.h"

namespace {

using namespace firn;
using namespace firn::serve;
namespace nbd = firn::wire::nbd;

class Silent final : public Log {
 public:
  void line(Severity, std::string_view, std::string_view, std::string_view) override {}
};

class OneDisk final : public ExportSource {
 public:
  Result<Export> find(Io&, std::string_view name) override {
    if (name != "disk") return fail(Errc::not_found, "no export '{}'", printable(name));
    Export found;
    found.name = "disk";
    found.device = device;
    return Result<Export>(std::move(found));
  }
  std::vector<ExportEntry> list(Io&) override { return {{"disk", "fuzzed"}}; }
  std::shared_ptr<MemoryDevice> device =
      std::make_shared<MemoryDevice>(256 * kKiB, MemoryDevice::Settings{.remember = false});
};

using Raw = std::vector<std::byte>;
void append(Raw& into, View bytes) { into.insert(into.end(), bytes.begin(), bytes.end()); }
void append_option(Raw& into, nbd::Option option, View data) {
  append(into, nbd::encode(nbd::OptionHeader{option, static_cast<uint32_t>(data.size())}));
  append(into, data);
}

// How far a valid client has come: 0 nowhere, 1 greeted, 2 to 4 in transmission of each form.
Raw prefix_of(uint8_t stage) {
  Raw bytes;
  if (stage == 0) return bytes;
  append(bytes, view_of(be32(uint32_t{nbd::kFixedNewstyle | nbd::kNoZeroes})));
  if (stage == 1) return bytes;
  if (stage == 3) append_option(bytes, nbd::Option::structured_reply, {});
  if (stage == 4) append_option(bytes, nbd::Option::extended_headers, {});
  if (stage > 2) {
    append_option(
        bytes, nbd::Option::set_meta_context,
        nbd::encode(nbd::MetaQueries{"disk", {"base:allocation", "qemu:allocation-depth"}}));
  }
  append_option(bytes, nbd::Option::go, nbd::encode(nbd::InfoRequest{"disk"}));
  return bytes;
}

// Reads and throws away, so that the server is never stuck behind its own replies.
void swallow(Io& io, Socket& socket) {
  std::array<std::byte, 4096> room;
  for (;;) {
    const Result<size_t> got = io.receive(socket, room);
    if (!got || *got == 0) return;
  }
}

void converse(sim::SimIo& io, View input, uint8_t stage) {
  Silent log;
  OneDisk exports;
  NbdServer::Settings settings;
  settings.limits.requests = 8;
  settings.limits.receive_bytes = 96 * kKiB;
  settings.limits.payload_bytes = 128 * kKiB;
  settings.limits.piece_bytes = 64 * kKiB;
  NbdServer server(io, exports, log, settings);
  {
    Group group(io);
    sim::SocketPair pair = io.pipe_pair();
    io.spawn(group,
             [&server, ours = std::move(pair.a)]() mutable { server.converse(std::move(ours)); });
    io.spawn(group, [&io, &theirs = *pair.b] { swallow(io, theirs); });
    Raw bytes = prefix_of(stage);
    append(bytes, input);
    const ::iovec slice = slice_of(View(bytes));
    (void)io.send(*pair.b, Iovec(&slice, 1)).has_value();  // A dropped client's bytes go nowhere.
    io.sleep(std::chrono::seconds(1));
    io.shutdown(*pair.b);
    group.wait();
  }
  server.drain(std::chrono::seconds(1));
  CHECK(server.counters().connections == 0);
  for (const auto& [name, each] : server.exports())
    CHECK(each.in_flight == 0 && each.connections == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data + 1, size - 1));
  sim::World world;
  sim::SimIo io(world, data[0], {.buffer_bytes = 2 * kMiB});
  io.run([&] { converse(io, input, data[0] % 5); });
  CHECK(io.buffers().bytes_in_use() == 0);
  return 0;
}
