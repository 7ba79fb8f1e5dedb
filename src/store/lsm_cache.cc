// SPDX-License-Identifier: Apache-2.0
#include "store/lsm_cache.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace firn::store {

constexpr size_t kFan = 64;

struct LsmNode {
  uint32_t refs = 1;
  uint16_t count = 0;
  bool leaf = true;
  uint64_t generation = 0;
  uint64_t number = 0;
  // A leaf: its entries. Else: keys[i] is not above what children[i] has; keys[0] is not used.
  std::array<LsmCell*, kFan> cells{};
  std::array<LsmNode*, kFan> children{};

  bool full() const { return count == kFan; }
  // A leaf: the first entry that is not less than `key`.
  size_t position(std::string_view key) const {
    const auto begin = cells.begin();
    return static_cast<size_t>(
        std::lower_bound(begin, begin + count, key,
                         [](const LsmCell* cell, std::string_view k) { return cell->key() < k; }) -
        begin);
  }
  // Else: the child that has `key` if any has.
  size_t child(std::string_view key) const {
    const auto begin = cells.begin();
    return static_cast<size_t>(
        std::upper_bound(begin + 1, begin + count, key,
                         [](std::string_view k, const LsmCell* cell) { return k < cell->key(); }) -
        begin - 1);
  }
};

namespace {
template <class T>
void open_gap(std::array<T*, kFan>& places, size_t at, size_t count) {
  std::move_backward(places.begin() + static_cast<ptrdiff_t>(at),
                     places.begin() + static_cast<ptrdiff_t>(count),
                     places.begin() + static_cast<ptrdiff_t>(count + 1));
}
template <class T>
void close_gap(std::array<T*, kFan>& places, size_t at, size_t count) {
  std::move(places.begin() + static_cast<ptrdiff_t>(at + 1),
            places.begin() + static_cast<ptrdiff_t>(count),
            places.begin() + static_cast<ptrdiff_t>(at));
}
}  // namespace

LsmCache::LsmCache() { root_ = make_node(true); }

LsmCache::~LsmCache() {
  drop(std::exchange(root_, nullptr));
  while (sweep(SIZE_MAX)) {
  }
  CHECK(bytes_ == 0, "a snapshot outlives its cache: {} bytes", bytes_);
}

LsmCell* LsmCache::make_cell(std::string_view key, std::string_view value, bool removal,
                             uint64_t generation) {
  const size_t bytes = sizeof(Cell) + key.size() + value.size();
  void* const room = ::operator new(bytes);
  Cell* const cell = ::new (room) Cell{1,
                                       static_cast<uint32_t>(value.size()),
                                       static_cast<uint16_t>(key.size()),
                                       removal,
                                       true,
                                       generation};
  char* const text = static_cast<char*>(room) + sizeof(Cell);
  std::copy(key.begin(), key.end(), text);
  std::copy(value.begin(), value.end(), text + key.size());
  bytes_ += bytes;
  return cell;
}

LsmNode* LsmCache::make_node(bool leaf) {
  auto* const node = new Node;
  node->leaf = leaf;
  node->generation = live_;
  node->number = ++nodes_made_;
  bytes_ += sizeof(Node);
  return node;
}

void LsmCache::drop(Cell* cell) {
  if (cell == nullptr || --cell->refs > 0) return;
  bytes_ -= sizeof(Cell) + cell->bytes();
  ::operator delete(cell);
}

void LsmCache::drop(Node* node) {
  if (--node->refs == 0) graves_.push_back(node);
}

bool LsmCache::sweep(size_t nodes) {
  for (; nodes > 0 && !graves_.empty(); --nodes) {
    Node* const node = graves_.back();
    graves_.pop_back();
    for (size_t i = 0; i < node->count; ++i) {
      drop(node->cells[i]);
      if (!node->leaf) drop(node->children[i]);
    }
    bytes_ -= sizeof(Node);
    delete node;
  }
  return !graves_.empty();
}

LsmNode* LsmCache::own(Node*& slot) {
  if (slot->refs > 1) {
    Node* const copy = make_node(slot->leaf);
    copy->count = slot->count;
    copy->cells = slot->cells;
    copy->children = slot->children;
    for (size_t i = 0; i < copy->count; ++i) {
      if (copy->cells[i] != nullptr) ++copy->cells[i]->refs;
      if (!copy->leaf) ++copy->children[i]->refs;
    }
    drop(slot);
    slot = copy;
  }
  slot->generation = live_;
  return slot;
}

void LsmCache::split_child(Node* parent, size_t at) {
  Node* const left = own(parent->children[at]);
  Node* const right = make_node(left->leaf);
  // Keys that come in order leave full nodes behind.
  const bool last = at + 1 == parent->count;
  const size_t keep = last ? kFan - kFan / 8 : kFan / 2;
  right->count = static_cast<uint16_t>(kFan - keep);
  for (size_t i = 0; i < right->count; ++i) {
    right->cells[i] = std::exchange(left->cells[keep + i], nullptr);
    right->children[i] = std::exchange(left->children[keep + i], nullptr);
  }
  left->count = static_cast<uint16_t>(keep);
  // A separator is a key alone, so that it does not keep a value alive.
  Cell* const first = right->cells[0];
  Cell* const separator = right->leaf ? make_cell(first->key(), {}, true, 0) : first;
  if (!right->leaf) right->cells[0] = nullptr;
  open_gap(parent->cells, at + 1, parent->count);
  open_gap(parent->children, at + 1, parent->count);
  parent->cells[at + 1] = separator;
  parent->children[at + 1] = right;
  ++parent->count;
}

