// SPDX-License-Identifier: Apache-2.0
#include "disk/diff.h"

#include <algorithm>

namespace firn::disk {

using format::GrainEntry;
using format::kFanout;

namespace {
constexpr uint64_t leaves_of(uint8_t level) {  // Below a whole page of this level.
  uint64_t leaves = 1;
  for (uint8_t i = 0; i < level; ++i) leaves *= kFanout;
  return leaves;
}
}  // namespace

Result<void> Diff::run(Io& io) {
  const Tree a = TRY(root(io, a_));
  const Tree b = TRY(root(io, b_));
  TRY(compare(io, a, b, std::max(a.level, b.level), 0));
  end();
  return ok;
}

// A page's number is read from a pinned page, and nothing waits before it is pinned itself: maps
// of live disks change, and a page whose number was noted before a wait may be somebody else's.
Result<Diff::Tree> Diff::root(Io& io, Layer& layer) {
  const uint8_t level = layer.level();
  if (layer.root().page == format::kNoPage) return Tree{};
  return Tree{TRY(layer.node(io, layer.root().page, level)), level};
}

PageNo Diff::below(const Tree& tree, uint8_t level, uint64_t slot) {
  if (!tree.page) return format::kNoPage;
  if (tree.level < level) return slot == 0 ? tree.page.no() : format::kNoPage;
  return tree.page.word(slot) & format::kPageNoMax;
}

Result<Diff::Tree> Diff::child(Io& io, Layer& layer, const Tree& tree, uint8_t level,
                               uint64_t slot) {
  const PageNo page = below(tree, level, slot);
  if (page == format::kNoPage) return Tree{};
  if (tree.level < level) return Tree{tree.page.again(), tree.level};
  const auto under = static_cast<uint8_t>(level - 1);
  return Tree{TRY(layer.node(io, page, under)), under};
}

Result<void> Diff::compare(Io& io, const Tree& a, const Tree& b, uint8_t level,
                           uint64_t first_leaf) {
  if (level == 0) {
    compare_leaves(a.page, b.page, first_leaf);
    return ok;
  }
  const auto under = static_cast<uint8_t>(level - 1);
  const uint64_t step = leaves_of(under);
  for (uint64_t slot = 0; slot < kFanout && !enough_; ++slot) {
    const uint64_t leaf = first_leaf + slot * step;
    if (leaf * kLeafBytes >= range_.end()) break;
    if ((leaf + step) * kLeafBytes <= range_.at) continue;
    if (below(a, level, slot) == below(b, level, slot)) continue;
    const Tree child_a = TRY(child(io, a_, a, level, slot));
    const Tree child_b = TRY(child(io, b_, b, level, slot));
    TRY(compare(io, child_a, child_b, under, leaf));
  }
  return ok;
}

void Diff::compare_leaves(const PageRef& a, const PageRef& b, uint64_t leaf) {
  const auto entry = [](const PageRef& page, uint64_t slot) {
    GrainEntry found = page ? format::grain_entry_of(page.word(slot)) : GrainEntry{};
    if (found.type == format::GrainType::zero) return GrainEntry{};  // Reads like nothing at all.
    found.own = false;
    return found;
  };
  for (uint64_t slot = 0; slot < kFanout; ++slot) {
    const GrainEntry now = entry(b, slot);
    if (now == entry(a, slot)) continue;
    emit(leaf * kLeafBytes + slot * kGrainBytes, kGrainBytes,
         now.is_data() ? Extent::data : Extent::zero);
  }
}

void Diff::emit(uint64_t at, uint64_t length, Extent kind) {
  const uint64_t begin = std::max(at, range_.at);
  const uint64_t stop = std::min(at + length, range_.end());
  if (begin >= stop || enough_) return;
  if (pending_.length > 0 && pending_.at + pending_.length == begin && pending_.kind == kind) {
    pending_.length += stop - begin;
    return;
  }
  end();
  pending_ = {begin, stop - begin, kind};
}

void Diff::end() {
  if (pending_.length > 0 && !enough_) enough_ = !sink_.add(pending_);
  pending_ = {};
}

}  // namespace firn::disk
