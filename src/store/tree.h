// SPDX-License-Identifier: Apache-2.0
// A sparse array of leaf pages under index pages of 512 entries, whose root is kept in the pool
// root. Grows at the top; leaves are made on first use. For tables that nobody shares; the maps of
// layers share pages and have a tree of their own (disk/layer.h).
#pragma once

#include <functional>

#include "io/mutex.h"
#include "store/pages.h"

namespace firn::store {

class PageTree {
 public:
  // `root_at`: offset of the TreeRoot in the page that `root` pins; a multiple of 8.
  PageTree(PageStore& pages, PageRef root, size_t root_at, PageKind leaf_kind);

  // The leaf, or an empty reference when it was never made.
  Result<PageRef> leaf(Io& io, uint64_t index);
  // The leaf, made of zeroes when it is not there. The caller holds an admission.
  Result<PageRef> make_leaf(Io& io, uint64_t index);
  // Takes the leaf out, unread, and frees its page; nobody may have it or be waiting for it. Does
  // nothing when it was never made. The caller holds an admission.
  Result<void> drop_leaf(Io& io, uint64_t index);
  // Frees every page, leaves unread, in small atoms under admissions of its own: goes on where it
  // was when called again. What lies under an index page that cannot be read is left to the check.
  Result<void> free_all(Io& io);
  // Calls `visit(io, index, leaf)` for every leaf that exists, in order.
  using Visit = std::function<Result<void>(Io&, uint64_t index, const PageRef& leaf)>;
  Result<void> for_each(Io& io, const Visit& visit);
  // Every page of the tree, interior ones too.
  using VisitPage = std::function<void(PageNo page)>;
  Result<void> for_each_page(Io& io, const VisitPage& visit);

 private:
  format::TreeRoot root() const;
  void set_root(PageNo page, uint8_t level);
  PageKind kind_at(uint8_t level) const { return level == 0 ? leaf_kind_ : PageKind::index; }
  void free_node(PageNo page, uint8_t level);
  Result<void> free_below(Io& io, PageNo page, uint8_t level);
  Result<void> raise(Io& io, uint64_t index);
  struct Walk;
  Result<void> walk(Io& io, PageNo page, uint8_t level, uint64_t first, Walk& state);
  Result<PageRef> node(Io& io, PageNo page, uint8_t level);
  void read_ahead(Io& io, const PageRef& parent, uint64_t slot);
  static constexpr uint64_t kAhead = 32;  // Leaves; half of the smallest cache.

  PageStore& pages_;
  PageRef root_page_;
  size_t root_at_;
  PageKind leaf_kind_;
  Mutex making_;
};

}  // namespace firn::store
