// SPDX-License-Identifier: Apache-2.0
// vhostload: a vhost-user-blk front end over a memfd that costs little enough to measure fast
// servers: firn's, and qemu-storage-daemon's.
//
//   vhostload unix:PATH [--queues N] [--packed] [--no-event] [--no-indirect] [--poll]
//             [workload options, see workload.h]
//
// One thread drives all queues; --depth is spread over them. A turn offers everything that fits,
// kicks where the server asks for it, then takes in what is there; with nothing there it asks for
// signals and sleeps, or with --poll looks again. Prints the workload's line of JSON, then one with
// kicks and calls. Does not verify what it reads: other tools do. Of the tree it shares the
// driver's half of a ring (serve/vhost_front_ring.h), which no server contains.
#include <fmt/core.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "serve/vhost_front_ring.h"
#include "wire/vhost_user.h"
#include "workload.h"

namespace {

using bench::Clock;
using bench::die;
using firn::Bytes;
using firn::View;
using firn::serve::DriverRing;
namespace vhost = firn::wire::vhost;
namespace virtio = firn::wire::virtio;
using R = vhost::Request;

constexpr uint64_t kRingBytes = 1 << 20;  // Room for the rings of one queue.
constexpr uint64_t kHeadBytes = 512;      // Header and status of one slot, before its data.
constexpr uint16_t kQueueSize = 128;

class Connection {
 public:
  explicit Connection(const std::string& where) {
    if (!where.starts_with("unix:")) die("expected unix:PATH");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = where.substr(5);
    if (path.size() >= sizeof(address.sun_path)) die("the socket's path is too long");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      die(fmt::format("connecting to {}: {}", path, std::strerror(errno)));
    }
  }
  ~Connection() { ::close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void say(R request, View payload = {}, int descriptor = -1) {
    const auto head =
        vhost::encode(vhost::Header{request, 1, static_cast<uint32_t>(payload.size())});
    iovec slices[] = {firn::slice_of(View(head)), firn::slice_of(payload)};
    alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))]{};
    msghdr message{};
    message.msg_iov = slices;
    message.msg_iovlen = payload.empty() ? 1 : 2;
    if (descriptor >= 0) {
      message.msg_control = room;
      message.msg_controllen = sizeof(room);
      cmsghdr* const control = CMSG_FIRSTHDR(&message);
      control->cmsg_level = SOL_SOCKET;
      control->cmsg_type = SCM_RIGHTS;
      control->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(control), &descriptor, sizeof(int));
    }
    if (::sendmsg(fd_, &message, MSG_NOSIGNAL) < 0) die("the server hung up");
  }
  std::vector<std::byte> ask(R request, View payload = {}) {
    say(request, payload);
    std::array<std::byte, vhost::kHeaderBytes> head;
    take(head);
    uint32_t bytes = 0;
    std::memcpy(&bytes, head.data() + 8, 4);
    std::vector<std::byte> answer(bytes);
    take(answer);
    return answer;
  }
  uint64_t ask_number(R request) {
    const auto number = vhost::decode_number(ask(request));
    if (!number) die("the server's answer is no number");
    return *number;
  }

 private:
  void take(Bytes into) {
    while (!into.empty()) {
      const ssize_t got = ::recv(fd_, into.data(), into.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) die("the server hung up");
      into = into.subspan(static_cast<size_t>(got));
    }
  }
  int fd_ = -1;
};

struct Options {
  size_t queues = 1;
  DriverRing::Shape shape{kQueueSize, false, true, true};
  bool poll = false;
};

class Client {
 public:
  Client(const std::string& where, const bench::Workload& workload, Options options)
      : connection_(where), workload_(workload), options_(options), slots_(workload.depth) {
    slot_bytes_ = firn::round_up(kHeadBytes + workload.block, 4096) + 4096;
    map_memory();
    negotiate();
    for (size_t i = 0; i < options_.queues; ++i) start_queue(i);
    run_ = std::make_unique<bench::Run>(workload, capacity_);
    for (size_t i = slots_.size(); i-- > 0;) {
      slots_[i].queue = i % options_.queues;
      free_.push_back(i);
      if (workload.writes()) bench::fill(data_of(i), workload.seed * 7919 + i);
    }
  }

  int go() {
    offer();
    while (free_.size() < slots_.size()) {
      if (!take_in() && !options_.poll) sleep();
      offer();
    }
    const int status = run_->report();
    fmt::print("{{\"kicks\": {}, \"calls\": {}, \"operations\": {}}}\n", kicks_, calls_,
               run_->issued());
    return status;
  }

