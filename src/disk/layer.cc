// SPDX-License-Identifier: Apache-2.0
#include "disk/layer.h"

namespace firn::disk {

using format::IndexEntry;
using format::kFanout;
using format::LayerRecord;
using store::PageKind;
using store::PageReservation;

namespace {

// Leaves below one entry of an index page of `level`.
constexpr uint64_t leaves_below(uint8_t level) {
  uint64_t leaves = 1;
  for (uint8_t i = 1; i < level; ++i) leaves *= kFanout;
  return leaves;
}
constexpr uint64_t capacity(uint8_t level) {
  return level == 0 ? 1 : leaves_below(level) * kFanout;
}
constexpr uint64_t kOwnBit = uint64_t{1} << 63;
constexpr PageKind kind_at(uint8_t level) { return level == 0 ? PageKind::map : PageKind::index; }

Result<PageRef> load_node(Io& io, PageStore& pages, PageNo page, uint8_t at) {
  PageRef found = pages.find(page, kind_at(at), at);
  if (found) return found;
  return pages.get(io, page, kind_at(at), at);
}

}  // namespace

void Layer::put_word(size_t offset, uint64_t value) {
  pages_.set_word(page_, (at_ + offset) / 8, value);
}

void Layer::set_bytes(uint64_t bytes) {
  record_.bytes = bytes;
  put_word(offsetof(LayerRecord, bytes), bytes);
}

void Layer::set_state(format::LayerState state) {
  record_.state = static_cast<std::byte>(state);
  pages_.set_bytes(page_, at_, view_of(record_).first(8));
}

void Layer::set_open_block(uint64_t block_plus_one) {
  record_.open_block = block_plus_one;
  put_word(offsetof(LayerRecord, open_block), block_plus_one);
}

void Layer::set_parent(uint32_t parent) {
  record_.parent = parent;
  pages_.set_bytes(page_, at_ + 8, view_of(record_).subspan(8, 8));
}

void Layer::add_own_grains(int64_t by) {
  record_.own_grains = record_.own_grains + static_cast<uint64_t>(by);
  put_word(offsetof(LayerRecord, own_grains), record_.own_grains);
}

void Layer::add_own_pages(int64_t by) {
  record_.own_pages = record_.own_pages + static_cast<uint64_t>(by);
  put_word(offsetof(LayerRecord, own_pages), record_.own_pages);
}

IndexEntry Layer::root() const {
  const uint64_t raw = record_.root;
  return {raw & format::kPageNoMax, (raw & kOwnBit) != 0};
}

void Layer::set_root(IndexEntry root, uint8_t level) {
  record_.root = format::encode(root);
  put_word(offsetof(LayerRecord, root), record_.root);
  if (level == static_cast<uint8_t>(record_.root_level)) return;
  record_.root_level = static_cast<std::byte>(level);
  pages_.set_bytes(page_, at_, view_of(record_).first(8));
}

void Layer::set_child(const PageRef& parent, uint64_t slot, IndexEntry child) {
  if (parent) {
    pages_.set_word(parent, slot, format::encode(child));
  } else {
    set_root(child, level());
  }
}

// --- looking

Result<PageRef> Layer::node(Io& io, PageNo page, uint8_t at) {
  return load_node(io, pages_, page, at);
}

// From the moment a page's number is read until it is pinned nothing waits: a page that somebody
// still walks through is not freed under him.
Result<Leaf> find_leaf(Io& io, PageStore& pages, IndexEntry child, uint8_t at, uint64_t index) {
  if (child.page == format::kNoPage || index >= capacity(at)) return Leaf();
  bool own = child.own;
  for (; at > 0; --at) {
    const PageRef above = TRY(load_node(io, pages, child.page, at));
    const uint64_t raw = above.word(index / leaves_below(at) % kFanout);
    child = {raw & format::kPageNoMax, (raw & kOwnBit) != 0};
    own = own && child.own;
    if (child.page == format::kNoPage) return Leaf();
  }
  return Leaf{TRY(load_node(io, pages, child.page, 0)), own};
}

Result<uint64_t> Layer::next_below(Io& io, PageNo page, uint8_t at, uint64_t first, uint64_t index,
                                   bool own_only) {
  if (at == 0) return first >= index ? first : UINT64_MAX;
  const PageRef above = TRY(node(io, page, at));
  const uint64_t step = leaves_below(at);
  for (uint64_t slot = index > first ? (index - first) / step : 0; slot < kFanout; ++slot) {
    const uint64_t raw = above.word(slot);
    if (raw == 0 || (own_only && (raw & kOwnBit) == 0)) continue;
    const uint64_t found =
        TRY(next_below(io, raw & format::kPageNoMax, static_cast<uint8_t>(at - 1),
                       first + slot * step, index, own_only));
    if (found != UINT64_MAX) return found;
  }
  return UINT64_MAX;
}

Result<uint64_t> Layer::next(Io& io, uint64_t index, bool own_only) {
  if (root().page == format::kNoPage || index >= capacity(level())) return UINT64_MAX;
  if (own_only && !root().own) return UINT64_MAX;
  return next_below(io, root().page, level(), 0, index, own_only);
}

// --- growing

// Adds levels on top until `index` is covered.
Result<void> Layer::raise(Io& io, uint64_t index) {
  while (root().page != format::kNoPage && index >= capacity(level())) {
    PageReservation reserved = TRY(pages_.reserve(io));
    const NoWait atom;
    const auto above = static_cast<uint8_t>(level() + 1);
    CHECK(above < format::kLevelMax);
    const PageRef top = pages_.born(std::move(reserved), PageKind::index, above, family());
    pages_.set_word(top, 0, format::encode(root()));
    set_root({top.no(), true}, above);
    add_own_pages(1);
  }
  if (root().page != format::kNoPage) return ok;
  // An empty map: start at the level that covers `index`, so that nothing has to be raised soon.
  uint8_t fitting = 0;
  while (index >= capacity(fitting)) ++fitting;
  const NoWait atom;
  record_.root_level = static_cast<std::byte>(fitting);
  pages_.set_bytes(page_, at_, view_of(record_).first(8));
  return ok;
}

// The child at `slot` as an own page: as it is, copied (M2) or new.
Result<IndexEntry> Layer::own_child(Io& io, IndexEntry child, const PageRef& parent, uint64_t slot,
                                    uint8_t at) {
  if (child.own) return child;
  PageRef ancestor;
  if (child.page != format::kNoPage) ancestor = TRY(pages_.get(io, child.page, kind_at(at), at));
  PageReservation reserved = TRY(pages_.reserve(io));
  const NoWait atom;
  const PageRef mine = pages_.born(std::move(reserved), kind_at(at), at, family());
  if (ancestor) {
    for (size_t i = 0; i < kFanout; ++i) {
      const uint64_t word = ancestor.word(i);
#ifdef FIRN_MUTANT_copy_keeps_own_bits
      if (word != 0) pages_.set_word(mine, i, word);
#else
      if (word != 0) pages_.set_word(mine, i, word & ~kOwnBit);
#endif
    }
  }
  const IndexEntry entry{mine.no(), true};
  set_child(parent, slot, entry);
  add_own_pages(1);
  return entry;
}

Result<PageRef> Layer::own_leaf(Io& io, uint64_t index) {
  const auto only = shaping_.enter(io, store::Priority::guest);
  TRY(raise(io, index));
  PageRef parent;
  uint64_t slot = 0;
  IndexEntry child = root();
  for (uint8_t at = level();; --at) {
    child = TRY(own_child(io, child, parent, slot, at));
    PageRef node = TRY(pages_.get(io, child.page, kind_at(at), at));
    if (at == 0) return node;
    slot = index / leaves_below(at) % kFanout;
    child = TRY(format::decode_index_entry(node.word(slot)));
    parent = std::move(node);
  }
}

// --- shrinking

Result<void> Layer::prune_leaf(Io& io, uint64_t index) {
  CHECK(is_base());
  const auto only = shaping_.enter(io, store::Priority::guest);
  PageRef parent;
  uint64_t slot = 0;
  IndexEntry child = root();
  if (child.page == format::kNoPage || index >= capacity(level())) return ok;
  for (uint8_t at = level(); at > 0; --at) {
    PageRef node = TRY(pages_.get(io, child.page, PageKind::index, at));
    slot = index / leaves_below(at) % kFanout;
    child = TRY(format::decode_index_entry(node.word(slot)));
    parent = std::move(node);
    if (child.page == format::kNoPage) return ok;
  }
  PageRef leaf = TRY(pages_.get(io, child.page, PageKind::map));
  if (!child.own || !pages_.sole_pin(leaf) || !all_zero(leaf.view())) return ok;
  const NoWait atom;
  leaf.reset();
  set_child(parent, slot, {});
  pages_.free(child.page, PageKind::map);
  add_own_pages(-1);
  return ok;
}

}  // namespace firn::disk
