// SPDX-License-Identifier: Apache-2.0
#include "policy/keep.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace firn::policy {

namespace {

std::vector<size_t> oldest_first(std::span<const KeepSnapshot> snapshots) {
  std::vector<size_t> order(snapshots.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const KeepSnapshot &left = snapshots[a], &right = snapshots[b];
    return std::tie(left.order, left.created_ns, left.name) <
           std::tie(right.order, right.created_ns, right.name);
  });
  return order;
}

}  // namespace

KeepChoice choose_doomed(KeepRule rule, std::span<const KeepSnapshot> snapshots,
                         uint64_t chain_layers) {
  const std::vector<size_t> order = oldest_first(snapshots);
  const size_t surplus =
      rule.keep > 0 && order.size() > rule.keep ? order.size() - rule.keep : size_t{0};
  uint64_t too_long =
      rule.chain_max > 0 && chain_layers > rule.chain_max ? chain_layers - rule.chain_max : 0;

  KeepChoice choice;
  uint64_t held = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const KeepSnapshot& snapshot = snapshots[order[rank]];
    const bool shortens = snapshot.in_chain && !snapshot.shared;
    const bool newest = rank + 1 == order.size();
    const bool for_number = rank < surplus;
    const bool for_chain = too_long > 0 && shortens && !newest;
    if (!for_number && !for_chain) continue;
    if (snapshot.in_use) {
      held += for_number ? 1 : 0;
      continue;
    }
    choice.doomed.push_back(order[rank]);
    if (shortens && too_long > 0) --too_long;
  }
  choice.blocked = std::max(held, too_long);
  return choice;
}

}  // namespace firn::policy
