// SPDX-License-Identifier: Apache-2.0
#include "store/tree.h"

#include <algorithm>

#include "base/log.h"
#include "format/page.h"

namespace firn::store {

using format::IndexEntry;
using format::kFanout;

namespace {

// How many leaves one entry of an index page of `level` covers; a leaf is level 0.
constexpr uint64_t leaves_below(uint8_t level) {
  uint64_t leaves = 1;
  for (uint8_t i = 1; i < level; ++i) leaves *= kFanout;
  return leaves;
}
constexpr uint64_t capacity(uint8_t level) {
  return level == 0 ? 1 : leaves_below(level) * kFanout;
}

}  // namespace

PageTree::PageTree(PageStore& pages, PageRef root, size_t root_at, PageKind leaf_kind)
    : pages_(pages), root_page_(std::move(root)), root_at_(root_at), leaf_kind_(leaf_kind) {}

format::TreeRoot PageTree::root() const {
  return load<format::TreeRoot>(root_page_.view().subspan(root_at_));
}

void PageTree::set_root(PageNo page, uint8_t level) {
  format::TreeRoot root;
  root.page = page;
  root.level = static_cast<std::byte>(level);
  pages_.set_bytes(root_page_, root_at_, view_of(root));
}

Result<PageRef> PageTree::node(Io& io, PageNo page, uint8_t level) {
  return pages_.get(io, page, kind_at(level), level);
}

Result<PageRef> PageTree::leaf(Io& io, uint64_t index) {
  const format::TreeRoot at = root();
  PageNo page = at.page;
  auto level = static_cast<uint8_t>(at.level);
  if (page == format::kNoPage || index >= capacity(level)) return PageRef();
  for (; level > 0; --level) {
    const PageRef at_level = TRY(node(io, page, level));
    const uint64_t slot = index / leaves_below(level) % kFanout;
    page = TRY(format::decode_index_entry(at_level.word(slot))).page;
    if (page == format::kNoPage) return PageRef();
  }
  return node(io, page, 0);
}

// Adds levels on top until `index` is covered.
Result<void> PageTree::raise(Io& io, uint64_t index) {
  while (true) {
    const format::TreeRoot at = root();
    const auto level = static_cast<uint8_t>(at.level);
    if (at.page != format::kNoPage && index < capacity(level)) return ok;
    PageReservation reserved = TRY(pages_.reserve(io));
    const NoWait atom;
    if (at.page == format::kNoPage) {
      set_root(pages_.born(std::move(reserved), leaf_kind_, 0, 0).no(), 0);
      continue;
    }
    CHECK(level < format::kLevelMax);
    const auto above = static_cast<uint8_t>(level + 1);
    const PageRef top = pages_.born(std::move(reserved), PageKind::index, above, 0);
    pages_.set_word(top, 0, format::encode(IndexEntry{at.page, true}));
    set_root(top.no(), above);
  }
}

Result<PageRef> PageTree::make_leaf(Io& io, uint64_t index) {
  PageRef present = TRY(leaf(io, index));
  if (present) return present;
  const auto only = making_.lock(io);
  TRY(raise(io, index));
  PageNo page = root().page;
  for (auto level = static_cast<uint8_t>(root().level); level > 0; --level) {
    const PageRef at_level = TRY(node(io, page, level));
    const uint64_t slot = index / leaves_below(level) % kFanout;
    page = TRY(format::decode_index_entry(at_level.word(slot))).page;
    if (page != format::kNoPage) continue;
    PageReservation reserved = TRY(pages_.reserve(io));
    const NoWait atom;
    const auto below = static_cast<uint8_t>(level - 1);
    const PageRef child =
        pages_.born(std::move(reserved), below == 0 ? leaf_kind_ : PageKind::index, below, 0);
    page = child.no();
    pages_.set_word(at_level, slot, format::encode(IndexEntry{page, true}));
  }
  return node(io, page, 0);
}

// --- taking apart

// A page that is not what its parent says stays: somebody else may own it.
void PageTree::free_node(PageNo page, uint8_t level) {
  const bool there = page < pages_.groups() * format::kGroupPages && !format::is_info_page(page);
  const format::PageInfo info = there ? pages_.info(page) : format::PageInfo{};
  if (static_cast<PageKind>(info.kind) == kind_at(level) &&
      static_cast<uint8_t>(info.level) == level) {
    pages_.free(page, kind_at(level));
  } else {
    log(LogLevel::error, "metadata page {} is not what refers to it says; not freed", page);
  }
}

Result<void> PageTree::drop_leaf(Io& io, uint64_t index) {
  const auto only = making_.lock(io);
  const format::TreeRoot at = root();
  PageNo page = at.page;
  auto level = static_cast<uint8_t>(at.level);
  if (page == format::kNoPage || index >= capacity(level)) return ok;
  PageRef parent;
  uint64_t slot = 0;
  for (; level > 0; --level) {
    parent = TRY(node(io, page, level));
    slot = index / leaves_below(level) % kFanout;
    page = TRY(format::decode_index_entry(parent.word(slot))).page;
    if (page == format::kNoPage) return ok;
  }
  const NoWait atom;
  if (parent) {
    pages_.set_word(parent, slot, 0);
  } else {
    set_root(format::kNoPage, 0);
  }
  free_node(page, 0);
  return ok;
}

// Everything below `page`, which is of `level` and stays.
Result<void> PageTree::free_below(Io& io, PageNo page, uint8_t level) {
  constexpr uint64_t kBatch = 64;
  const auto below = static_cast<uint8_t>(level - 1);
  for (uint64_t first = 0; first < kFanout; first += kBatch) {
    const auto here = node(io, page, level);
    if (!here && here.error().code == Errc::corrupt) {
      log(LogLevel::error, "what lies below is left to the check: {}", text_of(here.error()));
      return ok;
    }
    if (!here) return here.error();
    for (uint64_t slot = first; slot < first + kBatch && below > 0; ++slot) {
      const auto child = format::decode_index_entry(here->word(slot));
      if (child && child->page != format::kNoPage) TRY(free_below(io, child->page, below));
    }
    const auto admission = TRY(pages_.admit(io));
    const NoWait atom;
    for (uint64_t slot = first; slot < first + kBatch; ++slot) {
      const auto child = format::decode_index_entry(here->word(slot));
      if (!child || child->page == format::kNoPage) continue;
      pages_.set_word(*here, slot, 0);
      free_node(child->page, below);
    }
  }
  return ok;
}

Result<void> PageTree::free_all(Io& io) {
  const auto only = making_.lock(io);
  const format::TreeRoot at = root();
  if (at.page == format::kNoPage) return ok;
  const auto level = static_cast<uint8_t>(at.level);
  if (level > 0) TRY(free_below(io, at.page, level));
  const auto admission = TRY(pages_.admit(io));
  const NoWait atom;
  set_root(format::kNoPage, 0);
  free_node(at.page, level);
  return ok;
}

struct PageTree::Walk {
  const Visit* visit = nullptr;
  const VisitPage* visit_page = nullptr;
  uint64_t left = 0;  // Pages that may still be visited.
};

// Brings the next leaves into memory side by side: a walk of a cold table then costs the device's
// depth, not its latency. What fails here fails again, with its sentence, when the walk comes to
// it.
void PageTree::read_ahead(Io& io, const PageRef& parent, uint64_t slot) {
  const uint64_t end = std::min(kFanout, slot + kAhead);
  Group readers(io);
  for (; slot < end; ++slot) {
    const Result<IndexEntry> child = format::decode_index_entry(parent.word(slot));
    if (!child || child->page == format::kNoPage) continue;
    io.spawn(readers, [this, &io, leaf = child->page] { (void)pages_.get(io, leaf, leaf_kind_); });
  }
}

Result<void> PageTree::walk(Io& io, PageNo page, uint8_t level, uint64_t first, Walk& state) {
  if (state.left-- == 0) {  // Else 512^4 entries could lead to a few pages, for ever.
    return fail(Errc::corrupt, "metadata page {}: more pages lead here than there are", page);
  }
  if (state.visit_page != nullptr) (*state.visit_page)(page);
  const PageRef here = TRY(node(io, page, level));
  if (level == 0) return state.visit != nullptr ? (*state.visit)(io, first, here) : Result<void>();
  for (uint64_t slot = 0; slot < kFanout; ++slot) {
    if (level == 1 && slot % kAhead == 0) read_ahead(io, here, slot);
    const IndexEntry child = TRY(format::decode_index_entry(here.word(slot)));
    if (child.page == format::kNoPage) continue;
    TRY(walk(io, child.page, static_cast<uint8_t>(level - 1), first + slot * leaves_below(level),
             state));
  }
  return ok;
}

Result<void> PageTree::for_each(Io& io, const Visit& visit) {
  const format::TreeRoot at = root();
  if (at.page == format::kNoPage) return ok;
  Walk state{.visit = &visit, .left = pages_.capacity_pages()};
  return walk(io, at.page, static_cast<uint8_t>(at.level), 0, state);
}

Result<void> PageTree::for_each_page(Io& io, const VisitPage& visit) {
  const format::TreeRoot at = root();
  if (at.page == format::kNoPage) return ok;
  Walk state{.visit_page = &visit, .left = pages_.capacity_pages()};
  return walk(io, at.page, static_cast<uint8_t>(at.level), 0, state);
}

}  // namespace firn::store
