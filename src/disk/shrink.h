// SPDX-License-Identifier: Apache-2.0
// Shrink: empties a family's sparsely used storage blocks by moving their grains into the holes of
// denser ones, so that whole blocks come back to the pool. Source: US 8874859.
//
//  H1  What is read stays the same at every moment, in every layer of the family.
//  H2  A grain moves in one atom: its owner's entry and every copy of that entry which layers above
//      inherited; the new place is used and the old one free from the same commit on. The data is
//      at the new place, durably, before that commit (W2).
//  H3  While a grain moves nobody reads or writes what it holds: every open disk of the family has
//      that stretch locked, so that nobody reads the old place when it is given out again (T6).
//  H4  A grain of which too many maps have copies stays where it is: an atom has a bounded size.
//
// There is no back map (docs/decisions/0002): one walk over the own pages of the family's layers
// finds what lies in the blocks to be emptied.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "disk/catalog.h"
#include "disk/steps.h"
#include "disk/thin.h"
#include "policy/shrink_pick.h"

namespace firn::disk {

class Shrink {
 public:
  // What it needs of the disks that are open.
  struct Openings {
    std::function<Result<std::shared_ptr<Layer>>(Io&, uint32_t layer)> layer;
    std::function<std::vector<std::shared_ptr<ThinDisk>>()> disks;  // Of the family.
    std::function<uint64_t()> generation;  // Changes whenever a disk is opened.
  };
  struct Report {
    uint64_t moved_grains = 0;
    uint64_t skipped_grains = 0;  // H4
    uint64_t emptied_blocks = 0;
  };
  Shrink(store::Pool& pool, Catalog& catalog, uint32_t family, Openings openings, Steps& steps)
      : pool_(pool),
        catalog_(catalog),
        family_(family),
        openings_(std::move(openings)),
        steps_(steps) {}

  // What a run would do now.
  policy::ShrinkChoice look();
  // Errc::no_space when the holes are gone meanwhile; what was moved stays moved.
  Result<Report> run(Io& io);

 private:
  static constexpr size_t kMovesMax = 64;    // Grains of one atom: 256 KiB of data.
  static constexpr size_t kCopiesMax = 200;  // Map pages of one atom.
  struct Move {
    uint64_t slot = 0;  // In the leaf.
    uint64_t from = 0;  // GrainNo.
    uint64_t to = 0;
  };
  struct Batch;
  class Lock;

  Result<void> move_layer(Io& io, uint32_t id);
  Result<void> move_leaf(Io& io, Layer& layer, uint64_t index);
  Result<void> collect(Io& io, Layer& layer, uint64_t index, uint64_t from, Batch& batch);
  Result<void> copies_of(Io& io, uint32_t layer, uint64_t index, Batch& batch);
  Result<void> carve(Io& io, Batch& batch);
  Result<void> copy_data(Io& io, const Batch& batch);
  Result<bool> move(Io& io, Layer& layer, uint64_t index, uint64_t generation, uint64_t& from);
  Result<void> switch_over(Io& io, Batch& batch, uint64_t generation);
  void fit(Batch& batch) const;
  bool is_victim(uint64_t grain) const { return victims_[grain / kBlockGrains]; }

  store::Pool& pool_;
  Catalog& catalog_;
  const uint32_t family_;
  const Openings openings_;
  Steps& steps_;
  std::vector<bool> victims_;              // By block.
  std::vector<store::BlockNo> receivers_;  // The next one last.
  store::OpenBlock open_;
  Report report_;
};

}  // namespace firn::disk
