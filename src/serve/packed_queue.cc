// SPDX-License-Identifier: Apache-2.0
// Packed rings: one ring of descriptors that both sides write; a bit tells the laps apart.
#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"
#include "base/shared.h"
#include "serve/inflight_log.h"
#include "serve/virtqueue.h"
#include "wire/virtio.h"

namespace firn::serve {
namespace {

namespace virtio = wire::virtio;
using virtio::PackedDescriptor;
using Place = PackedLog::Place;

constexpr size_t kFlagsAt = offsetof(PackedDescriptor, flags);
constexpr size_t kLengthAt = offsetof(PackedDescriptor, length);
constexpr size_t kIdAt = offsetof(PackedDescriptor, id);

class PackedQueue final : public Virtqueue {
 public:
  PackedQueue(const GuestMemory& memory, const QueueShape& shape)
      : Virtqueue(memory, shape),
        size_(static_cast<uint16_t>(shape.size)),
        next_(place_of(shape.base)),
        used_(place_of(shape.base >> 16)),
        log_(shape.log, size_) {}

  Took take(Chain& into) override;
  void give_back(const Chain& chain, uint32_t written) override;
  void publish() override;
  bool wants_signal() override;
  bool is_listening() const override;
  bool has_more() override { return !left_.empty() || is_offered(); }
  bool arm() override;
  void disarm() override;
  uint32_t base() const override { return number_of(next_) | (uint32_t{number_of(used_)} << 16); }
  void end_log() override { log_.end(); }
  Result<void> locate() override;

 private:
  static Place place_of(uint32_t number) {
    return {static_cast<uint16_t>(number & 0x7fff), (number & virtio::kWrapBit) != 0};
  }
  static uint16_t number_of(Place place) {
    return static_cast<uint16_t>(place.index | (place.wrap ? virtio::kWrapBit : 0));
  }
  Place after(Place place, uint16_t count) const {
    const uint32_t sum = uint32_t{place.index} + count;
    if (sum < size_) return {static_cast<uint16_t>(sum), place.wrap};
    return {static_cast<uint16_t>(sum - size_), !place.wrap};
  }
  std::byte* slot(uint16_t index) const { return ring_ + virtio::kDescriptorBytes * index; }
  uint16_t flags_at(uint16_t index) const { return load_acquire<uint16_t>(slot(index) + kFlagsAt); }
  bool is_offered() const {
    const uint16_t flags = flags_at(next_.index);
    const bool available = (flags & virtio::kPackedAvailable) != 0;
    const bool used = (flags & virtio::kPackedUsed) != 0;
    return available == next_.wrap && used != next_.wrap;
  }
  void take_over();
  bool gather(Chain& into);
  bool walk(Chain& into);
  bool walk_table(Chain& into, const PackedDescriptor& from);

