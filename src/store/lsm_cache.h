// SPDX-License-Identifier: Apache-2.0
// The cache of a tree in the bucket: a copy-on-write B+tree in memory, of which a clone costs a
// reference. Source: US 11620261 (live and stable cache, the live one a clone); the tree, the tags
// of generations and the eviction are ours.
//
// Contract:
//  C1  A snapshot never changes, and costs the same at any size. Nodes are shared until the live
//      tree changes them; then they are copied once, with their path.
//  C2  An entry carries the generation that wrote it. It is dirty while that is above published(),
//      and clean afterwards, without being touched. A node carries the generation that changed it
//      last, so a walk over one generation passes by what it did not touch.
//  C3  Only clean entries are evicted, those not asked for since the hand last passed by.
//  C4  Nothing here takes time in proportion to the size of the cache. What is not needed any more
//      is given back in steps: sweep().
//
// Does not wait, and is used by one shard. Outlives its snapshots.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"

namespace firn::store {

struct LsmNode;

// A key and its value, in one piece of memory, shared by all trees that have it.
struct LsmCell {
  uint32_t refs;
  uint32_t value_bytes;
  uint16_t key_bytes;
  bool removal;
  bool touched;  // Asked for since the hand passed by.
  uint64_t generation;

  std::string_view key() const { return {text(), key_bytes}; }
  std::string_view value() const { return {text() + key_bytes, value_bytes}; }
  uint64_t bytes() const { return uint64_t{key_bytes} + value_bytes; }
  const char* text() const { return static_cast<const char*>(static_cast<const void*>(this + 1)); }
};

class LsmCache {
 public:
  class Snapshot;
  class Walk;

  LsmCache();
  ~LsmCache();
  LsmCache(const LsmCache&) = delete;
  LsmCache& operator=(const LsmCache&) = delete;

  // --- the live tree
  void put(std::string_view key, std::string_view value, bool removal);  // Dirty.
  // What was read from a table, unless there is something already. Clean.
  void remember(std::string_view key, std::string_view value);
  // Until the next change.
  const LsmCell* find(std::string_view key);

  // --- generations
  uint64_t live() const { return live_; }
  uint64_t published() const { return published_; }
  uint64_t dirty_bytes() const { return dirty_bytes_; }  // Of the live generation.
  uint64_t dirty_entries() const { return dirty_entries_; }
  Snapshot snapshot();  // O(1).
  // The live generation ends here: the snapshot is the stable cache, the live tree its clone.
  Snapshot freeze();
  // Everything up to `generation` is in the store.
  void publish(uint64_t generation) { published_ = generation; }

  // --- memory
  uint64_t bytes() const { return bytes_; }
  uint64_t root_number() const;
  // Looks at one leaf and takes out what C3 allows; how many entries that were.
  size_t evict_some();
  // Gives back at most `nodes` nodes; false when there is nothing left to give.
  bool sweep(size_t nodes);

 private:
  friend class Snapshot;
  friend class Walk;
  using Cell = LsmCell;
  using Node = LsmNode;

  Cell* make_cell(std::string_view key, std::string_view value, bool removal, uint64_t generation);
  Node* make_node(bool leaf);
  void drop(Cell* cell);
  void drop(Node* node);
  Node* own(Node*& slot);  // A node that only the live tree has, marked with its generation.
  void split_child(Node* parent, size_t child);
  void insert(Cell* cell);
  void insert_into(Node* leaf, Cell* cell);
  bool erase(Node*& slot, std::string_view key);  // Whether the node is empty now.
  void account(const Cell* cell, int sign);

  Node* root_ = nullptr;
  uint64_t live_ = 1;
  uint64_t published_ = 0;
  uint64_t dirty_bytes_ = 0;
  uint64_t dirty_entries_ = 0;
  uint64_t bytes_ = 0;
  uint64_t nodes_made_ = 0;
  std::string hand_;
  std::vector<Node*> graves_;  // Without references; their children still have theirs.
};

// A tree at one moment.
class LsmCache::Snapshot {
 public:
  Snapshot() = default;
  Snapshot(Snapshot&& other) noexcept { swap(other); }
  Snapshot& operator=(Snapshot&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Snapshot() { reset(); }
  explicit operator bool() const { return root_ != nullptr; }
  void reset();
  uint64_t generation() const { return generation_; }  // The live one when it was taken.
  uint64_t root_number() const;

 private:
  friend class LsmCache;
  friend class Walk;
  void swap(Snapshot& other) {
    std::swap(cache_, other.cache_);
    std::swap(root_, other.root_);
    std::swap(generation_, other.generation_);
  }
  LsmCache* cache_ = nullptr;
  LsmNode* root_ = nullptr;
  uint64_t generation_ = 0;
};

// In the order of keys over a snapshot, which outlives it.
class LsmCache::Walk {
 public:
  // Of entries that generations from `oldest` on wrote; 0: all. Stands before the first one that is
  // not less than `from`.
  Walk(const Snapshot& snapshot, std::string_view from, uint64_t oldest = 0);
  // The next entry; null at the end.
  const LsmCell* next();
  // Goes back before the entry that next() gave last.
  void put_back() { --path_.back().at; }

 private:
  struct Step {
    const LsmNode* node;
    size_t at;  // What comes next.
  };
  std::vector<Step> path_;
  uint64_t oldest_;
};

}  // namespace firn::store