 private:
  struct Queue {
    std::unique_ptr<DriverRing> ring;
    int kick = -1;
    int call = -1;
  };
  struct Slot {
    bench::Run::Step step{};
    Clock::time_point issued;
    size_t queue = 0;
  };

  void map_memory() {
    memory_bytes_ = options_.queues * kRingBytes + slots_.size() * slot_bytes_;
    memory_fd_ = ::memfd_create("vhostload", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory_fd_ < 0 || ::ftruncate(memory_fd_, static_cast<off_t>(memory_bytes_)) != 0) {
      die("no memory to share");
    }
    void* const at =
        ::mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd_, 0);
    if (at == MAP_FAILED) die("no memory to map");
    memory_ = static_cast<std::byte*>(at);
    std::memset(memory_, 0, memory_bytes_);
  }

  void negotiate() {
    uint64_t wanted =
        virtio::kVersion1 | vhost::kFeatureProtocol | virtio::kBlkFlush | virtio::kBlkMultiqueue;
    if (options_.shape.packed) wanted |= virtio::kPacked;
    if (options_.shape.event_index) wanted |= virtio::kEventIndex;
    if (options_.shape.indirect) wanted |= virtio::kIndirect;
    const uint64_t offered = connection_.ask_number(R::get_features);
    const uint64_t agreed = offered & wanted;
    if (options_.shape.packed && (agreed & virtio::kPacked) == 0) die("no packed rings here");
    options_.shape.event_index = (agreed & virtio::kEventIndex) != 0;
    options_.shape.indirect = (agreed & virtio::kIndirect) != 0;
    const uint64_t protocol = connection_.ask_number(R::get_protocol_features) &
                              (vhost::kProtocolMultiqueue | vhost::kProtocolConfig);
    connection_.say(R::set_protocol_features, vhost::encode_number(protocol));
    connection_.say(R::set_owner);
    connection_.say(R::set_features, vhost::encode_number(agreed));
    if (options_.queues > 1 && connection_.ask_number(R::get_queue_count) < options_.queues) {
      die("the server has fewer queues");
    }
    std::array<std::byte, 64> room;
    const std::array<std::byte, 8> nothing{};
    const size_t bytes = vhost::encode(vhost::Config{0, 0, nothing}, room);
    const std::vector<std::byte> answer = connection_.ask(R::get_config, View(room).first(bytes));
    if (answer.size() < vhost::kConfigHeadBytes + 8) die("the server does not say its size");
    std::memcpy(&capacity_, answer.data() + vhost::kConfigHeadBytes, 8);
    capacity_ *= virtio::kSectorBytes;
    vhost::MemoryTable table;
    table.count = 1;
    table.regions[0] = {DriverRing::kGuestBase, memory_bytes_, DriverRing::kUserBase, 0};
    std::array<std::byte, 512> table_room;
    const size_t table_bytes = vhost::encode(table, table_room);
    connection_.say(R::set_memory_table, View(table_room).first(table_bytes), memory_fd_);
  }

  void start_queue(size_t number) {
    const auto index = static_cast<uint8_t>(number);
    Queue queue;
    queue.ring = DriverRing::make(options_.shape, memory_, number * kRingBytes);
    queue.kick = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue.call = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const uint32_t base = options_.shape.packed ? 0x80008000 : 0;
    connection_.say(R::set_vring_size, vhost::encode(vhost::VringState{index, kQueueSize}));
    connection_.say(R::set_vring_base, vhost::encode(vhost::VringState{index, base}));
    connection_.say(R::set_vring_address, vhost::encode(vhost::VringAddress{
                                              index, 0, queue.ring->descriptors(),
                                              queue.ring->used(), queue.ring->available(), 0}));
    const auto which = vhost::encode(vhost::VringDescriptor{index, true});
    connection_.say(R::set_vring_kick, which, queue.kick);
    connection_.say(R::set_vring_call, which, queue.call);
    connection_.say(R::set_vring_enable, vhost::encode(vhost::VringState{index, 1}));
    queues_.push_back(std::move(queue));
  }

  uint64_t place_of(size_t slot) const { return options_.queues * kRingBytes + slot * slot_bytes_; }
  // Data begins on a page, header and status lie behind it.
  uint64_t head_of(size_t slot) const { return place_of(slot) + slot_bytes_ - kHeadBytes; }
  Bytes data_of(size_t slot) const { return {memory_ + place_of(slot), workload_.block}; }

  void offer() {
    const Clock::time_point now = Clock::now();
    bool any = false;
    while (!free_.empty()) {
      const bench::Run::Step step = run_->next();
      if (step.kind == bench::Run::Step::Kind::none) break;
      const size_t number = free_.back();
      free_.pop_back();
      slots_[number].step = step;
      slots_[number].issued = now;
      put(number);
      any = true;
    }
    if (!any) return;
    for (Queue& queue : queues_) {
      if (!queue.ring->publish()) continue;
      ++kicks_;
      const uint64_t one = 1;
      if (::write(queue.kick, &one, sizeof(one)) < 0) die("a kick failed");
    }
  }

  void put(size_t number) {
    const Slot& slot = slots_[number];
    const bool flush = slot.step.kind == bench::Run::Step::Kind::flush;
    const virtio::BlkType type =
        flush ? virtio::BlkType::flush
              : (workload_.writes() ? virtio::BlkType::out : virtio::BlkType::in);
    if (!flush && workload_.writes()) bench::restamp(data_of(number), run_->issued());
    const virtio::BlkHeader header{static_cast<uint32_t>(type), 0,
                                   slot.step.at / virtio::kSectorBytes};
    std::memcpy(memory_ + head_of(number), &header, sizeof(header));
    const uint64_t guest = DriverRing::kGuestBase;
    const DriverRing::Part parts[] = {
        {guest + head_of(number), 16, false},
        {guest + place_of(number), static_cast<uint32_t>(workload_.block), !workload_.writes()},
        {guest + head_of(number) + 16, 1, true}};
    const std::span<const DriverRing::Part> all(parts);
    const DriverRing::Part bare[] = {parts[0], parts[2]};
    const bool fits = queues_[slot.queue].ring->add(
        flush ? std::span<const DriverRing::Part>(bare) : all, static_cast<uint16_t>(number));
    if (!fits) die("a ring is full: use less --depth, or more --queues");
  }

  bool take_in() {
    bool any = false;
    for (Queue& queue : queues_) {
      while (const auto done = queue.ring->take()) {
        const Slot& slot = slots_[done->token];
        const std::byte status = memory_[head_of(done->token) + 16];
        run_->completed(slot.step, slot.issued, status == std::byte{0});
        free_.push_back(done->token);
        any = true;
      }
    }
    return any;
  }

  void sleep() {
    bool there = false;
    std::vector<pollfd> waits;
    for (Queue& queue : queues_) {
      there |= queue.ring->arm();
      waits.push_back({queue.call, POLLIN, 0});
    }
    if (there) return;
    if (::poll(waits.data(), waits.size(), 10'000) == 0) die("the server does not answer");
    for (const pollfd& each : waits) {
      uint64_t count = 0;
      if ((each.revents & POLLIN) != 0 && ::read(each.fd, &count, sizeof(count)) > 0) {
        calls_ += count;
      }
    }
  }

  Connection connection_;
  bench::Workload workload_;
  Options options_;
  std::vector<Slot> slots_;
  std::vector<size_t> free_;
  std::vector<Queue> queues_;
  std::unique_ptr<bench::Run> run_;
  uint64_t slot_bytes_ = 0;
  uint64_t memory_bytes_ = 0;
  int memory_fd_ = -1;
  std::byte* memory_ = nullptr;
  uint64_t capacity_ = 0;
  uint64_t kicks_ = 0;
  uint64_t calls_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  bench::Arguments parsed = bench::parse(count, arguments);
  Options options;
  std::string place;
  for (size_t i = 0; i < parsed.rest.size(); ++i) {
    const std::string_view word = parsed.rest[i];
    if (word == "--packed") {
      options.shape.packed = true;
    } else if (word == "--no-event") {
      options.shape.event_index = false;
    } else if (word == "--no-indirect") {
      options.shape.indirect = false;
    } else if (word == "--poll") {
      options.poll = true;
    } else if (word == "--queues" && i + 1 < parsed.rest.size()) {
      options.queues = bench::size_of(parsed.rest[++i]);
    } else {
      place = word;
    }
  }
  if (place.empty() || options.queues == 0 || options.queues > 64) {
    die("usage: vhostload unix:PATH [--queues N] [--packed] [--poll] [--mode M --depth D ...]");
  }
  return Client(place, parsed.workload, options).go();
}
