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
  const Tree a{a_.root().page, a_.level()};
  const Tree b{b_.root().page, b_.level()};
  TRY(compare(io, a, b, std::max(a.level, b.level), 0));
  end();
  return ok;
}

Result<PageRef> Diff::node(Io& io, Layer& layer, Tree tree, uint8_t level) {
  if (tree.page == 0 || tree.level < level) return PageRef();
  return layer.node(io, tree.page, level);
}

Diff::Tree Diff::child(const PageRef& node, Tree tree, uint8_t level, uint64_t slot) {
  if (tree.page == 0) return {};
  if (tree.level < level) return slot == 0 ? tree : Tree{};
  return {node.word(slot) & format::kPageNoMax, static_cast<uint8_t>(level - 1)};
}

// The pages compared stay pinned while their children are: none of them is freed meanwhile.
Result<void> Diff::compare(Io& io, Tree a, Tree b, uint8_t level, uint64_t first_leaf) {
  const uint64_t begin = first_leaf * kLeafBytes;
  if (enough_ || begin >= range_.end() || begin + leaves_of(level) * kLeafBytes <= range_.at) {
    return ok;
  }
  if (a.page == b.page && (a.level == b.level || a.page == 0)) return ok;
  if (level == 0) return compare_leaves(io, a.page, b.page, first_leaf);
  const PageRef node_a = TRY(node(io, a_, a, level));
  const PageRef node_b = TRY(node(io, b_, b, level));
  const uint64_t step = leaves_of(static_cast<uint8_t>(level - 1));
  for (uint64_t slot = 0; slot < kFanout && !enough_; ++slot) {
    TRY(compare(io, child(node_a, a, level, slot), child(node_b, b, level, slot),
                static_cast<uint8_t>(level - 1), first_leaf + slot * step));
  }
  return ok;
}

Result<void> Diff::compare_leaves(Io& io, PageNo a, PageNo b, uint64_t leaf) {
  PageRef leaf_a, leaf_b;
  if (a != 0) leaf_a = TRY(a_.node(io, a, 0));
  if (b != 0) leaf_b = TRY(b_.node(io, b, 0));
  const auto entry = [](const PageRef& page, uint64_t slot) {
    GrainEntry found = page ? format::grain_entry_of(page.word(slot)) : GrainEntry{};
    if (found.type == format::GrainType::zero) return GrainEntry{};  // Reads like nothing at all.
    found.own = false;
    return found;
  };
  for (uint64_t slot = 0; slot < kFanout; ++slot) {
    const GrainEntry now = entry(leaf_b, slot);
    if (now == entry(leaf_a, slot)) continue;
    emit(leaf * kLeafBytes + slot * kGrainBytes, kGrainBytes,
         now.is_data() ? Extent::data : Extent::zero);
  }
  return ok;
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