  uint16_t size_;
  Place next_;           // Where the next chain will be offered ...
  Place used_;           // ... and where the next one is given back.
  uint16_t held_ = 0;    // Places between the two.
  uint16_t unsaid_ = 0;  // Places given back since wants_signal() was asked.
  bool begun_ = false;
  std::byte* ring_ = nullptr;
  std::byte* driver_event_ = nullptr;
  std::byte* device_event_ = nullptr;
  std::byte* first_ = nullptr;  // The first of the batch, not visible yet ...
  uint16_t first_flags_ = 0;    // ... until it has these.
  PackedLog log_;
  std::vector<PackedDescriptor> parts_;  // Of the chain at hand.
  std::vector<PackedLog::Left> left_;    // By a predecessor; the first is the last element.
};

Result<void> PackedQueue::locate() {
  ring_ = memory_.find_user(shape_.descriptors, virtio::kDescriptorBytes * size_);
  driver_event_ = memory_.find_user(shape_.available, virtio::kEventAreaBytes);
  device_event_ = memory_.find_user(shape_.used, virtio::kEventAreaBytes);
  if (ring_ == nullptr || driver_event_ == nullptr || device_event_ == nullptr) {
    return fail(Errc::invalid, "a ring of {} places is not within the memory table", size_);
  }
  const auto odd = [](const std::byte* at, uintptr_t unit) {
    return std::bit_cast<uintptr_t>(at) % unit != 0;
  };
  if (odd(ring_, 16) || odd(driver_event_, 4) || odd(device_event_, 4)) {
    return fail(Errc::invalid, "a ring is not aligned");
  }
  if (next_.index >= size_ || used_.index >= size_) {
    return fail(Errc::invalid, "a ring of {} places cannot go on at {} and {}", size_, next_.index,
                used_.index);
  }
  if (!begun_) take_over();
  begun_ = true;
  return ok;
}

void PackedQueue::take_over() {
  if (log_.is_begun() && log_.old_used().index < size_) {
    const Place old = log_.old_used();
    const bool published = ((flags_at(old.index) & virtio::kPackedUsed) != 0) == old.wrap;
    left_ = log_.recover(published);
    used_ = log_.used();
    if (used_.index >= size_) used_ = {0, true};
    next_ = used_;
    for (const PackedLog::Left& left : left_) {
      const auto count = static_cast<uint16_t>(left.descriptors.size());
      next_ = after(next_, count);
      held_ = static_cast<uint16_t>(held_ + count);
    }
    std::reverse(left_.begin(), left_.end());
    recovered_ = left_.size();
    return;
  }
  log_.begin(used_);
}

Took PackedQueue::take(Chain& into) {
  into.readable.clear();
  into.writable.clear();
  if (!left_.empty()) {
    parts_ = std::move(left_.back().descriptors);
    into.entry = left_.back().entry;
    left_.pop_back();
    into.slots = static_cast<uint16_t>(parts_.size());
    into.id = parts_.back().id;
    return take_busy(into.id) && walk(into) ? Took::chain : Took::broken;
  }
  if (!is_offered()) return Took::nothing;
  if (!gather(into) || !take_busy(into.id) || !walk(into)) return Took::broken;
  into.entry = log_.took(parts_);
  held_ = static_cast<uint16_t>(held_ + into.slots);
  next_ = after(next_, into.slots);
  return Took::chain;
}

// Copies the chain's descriptors out of the ring; its length and its id.
bool PackedQueue::gather(Chain& into) {
  parts_.clear();
  for (Place at = next_;; at = after(at, 1)) {
    if (parts_.size() + held_ >= size_) {
      why_ = fmt::format("more is offered than the ring's {} places", size_);
      return false;
    }
    const auto each = copy_once<PackedDescriptor>(slot(at.index));
    parts_.push_back(each);
    if ((each.flags & virtio::kNext) == 0) break;
  }
  into.slots = static_cast<uint16_t>(parts_.size());
  into.id = parts_.back().id;
  return true;
}

bool PackedQueue::walk(Chain& into) {
  if (parts_.size() > kChainMax) {
    why_ = fmt::format("a chain of {} descriptors", parts_.size());
    return false;
  }
  for (const PackedDescriptor& each : parts_) {
    const uint16_t flags = each.flags;
    if ((flags & virtio::kIndirectTable) != 0) {
      if (!walk_table(into, each)) return false;
    } else if (!add_buffer(into, each.address, each.length, (flags & virtio::kWrite) != 0)) {
      return false;
    }
  }
  return true;
}

bool PackedQueue::walk_table(Chain& into, const PackedDescriptor& from) {
  const std::byte* const table = find_table(from.address, from.length, parts_.size() == 1, 0);
  if (table == nullptr) return false;
  const size_t count = from.length / virtio::kDescriptorBytes;
  for (size_t i = 0; i < count; ++i) {
    const auto each = copy_once<PackedDescriptor>(table + virtio::kDescriptorBytes * i);
    if ((each.flags & virtio::kIndirectTable) != 0) {
      why_ = "an indirect table inside an indirect table";
      return false;
    }
    if (!add_buffer(into, each.address, each.length, (each.flags & virtio::kWrite) != 0)) {
      return false;
    }
  }
  return true;
}

void PackedQueue::give_back(const Chain& chain, uint32_t written) {
  CHECK(busy_[chain.id] && chain.slots <= held_);
  put_busy(chain.id);
  const Place at = used_;
  used_ = after(used_, chain.slots);
  held_ = static_cast<uint16_t>(held_ - chain.slots);
  unsaid_ = static_cast<uint16_t>(unsaid_ + chain.slots);
  log_.will_give(chain.entry, used_);
  uint16_t flags = at.wrap ? virtio::kPackedAvailable | virtio::kPackedUsed : 0;
  if (written > 0) flags = static_cast<uint16_t>(flags | virtio::kWrite);
  std::byte* const place = slot(at.index);
  store_relaxed<uint16_t>(place + kIdAt, chain.id);
  store_relaxed<uint32_t>(place + kLengthAt, written);
  if (first_ == nullptr) {
    first_ = place;
    first_flags_ = flags;
  } else {
    store_release<uint16_t>(place + kFlagsAt, flags);
  }
}

void PackedQueue::publish() {
  if (first_ == nullptr) return;
  store_release<uint16_t>(std::exchange(first_, nullptr) + kFlagsAt, first_flags_);
  log_.gave();
}

bool PackedQueue::wants_signal() {
  const uint16_t moved = std::exchange(unsaid_, uint16_t{0});
  full_fence();  // The entry before the question.
  const auto how =
      static_cast<virtio::EventFlags>(load_acquire<uint16_t>(driver_event_ + virtio::kEventFlags));
  if (moved == 0 || how == virtio::EventFlags::disable) return false;
  if (how != virtio::EventFlags::at_index || !shape_.event_index) return true;
  const Place wanted = place_of(load_relaxed<uint16_t>(driver_event_ + virtio::kEventOffset));
  const auto event =
      static_cast<uint16_t>(wanted.wrap == used_.wrap ? wanted.index : wanted.index - size_);
  return virtio::passed(event, used_.index, static_cast<uint16_t>(used_.index - moved));
}

bool PackedQueue::is_listening() const {
  const auto how =
      static_cast<virtio::EventFlags>(load_acquire<uint16_t>(driver_event_ + virtio::kEventFlags));
  if (how != virtio::EventFlags::at_index || !shape_.event_index) {
    return how != virtio::EventFlags::disable;
  }
  return place_of(load_relaxed<uint16_t>(driver_event_ + virtio::kEventOffset)) == used_;
}

bool PackedQueue::arm() {
  if (shape_.event_index) {
    store_relaxed<uint16_t>(device_event_ + virtio::kEventOffset, number_of(next_));
    store_release<uint16_t>(device_event_ + virtio::kEventFlags,
                            static_cast<uint16_t>(virtio::EventFlags::at_index));
  } else {
    store_relaxed<uint16_t>(device_event_ + virtio::kEventFlags,
                            static_cast<uint16_t>(virtio::EventFlags::enable));
  }
  full_fence();  // Said before we look again.
  return has_more();
}

void PackedQueue::disarm() {
  store_relaxed<uint16_t>(device_event_ + virtio::kEventFlags,
                          static_cast<uint16_t>(virtio::EventFlags::disable));
}

}  // namespace

std::unique_ptr<Virtqueue> make_packed_queue(const GuestMemory& memory, const QueueShape& shape) {
  return std::make_unique<PackedQueue>(memory, shape);
}

}  // namespace firn::serve
