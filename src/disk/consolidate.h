// SPDX-License-Identifier: Apache-2.0
// Consolidation: a layer whose snapshot is gone and on which exactly one layer stands is taken out
// of the chain by moving references; no guest data is read or written. Source: US 9116726.
//
// `lower` is the layer that goes, `upper` the one on it. Where both own a page, lower's entry is
// made
// to show upper's page, upper's stays in place, and what lower had there and upper superseded is
// freed; where upper only inherits, the own bit changes hands. At the end both maps show the same
// everywhere, so that it no longer matters which record of the two is erased: lower's is, because
// nobody refers to it but upper.
//
//  N1  At every moment a walk from upper's root, and from that of any layer on upper, gives the
//      same bytes as before.
//  N2  A page or grain has exactly one owner of the two (M1): ownership changes hands and is given
//      up only in atoms that say both sides.
//  N3  What is done is seen in lower's own bits: they only go away. Starting again does the rest;
//      starting again when nothing is left does nothing.
//  N4  Costs follow the pages that upper owns, not the size of the disk nor what lower holds.
//  N5  upper may be live: its writers run between the atoms.
//  N6  lower.own_grains + upper.own_grains is what both own together, at all times; likewise pages.
//      The sum becomes upper's when lower is unlinked (by the caller).
#pragma once

#include "disk/layer.h"
#include "disk/steps.h"
#include "store/pool.h"

namespace firn::disk {

class Consolidation {
 public:
  Consolidation(store::Pool& pool, Layer& lower, Layer& upper, Steps& steps)
      : pool_(pool), lower_(lower), upper_(upper), steps_(steps) {}

  // Until lower owns nothing that upper does not show. Errc::corrupt: the pair stays as it is,
  // readable; Errc::cancelled: to be continued.
  Result<void> run(Io& io);

 private:
  // The same place in both trees: a slot of an index page, or the root.
  struct Place {
    PageRef upper, lower;  // The pages that hold the entry; empty: the record's root.
    uint64_t slot = 0;
  };
  format::IndexEntry entry(const Layer& layer, const PageRef& page, uint64_t slot) const;
  format::IndexEntry upper_at(const Place& place) const;
  format::IndexEntry lower_at(const Place& place) const;

  Result<void> pair(Io& io, const Place& place, uint8_t level);
  Result<void> take_over(Io& io, const Place& place);
  Result<void> pair_index(Io& io, const Place& place, uint8_t level);
  Result<void> move_children(const PageRef& upper, const PageRef& lower);
  Result<void> pair_leaf(Io& io, const Place& place);
  Result<uint64_t> merge_grains(Io& io, const Place& place, PageRef upper, PageRef lower,
                                uint64_t from);
  void hand_over(const PageRef& upper, const PageRef& lower, uint64_t slot, bool keep_lower);
  Result<void> retire(Io& io, const Place& place, uint8_t level);
  void retire_now(const Place& place, PageNo page, uint8_t level);

  store::Pool& pool_;
  Layer& lower_;
  Layer& upper_;
  Steps& steps_;
};

}  // namespace firn::disk
