// SPDX-License-Identifier: Apache-2.0
// Grains that one atom will free: first planned, which pins the block table pages they need and may
// wait; then, inside the atom, chosen and freed. What was planned need not be freed: a map may have
// changed while the pins were taken.
#pragma once

#include <cstdint>
#include <vector>

#include "store/blocks.h"

namespace firn::disk {

class Freeing {
 public:
  // Storage blocks whose changed entries fit one admission, whatever pages they are in.
  static constexpr size_t kBlocksMax = 128;

  explicit Freeing(store::Blocks& blocks) : blocks_(blocks) {}

  // False when the set is full: free what is planned in an atom, and begin another.
  Result<bool> plan(Io& io, uint64_t grain) {
    const store::BlockNo block = grain / kBlockGrains;
    if (find(block) != nullptr) return true;
    if (planned_.size() == kBlocksMax) return false;
    store::PageRef page = TRY(blocks_.pin(io, block));
    planned_.push_back({block, std::move(page), {}});
    return true;
  }

  // --- none waits
  bool covers(uint64_t grain) { return find(grain / kBlockGrains) != nullptr; }
  void choose(uint64_t grain) {
    Planned* const planned = find(grain / kBlockGrains);
    CHECK(planned != nullptr, "grain {} was not planned", grain);
    planned->grains[grain % kBlockGrains / 64] |= uint64_t{1} << (grain % 64);
    ++chosen_;
  }
  // Frees what was chosen, and forgets everything. How many grains that were.
  uint64_t apply() {
    for (const Planned& planned : planned_) {
      if (planned.grains == store::Blocks::GrainSet{}) continue;
      blocks_.mark_free(planned.page, planned.block, planned.grains);
    }
    planned_.clear();
    last_ = 0;
    return std::exchange(chosen_, 0);
  }

 private:
  struct Planned {
    store::BlockNo block;
    store::PageRef page;
    store::Blocks::GrainSet grains;
  };
  // Neighbours on a disk are mostly neighbours in a block: the last hit is looked at first.
  Planned* find(store::BlockNo block) {
    if (last_ < planned_.size() && planned_[last_].block == block) return &planned_[last_];
    for (last_ = 0; last_ < planned_.size(); ++last_) {
      if (planned_[last_].block == block) return &planned_[last_];
    }
    return nullptr;
  }

  store::Blocks& blocks_;
  std::vector<Planned> planned_;
  size_t last_ = 0;
  uint64_t chosen_ = 0;
};

}  // namespace firn::disk
