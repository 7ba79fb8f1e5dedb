// SPDX-License-Identifier: Apache-2.0
#include "policy/segment_clean.h"

#include <algorithm>
#include <map>

namespace firn::policy {
namespace {

uint64_t live_bytes(const CleanSegment& segment) {
  if (segment.present == 0) return 0;
  return segment.bytes * segment.live / segment.present;
}

bool pays(const CleanRule& rule, const TierPrice& price, const CleanSegment& segment) {
  const auto live = static_cast<double>(live_bytes(segment));
  const double saved =
      (static_cast<double>(segment.bytes) - live) * price.byte_month * rule.horizon_months;
  const double spent = live * price.byte_read + price.get + price.put;
  return spent == 0 || saved > spent;
}

bool is_sparse(const CleanRule& rule, const CleanSegment& segment) {
  return static_cast<double>(segment.live) < rule.threshold * static_cast<double>(segment.present);
}

}  // namespace

CleanPlan plan_clean(const CleanRule& rule, const TierPrice& price,
                     std::span<const CleanSegment> segments, int64_t now_ns) {
  CleanPlan plan;
  std::map<uint32_t, std::vector<size_t>> small;  // By disk.
  size_t actions = 0;
  for (size_t i = 0; i < segments.size() && actions < rule.actions_max; ++i) {
    const CleanSegment& segment = segments[i];
    if (segment.live == 0) {
      if (!segment.doomed || now_ns < segment.release_ns) continue;
      plan.remove.push_back(i);
      ++actions;
      continue;
    }
    const bool young = now_ns - segment.created_ns < rule.min_age_ns;
    if (young || now_ns < segment.release_ns || !is_sparse(rule, segment) ||
        !pays(rule, price, segment)) {
      continue;
    }
    ++actions;
    if (live_bytes(segment) >= rule.segment_bytes / 4) {
      plan.shrink.push_back(i);
    } else {
      small[segment.disk].push_back(i);
    }
  }
  for (auto& [disk, members] : small) {
    std::vector<size_t> group;
    uint64_t bytes = 0;
    uint64_t blocks = 0;
    const auto close = [&] {
      if (group.size() == 1) plan.shrink.push_back(group.front());
      if (group.size() > 1) plan.coalesce.push_back(group);
      group.clear();
      bytes = blocks = 0;
    };
    for (const size_t i : members) {
      if (bytes + live_bytes(segments[i]) > rule.segment_bytes ||
          blocks + segments[i].live > rule.blocks_max) {
        close();
      }
      group.push_back(i);
      bytes += live_bytes(segments[i]);
      blocks += segments[i].live;
    }
    close();
  }
  return plan;
}

}  // namespace firn::policy
