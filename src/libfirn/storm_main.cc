// SPDX-License-Identifier: Apache-2.0
// vhost_storm: a guest and a front end that mean harm, from a seed, against a real server.
//
//   vhost_storm SOCKET SECONDS [SEED]
//
// Each connection says some of what a front end says, mostly well-formed, then writes random things
// into its rings while the server works on them, kicks without end, says nonsense, takes its memory
// away, and leaves in the middle. Prints how often. Reads and writes whatever is on the disk.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/prng.h"
#include "libfirn/clock.h"
#include "libfirn/driver_ring.h"
#include "libfirn/messenger.h"

namespace firn::libfirn {
namespace {

namespace vhost = wire::vhost;
namespace virtio = wire::virtio;
using R = vhost::Request;

constexpr uint64_t kBytes = 2 * kMiB;
constexpr uint64_t kDataAt = kMiB;

class Storm {
 public:
  Storm(std::string path, uint64_t seed) : path_(std::move(path)), prng_(seed) {}
  // False: nobody listens any more.
  bool strike();
  uint64_t scribbles() const { return scribbles_; }

 private:
  uint64_t odd_number();
  void set_up(Messenger& messenger);
  void say(Messenger& messenger, R request, View payload = {}, const std::vector<int>& fds = {}) {
    (void)messenger.say(request, payload, fds).has_value();
  }
  void scribble(std::byte* memory);
  void believable(std::byte* memory);
  void babble(Messenger& messenger);
  static void hear(const Messenger& messenger);

