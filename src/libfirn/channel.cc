// SPDX-License-Identifier: Apache-2.0
// Setting a channel up, and again when its server has died; requests are in channel_requests.cc.
//
// Our own memory is one memfd: the rings, then a head of kHeadBytes for each request (header,
// segment, status), then what firn_allocate() gives. Region `i` is at DriverRing::kGuestBase + i *
// kRegionStride for the server, wherever it is here.
#include "libfirn/channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "libfirn/clock.h"

namespace firn::libfirn {

namespace vhost = wire::vhost;
namespace virtio = wire::virtio;
using R = vhost::Request;

namespace {

constexpr uint64_t kWanted =
    virtio::kVersion1 | vhost::kFeatureProtocol | virtio::kBlkFlush | virtio::kBlkMultiqueue |
    virtio::kBlkDiscard | virtio::kBlkWriteZeroes | virtio::kBlkReadOnly | virtio::kBlkBlockSize |
    virtio::kBlkTopology | virtio::kEventIndex | virtio::kIndirect;
constexpr uint64_t kWantedProtocol = vhost::kProtocolMultiqueue | vhost::kProtocolConfig |
                                     vhost::kProtocolReplyAck | vhost::kProtocolInflight;
constexpr int kRetryMs = 20;  // Between two tries to find a server.

uint64_t ring_bytes(const DriverRing::Shape& shape) {
  return round_up(DriverRing::bytes(shape) + 64 * kKiB, 4 * kKiB);
}

}  // namespace

Channel::Channel(std::string path, const ::firn_options& options)
    : path_(std::move(path)), options_(options) {}

Channel::~Channel() {
  if (base_ != nullptr) ::munmap(base_, memory_bytes_);
}

Result<std::unique_ptr<Channel>> Channel::open(std::string path, const ::firn_options& options) {
  std::unique_ptr<Channel> made(new Channel(std::move(path), options));
  Messenger messenger = TRY(Messenger::connect(made->path_));
  TRY(made->negotiate(messenger));
  TRY(made->make_memory());
  TRY(made->set_up(messenger));
  made->messenger_ = std::move(messenger);
  made->epoll_ = Handle(::epoll_create1(EPOLL_CLOEXEC));
  made->watch_descriptors();
  return made;
}

Result<void> Channel::negotiate(Messenger& messenger) {
  uint64_t wanted = kWanted;
  if ((options_.flags & FIRN_PACKED) != 0) wanted |= virtio::kPacked;
  if ((options_.flags & FIRN_NO_EVENT) != 0) wanted &= ~virtio::kEventIndex;
  if ((options_.flags & FIRN_NO_INDIRECT) != 0) wanted &= ~virtio::kIndirect;
  const uint64_t offered = TRY(messenger.ask_number(R::get_features));
  const uint64_t agreed = offered & wanted;
  constexpr uint64_t kNeeded = virtio::kVersion1 | vhost::kFeatureProtocol;
  if ((agreed & kNeeded) != kNeeded || (wanted & ~offered & virtio::kPacked) != 0) {
    return fail(Errc::unsupported, "the server offers features {:#x}", offered);
  }
  if (messenger_ && agreed != features_) {
    return fail(Errc::unsupported, "the server that came back has features {:#x}, not {:#x}",
                agreed, features_);
  }
  features_ = agreed;
  protocol_ = TRY(messenger.ask_number(R::get_protocol_features)) & kWantedProtocol;
  if ((protocol_ & vhost::kProtocolConfig) == 0) {
    return fail(Errc::unsupported, "the server does not say how large its disk is");
  }
  TRY(messenger.say(R::set_protocol_features, vhost::encode_number(protocol_)));
  TRY(messenger.say(R::set_owner));
  TRY(messenger.say(R::set_features, vhost::encode_number(features_)));
  if (options_.queues > 1 && TRY(messenger.ask_number(R::get_queue_count)) < options_.queues) {
    return fail(Errc::invalid, "the server has fewer than {} queues", options_.queues);
  }
  return ok;
}

Result<void> Channel::make_memory() {
  DriverRing::Shape shape;
  shape.packed = (features_ & virtio::kPacked) != 0;
  shape.event_index = (features_ & virtio::kEventIndex) != 0;
  shape.indirect = (features_ & virtio::kIndirect) != 0;
  // Without tables a request takes a place for each of its parts: header, data, status.
  shape.size = static_cast<uint16_t>(std::bit_ceil(options_.depth * (shape.indirect ? 1U : 4U)));
  const uint64_t each = ring_bytes(shape);
  heads_at_ = each * options_.queues;
  arena_at_ = round_up(heads_at_ + uint64_t{options_.queues} * options_.depth * kHeadBytes, 4096);
  memory_bytes_ = round_up(arena_at_ + options_.memory_bytes, 4096);
  memory_ = Handle(::memfd_create("libfirn", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory_ || ::ftruncate(memory_.get(), static_cast<off_t>(memory_bytes_)) != 0) {
    return fail_errno(errno, "no memory to share");
  }
  (void)::fcntl(memory_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  void* const at =
      ::mmap(nullptr, memory_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0);
  if (at == MAP_FAILED) return fail_errno(errno, "no memory to map");
  base_ = static_cast<std::byte*>(at);
  regions_.push_back({memory_.get(), 0, base_, memory_bytes_});
  for (size_t i = 0; i < options_.queues; ++i) {
    Queue queue;
    queue.ring = DriverRing::make(shape, base_, i * each);
    queue.kick = Handle(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    queue.call = Handle(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!queue.kick || !queue.call) return fail_errno(errno, "no eventfd");
    queue.slots.resize(options_.depth);
    for (uint16_t n = 0; n < queue.slots.size(); ++n) {
      queue.slots[n].next = static_cast<uint16_t>(n + 1);
    }
    queues_.push_back(std::move(queue));
  }
  return ok;
}

Result<void> Channel::tell_memory(Messenger& messenger) {
  vhost::MemoryTable table;
  std::vector<int> fds;
  table.count = static_cast<uint32_t>(regions_.size());
  for (size_t i = 0; i < regions_.size(); ++i) {
    const uint64_t offset = i * kRegionStride;
    table.regions[i] = {DriverRing::kGuestBase + offset, regions_[i].bytes,
                        DriverRing::kUserBase + offset, regions_[i].offset};
    fds.push_back(regions_[i].fd);
  }
  std::array<std::byte, 512> room;
  const View payload = View(room).first(vhost::encode(table, room));
  if ((protocol_ & vhost::kProtocolReplyAck) == 0) {
    return messenger.say(R::set_memory_table, payload, fds);
  }
  return messenger.order(R::set_memory_table, payload, fds);
}

Result<void> Channel::set_up(Messenger& messenger) {
  TRY(tell_memory(messenger));
  TRY(keep_log(messenger));
  for (size_t i = 0; i < queues_.size(); ++i) TRY(start_queue(messenger, i));
  return ok;
}

// The first time the server makes it; its successors get it from us.
Result<void> Channel::keep_log(Messenger& messenger) {
  if ((protocol_ & vhost::kProtocolInflight) == 0) return ok;
  if (!log_) {
    vhost::Inflight wanted;
    wanted.queues = static_cast<uint16_t>(queues_.size());
    wanted.queue_size = queues_[0].ring->shape().size;
    const auto answer = TRY(messenger.ask(R::get_inflight, vhost::encode(wanted), &log_));
    if (!log_) return ok;  // It would rather not.
    log_shape_ = TRY(vhost::decode_inflight(answer));
  }
  return messenger.say(R::set_inflight, vhost::encode(log_shape_), {log_.get()});
}

Result<void> Channel::start_queue(Messenger& messenger, size_t number) {
  const auto index = static_cast<uint8_t>(number);
  const Queue& queue = queues_[number];
  const DriverRing& ring = *queue.ring;
  // A server with the log knows better.
  const uint32_t base = ring.shape().packed ? 0x80008000 : ring.used_index();
  TRY(messenger.say(R::set_vring_size, vhost::encode(vhost::VringState{index, ring.shape().size})));
  TRY(messenger.say(R::set_vring_base, vhost::encode(vhost::VringState{index, base})));
  TRY(messenger.say(R::set_vring_address,
                    vhost::encode(vhost::VringAddress{index, 0, ring.descriptors(), ring.used(),
                                                      ring.available(), 0})));
  const auto which = vhost::encode(vhost::VringDescriptor{index, true});
  TRY(messenger.say(R::set_vring_call, which, {queue.call.get()}));
  TRY(messenger.say(R::set_vring_kick, which, {queue.kick.get()}));
  return messenger.say(R::set_vring_enable, vhost::encode(vhost::VringState{index, 1}));
}

void Channel::watch_descriptors() {
  const auto watch = [&](int fd, uint32_t events) {
    ::epoll_event event{};
    event.events = events;
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  };
  watch(messenger_->fd(), EPOLLRDHUP);
  for (const Queue& queue : queues_) watch(queue.call.get(), EPOLLIN);
}

// --- what a server's death takes

Result<void> Channel::check() {
  if (dead_) return fail_errno(ECONNRESET, "the server of {} is gone", path_);
  const bool broken = std::any_of(queues_.begin(), queues_.end(),
                                  [](const Queue& queue) { return queue.ring->broken(); });
  if (broken) {
    lose_all();
    return fail(Errc::invalid, "the server gave back what it did not have");
  }
  return messenger_->is_gone() ? revive() : Result<void>();
}

void Channel::lose_all() {
  dead_ = true;
  for (size_t q = 0; q < queues_.size(); ++q) {
    Queue& queue = queues_[q];
    std::vector<bool> free(queue.slots.size());
    for (uint16_t at = queue.free; at < free.size(); at = queue.slots[at].next) free[at] = true;
    for (uint16_t at = 0; at < free.size(); ++at) {
      if (free[at]) continue;
      lost_.push_back(
          {queue.slots[at].cookie, -ECONNRESET, queue.slots[at].op, static_cast<uint16_t>(q)});
      queue.slots[at].next = std::exchange(queue.free, at);
    }
    queue.in_flight = 0;
  }
}

// Finds the server's successor, and shows it everything again. What was in flight it finds in the
// log; without one nobody can say what has been done.
Result<void> Channel::revive() {
  const uint64_t until = now_ns() + uint64_t{options_.patience_ms} * 1'000'000;
  ++statistics_.reconnects;
  Result<void> outcome;
  for (;;) {
    if (!log_ && in_flight_ > 0) {
      outcome = fail_errno(ECONNRESET, "the server is gone, and kept no log of what is in flight");
      break;
    }
    Result<Messenger> found = Messenger::connect(path_);
    outcome = found ? negotiate(*found) : Result<void>(found.error());
    if (outcome) outcome = set_up(*found);
    if (outcome) {
      messenger_ = found.take();
      watch_descriptors();
      for (Queue& queue : queues_) {
        (void)::eventfd_write(queue.kick.get(), 1);
        queue.added = false;
      }
      return ok;
    }
    if (now_ns() > until) break;
    (void)::poll(nullptr, 0, kRetryMs);
  }
  lose_all();
  return fail_errno(ECONNRESET, "the server of {} is gone ({})", path_, text_of(outcome.error()));
}

// --- what there is beside requests

Result<::firn_geometry> Channel::geometry() {
  TRY(check());
  std::array<std::byte, vhost::kConfigHeadBytes + sizeof(virtio::BlkConfig)> room;
  const std::array<std::byte, sizeof(virtio::BlkConfig)> nothing{};
  const size_t bytes = vhost::encode(vhost::Config{0, 0, nothing}, room);
  const auto answer = TRY(messenger_->ask(R::get_config, View(room).first(bytes)));
  if (answer.size() < room.size()) return fail(Errc::invalid, "the configuration is cut off");
  const auto config = load<virtio::BlkConfig>(View(answer).subspan(vhost::kConfigHeadBytes));
  const auto exponent = std::min(std::to_integer<uint32_t>(config.physical_block_exponent), 20U);
  ::firn_geometry geometry{};
  geometry.bytes = config.capacity * virtio::kSectorBytes;
  geometry.block = std::max<uint32_t>(config.block_size, virtio::kSectorBytes);
  geometry.optimal = geometry.block << exponent;
  geometry.queues_max = std::max<uint32_t>(config.queues, 1);
  geometry.transfer_max = static_cast<uint32_t>(transfer_max());
  geometry.effect_max = kEffectMax;
  geometry.read_only = (features_ & virtio::kBlkReadOnly) != 0 ? 1 : 0;
  geometry.can_discard = (features_ & virtio::kBlkDiscard) != 0 ? 1 : 0;
  geometry.can_zero = (features_ & virtio::kBlkWriteZeroes) != 0 ? 1 : 0;
  return geometry;
}

void* Channel::allocate(size_t bytes) {
  const uint64_t at = arena_at_;
  if (bytes == 0 || bytes > memory_bytes_ - at) return nullptr;
  arena_at_ = std::min(round_up(at + bytes, 4096), memory_bytes_);
  return base_ + at;
}

Result<void> Channel::show(int fd, uint64_t offset, void* at, size_t bytes) {
  TRY(check());
  if (regions_.size() >= vhost::kRegionsMax || in_flight_ > 0) {
    return fail(Errc::busy, "{} regions are there, {} requests are in flight", regions_.size(),
                in_flight_);
  }
  if (bytes == 0 || bytes > kRegionStride || bytes % 4096 != 0 || offset % 4096 != 0) {
    return fail(Errc::invalid, "a region of {} bytes at {}", bytes, offset);
  }
  regions_.push_back({fd, offset, static_cast<std::byte*>(at), bytes});
  const Result<void> told = tell_memory(*messenger_);
  if (!told) regions_.pop_back();
  return told;
}

}  // namespace firn::libfirn
