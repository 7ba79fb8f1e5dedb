// SPDX-License-Identifier: Apache-2.0
// Which snapshots a schedule keeps: the newest of each of the last so many hours, days, weeks,
// months and years that have one. Pure; calendar in UTC.
//
//  Q1  The newest snapshot is always kept, and every one of the newest `last`.
//  Q2  A period without snapshots costs nothing of the number: a machine that was off for a month
//      keeps its older ones.
//  Q3  A rule of nothing but zeroes keeps everything.
//  Q4  Keeping again what was kept keeps it all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace firn::policy {

struct RetentionRule {
  uint32_t last = 0;
  uint32_t hourly = 0;
  uint32_t daily = 0;
  uint32_t weekly = 0;  // ISO weeks: from Monday.
  uint32_t monthly = 0;
  uint32_t yearly = 0;
  bool empty() const {
    return last == 0 && hourly == 0 && daily == 0 && weekly == 0 && monthly == 0 && yearly == 0;
  }
};

// `created_ns` of each snapshot, in any order; wall clock. Indices of those that go, oldest first.
std::vector<size_t> choose_expired(const RetentionRule& rule, std::span<const int64_t> created_ns);

}  // namespace firn::policy