void LsmCache::account(const Cell* cell, int sign) {
  if (cell->generation != live_) return;
  dirty_bytes_ += static_cast<uint64_t>(sign) * cell->bytes();
  dirty_entries_ += static_cast<uint64_t>(sign);
}

void LsmCache::insert_into(Node* leaf, Cell* cell) {
  const size_t at = leaf->position(cell->key());
  if (at < leaf->count && leaf->cells[at]->key() == cell->key()) {
    account(leaf->cells[at], -1);
    drop(std::exchange(leaf->cells[at], cell));
  } else {
    open_gap(leaf->cells, at, leaf->count);
    leaf->cells[at] = cell;
    ++leaf->count;
  }
  account(cell, 1);
}

void LsmCache::insert(Cell* cell) {
  if (root_->full()) {
    Node* const above = make_node(false);
    above->children[0] = root_;
    above->count = 1;
    root_ = above;
    split_child(root_, 0);
  }
  Node* node = own(root_);
  while (!node->leaf) {
    size_t at = node->child(cell->key());
    if (node->children[at]->full()) {
      split_child(node, at);
      if (node->cells[at + 1]->key() <= cell->key()) ++at;
    }
    node = own(node->children[at]);
  }
  insert_into(node, cell);
}

void LsmCache::put(std::string_view key, std::string_view value, bool removal) {
  insert(make_cell(key, value, removal, live_));
  sweep(4);
}

void LsmCache::remember(std::string_view key, std::string_view value) {
  if (find(key) == nullptr) insert(make_cell(key, value, false, 0));
  sweep(4);
}

const LsmCell* LsmCache::find(std::string_view key) {
  Node* node = root_;
  while (!node->leaf) node = node->children[node->child(key)];
  const size_t at = node->position(key);
  if (at == node->count || node->cells[at]->key() != key) return nullptr;
  node->cells[at]->touched = true;
  return node->cells[at];
}

bool LsmCache::erase(Node*& slot, std::string_view key) {
  Node* const node = own(slot);
  if (node->leaf) {
    const size_t at = node->position(key);
    CHECK(at < node->count && node->cells[at]->key() == key);
    drop(node->cells[at]);
    close_gap(node->cells, at, node->count);
    node->cells[--node->count] = nullptr;
    return node->count == 0;
  }
  const size_t at = node->child(key);
  if (!erase(node->children[at], key)) return false;
  drop(node->children[at]);
  close_gap(node->children, at, node->count);
  if (at == 0 && node->count > 1) {  // The second becomes the first, which has no separator.
    drop(std::exchange(node->cells[1], nullptr));
    close_gap(node->cells, 0, node->count);
  } else {
    drop(std::exchange(node->cells[at], nullptr));
    close_gap(node->cells, at, node->count);
  }
  --node->count;
  node->cells[node->count] = nullptr;
  node->children[node->count] = nullptr;
  return node->count == 0;
}

size_t LsmCache::evict_some() {
  const Node* node = root_;
  std::string_view bound;  // The first key of the next leaf.
  while (!node->leaf) {
    const size_t at = node->child(hand_);
    if (at + 1 < node->count) bound = node->cells[at + 1]->key();
    node = node->children[at];
  }
  std::vector<std::string> victims;
  for (size_t i = 0; i < node->count; ++i) {
    Cell& cell = *node->cells[i];
    if (cell.generation <= published_ && !cell.touched) victims.emplace_back(cell.key());
    cell.touched = false;
  }
  hand_ = std::string(bound);  // Empty: round again.
  for (const std::string& key : victims) {
    if (erase(root_, key)) {  // The last entry of all.
      drop(root_);
      root_ = make_node(true);
    }
    while (!root_->leaf && root_->count == 1) {
      Node* const child = root_->children[0];
      ++child->refs;
      drop(root_);
      root_ = child;
    }
  }
  sweep(8);
  return victims.size();
}

LsmCache::Snapshot LsmCache::snapshot() {
  Snapshot taken;
  taken.cache_ = this;
  taken.root_ = root_;
  taken.generation_ = live_;
  ++root_->refs;
  return taken;
}

LsmCache::Snapshot LsmCache::freeze() {
  Snapshot stable = snapshot();
  ++live_;
  dirty_bytes_ = 0;
  dirty_entries_ = 0;
  return stable;
}

uint64_t LsmCache::root_number() const { return root_->number; }
uint64_t LsmCache::Snapshot::root_number() const { return root_ == nullptr ? 0 : root_->number; }

void LsmCache::Snapshot::reset() {
  if (root_ != nullptr) cache_->drop(std::exchange(root_, nullptr));
}

LsmCache::Walk::Walk(const Snapshot& snapshot, std::string_view from, uint64_t oldest)
    : oldest_(oldest) {
  const LsmNode* node = snapshot.root_;
  while (!node->leaf) {
    const size_t at = node->child(from);
    path_.push_back({node, at + 1});
    node = node->children[at];
  }
  path_.push_back({node, node->position(from)});
}

const LsmCell* LsmCache::Walk::next() {
  while (!path_.empty()) {
    Step& step = path_.back();
    if (step.at == step.node->count) {
      path_.pop_back();
      continue;
    }
    const size_t at = step.at++;
    if (step.node->leaf) {
      const LsmCell* const cell = step.node->cells[at];
      if (cell->generation >= oldest_) return cell;
      continue;
    }
    const LsmNode* const child = step.node->children[at];
    if (child->generation >= oldest_) path_.push_back({child, 0});
  }
  return nullptr;
}

}  // namespace firn::store
