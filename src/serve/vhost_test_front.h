// SPDX-License-Identifier: Apache-2.0
// TestFront: a front end for tests, over a memfd, as a fiber on the same Io as the server that it
// talks to. Behaves, unless the test makes it not to.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.h"
#include "io/fiber_io.h"
#include "io/host_event.h"
#include "io/shared_map.h"
#include "io/socket.h"
#include "serve/memory_device.h"
#include "serve/nbd_test_client.h"
#include "libfirn/driver_ring.h"
#include "serve/vhost_server.h"
#include "sim/sim_io.h"
#include "wire/vhost_user.h"

namespace firn::serve {

namespace vhost = wire::vhost;
namespace virtio = wire::virtio;

// A world with a server of one disk, "disk".
class VhostWorld {
 public:
  explicit VhostWorld(uint64_t bytes = 16 * kMiB, MemoryDevice::Settings settings = {})
      : device(std::make_shared<MemoryDevice>(bytes, settings)) {
    exports.device = device;
  }

  // In production's world, or in a simulated one whose schedule the seed decides.
  void run(const std::function<void()>& body) {
    Result<std::unique_ptr<FiberIo>> made = FiberIo::make({.buffer_bytes = 2 * kMiB});
    ASSERT_TRUE(made);
    io_ = made->get();
    (*made)->run([&] { live(body); });
    io_ = nullptr;
  }
  void simulate(uint64_t seed, const std::function<void()>& body) {
    sim::World world;
    sim::SimIo simulated(world, seed, {.buffer_bytes = 2 * kMiB});
    sim_ = &simulated;
    io_ = &simulated;
    simulated.run([&] { live(body); });
    sim_ = nullptr;
    io_ = nullptr;
  }
  Io& io() { return *io_; }
  VhostServer& server() { return *server_; }
  VhostCounters counters() const {
    const auto found = server_->counters().find("disk");
    return found == server_->counters().end() ? VhostCounters() : found->second;
  }

  // One end; the server has the other.
  std::unique_ptr<Socket> connect() {
    std::unique_ptr<Socket> theirs;
    std::unique_ptr<Socket> ours;
    if (sim_ != nullptr) {
      sim::SocketPair pair = sim_->pipe_pair();
      theirs = std::move(pair.a);
      ours = std::move(pair.b);
    } else {
      int fds[2];
      CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
      theirs = adopt_socket(fds[0]).take();
      ours = adopt_socket(fds[1]).take();
    }
    io_->spawn(*conversations_, [this, held = std::move(theirs)]() mutable {
      server_->converse("disk", std::move(held));
    });
    return ours;
  }
  // The server dies, as far as that can be had in one process: what it holds goes nowhere.
  void restart_server() {
    server_->drain(std::chrono::seconds(1));
    conversations_->wait();
    server_ = std::make_unique<VhostServer>(*io_, exports, log);
  }

  struct Exports final : ExportSource {
    Result<Export> find(Io&, std::string_view name) override {
      if (name != "disk") return fail(Errc::not_found, "no disk '{}'", printable(name));
      Export found;
      found.name = "disk";
      found.device = device;
      found.read_only = read_only;
      found.completion = completion;
      return Result<Export>(std::move(found));
    }
    std::vector<ExportEntry> list(Io&) override { return {{"disk", ""}}; }
    std::shared_ptr<BlockDevice> device;
    bool read_only = false;
    std::shared_ptr<CompletionRules> completion;
  };
  std::shared_ptr<MemoryDevice> device;
  Exports exports;
  TestLog log;

 private:
  void live(const std::function<void()>& body) {
    conversations_ = std::make_unique<Group>(*io_);
    server_ = std::make_unique<VhostServer>(*io_, exports, log);
    body();
    server_->drain(std::chrono::seconds(5));
    conversations_.reset();
    server_.reset();
  }
  Io* io_ = nullptr;
  sim::SimIo* sim_ = nullptr;
  std::unique_ptr<Group> conversations_;
  std::unique_ptr<VhostServer> server_;
};

// Guest memory and rings: survives the connections that use it, as a guest does.
struct TestGuest {
  static constexpr uint64_t kRingsAt = 0;
  static constexpr uint64_t kDataAt = 4 * kMiB;
  static constexpr uint64_t kBytes = 16 * kMiB;

  explicit TestGuest(DriverRing::Shape ring_shape = {}, size_t queues = 1, bool sealed = true)
      : shape(ring_shape), fd(make_shared_memory("guest", kBytes, sealed).take()) {
    map = SharedMap::make(fd, 0, kBytes, "test").take();
    for (size_t i = 0; i < queues; ++i) {
      rings.push_back(DriverRing::make(shape, map->data(), kRingsAt + i * kMiB));
      kicks.push_back(make_event_fd().take());
      calls.push_back(make_event_fd().take());
      errors.push_back(make_event_fd().take());
    }
  }
  std::byte* data(uint64_t at) const { return map->data() + kDataAt + at; }
  static uint64_t guest(uint64_t at) { return DriverRing::kGuestBase + kDataAt + at; }

