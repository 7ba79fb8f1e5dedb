// SPDX-License-Identifier: Apache-2.0
#include "policy/retention.h"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace firn::policy {
namespace {

using std::chrono::days;
using std::chrono::floor;

using Instant = std::chrono::sys_time<std::chrono::nanoseconds>;

// The number of the period that an instant lies in.
int64_t hour_of(Instant at) { return floor<std::chrono::hours>(at).time_since_epoch().count(); }
int64_t day_of(Instant at) { return floor<days>(at).time_since_epoch().count(); }
int64_t week_of(Instant at) {  // Day 0 was a Thursday.
  const int64_t since_monday = day_of(at) + 3;
  return since_monday >= 0 ? since_monday / 7 : (since_monday - 6) / 7;
}
int64_t month_of(Instant at) {
  const std::chrono::year_month_day date{floor<days>(at)};
  return int64_t{static_cast<int>(date.year())} * 12 + static_cast<unsigned>(date.month());
}
int64_t year_of(Instant at) {
  return static_cast<int>(std::chrono::year_month_day{floor<days>(at)}.year());
}

}  // namespace

std::vector<size_t> choose_expired(const RetentionRule& rule, std::span<const int64_t> created_ns) {
  if (rule.empty() || created_ns.empty()) return {};
  std::vector<size_t> order(created_ns.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater<>(), [&](size_t i) { return created_ns[i]; });
  std::vector<bool> kept(created_ns.size());
  for (size_t i = 0; i < std::min<size_t>(order.size(), std::max<uint32_t>(rule.last, 1)); ++i) {
    kept[order[i]] = true;
  }
  const auto keep_by = [&](uint32_t periods, int64_t (*period_of)(Instant)) {
    bool any = false;
    int64_t previous = 0;
    for (const size_t i : order) {
      if (periods == 0) return;
      const int64_t period = period_of(Instant(std::chrono::nanoseconds(created_ns[i])));
      if (any && period == previous) continue;
      any = true;
      previous = period;
      kept[i] = true;
      --periods;
    }
  };
  keep_by(rule.hourly, hour_of);
  keep_by(rule.daily, day_of);
  keep_by(rule.weekly, week_of);
  keep_by(rule.monthly, month_of);
  keep_by(rule.yearly, year_of);
  std::vector<size_t> expired;
  for (auto i = order.rbegin(); i != order.rend(); ++i) {
    if (!kept[*i]) expired.push_back(*i);
  }
  return expired;
}

}  // namespace firn::policy
