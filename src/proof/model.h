// SPDX-License-Identifier: Apache-2.0
// The model: what a disk may contain after a crash, told by its history. Fifty lines that say what the
// hundred files promise.
//
// A disk is a row of 4 KiB grains, a grain eight sectors, a sector one stamp (0: zeroes). Every request
// adds a version to the grains it touches. After a crash a grain must show, whole, one of its versions from
// its floor on; a flush raises the floor to what had completed when the flush began (P1, P2).
#pragma once

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
  std::vector<bool> torn{false};  // A request that failed: sectors of it may be old or new, each.
  size_t completed = 0;           // Index of the last version whose request has returned.
  size_t floor = 0;
};

class DiskModel {
 public:
  // The grain's newest version, to build the next one on.
  const Content& newest(uint64_t grain) { return grains_[grain].versions.back(); }
  void begin(uint64_t grain, const Content& content) {
    grains_[grain].versions.push_back(content);
    grains_[grain].torn.push_back(false);
  }
  void end(uint64_t grain, bool succeeded) {
    GrainHistory& history = grains_[grain];
    if (!succeeded) history.torn.back() = true;
    if (succeeded) history.completed = history.versions.size() - 1;
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

  // Whether the grain may show `content` when its floor is `floor`.
  bool allows(uint64_t grain, size_t floor, const Content& content) const {
    const GrainHistory& history = grains_.at(grain);
    for (size_t i = floor; i < history.versions.size(); ++i) {
      if (history.versions[i] == content) return true;
      if (history.torn[i] && i > 0 && mixes(history.versions[i - 1], history.versions[i], content)) {
        return true;
      }
    }
    return false;
  }

 private:
  static bool mixes(const Content& a, const Content& b, const Content& shown) {
    for (size_t i = 0; i < kGrainSectors; ++i) {
      if (shown[i] != a[i] && shown[i] != b[i]) return false;
    }
    return true;
  }
  std::map<uint64_t, GrainHistory> grains_;
};

}  // namespace firn::proof
