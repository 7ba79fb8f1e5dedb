// SPDX-License-Identifier: Apache-2.0
// Identities of segments that were looked at, in bounded memory: the locality cache of
// deduplication. A duplicate rarely comes alone: who met one block of a segment meets its
// neighbours next.
//
//  H1  At most kEntriesMax identities; the segments that came first go first.
//  H2  Two blocks are one when 128 bits of their keyed identities agree.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "format/segment.h"

namespace firn::archive {

class IdentityCache {
 public:
  static constexpr size_t kEntriesMax = 640 * 1024;  // About 16 MiB.

  // Address space for all of them: what grows by copying has twice its size at times.
  IdentityCache() : table_(kTableMin, kNone) { entries_.reserve(kEntriesMax); }

  bool has(uint32_t disk, uint64_t segment) const { return known_.contains({disk, segment}); }
  void add(uint32_t disk, uint64_t segment, std::span<const format::SegmentBlock> blocks) {
    if (blocks.empty() || !known_.insert({disk, segment}).second) return;
    make_room(blocks.size());
    sets_.push_back({{disk, segment}, static_cast<uint32_t>(entries_.size()), 0});
    for (const format::SegmentBlock& block : blocks) add_entry(block.identity, block.chunk);
  }
  // One that has just been made, of no segment yet.
  void add_one(const format::Identity& identity, uint64_t chunk) {
    if (sets_.empty() || sets_.back().address.second != 0) {
      sets_.push_back({{0, 0}, static_cast<uint32_t>(entries_.size()), 0});
    }
    if (sets_.back().count >= kOwnSet) {
      sets_.push_back({{0, 0}, static_cast<uint32_t>(entries_.size()), 0});
    }
    make_room(1);
    if (sets_.empty()) sets_.push_back({{0, 0}, 0, 0});
    add_entry(identity, chunk);
  }
  std::optional<uint64_t> find(const format::Identity& identity) const {
    const Short wanted = shortened(identity);
    for (size_t i = place_of(wanted);; i = (i + 1) % table_.size()) {
      if (table_[i] == kNone) return std::nullopt;
      if (entries_[table_[i]].identity == wanted) return entries_[table_[i]].chunk;
    }
  }
  size_t size() const { return entries_.size(); }

 private:
  using Short = std::array<uint64_t, 2>;
  struct Entry {
    Short identity;
    uint64_t chunk = 0;
  };
  struct Set {
    std::pair<uint32_t, uint64_t> address;
    uint32_t first = 0;
    uint32_t count = 0;
  };
  static constexpr size_t kTableMin = size_t{1} << 16;  // It doubles: a power of two.
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kOwnSet = 16 * 1024;

  static Short shortened(const format::Identity& identity) {
    Short bits{};
    std::memcpy(bits.data(), identity.data(), sizeof bits);
    return bits;
  }
  size_t place_of(const Short& bits) const { return bits[1] % table_.size(); }

  void add_entry(const format::Identity& identity, uint64_t chunk) {
    entries_.push_back({shortened(identity), chunk});
    ++sets_.back().count;
    if (entries_.size() * 4 > table_.size() * 3) return place_all(table_.size() * 2);
    place(static_cast<uint32_t>(entries_.size() - 1));
  }
  void place(uint32_t number) {
    size_t i = place_of(entries_[number].identity);
    while (table_[i] != kNone) {
      if (entries_[table_[i]].identity == entries_[number].identity)
        return;  // The first one counts.
      i = (i + 1) % table_.size();
    }
    table_[i] = number;
  }
  // Forgets the oldest quarter when there is no room: the rest is placed again.
  void make_room(size_t count) {
    if (entries_.size() + count <= kEntriesMax) return;
    size_t gone = 0;
    while (!sets_.empty() &&
           (gone < kEntriesMax / 4 || entries_.size() - gone + count > kEntriesMax)) {
      gone += sets_.front().count;
      known_.erase(sets_.front().address);
      sets_.pop_front();
    }
    entries_.erase(entries_.begin(), entries_.begin() + static_cast<ptrdiff_t>(gone));
    for (Set& set : sets_) set.first -= static_cast<uint32_t>(gone);
    place_all(table_.size());
  }
  void place_all(size_t size) {
    table_.assign(size, kNone);
    for (uint32_t i = 0; i < entries_.size(); ++i) place(i);
  }

  std::vector<Entry> entries_;
  std::vector<uint32_t> table_;
  std::deque<Set> sets_;
  std::set<std::pair<uint32_t, uint64_t>> known_;
};

}  // namespace firn::archive
