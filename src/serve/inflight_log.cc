// SPDX-License-Identifier: Apache-2.0
// Notes on the design. Both logs are written by stores of single fields with release order: the
// reader is a successor that comes after our death, so the order of the program is all that
// matters, and the compiler must keep it. Nothing is read back while we live.
#include "serve/inflight_log.h"

#include <algorithm>
#include <numeric>

#include "base/shared.h"
#include "base/units.h"

namespace firn::serve {
namespace {

constexpr uint16_t kVersion = 1;
constexpr size_t kRegionAlignment = 64;

// Both: u64 features, u16 version, u16 number of entries.
constexpr size_t kVersionAt = 8;
constexpr size_t kCountAt = 10;
// Split: u16 last_batch_head, u16 used_idx, entries of {u8 inflight, pad, u16 next, u64 counter}.
constexpr size_t kSplitBatchAt = 12;
constexpr size_t kSplitUsedAt = 14;
constexpr size_t kSplitHead = 16;
constexpr size_t kSplitEntry = 16;
// Packed: u16 free_head, old_free_head, used_idx, old_used_idx, u8 wrap, old wrap; entries of
// {u8 inflight, pad, u16 next, last, num, u64 counter, u16 id, flags, u32 len, u64 addr}.
constexpr size_t kPackedFreeAt = 12;
constexpr size_t kPackedOldFreeAt = 14;
constexpr size_t kPackedUsedAt = 16;
constexpr size_t kPackedOldUsedAt = 18;
constexpr size_t kPackedWrapAt = 20;
constexpr size_t kPackedOldWrapAt = 21;
constexpr size_t kPackedHead = 32;
constexpr size_t kPackedEntry = 32;
constexpr size_t kPackedDescriptorAt = 16;

constexpr size_t kInflightAt = 0;  // Of an entry.
constexpr size_t kCounterAt = 8;
constexpr size_t kSplitNextAt = 6;
constexpr size_t kPackedNextAt = 2;
constexpr size_t kPackedLastAt = 4;
constexpr size_t kPackedNumAt = 6;

template <class T>
void put(std::byte* at, T value) {
  store_release<T>(at, value);
}
template <class T>
T get(const std::byte* at) {
  return load_acquire<T>(at);
}

bool is_begun(View room, uint16_t size) {
  return get<uint16_t>(room.data() + kVersionAt) == kVersion &&
         get<uint16_t>(room.data() + kCountAt) == size;
}

void begin_room(Bytes room, uint16_t size, size_t bytes) {
  std::fill_n(room.begin(), bytes, std::byte{0});
  put<uint16_t>(room.data() + kCountAt, size);
}

}  // namespace

// --- split

size_t SplitLog::bytes(uint16_t size) {
  return round_up(kSplitHead + kSplitEntry * size_t{size}, kRegionAlignment);
}

std::byte* SplitLog::entry(size_t head) const {
  return room_.data() + kSplitHead + kSplitEntry * head;
}

bool SplitLog::is_begun() const { return exists() && serve::is_begun(room_, size_); }

void SplitLog::end() {
  if (exists()) put<uint16_t>(room_.data() + kVersionAt, 0);
}

std::vector<uint16_t> SplitLog::recover(uint16_t used_index) {
  std::vector<uint16_t> left;
  if (!exists()) return left;
  std::byte* const head = room_.data();
  if (!is_begun()) {
    begin_room(room_, size_, bytes(size_));
    put<uint16_t>(head + kSplitUsedAt, used_index);
    put<uint16_t>(head + kVersionAt, kVersion);
    return left;
  }
  // The last batch was published, but perhaps not taken out of the log.
  const auto batch = static_cast<uint16_t>(used_index - get<uint16_t>(head + kSplitUsedAt));
  uint16_t each = get<uint16_t>(head + kSplitBatchAt);
  for (uint16_t i = 0; i < std::min(batch, size_) && each < size_; ++i) {
    put<uint8_t>(entry(each) + kInflightAt, 0);
    each = get<uint16_t>(entry(each) + kSplitNextAt);
  }
  put<uint16_t>(head + kSplitUsedAt, used_index);
  std::vector<std::pair<uint64_t, uint16_t>> ordered;
  for (uint16_t i = 0; i < size_; ++i) {
    if (get<uint8_t>(entry(i) + kInflightAt) != 1) continue;
    ordered.emplace_back(get<uint64_t>(entry(i) + kCounterAt), i);
  }
  std::sort(ordered.begin(), ordered.end());
  for (const auto& [counter, index] : ordered) left.push_back(index);
  if (!ordered.empty()) counter_ = ordered.back().first + 1;
  return left;
}

void SplitLog::took(uint16_t head) {
  if (!exists()) return;
  put<uint64_t>(entry(head) + kCounterAt, counter_++);
  put<uint8_t>(entry(head) + kInflightAt, 1);
}

void SplitLog::will_give(uint16_t head) {
  if (!exists()) return;
  const uint16_t before = batch_.empty() ? uint16_t{0} : batch_.back();
  put<uint16_t>(entry(head) + kSplitNextAt, before);
  put<uint16_t>(room_.data() + kSplitBatchAt, head);
  batch_.push_back(head);
}

void SplitLog::gave(uint16_t used_index) {
  if (!exists()) return;
  for (const uint16_t head : batch_) put<uint8_t>(entry(head) + kInflightAt, 0);
  batch_.clear();
  put<uint16_t>(room_.data() + kSplitUsedAt, used_index);
}

// --- packed

size_t PackedLog::bytes(uint16_t size) {
  return round_up(kPackedHead + kPackedEntry * size_t{size}, kRegionAlignment);
}

PackedLog::PackedLog(Bytes room, uint16_t size) : room_(room), size_(size) {}

std::byte* PackedLog::entry(size_t index) const {
  return room_.data() + kPackedHead + kPackedEntry * index;
}

bool PackedLog::is_begun() const { return exists() && serve::is_begun(room_, size_); }

void PackedLog::end() {
  if (exists()) put<uint16_t>(room_.data() + kVersionAt, 0);
}

void PackedLog::store_place(size_t at_index, size_t at_wrap, Place place) {
  put<uint16_t>(room_.data() + at_index, place.index);
  put<uint8_t>(room_.data() + at_wrap, place.wrap ? 1 : 0);
}

void PackedLog::begin(Place used) {
  used_ = used;
  if (!exists()) return;
  next_.resize(size_);
  last_.resize(size_);
  std::iota(next_.begin(), next_.end(), uint16_t{1});
  free_ = 0;
  begin_room(room_, size_, bytes(size_));
  for (uint16_t i = 0; i < size_; ++i) put<uint16_t>(entry(i) + kPackedNextAt, next_[i]);
  store_place(kPackedUsedAt, kPackedWrapAt, used);
  store_place(kPackedOldUsedAt, kPackedOldWrapAt, used);
  put<uint16_t>(room_.data() + kVersionAt, kVersion);
}

PackedLog::Place PackedLog::old_used() const {
  return {get<uint16_t>(room_.data() + kPackedOldUsedAt),
          get<uint8_t>(room_.data() + kPackedOldWrapAt) == 1};
}

std::vector<PackedLog::Left> PackedLog::recover(bool published) {
  std::byte* const head = room_.data();
  used_ = old_used();
  uint16_t first_free = get<uint16_t>(head + kPackedOldFreeAt);
  const Place after{get<uint16_t>(head + kPackedUsedAt), get<uint8_t>(head + kPackedWrapAt) == 1};
  if (!(after == used_) && published) {
    used_ = after;
    first_free = get<uint16_t>(head + kPackedFreeAt);
  }
  // What is free is not in flight, whatever was begun.
  for (uint16_t i = 0; i < size_ && first_free < size_; ++i) {
    put<uint8_t>(entry(first_free) + kInflightAt, 0);
    first_free = get<uint16_t>(entry(first_free) + kPackedNextAt);
  }
  std::vector<std::pair<uint64_t, Left>> ordered;
  std::vector<bool> taken(size_);
  next_.assign(size_, 0);
  last_.assign(size_, 0);
  for (uint16_t i = 0; i < size_; ++i) {
    if (get<uint8_t>(entry(i) + kInflightAt) != 1) continue;
    Left left{i, {}};
    const uint16_t count = get<uint16_t>(entry(i) + kPackedNumAt);
    bool whole = count > 0 && count <= size_;
    std::vector<uint16_t> places;
    for (uint16_t n = 0, each = i; whole && n < count; ++n) {
      whole = each < size_ && !taken[each];
      if (!whole) break;
      taken[each] = true;
      places.push_back(each);
      left.descriptors.push_back(copy_once<Descriptor>(entry(each) + kPackedDescriptorAt));
      last_[i] = each;
      const uint16_t following = get<uint16_t>(entry(each) + kPackedNextAt);
      next_[each] = following;
      each = following;
    }
    if (whole) {
      ordered.emplace_back(get<uint64_t>(entry(i) + kCounterAt), std::move(left));
    } else {  // A chain that cannot be holds nothing: its places are free.
      for (const uint16_t each : places) taken[each] = false;
    }
  }
  std::sort(ordered.begin(), ordered.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  // The free list anew, from what nobody holds.
  free_ = size_;
  for (uint16_t i = size_; i-- > 0;) {
    if (taken[i]) continue;
    next_[i] = free_;
    free_ = i;
    put<uint16_t>(entry(i) + kPackedNextAt, next_[i]);
    put<uint8_t>(entry(i) + kInflightAt, 0);
  }
  put<uint16_t>(head + kPackedFreeAt, free_);
  put<uint16_t>(head + kPackedOldFreeAt, free_);
  store_place(kPackedUsedAt, kPackedWrapAt, used_);
  store_place(kPackedOldUsedAt, kPackedOldWrapAt, used_);
  std::vector<Left> all;
  for (auto& [counter, left] : ordered) all.push_back(std::move(left));
  if (!ordered.empty()) counter_ = ordered.back().first + 1;
  return all;
}

uint16_t PackedLog::took(std::span<const Descriptor> descriptors) {
  if (!exists()) return 0;
  const uint16_t first = free_;
  std::byte* const at = entry(first);
  put<uint16_t>(at + kPackedNumAt, static_cast<uint16_t>(descriptors.size()));
  put<uint64_t>(at + kCounterAt, counter_++);
  uint16_t each = first;
  for (const Descriptor& descriptor : descriptors) {
    std::memcpy(entry(each) + kPackedDescriptorAt, &descriptor, sizeof(descriptor));
    last_[first] = each;
    each = next_[each];
  }
  put<uint16_t>(at + kPackedLastAt, last_[first]);
  put<uint8_t>(at + kInflightAt, 1);
  free_ = each;
  put<uint16_t>(room_.data() + kPackedFreeAt, free_);
  put<uint16_t>(room_.data() + kPackedOldFreeAt, free_);
  return first;
}

void PackedLog::will_give(uint16_t index, Place used_after) {
  used_ = used_after;
  if (!exists()) return;
  next_[last_[index]] = free_;
  put<uint16_t>(entry(last_[index]) + kPackedNextAt, free_);
  free_ = index;
  put<uint16_t>(room_.data() + kPackedFreeAt, free_);
  store_place(kPackedUsedAt, kPackedWrapAt, used_);
  batch_.push_back(index);
}

void PackedLog::gave() {
  if (!exists()) return;
  for (const uint16_t index : batch_) put<uint8_t>(entry(index) + kInflightAt, 0);
  batch_.clear();
  put<uint16_t>(room_.data() + kPackedOldFreeAt, free_);
  store_place(kPackedOldUsedAt, kPackedOldWrapAt, used_);
}

}  // namespace firn::serve
