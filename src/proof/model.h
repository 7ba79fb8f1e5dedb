// SPDX-License-Identifier: Apache-2.0
// The model: what a disk may contain after a crash, told by its history. Fifty lines that say what
// the hundred files promise.
//
// A disk is a row of 4 KiB grains, a grain eight sectors, a sector one stamp (0: zeroes). Every
// request adds a version to the grains it touches. After a crash a grain must show, whole, one of
// its versions from its floor on; a flush raises the floor to what had completed when the flush
// began (P1, P2).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "base/bytes.h"
#include "base/units.h"

namespace firn::proof {

using Stamp = uint64_t;
inline constexpr uint64_t kSectorBytes = 512;
inline constexpr size_t kGrainSectors = kGrainBytes / kSectorBytes;
using Content = std::array<Stamp, kGrainSectors>;

// A sector full of its stamp and its place: what was written elsewhere is told apart.
inline void fill_sector(Bytes into, uint64_t sector, Stamp stamp) {
  std::memset(into.data(), 0, kSectorBytes);
  if (stamp == 0) return;
  for (size_t at = 0; at < kSectorBytes; at += 16) {
    const le64 words[2] = {stamp, sector};
    std::memcpy(into.data() + at, words, 16);
  }
}
// The stamp of a sector, or ~0 when it is neither zeroes nor one of ours for this place.
inline Stamp stamp_of(View sector_bytes, uint64_t sector) {
  if (all_zero(sector_bytes)) return 0;
  const Stamp stamp = load<le64>(sector_bytes);
  std::array<std::byte, kSectorBytes> expected;
  fill_sector(expected, sector, stamp);
  return std::memcmp(expected.data(), sector_bytes.data(), kSectorBytes) == 0 ? stamp : ~Stamp{0};
}

struct GrainHistory {
  std::vector<Content> versions{Content{}};
  // What each sector may hold instead, because a request that failed may have written any part of
  // it; a later request puts right only the sectors that it covers.
  using Instead = std::array<std::vector<Stamp>, kGrainSectors>;
  std::vector<Instead> instead{Instead{}};
  size_t completed = 0;  // Index of the last version whose request has returned.
  size_t floor = 0;
  size_t floor_at_begin = 0;  // When the last request began.
};

// What a disk or snapshot shows for certain; zeroes where nothing is said.
using Contents = std::map<uint64_t, Content>;

class DiskModel {
 public:
  DiskModel() = default;
  explicit DiskModel(const Contents& from) {
    for (const auto& [grain, content] : from) grains_[grain].versions[0] = content;
  }
  // The grain's newest version, to build the next one on.
  const Content& newest(uint64_t grain) { return grains_[grain].versions.back(); }
  void begin(uint64_t grain, const Content& content) {
    GrainHistory& history = grains_[grain];
    GrainHistory::Instead instead;
    for (size_t i = 0; i < kGrainSectors; ++i) {
      if (content[i] == history.versions.back()[i]) instead[i] = history.instead.back()[i];
    }
    history.floor_at_begin = history.floor;
    history.versions.push_back(content);
    history.instead.push_back(std::move(instead));
  }
  void end(uint64_t grain, bool succeeded) {
    GrainHistory& history = grains_[grain];
    const size_t last = history.versions.size() - 1;
    if (succeeded) {
      history.completed = last;
      return;
    }
    // Of what was not durable when it began, any version may be what it was cut off upon.
    for (size_t i = 0; i < kGrainSectors; ++i) {
      std::vector<Stamp>& instead = history.instead[last][i];
      for (size_t older = history.floor_at_begin; older < last; ++older) {
        const std::vector<Stamp>& its = history.instead[older][i];
        instead.push_back(history.versions[older][i]);
        instead.insert(instead.end(), its.begin(), its.end());
      }
      std::sort(instead.begin(), instead.end());
      instead.erase(std::unique(instead.begin(), instead.end()), instead.end());
    }
  }
  const std::map<uint64_t, GrainHistory>& grains() const { return grains_; }

  // What a flush that begins now will cover, and what follows from its success.
  using Cover = std::map<uint64_t, size_t>;
  Cover cover() const {
    Cover cover;
    for (const auto& [grain, history] : grains_) cover[grain] = history.completed;
    return cover;
  }
  void raise(const Cover& cover) {
    for (const auto& [grain, version] : cover) {
      grains_[grain].floor = std::max(grains_[grain].floor, version);
    }
  }
  // The floors of this moment.
  Cover floors() const {
    Cover floors;
    for (const auto& [grain, history] : grains_) floors[grain] = history.floor;
    return floors;
  }

  // The newest version of each grain, ended or not.
  Cover heads() const {
    Cover heads;
    for (const auto& [grain, history] : grains_) heads[grain] = history.versions.size() - 1;
    return heads;
  }

  // Whether the grain may show `content` when its floor is `floor` (and nothing begun after `cap`).
  bool allows(uint64_t grain, size_t floor, const Content& content, size_t cap = SIZE_MAX) const {
    const auto found = grains_.find(grain);
    if (found == grains_.end()) return content == Content{};
    const GrainHistory& history = found->second;
    for (size_t i = floor; i < history.versions.size() && i <= cap; ++i) {
      if (may_be(history.versions[i], history.instead[i], content)) return true;
    }
    return false;
  }

 private:
  static bool may_be(const Content& version, const GrainHistory::Instead& instead,
                     const Content& shown) {
    for (size_t i = 0; i < kGrainSectors; ++i) {
      if (shown[i] == version[i]) continue;
      if (std::find(instead[i].begin(), instead[i].end(), shown[i]) == instead[i].end()) {
        return false;
      }
    }
    return true;
  }
  std::map<uint64_t, GrainHistory> grains_;
};

}  // namespace firn::proof
