// SPDX-License-Identifier: Apache-2.0
#include "disk/drop.h"

#include "disk/freeing.h"

namespace firn::disk {

using format::GrainEntry;
using format::IndexEntry;
using format::kFanout;
using store::PageKind;

namespace {
#ifdef FIRN_MUTANT_drop_keeps_entries
constexpr bool kForget = false;
#else
constexpr bool kForget = true;  // What is freed is gone from the map in the same atom.
#endif
}  // namespace

Result<void> Drop::run(Io& io) {
  if (layer_.root().page == format::kNoPage) return ok;
  return subtree(io, PageRef(), 0, layer_.root(), layer_.level());
}

Result<void> Drop::subtree(Io& io, const PageRef& parent, uint64_t slot, IndexEntry child,
                           uint8_t level) {
  if (child.own && level > 0) {
    const PageRef node = TRY(layer_.node(io, child.page, level));
    for (uint64_t i = 0; i < kFanout; ++i) {
      const IndexEntry below = TRY(format::decode_index_entry(node.word(i)));
      if (below.own) TRY(subtree(io, node, i, below, static_cast<uint8_t>(level - 1)));
    }
  } else if (child.own) {
    TRY(grains(io, child.page));
  }
  return forget(io, parent, slot, child, level);
}

// The own grains of a leaf, as many atoms as they need.
Result<void> Drop::grains(Io& io, PageNo page) {
  for (uint64_t from = 0; from < kFanout;) {
    TRY(steps_.step(io, [&]() -> Result<void> {
      const PageRef leaf = TRY(layer_.node(io, page, 0));
      Freeing freeing(pool_.blocks());
      uint64_t end = from;
      for (; end < kFanout; ++end) {
        const GrainEntry entry = format::grain_entry_of(leaf.word(end));
        if (!entry.is_data() || !entry.own) continue;
        if (!TRY(freeing.plan(io, entry.grain))) break;
      }
      const NoWait atom;
      for (; from < end; ++from) {
        const GrainEntry entry = format::grain_entry_of(leaf.word(from));
        if (!entry.is_data() || !entry.own) continue;
        freeing.choose(entry.grain);
        if (kForget) pool_.pages().set_word(leaf, from, 0);
      }
      const uint64_t freed = freeing.apply();
      if (freed > 0) layer_.add_own_grains(-static_cast<int64_t>(freed));
      return ok;
    }));
  }
  return ok;
}

Result<void> Drop::forget(Io& io, const PageRef& parent, uint64_t slot, IndexEntry child,
                          uint8_t level) {
  return steps_.step(io, [&]() -> Result<void> {
    const NoWait atom;
    layer_.set_child(parent, slot, {});
    if (!child.own) return ok;
    pool_.pages().free(child.page, level == 0 ? PageKind::map : PageKind::index);
    layer_.add_own_pages(-1);
    return ok;
  });
}

}  // namespace firn::disk
