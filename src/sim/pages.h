// SPDX-License-Identifier: Apache-2.0
// PageTree: a sparse map from page number to 4 KiB, shared between copies until one of them writes.
// Image: the bytes and the size of a simulated file, on top of it.
//
// Contract: a copy costs one reference count; a write costs at most one path of nodes and one page.
// What was never written reads as zero. Not for use from two threads, not even on two copies.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/bytes.h"
#include "base/units.h"

namespace firn::sim {

class PageTree {
 public:
  static constexpr size_t kPage = 4096;

  PageTree() = default;
  PageTree(const PageTree& other);
  PageTree(PageTree&& other) noexcept
      : root_(std::exchange(other.root_, nullptr)),
        levels_(std::exchange(other.levels_, 0)),
        count_(std::exchange(other.count_, 0)) {}
  PageTree& operator=(PageTree other) noexcept {
    std::swap(root_, other.root_);
    std::swap(levels_, other.levels_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~PageTree();

  size_t count() const { return count_; }
  const std::byte* find(uint64_t page) const;  // Null where nothing was written.
  std::byte* own(uint64_t page);               // To write to: no other copy sees it.
  void erase(uint64_t first, uint64_t end);
  // visit(page number, View) in ascending order.
  template <class Visit>
  void for_each(Visit&& visit) const {
    walk(root_, levels_, 0, visit);
  }

 private:
  static constexpr unsigned kBits = 6;
  static constexpr size_t kFan = size_t{1} << kBits;
  struct Counted {
    uint32_t references = 1;
  };
  struct Page : Counted {
    std::array<std::byte, kPage> bytes;
  };
  struct Node : Counted {
    std::array<Counted*, kFan> children{};
  };

  static uint64_t span_of(unsigned levels) { return uint64_t{1} << (kBits * levels); }
  static void release(Counted* what, unsigned levels);
  static size_t pages_in(const Counted* what, unsigned levels);
  static Node* own_node(Counted*& slot);
  static size_t erase_in(Counted*& slot, unsigned levels, uint64_t base, uint64_t first,
                         uint64_t end);
  template <class Visit>
  static void walk(const Counted* what, unsigned levels, uint64_t base, Visit& visit) {
    if (what == nullptr) return;
    if (levels == 0) {
      visit(base, View(static_cast<const Page*>(what)->bytes));
      return;
    }
    for (size_t i = 0; i < kFan; ++i) {
      walk(static_cast<const Node*>(what)->children[i], levels - 1, base + i * span_of(levels - 1),
           visit);
    }
  }

  Counted* root_ = nullptr;
  unsigned levels_ = 0;  // Of nodes above the pages; 0 while there is no root.
  size_t count_ = 0;
};

class Image {
 public:
  uint64_t size() const { return size_; }
  uint64_t bytes_allocated() const { return pages_.count() * PageTree::kPage; }
  // How many of the pages that a write there would touch do not exist yet.
  uint64_t pages_missing(uint64_t at, uint64_t length) const;

  void read(uint64_t at, Bytes into) const;  // Beyond the end: zeroes; the caller looks at size().
  void write(uint64_t at, View from);        // Grows the file.
  void punch(uint64_t at, uint64_t length);  // Keeps the size.
  void resize(uint64_t bytes);
  // A number that depends on the size and on every byte that is not zero.
  uint64_t hash() const;

 private:
  void zero(uint64_t at, uint64_t length);
  PageTree pages_;
  uint64_t size_ = 0;
};

}  // namespace firn::sim
