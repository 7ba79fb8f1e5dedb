// SPDX-License-Identifier: Apache-2.0
// Split rings: a table of descriptors, what the driver offers, what the device has used.
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
using virtio::Descriptor;

class SplitQueue final : public Virtqueue {
 public:
  SplitQueue(const GuestMemory& memory, const QueueShape& shape)
      : Virtqueue(memory, shape),
        size_(static_cast<uint16_t>(shape.size)),
        next_(static_cast<uint16_t>(shape.base)),
        log_(shape.log, size_) {}

  Took take(Chain& into) override;
  void give_back(const Chain& chain, uint32_t written) override;
  void publish() override;
  bool wants_signal() override;
  bool is_listening() const override;
  bool has_more() override;
  bool arm() override;
  void disarm() override;
  uint32_t base() const override { return next_; }
  void end_log() override { log_.end(); }
  Result<void> locate() override;

 private:
  void take_over();
  bool walk(Chain& into);
  void fetch_ahead(uint16_t waiting) const;
  const std::byte* descriptor_ahead(uint16_t steps) const;
  uint16_t offered() const { return load_acquire<uint16_t>(available_ + virtio::kRingIndex); }

  uint16_t size_;
  uint16_t next_;            // Of the available ring.
  uint16_t used_ = 0;        // Given back ...
  uint16_t published_ = 0;   // ... and visible.
  uint16_t considered_ = 0;  // What wants_signal() has seen.
  bool signalled_ = false;   // Ever.
  bool begun_ = false;
  std::byte* table_ = nullptr;
  std::byte* available_ = nullptr;
  std::byte* used_ring_ = nullptr;
  SplitLog log_;
  std::vector<uint16_t> left_;  // By a predecessor; the first is the last element.
};

Result<void> SplitQueue::locate() {
  table_ = memory_.find_user(shape_.descriptors, virtio::kDescriptorBytes * size_);
  available_ = memory_.find_user(shape_.available, virtio::available_bytes(size_));
  used_ring_ = memory_.find_user(shape_.used, virtio::used_bytes(size_));
  if (table_ == nullptr || available_ == nullptr || used_ring_ == nullptr) {
    return fail(Errc::invalid, "a ring of {} places is not within the memory table", size_);
  }
  const auto odd = [](const std::byte* at, uintptr_t unit) {
    return std::bit_cast<uintptr_t>(at) % unit != 0;
  };
  if (odd(table_, 16) || odd(available_, 2) || odd(used_ring_, 4)) {
    return fail(Errc::invalid, "a ring is not aligned");
  }
  if (!begun_) take_over();
  begun_ = true;
  return ok;
}

void SplitQueue::take_over() {
  used_ = published_ = considered_ = load_acquire<uint16_t>(used_ring_ + virtio::kRingIndex);
  const bool resumed = log_.is_begun();
  left_ = log_.recover(used_);
  // The log is newer than the base that the front end remembers.
  if (resumed) next_ = static_cast<uint16_t>(used_ + left_.size());
  for (const uint16_t head : left_) busy_[head] = true;
  std::reverse(left_.begin(), left_.end());
  recovered_ = left_.size();
}

Took SplitQueue::take(Chain& into) {
  into.readable.clear();
  into.writable.clear();
  if (!left_.empty()) {
    into.id = left_.back();
    left_.pop_back();
    return walk(into) ? Took::chain : Took::broken;
  }
  const auto waiting = static_cast<uint16_t>(offered() - next_);
  if (waiting == 0) return Took::nothing;
  if (waiting > size_) {
    return broken(fmt::format("{} requests are offered in a ring of {} places", waiting, size_));
  }
  const size_t slot = next_ & (size_ - 1);
  into.id = load_relaxed<uint16_t>(available_ + virtio::kRingEntries + 2 * slot);
  if (!take_busy(into.id)) return Took::broken;
  ++next_;
  if (!walk(into)) return Took::broken;
  log_.took(into.id);
  fetch_ahead(static_cast<uint16_t>(waiting - 1));
  return Took::chain;
}

// The descriptor of a request that is still to be taken; a hint, and in the table whatever the
// driver wrote.
const std::byte* SplitQueue::descriptor_ahead(uint16_t steps) const {
  const size_t slot = static_cast<uint16_t>(next_ + steps) & (size_ - 1);
  const auto head = load_relaxed<uint16_t>(available_ + virtio::kRingEntries + 2 * slot);
  return table_ + virtio::kDescriptorBytes * (head & (size_ - 1));
}

