// SPDX-License-Identifier: Apache-2.0
// A layer in memory: its catalog record, and the radix tree of map pages under it.
//
//  M1  A page is own in exactly one layer; others that show it reach it through inherited entries.
//      Likewise a data grain: exactly one own entry in its family.
//  M2  A layer changes only own pages: an inherited page is copied first, with the own bits
//      cleared.
//  M3  The walk from root to leaf has the same length at any depth of the chain.
//  M4  Own is a property of a path: an own bit counts only where every index entry above it is own
//      too. In a page that is inherited the bits speak of the ancestor that wrote it.
#pragma once

#include <cstdint>

#include "format/catalog.h"
#include "format/grain_map.h"
#include "io/mutex.h"
#include "store/pages.h"

namespace firn::disk {

using store::PageNo;
using store::PageRef;
using store::PageStore;

inline constexpr uint64_t kLeafGrains = format::kFanout;
inline constexpr uint64_t kLeafBytes = kLeafGrains * kGrainBytes;

// A map page, and whether it is the layer's own (M4).
struct Leaf {
  PageRef page;
  bool own = false;
  explicit operator bool() const { return static_cast<bool>(page); }
  // Whether entry `slot` of it, as read, is the layer's own.
  bool owns(format::GrainEntry entry) const { return own && entry.own; }
};

// The leaf that maps grains [index * 512, ...) in the map with this root; empty when nothing is
// mapped there.
Result<Leaf> find_leaf(Io& io, PageStore& pages, format::IndexEntry root, uint8_t level,
                       uint64_t index);

class Layer {
 public:
  // `page` pins the catalog page that holds the record at offset `at`; `record` is the catalog's
  // copy of it, which outlives the layer and always says what the page says.
  Layer(PageStore& pages, PageRef page, size_t at, format::LayerRecord& record)
      : pages_(pages), page_(std::move(page)), at_(at), record_(record) {}

  const format::LayerRecord& record() const { return record_; }
  uint32_t id() const { return record_.layer; }
  uint32_t family() const { return record_.family; }
  bool is_base() const { return record_.parent == 0; }
  uint64_t bytes() const { return record_.bytes; }

  // --- record changes; none waits. Part of the caller's atom.
  void set_bytes(uint64_t bytes);
  void set_state(format::LayerState state);
  void set_open_block(uint64_t block_plus_one);
  void set_parent(uint32_t parent);
  void add_own_grains(int64_t by);
  void add_own_pages(int64_t by);

  // --- the map
  Result<Leaf> leaf(Io& io, uint64_t index) {  // For reading.
    return find_leaf(io, pages_, root(), level(), index);
  }
  // The leaf as this layer's own, made or copied when it is not. The caller holds an admission.
  Result<PageRef> own_leaf(Io& io, uint64_t index);
  // The first leaf at or after `index` that exists, or is own; or UINT64_MAX.
  Result<uint64_t> next_leaf(Io& io, uint64_t index) { return next(io, index, false); }
  Result<uint64_t> next_own_leaf(Io& io, uint64_t index) { return next(io, index, true); }
  // Frees an own leaf whose entries are all absent. Base layers only; does nothing when somebody
  // uses it.
  Result<void> prune_leaf(Io& io, uint64_t index);

  // --- the tree itself, for those who take layers apart (consolidate, drop, diff)
  format::IndexEntry root() const;
  uint8_t level() const { return static_cast<uint8_t>(record_.root_level); }
  Result<PageRef> node(Io& io, PageNo page, uint8_t level);
  // Writes the entry at `slot` of `parent`, or the root when `parent` is empty. Does not wait.
  void set_child(const PageRef& parent, uint64_t slot, format::IndexEntry child);
  store::Queue& shaping() { return shaping_; }

 private:
  void set_root(format::IndexEntry root, uint8_t level);
  void put_word(size_t offset, uint64_t value);
  Result<void> raise(Io& io, uint64_t index);
  Result<format::IndexEntry> own_child(Io& io, format::IndexEntry child, const PageRef& parent,
                                       uint64_t slot, uint8_t level);
  Result<uint64_t> next(Io& io, uint64_t index, bool own_only);
  Result<uint64_t> next_below(Io& io, PageNo page, uint8_t level, uint64_t first, uint64_t index,
                              bool own_only);

  PageStore& pages_;
  PageRef page_;
  size_t at_;
  format::LayerRecord& record_;
  store::Queue shaping_{1};  // One fiber at a time changes the tree's shape.
};

}  // namespace firn::disk
