// SPDX-License-Identifier: Apache-2.0
// Where two maps differ. Maps of one family share pages: below a page that both show nothing
// differs, so the cost follows what was written between the two, not their size.
#pragma once

#include "disk/disks.h"
#include "disk/layer.h"

namespace firn::disk {

class Diff {
 public:
  // What differs of `b` against `a`, within `range`, which lies in b. Beyond its end `a` has
  // nothing.
  Diff(Layer& a, Layer& b, Range range, DiffSink& sink)
      : a_(a), b_(b), range_(range), sink_(sink) {}
  Result<void> run(Io& io);

 private:
  // A subtree of one of the two; page 0: nothing is mapped. Its level may be below the one that is
  // being compared: then it is what slot 0 of the missing levels would show.
  struct Tree {
    PageNo page = 0;
    uint8_t level = 0;
  };
  Result<void> compare(Io& io, Tree a, Tree b, uint8_t level, uint64_t first_leaf);
  Result<void> compare_leaves(Io& io, PageNo a, PageNo b, uint64_t leaf);
  static Tree child(const PageRef& node, Tree tree, uint8_t level, uint64_t slot);
  Result<PageRef> node(Io& io, Layer& layer, Tree tree, uint8_t level);
  void emit(uint64_t at, uint64_t length, Extent kind);
  void end();

  Layer& a_;
  Layer& b_;
  Range range_;
  DiffSink& sink_;
  DiffRun pending_;
  bool enough_ = false;
};

}  // namespace firn::disk