  std::string path_;
  Prng prng_;
  DriverRing::Shape shape_;
  uint64_t scribbles_ = 0;
  Handle memory_;
  Handle kick_;
  Handle call_;
};

uint64_t Storm::odd_number() {
  constexpr std::array<uint64_t, 14> kEdges{0,          1,
                                            15,         16,
                                            127,        128,
                                            129,        0x8000,
                                            0xffff,     UINT32_MAX,
                                            UINT64_MAX, UINT64_MAX - 15,
                                            INT64_MAX,  DriverRing::kGuestBase};
  if (prng_.one_in(2)) return kEdges[prng_.below(kEdges.size())];
  if (prng_.one_in(2)) return DriverRing::kGuestBase + prng_.below(kBytes + 8192);
  return prng_.next() >> prng_.below(64);
}

void Storm::hear(const Messenger& messenger) {
  std::array<std::byte, 4096> room;
  while (::recv(messenger.fd(), room.data(), room.size(), MSG_DONTWAIT) > 0) {
  }
}

void Storm::set_up(Messenger& messenger) {
  uint64_t features = virtio::kVersion1 | vhost::kFeatureProtocol | virtio::kBlkFlush |
                      virtio::kBlkDiscard | virtio::kBlkWriteZeroes;
  if (shape_.packed) features |= virtio::kPacked;
  if (shape_.event_index) features |= virtio::kEventIndex;
  if (shape_.indirect) features |= virtio::kIndirect;
  say(messenger, R::set_protocol_features,
      vhost::encode_number(vhost::kProtocolMultiqueue | vhost::kProtocolConfig |
                           vhost::kProtocolInflight | vhost::kProtocolReplyAck));
  say(messenger, R::set_features, vhost::encode_number(features));
  if (prng_.one_in(2)) {
    vhost::Inflight wanted;
    wanted.queues = static_cast<uint16_t>(1 + prng_.below(2));
    wanted.queue_size = shape_.size;
    say(messenger, R::get_inflight, vhost::encode(wanted));
  }
  vhost::MemoryTable table;
  table.count = 1;
  table.regions[0] = {DriverRing::kGuestBase, kBytes, DriverRing::kUserBase, 0};
  std::array<std::byte, 512> room;
  say(messenger, R::set_memory_table, View(room).first(vhost::encode(table, room)),
      {memory_.get()});
  for (uint8_t index = 0; index < 2; ++index) {
    const uint64_t at = DriverRing::kUserBase + index * 256 * kKiB;
    say(messenger, R::set_vring_size, vhost::encode(vhost::VringState{index, shape_.size}));
    say(messenger, R::set_vring_base,
        vhost::encode(vhost::VringState{index, shape_.packed ? 0x80008000 : 0}));
    say(messenger, R::set_vring_address,
        vhost::encode(vhost::VringAddress{index, 0, at, at + 128 * kKiB, at + 64 * kKiB, 0}));
    const auto which = vhost::encode(vhost::VringDescriptor{index, true});
    say(messenger, R::set_vring_call, which, {call_.get()});
    say(messenger, R::set_vring_kick, which, {kick_.get()});
    say(messenger, R::set_vring_enable, vhost::encode(vhost::VringState{index, 1}));
  }
}

// A request that could be one: header, data, status somewhere in the memory.
void Storm::believable(std::byte* memory) {
  const virtio::BlkHeader header{
      static_cast<uint32_t>(prng_.one_in(4) ? prng_.below(16) : prng_.below(2)), 0,
      prng_.one_in(8) ? odd_number() : prng_.below(2048)};
  std::memcpy(memory + kDataAt, &header, sizeof(header));
  std::byte* const table = memory + prng_.below(2) * 256 * kKiB;
  const auto first = static_cast<uint16_t>(prng_.below(shape_.size));
  const auto lap =
      static_cast<uint16_t>(prng_.one_in(2) ? virtio::kPackedAvailable : virtio::kPackedUsed);
  const auto mark = static_cast<uint16_t>(shape_.packed ? lap : 0);
  for (uint16_t i = 0; i < 3; ++i) {
    const auto next = static_cast<uint16_t>((first + i + 1) % shape_.size);
    const auto flags =
        static_cast<uint16_t>(mark | (i < 2 ? virtio::kNext : 0) | (i > 0 ? virtio::kWrite : 0));
    const virtio::Descriptor each{DriverRing::kGuestBase + kDataAt + i * 4096,
                                  i == 0 ? 16U : (i == 2 ? 1U : 4096U), flags, next};
    std::memcpy(table + 16 * ((first + i) % shape_.size), &each, sizeof(each));
  }
  std::byte* const available = table + 128 * kKiB;
  const uint16_t index = load_relaxed<uint16_t>(available + 2);
  store_relaxed<uint16_t>(available + 4 + 2 * (index % shape_.size), first);
  store_release<uint16_t>(available + 2, static_cast<uint16_t>(index + 1));
}

void Storm::scribble(std::byte* memory) {
  ++scribbles_;
  if (!prng_.one_in(3)) return believable(memory);
  std::byte* const ring = memory + prng_.below(2) * 256 * kKiB;
  const virtio::Descriptor each{odd_number(), static_cast<uint32_t>(odd_number()),
                                static_cast<uint16_t>(prng_.below(8) | (prng_.next() & 0x8080)),
                                static_cast<uint16_t>(odd_number())};
  std::memcpy(ring + 16 * prng_.below(shape_.size), &each, sizeof(each));
  std::byte* const place = ring + prng_.below(3) * 64 * kKiB + 2 * prng_.below(shape_.size);
  store_relaxed<uint16_t>(place, static_cast<uint16_t>(odd_number()));
}

void Storm::babble(Messenger& messenger) {
  std::vector<std::byte> payload(prng_.one_in(2) ? prng_.below(64) : 8 * (1 + prng_.below(5)));
  for (std::byte& each : payload) each = static_cast<std::byte>(prng_.one_in(3) ? prng_.next() : 0);
  std::vector<int> fds;
  const std::array<int, 3> choices{memory_.get(), kick_.get(), call_.get()};
  for (uint64_t i = prng_.one_in(2) ? prng_.below(8) : 0; i > 0; --i) {
    fds.push_back(choices[prng_.below(choices.size())]);
  }
  say(messenger, static_cast<R>(prng_.below(45)), payload, fds);
}

bool Storm::strike() {
  Result<Messenger> messenger = Messenger::connect(path_);
  if (!messenger) return false;
  shape_ = {static_cast<uint16_t>(8 << prng_.below(6)), prng_.one_in(2), prng_.one_in(2),
            prng_.one_in(2)};
  memory_ = Handle(::memfd_create("storm", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  kick_ = Handle(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  call_ = Handle(::eventfd(0, EFD_CLOEXEC | (prng_.one_in(2) ? EFD_NONBLOCK : 0)));
  if (::ftruncate(memory_.get(), kBytes) != 0) return false;
  void* const at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
  if (at == MAP_FAILED) return false;
  auto* const memory = static_cast<std::byte*>(at);
  if (!prng_.one_in(16)) set_up(*messenger);
  bool shrunk = false;
  for (uint64_t i = prng_.below(400); i > 0; --i) {
    if (!shrunk) {
      for (uint64_t n = prng_.below(20); n > 0; --n) scribble(memory);
    }
    for (uint64_t n = prng_.below(8); n > 0; --n) (void)::eventfd_write(kick_.get(), 1);
    if (prng_.one_in(16)) babble(*messenger);
    if (prng_.one_in(300)) {
      shrunk = true;  // Ours is mapped too: not to be touched any more.
      (void)::ftruncate(memory_.get(), static_cast<off_t>(prng_.below(3)) * 4096);
    }
    if (prng_.one_in(100)) set_up(*messenger);
    hear(*messenger);
    if (messenger->is_gone()) break;
  }
  ::munmap(at, kBytes);
  return true;
}

int run(const std::string& path, double seconds, uint64_t seed) {
  Storm storm(path, seed);
  const uint64_t end = now_ns() + static_cast<uint64_t>(seconds * 1e9);
  uint64_t strikes = 0;
  for (; now_ns() < end; ++strikes) {
    if (storm.strike()) continue;
    fmt::print(stderr, "vhost_storm: nobody listens after {} connections\n", strikes);
    return 1;
  }
  fmt::print("{} connections, {} scribbles\n", strikes, storm.scribbles());
  return 0;
}

}  // namespace
}  // namespace firn::libfirn

int main(int count, char** words) {
  if (count < 3) {
    fmt::print(stderr, "usage: vhost_storm SOCKET SECONDS [SEED]\n");
    return 2;
  }
  const uint64_t seed = count > 3 ? std::strtoull(words[3], nullptr, 10) : 1;
  return firn::libfirn::run(words[1], std::strtod(words[2], nullptr), seed);
}
