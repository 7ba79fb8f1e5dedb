// SPDX-License-Identifier: Apache-2.0
#include "sim/pages.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/prng.h"

namespace firn::sim {

PageTree::PageTree(const PageTree& other)
    : root_(other.root_), levels_(other.levels_), count_(other.count_) {
  if (root_ != nullptr) ++root_->references;
}

PageTree::~PageTree() { release(root_, levels_); }

void PageTree::release(Counted* what, unsigned levels) {
  if (what == nullptr || --what->references > 0) return;
  if (levels == 0) {
    delete static_cast<Page*>(what);
    return;
  }
  auto* node = static_cast<Node*>(what);
  for (Counted* child : node->children) release(child, levels - 1);
  delete node;
}

size_t PageTree::pages_in(const Counted* what, unsigned levels) {
  if (what == nullptr) return 0;
  if (levels == 0) return 1;
  size_t sum = 0;
  for (const Counted* child : static_cast<const Node*>(what)->children) {
    sum += pages_in(child, levels - 1);
  }
  return sum;
}

const std::byte* PageTree::find(uint64_t page) const {
  if (root_ == nullptr || page >= span_of(levels_)) return nullptr;
  const Counted* at = root_;
  for (unsigned level = levels_; level > 0 && at != nullptr; --level) {
    const size_t index = (page >> (kBits * (level - 1))) & (kFan - 1);
    at = static_cast<const Node*>(at)->children[index];
  }
  return at == nullptr ? nullptr : static_cast<const Page*>(at)->bytes.data();
}

PageTree::Node* PageTree::own_node(Counted*& slot) {
  if (slot == nullptr) {
    slot = new Node();
  } else if (slot->references > 1) {
    auto* copy = new Node(*static_cast<Node*>(slot));
    copy->references = 1;
    for (Counted* child : copy->children) {
      if (child != nullptr) ++child->references;
    }
    --slot->references;
    slot = copy;
  }
  return static_cast<Node*>(slot);
}

std::byte* PageTree::own(uint64_t page) {
  if (root_ == nullptr) {
    levels_ = 1;
    root_ = new Node();
  }
  while (page >= span_of(levels_)) {
    CHECK(levels_ < 9, "page {} is beyond any file", page);
    auto* above = new Node();
    above->children[0] = root_;
    root_ = above;
    ++levels_;
  }
  Counted** slot = &root_;
  for (unsigned level = levels_; level > 0; --level) {
    const size_t index = (page >> (kBits * (level - 1))) & (kFan - 1);
    slot = &own_node(*slot)->children[index];
  }
  if (*slot == nullptr) {
    auto* fresh = new Page();
    fresh->bytes.fill(std::byte{0});
    *slot = fresh;
    ++count_;
  } else if ((*slot)->references > 1) {
    auto* copy = new Page(*static_cast<Page*>(*slot));
    copy->references = 1;
    --(*slot)->references;
    *slot = copy;
  }
  return static_cast<Page*>(*slot)->bytes.data();
}

size_t PageTree::erase_in(Counted*& slot, unsigned levels, uint64_t base, uint64_t first,
                          uint64_t end) {
  if (slot == nullptr || first >= base + span_of(levels) || end <= base) return 0;
  if (first <= base && end >= base + span_of(levels)) {
    const size_t gone = pages_in(slot, levels);
    release(slot, levels);
    slot = nullptr;
    return gone;
  }
  Node* node = own_node(slot);
  const uint64_t step = span_of(levels - 1);
  size_t gone = 0;
  for (size_t i = 0; i < kFan; ++i) {
    gone += erase_in(node->children[i], levels - 1, base + i * step, first, end);
  }
  return gone;
}

void PageTree::erase(uint64_t first, uint64_t end) {
  if (root_ == nullptr || first >= end) return;
  count_ -= erase_in(root_, levels_, 0, first, end);
  if (root_ == nullptr) levels_ = 0;
}

uint64_t Image::pages_missing(uint64_t at, uint64_t length) const {
  if (length == 0) return 0;
  uint64_t missing = 0;
  const uint64_t last = (at + length - 1) / PageTree::kPage;
  for (uint64_t page = at / PageTree::kPage; page <= last; ++page) {
    if (pages_.find(page) == nullptr) ++missing;
  }
  return missing;
}

void Image::read(uint64_t at, Bytes into) const {
  while (!into.empty()) {
    const uint64_t inside = at % PageTree::kPage;
    const size_t step = std::min<size_t>(into.size(), PageTree::kPage - inside);
    const std::byte* page = pages_.find(at / PageTree::kPage);
    if (page == nullptr) {
      std::memset(into.data(), 0, step);
    } else {
      std::memcpy(into.data(), page + inside, step);
    }
    into = into.subspan(step);
    at += step;
  }
}

void Image::write(uint64_t at, View from) {
  size_ = std::max<uint64_t>(size_, at + from.size());
  while (!from.empty()) {
    const uint64_t inside = at % PageTree::kPage;
    const size_t step = std::min<size_t>(from.size(), PageTree::kPage - inside);
    std::memcpy(pages_.own(at / PageTree::kPage) + inside, from.data(), step);
    from = from.subspan(step);
    at += step;
  }
}

void Image::zero(uint64_t at, uint64_t length) {
  const uint64_t end = at + length;
  const uint64_t first_whole = round_up(at, PageTree::kPage) / PageTree::kPage;
  const uint64_t end_whole = end / PageTree::kPage;
  const auto clear = [&](uint64_t from, uint64_t to) {
    if (from >= to || pages_.find(from / PageTree::kPage) == nullptr) return;
    std::memset(pages_.own(from / PageTree::kPage) + from % PageTree::kPage, 0, to - from);
  };
  if (first_whole > end_whole) {  // Inside one page.
    clear(at, end);
    return;
  }
  clear(at, first_whole * PageTree::kPage);
  clear(end_whole * PageTree::kPage, end);
  pages_.erase(first_whole, end_whole);
}

void Image::punch(uint64_t at, uint64_t length) {
  if (at >= size_) return;
  zero(at, std::min(length, size_ - at));
}

void Image::resize(uint64_t bytes) {
  if (bytes < size_) zero(bytes, round_up(size_, PageTree::kPage) - bytes);
  size_ = bytes;
}

uint64_t Image::hash() const {
  uint64_t sum = Prng(size_).next();
  pages_.for_each([&](uint64_t page, View bytes) {
    if (all_zero(bytes)) return;
    sum = Prng(sum ^ (page << 32) ^ crc32c(bytes)).next();
  });
  return sum;
}

}  // namespace firn::sim