// Another CPU wrote what comes next: it is fetched while the request just taken is served.
void SplitQueue::fetch_ahead(uint16_t waiting) const {
  if (waiting > 1) __builtin_prefetch(descriptor_ahead(1));
  if (waiting == 0) return;
  const auto next = copy_once<Descriptor>(descriptor_ahead(0));
  if ((next.flags & virtio::kIndirectTable) == 0) return;
  __builtin_prefetch(memory_.find_whole(next.address, virtio::kDescriptorBytes));
}

bool SplitQueue::walk(Chain& into) {
  const std::byte* table = table_;
  size_t count = size_;  // Of the table.
  size_t seen = 0;
  size_t index = into.id;
  for (bool indirect = false;;) {
    if (index >= count || ++seen > kChainMax || (!indirect && seen > size_)) {
      why_ = fmt::format("the chain of buffer {} leaves its table, or has no end", into.id);
      return false;
    }
    const auto each = copy_once<Descriptor>(table + virtio::kDescriptorBytes * index);
    const uint16_t flags = each.flags;
    if ((flags & virtio::kIndirectTable) != 0) {
      const bool alone = !indirect && (flags & virtio::kNext) == 0;
      table = find_table(each.address, each.length, alone, seen);
      if (table == nullptr) return false;
      count = each.length / virtio::kDescriptorBytes;
      indirect = true;
      index = 0;
      continue;
    }
    if (!add_buffer(into, each.address, each.length, (flags & virtio::kWrite) != 0)) return false;
    if ((flags & virtio::kNext) == 0) return true;
    index = each.next;
  }
}

void SplitQueue::give_back(const Chain& chain, uint32_t written) {
  CHECK(busy_[chain.id]);
  put_busy(chain.id);
  log_.will_give(chain.id);
  const size_t slot = used_ & (size_ - 1);
  std::byte* const at = used_ring_ + virtio::kRingEntries + virtio::kUsedBytes * slot;
  store_relaxed<uint32_t>(at, chain.id);
  store_relaxed<uint32_t>(at + 4, written);
  ++used_;
}

void SplitQueue::publish() {
  if (published_ == used_) return;
  store_release<uint16_t>(used_ring_ + virtio::kRingIndex, used_);
  published_ = used_;
  log_.gave(used_);
}

bool SplitQueue::wants_signal() {
  const uint16_t before = considered_;
  considered_ = published_;
  full_fence();  // The index before the question.
  if (!shape_.event_index) {
    const uint16_t flags = load_relaxed<uint16_t>(available_ + virtio::kRingFlags);
    return published_ != before && (flags & virtio::kNoInterrupt) == 0;
  }
  if (!std::exchange(signalled_, true)) return true;
  const uint16_t event = load_relaxed<uint16_t>(available_ + virtio::used_event_at(size_));
  return virtio::passed(event, published_, before);
}

bool SplitQueue::is_listening() const {
  if (!shape_.event_index) {
    return (load_relaxed<uint16_t>(available_ + virtio::kRingFlags) & virtio::kNoInterrupt) == 0;
  }
  return load_relaxed<uint16_t>(available_ + virtio::used_event_at(size_)) == published_;
}

bool SplitQueue::has_more() { return !left_.empty() || offered() != next_; }

bool SplitQueue::arm() {
  if (shape_.event_index) {
    store_relaxed<uint16_t>(used_ring_ + virtio::available_event_at(size_), next_);
  } else {
    store_relaxed<uint16_t>(used_ring_ + virtio::kRingFlags, 0);
  }
  full_fence();  // Said before we look again.
  return has_more();
}

// With an event index there is nothing to say: it was passed, or it is not.
void SplitQueue::disarm() {
  if (!shape_.event_index) {
    store_relaxed<uint16_t>(used_ring_ + virtio::kRingFlags, virtio::kNoNotify);
  }
}

}  // namespace

std::unique_ptr<Virtqueue> make_split_queue(const GuestMemory& memory, const QueueShape& shape) {
  return std::make_unique<SplitQueue>(memory, shape);
}

}  // namespace firn::serve