  DriverRing::Shape shape;
  Fd fd;
  std::unique_ptr<SharedMap> map;
  std::vector<std::unique_ptr<DriverRing>> rings;
  std::vector<Fd> kicks;
  std::vector<Fd> calls;
  std::vector<Fd> errors;
  Fd inflight;
  vhost::Inflight inflight_shape;
  std::vector<std::optional<uint32_t>> bases = std::vector<std::optional<uint32_t>>(64);
};

class TestFront {
 public:
  struct Answer {
    bool gone = false;
    vhost::Header header;
    Raw payload;
    std::vector<Fd> fds;
    uint64_t number() const { return uint64_t{load<le64>(payload)}; }
  };

  TestFront(VhostWorld& world, TestGuest& guest)
      : guest_(guest), io_(world.io()), socket_(world.connect()) {
    for (size_t i = 0; i < guest.rings.size(); ++i) {
      kicks_.push_back(adopt_event(duplicate(guest.kicks[i].get()).take()).take());
      calls_.push_back(adopt_event(duplicate(guest.calls[i].get()).take()).take());
    }
  }

  // --- messages
  void say(vhost::Request request, View payload = {}, std::vector<int> fds = {},
           uint32_t flags = vhost::kVersion) {
    const auto head =
        vhost::encode(vhost::Header{request, flags, static_cast<uint32_t>(payload.size())});
    Raw bytes(head.begin(), head.end());
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    say_raw(bytes, std::move(fds));
  }
  void say_raw(View bytes, std::vector<int> fds = {}) {
    const ::iovec slice = slice_of(bytes);
    (void)io_.send(*socket_, Iovec(&slice, 1), fds).has_value();
  }
  Answer hear() {
    Answer answer;
    std::array<std::byte, vhost::kHeaderBytes> head;
    if (!hear_into(head, answer.fds)) return {.gone = true};
    // Replies have the reply flag, which a server does not accept: decode by hand.
    answer.header.request = static_cast<vhost::Request>(uint32_t{load<le32>(head)});
    answer.header.flags = load<le32>(View(head).subspan(4));
    answer.payload.resize(load<le32>(View(head).subspan(8)));
    if (!hear_into(answer.payload, answer.fds)) answer.gone = true;
    return answer;
  }
  Answer ask(vhost::Request request, View payload = {}) {
    say(request, payload);
    return hear();
  }
  // With NEED_REPLY: 0 is success.
  uint64_t order(vhost::Request request, View payload = {}, std::vector<int> fds = {}) {
    say(request, payload, std::move(fds), vhost::kVersion | vhost::kNeedReply);
    const Answer answer = hear();
    return answer.gone ? ~uint64_t{0} : answer.number();
  }
  bool is_dropped() { return hear().gone; }

  // --- the usual conversation
  uint64_t features = 0;
  bool with_inflight = true;
  void negotiate(uint64_t without = 0) {
    const uint64_t offered = ask(vhost::Request::get_features).number();
    uint64_t unwanted = without;
    if (!guest_.shape.packed) unwanted |= virtio::kPacked;
    if (!guest_.shape.event_index) unwanted |= virtio::kEventIndex;
    if (!guest_.shape.indirect) unwanted |= virtio::kIndirect;
    features = offered & ~unwanted;
    const uint64_t protocol = ask(vhost::Request::get_protocol_features).number();
    say(vhost::Request::set_protocol_features, vhost::encode_number(protocol));
    say(vhost::Request::set_owner);
    EXPECT_EQ(order(vhost::Request::set_features, vhost::encode_number(features)), 0u);
  }
  uint64_t give_memory() {
    vhost::MemoryTable table;
    table.count = 1;
    table.regions[0] = {DriverRing::kGuestBase, TestGuest::kBytes, DriverRing::kUserBase, 0};
    std::array<std::byte, 512> room;
    const size_t bytes = vhost::encode(table, room);
    return order(vhost::Request::set_memory_table, View(room).first(bytes), {guest_.fd.get()});
  }
  void give_inflight() {
    if (!with_inflight) return;
    if (!guest_.inflight) {
      const vhost::Inflight wanted{0, 0, static_cast<uint16_t>(guest_.rings.size()),
                                   guest_.shape.size};
      Answer answer = ask(vhost::Request::get_inflight, vhost::encode(wanted));
      ASSERT_EQ(answer.fds.size(), 1u);
      guest_.inflight_shape = *vhost::decode_inflight(answer.payload);
      guest_.inflight = std::move(answer.fds[0]);
    }
    EXPECT_EQ(order(vhost::Request::set_inflight, vhost::encode(guest_.inflight_shape),
                    {guest_.inflight.get()}),
              0u);
  }
  void start_ring(uint8_t index) {
    const DriverRing& ring = *guest_.rings[index];
    using R = vhost::Request;
    say(R::set_vring_size, vhost::encode(vhost::VringState{index, ring.shape().size}));
    say(R::set_vring_base, vhost::encode(vhost::VringState{index, base_of(index)}));
    say(R::set_vring_address, vhost::encode(vhost::VringAddress{index, 0, ring.descriptors(),
                                                                ring.used(), ring.available(), 0}));
    const auto which = vhost::encode(vhost::VringDescriptor{index, true});
    say(R::set_vring_error, which, {guest_.errors[index].get()});
    say(R::set_vring_call, which, {guest_.calls[index].get()});
    say(R::set_vring_kick, which, {guest_.kicks[index].get()});
    EXPECT_EQ(order(R::set_vring_enable, vhost::encode(vhost::VringState{index, 1})), 0u);
  }
  uint32_t stop_ring(uint8_t index) {
    const Answer answer =
        ask(vhost::Request::get_vring_base, vhost::encode(vhost::VringState{index, 0}));
    if (answer.gone) return ~uint32_t{0};
    const uint32_t base = vhost::decode_state(answer.payload)->number;
    guest_.bases[index] = base;
    return base;
  }
  void set_up(uint64_t without = 0) {
    negotiate(without);
    EXPECT_EQ(give_memory(), 0u);
    give_inflight();
    for (uint8_t i = 0; i < guest_.rings.size(); ++i) start_ring(i);
  }
  void hang_up() {
    io_.shutdown(*socket_);
    for (const auto& each : calls_) io_.shutdown(*each);
  }

