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
  // nothing. Either may be live: what is written or merged meanwhile is seen as it was or as it is.
  Diff(Layer& a, Layer& b, Range range, DiffSink& sink)
      : a_(a), b_(b), range_(range), sink_(sink) {}
  Result<void> run(Io& io);

 private:
  // A subtree of one of the two, pinned; without a page nothing is mapped. Its level may be below
  // the one that is being compared: then it is what slot 0 of the missing levels would show.
  struct Tree {
    PageRef page;
    uint8_t level = 0;
  };
  Result<void> compare(Io& io, const Tree& a, const Tree& b, uint8_t level, uint64_t first_leaf);
  void compare_leaves(const PageRef& a, const PageRef& b, uint64_t leaf);
  static PageNo below(const Tree& tree, uint8_t level, uint64_t slot);
  static Result<Tree> root(Io& io, Layer& layer);
  static Result<Tree> child(Io& io, Layer& layer, const Tree& tree, uint8_t level, uint64_t slot);
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
