// SPDX-License-Identifier: Apache-2.0
// Which segments of an archive are rewritten, and how. Pure. Sources: US 11435935 (shrinking in
// place), US 11960450 (coalescing); the price of it is ours.
//
//  V1  What holds nothing is removed when its time has come, and never before.
//  V2  A segment in which at least `threshold` of the blocks is live is left alone; so is one that
//      is younger than min_age, or not released yet (a cold tier's minimum duration).
//  V3  Rewriting must pay: the storage saved until the horizon costs more than reading and writing.
//  V4  Large remainders shrink in place, which changes no map. Small ones are put together, of one
//      disk only, until they are a segment; one alone shrinks.
//  V5  Deciding again after doing it decides nothing: the result is not sparse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace firn::policy {

struct CleanRule {
  double threshold = 0.5;
  int64_t min_age_ns = int64_t{3600} * 1'000'000'000;
  uint64_t segment_bytes = uint64_t{16} << 20;
  uint64_t blocks_max = 65535;  // Of a segment, however small they are stored.
  double horizon_months = 12;
  size_t actions_max = 1000;  // In one run.
};

// What a tier charges, in any currency.
struct TierPrice {
  double byte_month = 0;  // Keeping.
  double byte_read = 0;   // Retrieval.
  double get = 0;         // A request.
  double put = 0;
};

struct CleanSegment {
  uint32_t disk = 0;
  uint64_t bytes = 0;
  uint32_t present = 0;  // Blocks in the object ...
  uint32_t live = 0;     // ... and those that somebody still shows.
  bool doomed = false;
  int64_t created_ns = 0;
  int64_t release_ns = 0;
};

struct CleanPlan {
  std::vector<size_t> remove;                 // Indices of segments that hold nothing.
  std::vector<size_t> shrink;                 // To be rewritten under their own names.
  std::vector<std::vector<size_t>> coalesce;  // Each group becomes one new segment.
};

CleanPlan plan_clean(const CleanRule& rule, const TierPrice& price,
                     std::span<const CleanSegment> segments, int64_t now_ns);

}  // namespace firn::policy
