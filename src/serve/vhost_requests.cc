// SPDX-License-Identifier: Apache-2.0
// What a session does for each message; the order of things is vhost_session.cc's.
//
//  I1  A ring runs when it has a size, addresses that are in the memory, a kick, and is enabled:
//      whichever comes last starts it. GET_VRING_BASE stops it and takes its kick away.
//  I2  Memory, log and shapes change only while no ring runs, or all are paused.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/shared.h"
#include "io/host_event.h"
#include "io/socket.h"
#include "serve/vhost_session.h"
#include "wire/virtio.h"

namespace firn::serve {
namespace {

namespace vhost = wire::vhost;
namespace virtio = wire::virtio;

constexpr uint64_t kRingFeatures = virtio::kIndirect | virtio::kEventIndex | virtio::kVersion1 |
                                   virtio::kPacked | vhost::kFeatureProtocol;
constexpr uint64_t kProtocolFeatures = vhost::kProtocolMultiqueue | vhost::kProtocolReplyAck |
                                       vhost::kProtocolBackendRequests | vhost::kProtocolConfig |
                                       vhost::kProtocolInflight | vhost::kProtocolResetDevice |
                                       vhost::kProtocolMemorySlots;

// Behind the logs of the queues: what the guest has set (VhostDevice::keepsake).
struct Keepsake {
  std::array<char, 8> magic{'F', 'I', 'R', 'N', 'K', 'E', 'P', '1'};
  le64 value;
};
constexpr size_t kKeepsakeBytes = 64;

}  // namespace

// --- features, memory

bool VhostSession::packed() const { return (features_ & virtio::kPacked) != 0; }

Result<void> VhostSession::get_features(Message& message) {
  return reply_number(message, device_.features() | kRingFeatures);
}

Result<void> VhostSession::get_protocol_features(Message& message) {
  return reply_number(message, kProtocolFeatures);
}

Result<void> VhostSession::get_queue_count(Message& message) {
  return reply_number(message, queues_.size());
}

Result<void> VhostSession::get_memory_slots(Message& message) {
  return reply_number(message, GuestMemory::kSlotsMax);
}

Result<void> VhostSession::set_owner(Message&) { return ok; }

Result<void> VhostSession::reset(Message&) {
  stop_all(VhostQueue::Stop::told);
  for (const auto& each : queues_) each->enabled = false;
  return ok;
}

Result<void> VhostSession::set_protocol_features(Message& message) {
  const uint64_t wanted = TRY(vhost::decode_number(message.payload));
  if ((wanted & ~kProtocolFeatures) != 0) {
    return fail(Errc::unsupported, "protocol features {:#x} were not offered",
                wanted & ~kProtocolFeatures);
  }
  protocol_features_ = wanted;
  return ok;
}

Result<void> VhostSession::set_features(Message& message) {
  const uint64_t features = TRY(vhost::decode_number(message.payload));
  const uint64_t unknown = features & ~(device_.features() | kRingFeatures);
  if (unknown != 0) return fail(Errc::unsupported, "features {:#x} were not offered", unknown);
  if (features == features_) return ok;
  for (const auto& each : queues_) {
    if (each->is_running()) return fail(Errc::busy, "features cannot change while rings run");
  }
  features_ = features;
  device_.accept(features);
  return ok;
}

void VhostSession::pause_all() {
  for (const auto& each : queues_) {
    if (each->is_running()) each->pause();
  }
}

void VhostSession::resume_all() {
  if (draining_) return;
  for (const auto& each : queues_) {
    if (each->is_running() && each->enabled) each->resume();
  }
}

Result<void> VhostSession::set_memory(Message& message) {
  const vhost::MemoryTable table = TRY(vhost::decode_memory_table(message.payload));
  pause_all();
  memory_.clear();
  Result<void> added;
  for (size_t i = 0; added && i < table.count; ++i) {
    added = memory_.add(table.regions[i], message.fds[i]);
  }
  if (!added) memory_.clear();
  resume_all();  // Breaks rings that are nowhere now.
  if (!added) return added;
  for (uint32_t i = 0; i < queues_.size(); ++i) TRY(start_if_ready(i));
  return ok;
}

Result<void> VhostSession::remove_region(Message& message) {
  const vhost::Region region = TRY(vhost::decode_memory_slot(message.payload));
  pause_all();
  const Result<void> removed = memory_.remove(region);
  resume_all();
  return removed;
}

Result<void> VhostSession::add_region(Message& message) {
  const vhost::Region region = TRY(vhost::decode_memory_slot(message.payload));
  TRY(memory_.add(region, message.fds[0]));  // Disturbs nobody.
  for (uint32_t i = 0; i < queues_.size(); ++i) TRY(start_if_ready(i));
  return ok;
}

// --- rings

Result<VhostQueue*> VhostSession::queue(uint32_t index, bool stopped) {
  if (index >= queues_.size()) return fail(Errc::invalid, "there is no ring {}", index);
  VhostQueue* const found = queues_[index].get();
  if (stopped && found->is_running()) return fail(Errc::busy, "ring {} is running", index);
  return found;
}

Result<void> VhostSession::set_size(Message& message) {
  const vhost::VringState state = TRY(vhost::decode_state(message.payload));
  VhostQueue& target = *TRY(queue(state.index, true));
  if (state.number == 0 || state.number > vhost::kQueueSizeMax) {
    return fail(Errc::invalid, "ring {} of {} places", state.index, state.number);
  }
  target.shape.size = state.number;
  return ok;
}

Result<void> VhostSession::set_base(Message& message) {
  const vhost::VringState state = TRY(vhost::decode_state(message.payload));
  TRY(queue(state.index, true))->shape.base = state.number;
  return ok;
}

Result<void> VhostSession::set_enable(Message& message) {
  const vhost::VringState state = TRY(vhost::decode_state(message.payload));
  VhostQueue& target = *TRY(queue(state.index, false));
  if (state.number > 1) {
    return fail(Errc::invalid, "ring {} is to be enabled by {}", state.index, state.number);
  }
  enable(target, state.number == 1);
  return start_if_ready(state.index);
}

Result<void> VhostSession::set_address(Message& message) {
  const vhost::VringAddress address = TRY(vhost::decode_address(message.payload));
  QueueShape& shape = TRY(queue(address.index, false))->shape;
  if (address.flags != 0) {  // Logging for migration was not offered.
    return fail(Errc::unsupported, "ring {}: address flags {:#x}", address.index, address.flags);
  }
  const bool same = shape.descriptors == address.descriptors &&
                    shape.available == address.available && shape.used == address.used;
  if (same) return ok;
  TRY(queue(address.index, true));
  shape.descriptors = address.descriptors;
  shape.available = address.available;
  shape.used = address.used;
  return ok;
}

Result<void> VhostSession::set_descriptor(Message& message) {
  const vhost::VringDescriptor which = TRY(vhost::decode_descriptor(message.payload));
  VhostQueue& target = *TRY(queue(which.index, false));
  std::unique_ptr<Event> event;
  if (which.has_descriptor) event = TRY(adopt_event(std::move(message.fds[0])));
  if (message.request() == Request::set_vring_call) {
    target.set_call(std::move(event));
    return ok;
  }
  if (message.request() == Request::set_vring_error) {
    target.set_error(std::move(event));
    return ok;
  }
  if (event == nullptr) {
    return fail(Errc::unsupported, "ring {} without a kick: nobody polls for ever", which.index);
  }
  target.set_kick(std::move(event));
  // Without the protocol's features there is no SET_VRING_ENABLE.
  if ((features_ & vhost::kFeatureProtocol) == 0) target.enabled = true;
  return start_if_ready(which.index);
}

void VhostSession::enable(VhostQueue& target, bool enabled) {
  if (std::exchange(target.enabled, enabled) == enabled || !target.is_running()) return;
  if (!enabled) {
    target.pause();
  } else if (!draining_) {
    target.resume();
  }
}

// I1. A ring that is not in the memory yet waits for the table that has it.
Result<void> VhostSession::start_if_ready(uint32_t index) {
  VhostQueue& target = *queues_[index];
  QueueShape& shape = target.shape;
  if (target.is_running() || !target.enabled || !target.has_kick() || draining_) return ok;
  if (shape.size == 0 ||
      memory_.find_user(shape.descriptors, virtio::kDescriptorBytes) == nullptr) {
    return ok;
  }
  if (!recalled_) {
    // Rings that go on from somewhere have had another server, which we know nothing of.
    if (inflight_ != nullptr || (shape.base & 0x7fff) != 0) device_.recall(nullptr);
    recalled_ = true;
    keep();
  }
  shape.packed = packed();
  shape.event_index = (features_ & virtio::kEventIndex) != 0;
  shape.indirect = (features_ & virtio::kIndirect) != 0;
  shape.log = TRY(log_of(index, shape.size));
  return target.start();
}

Result<void> VhostSession::get_base(Message& message) {
  const vhost::VringState state = TRY(vhost::decode_state(message.payload));
  VhostQueue& target = *TRY(queue(state.index, false));
  target.stop(VhostQueue::Stop::told);
  return reply(message, vhost::encode(vhost::VringState{state.index, target.shape.base}));
}

void VhostSession::stop_all(VhostQueue::Stop how) {
  for (const auto& each : queues_) each->stop(how);
}

// --- requests in flight

size_t VhostSession::log_bytes(uint16_t queue_size) const {
  return Virtqueue::log_bytes(packed(), queue_size);
}

Result<Bytes> VhostSession::log_of(uint32_t index, uint32_t size) const {
  if (inflight_ == nullptr || index >= inflight_shape_.queues ||
      size != inflight_shape_.queue_size) {
    return Bytes();
  }
  const size_t each = log_bytes(inflight_shape_.queue_size);
  if (!Range{each * index, each}.within(inflight_->size())) {
    return fail(Errc::invalid,
                "ring {}: the memory for requests in flight was made for rings of another kind",
                index);
  }
  return inflight_->bytes().subspan(each * index, each);
}

void VhostSession::keep() {
  const size_t logs = log_bytes(inflight_shape_.queue_size) * size_t{inflight_shape_.queues};
  if (inflight_ == nullptr || inflight_->size() < logs + kKeepsakeBytes) return;
  Keepsake keepsake;
  keepsake.value = device_.keepsake();
  std::memcpy(inflight_->data() + logs, &keepsake, sizeof(keepsake));
}

Result<void> VhostSession::give_inflight(Message& message) {
  vhost::Inflight shape = TRY(vhost::decode_inflight(message.payload));
  if (shape.queues == 0 || shape.queues > queues_.size() || shape.queue_size == 0) {
    return fail(Errc::invalid, "memory for the requests of {} rings of {} places", shape.queues,
                shape.queue_size);
  }
  for (const auto& each : queues_) {
    if (each->is_running()) return fail(Errc::busy, "rings are running");
  }
  shape.bytes = log_bytes(shape.queue_size) * shape.queues + kKeepsakeBytes;
  shape.offset = 0;
  const Fd fd = TRY(make_shared_memory("firn-inflight", shape.bytes));
  inflight_ = TRY(SharedMap::make(fd, 0, shape.bytes, "requests in flight"));
  inflight_shape_ = shape;
  recalled_ = true;  // A new log: whoever it is that begins here, begins with us.
  keep();
  const int passed = fd.get();
  const auto described = vhost::encode(shape);
  return reply(message, View(described).first(message.payload.size()),
               std::span<const int>(&passed, 1));
}

Result<void> VhostSession::take_inflight(Message& message) {
  const vhost::Inflight shape = TRY(vhost::decode_inflight(message.payload));
  for (const auto& each : queues_) {
    if (each->is_running()) return fail(Errc::busy, "rings are running");
  }
  const size_t logs = log_bytes(shape.queue_size) * size_t{shape.queues};
  if (shape.queues == 0 || shape.queues > queues_.size() || shape.queue_size == 0 ||
      shape.bytes < logs) {
    return fail(Errc::invalid, "{} bytes for the requests of {} rings of {} places", shape.bytes,
                shape.queues, shape.queue_size);
  }
  if (shape.offset % sizeof(uint64_t) != 0) {
    return fail(Errc::invalid, "memory for requests in flight at {} is not aligned", shape.offset);
  }
  inflight_ = TRY(SharedMap::make(message.fds[0], shape.offset, shape.bytes, "requests in flight"));
  inflight_shape_ = shape;
  if (recalled_ || shape.bytes < logs + kKeepsakeBytes) return ok;
  const auto kept = copy_once<Keepsake>(inflight_->data() + logs);
  if (kept.magic != Keepsake().magic) return ok;
  const uint64_t value = kept.value;
  device_.recall(&value);
  recalled_ = true;
  return ok;
}

// --- configuration

Result<void> VhostSession::get_config(Message& message) {
  const vhost::Config wanted = TRY(vhost::decode_config(message.payload));
  std::array<std::byte, vhost::kConfigMax> whole{};
  device_.config(whole);
  config_seen_ = device_.config_mark();
  std::array<std::byte, vhost::kConfigHeadBytes + vhost::kConfigMax> room;
  const View part = View(whole).subspan(wanted.offset, wanted.bytes.size());
  const size_t bytes = vhost::encode(vhost::Config{wanted.offset, wanted.flags, part}, room);
  return reply(message, View(room).first(bytes));
}

Result<void> VhostSession::set_config(Message& message) {
  const vhost::Config config = TRY(vhost::decode_config(message.payload));
  TRY(device_.set_config(config.offset, config.bytes));
  recalled_ = true;
  keep();
  return ok;
}

Result<void> VhostSession::set_backend_socket(Message& message) {
  std::unique_ptr<Socket> socket = TRY(adopt_socket(message.fds[0].get()));
  (void)message.fds[0].release();
  if (backend_ != nullptr) io_.shutdown(*backend_);  // Somebody may wait for room in it.
  while (telling_) io_.yield();
  backend_ = std::move(socket);
  look_at_config();
  return ok;
}

void VhostSession::look_at_config() {
  if (backend_ == nullptr || draining_ || telling_ || config_seen_ == device_.config_mark()) return;
  telling_ = true;
  io_.spawn(group_, [this] { tell_config_changed(); });
}

// Without asking for an answer: the front end may ask us for the configuration before it gives one.
void VhostSession::tell_config_changed() {
  while (config_seen_ != device_.config_mark()) {
    config_seen_ = device_.config_mark();
    const auto head = vhost::encode(
        Header{static_cast<Request>(vhost::BackendRequest::config_changed), vhost::kVersion, 0});
    const ::iovec slice = slice_of(View(head));
    if (!io_.send(*backend_, Iovec(&slice, 1))) break;
    log_.line(Severity::info, "guest told", name_, "the disk's size has changed");
  }
  telling_ = false;
}

}  // namespace firn::serve