  // --- requests. Slot `n` has 64 KiB of guest memory for its data, and what belongs to it.
  static constexpr uint64_t kSlotBytes = 80 * kKiB;
  static constexpr uint64_t kHeadAt = 64 * kKiB;
  static constexpr uint64_t kStatusAt = kHeadAt + 64;
  bool begin(size_t ring, uint16_t slot, virtio::BlkType type, uint64_t sector, uint32_t bytes,
             size_t pieces = 1) {
    const uint64_t base = slot * kSlotBytes;
    virtio::BlkHeader header{static_cast<uint32_t>(type), 0, sector};
    std::memcpy(guest_.data(base + kHeadAt), &header, sizeof(header));
    *guest_.data(base + kStatusAt) = std::byte{0xee};
    std::vector<DriverRing::Part> parts{{TestGuest::guest(base + kHeadAt), 16, false}};
    const bool into = type == virtio::BlkType::in || type == virtio::BlkType::get_id;
    for (size_t i = 0; bytes > 0 && i < pieces; ++i) {
      const auto at = static_cast<uint32_t>(bytes * i / pieces);
      const auto end = static_cast<uint32_t>(bytes * (i + 1) / pieces);
      parts.push_back({TestGuest::guest(base + at), end - at, into});
    }
    parts.push_back({TestGuest::guest(base + kStatusAt), 1, true});
    return guest_.rings[ring]->add(parts, slot);
  }
  void publish(size_t ring) {
    if (guest_.rings[ring]->publish()) io_.signal(*kicks_[ring]);
  }
  // Waits for the next answer. Nothing when the server is gone.
  std::optional<uint16_t> finish(size_t ring) {
    for (;;) {
      if (const auto done = guest_.rings[ring]->take()) return done->token;
      if (guest_.rings[ring]->arm()) continue;
      if (!io_.wait(*calls_[ring])) return {};
    }
  }
  virtio::BlkStatus status(uint16_t slot) const {
    return static_cast<virtio::BlkStatus>(*guest_.data(slot * kSlotBytes + kStatusAt));
  }
  // One at a time, from beginning to end.
  virtio::BlkStatus request(virtio::BlkType type, uint64_t sector, uint32_t bytes,
                            size_t pieces = 1, size_t ring = 0) {
    EXPECT_TRUE(begin(ring, 0, type, sector, bytes, pieces));
    publish(ring);
    EXPECT_EQ(finish(ring), 0);
    return status(0);
  }
  virtio::BlkStatus write(uint64_t sector, const Raw& data, size_t pieces = 1, size_t ring = 0) {
    std::memcpy(guest_.data(0), data.data(), data.size());
    return request(virtio::BlkType::out, sector, static_cast<uint32_t>(data.size()), pieces, ring);
  }
  Raw read(uint64_t sector, uint32_t bytes, size_t pieces = 1, size_t ring = 0) {
    std::memset(guest_.data(0), 0xcc, bytes);
    EXPECT_EQ(request(virtio::BlkType::in, sector, bytes, pieces, ring), virtio::BlkStatus::good);
    return raw_of(View(guest_.data(0), bytes));
  }

  Socket& socket() { return *socket_; }
  Event& call(size_t ring) { return *calls_[ring]; }
  Event& kick(size_t ring) { return *kicks_[ring]; }

 private:
  // As QEMU: what GET_VRING_BASE said, else where a fresh ring begins.
  uint32_t base_of(uint8_t index) const {
    return guest_.bases[index].value_or(guest_.shape.packed ? 0x80008000 : 0);
  }
  bool hear_into(Bytes into, std::vector<Fd>& fds) {
    while (!into.empty()) {
      const Result<size_t> got = io_.receive(*socket_, into, fds);
      if (!got || *got == 0) return false;
      into = into.subspan(*got);
    }
    return true;
  }

  TestGuest& guest_;
  Io& io_;
  std::unique_ptr<Socket> socket_;
  std::vector<std::unique_ptr<Event>> kicks_;
  std::vector<std::unique_ptr<Event>> calls_;
};

}  // namespace firn::serve
