// SPDX-License-Identifier: Apache-2.0
// Which storage blocks of a family a shrink empties: the sparsest ones, as many as the holes of the
// others can take in. Source: US 8874859 (used grains move to unused places until a block holds
// none); the choice is ours.
//
//  K1  What the victims hold fits into the holes of the receivers: no free block is needed.
//  K2  No victim holds more than a receiver; full blocks are neither.
//  K3  Nothing to win, nothing chosen: emptied blocks are the gain, and there is at least one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace firn::policy {

struct ShrinkChoice {
  std::vector<size_t> victims;    // Indices; sparsest first.
  std::vector<size_t> receivers;  // Densest first.
  uint64_t moves = 0;             // Grains that the victims hold.
};

// `used`: grains in use of each block, 1 to `capacity`.
inline ShrinkChoice choose_victims(std::span<const uint16_t> used, uint32_t capacity) {
  std::vector<size_t> order;
  uint64_t holes = 0;
  for (size_t i = 0; i < used.size(); ++i) {
    if (used[i] == 0 || used[i] >= capacity) continue;
    order.push_back(i);
    holes += capacity - used[i];
  }
  std::ranges::stable_sort(order, {}, [&](size_t i) { return used[i]; });
  ShrinkChoice choice;
  size_t taken = 0;
  for (; taken + 1 < order.size(); ++taken) {
    const uint64_t here = used[order[taken]];
    const uint64_t holes_left = holes - (capacity - here);
    if (choice.moves + here > holes_left) break;
    choice.moves += here;
    holes = holes_left;
    choice.victims.push_back(order[taken]);
  }
  if (choice.victims.empty()) return choice;
  choice.receivers.assign(order.rbegin(), order.rend() - static_cast<ptrdiff_t>(taken));
  return choice;
}

// Unasked nobody's data is moved before space gets short: below a quarter of the pool. What lies in
// sparse blocks is no loss until then, and may be freed whole meanwhile.
inline bool space_is_short(uint64_t free_blocks, uint64_t blocks) {
  return free_blocks < blocks / 4;
}

// Whether it is worth doing unasked: a tenth of the family's blocks, and at least 16 of them.
inline bool shrink_pays(const ShrinkChoice& choice, size_t blocks_of_family) {
  return choice.victims.size() >= std::max<size_t>(16, blocks_of_family / 10);
}

}  // namespace firn::policy
