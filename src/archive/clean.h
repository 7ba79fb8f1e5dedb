// SPDX-License-Identifier: Apache-2.0
// Cleaning: what deletions left is finished, empty segments go, sparse ones are rewritten
// (policy/segment_clean decides). No snapshot changes, and none is held up.
//
//  C1  A block is in a published place at every moment: a new object is put before the metadata
//      says so, an old one is removed not before `grace` after.
//  C2  Shrinking changes neither the chunk map nor the logical map; coalescing not the logical map.
//  C3  Objects that nobody knows are removed only when they cannot become known: their ids were
//      given out, and no push that may still commit holds them.
#pragma once

#include "archive/archive.h"
#include "archive/remove.h"
#include "policy/segment_clean.h"

namespace firn::archive {

struct CleanReport {
  RemovalReport removals;
  uint64_t removed_segments = 0;
  uint64_t removed_bytes = 0;
  uint64_t shrunk = 0;
  uint64_t coalesced = 0;  // Segments that became fewer ...
  uint64_t made = 0;       // ... these.
  uint64_t freed_bytes = 0;
  uint64_t garbage_objects = 0;
  uint64_t waiting_segments = 0;  // Empty, and in their grace.
};

struct CleanHow {
  policy::CleanRule rule;
  policy::TierPrice price;
  bool garbage = false;  // List the bucket for objects that nobody knows.
};
Result<CleanReport> clean(Io& io, Archive& archive, const CleanHow& how);

}  // namespace firn::archive
