// SPDX-License-Identifier: Apache-2.0
// Restoring a snapshot: everything it shows is fetched by ranges, many at a time, planned by
// segments, and written in whatever order it comes.
//
//  R1  What is written was checked: the checksum of its group, and the seal where there is one.
//  R2  Damage is found, named, and does not stop the rest.
//  R3  Memory does not grow with the disk.
//  R4  Others may push, delete and clean meanwhile: what is not where it was is looked for once
//      more, in the newest metadata, before it counts as damage.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "archive/archive.h"

namespace firn::archive {

inline constexpr unsigned kRangesInFlight = 16;

class RestoreTarget {
 public:
  virtual ~RestoreTarget() = default;
  virtual unsigned lanes() const = 0;
  // By several fibers at a time, each with its own `lane`. What is never written reads as zeroes.
  virtual Result<void> write(Io& io, unsigned lane, uint64_t at, View from) = 0;

 protected:
  RestoreTarget() = default;
};

struct DamagedRange {
  Range range;  // Of the disk, in bytes.
  std::string object;
  std::string why;
};

struct RestoreReport {
  uint64_t bytes = 0;                 // Written.
  uint64_t ranges = 0;                // Asked for.
  std::vector<DamagedRange> damaged;  // At most 1000.
  uint64_t damaged_bytes = 0;
};

// How to fetch pieces of segments.
struct FetchPiece {
  uint64_t grain = 0;
  uint32_t count = 0;
  uint16_t slot = 0;
};
struct FetchJob {
  uint32_t disk = 0;
  uint64_t segment = 0;
  std::vector<FetchPiece> pieces;  // Ascending by slot.
};
// What each run of the job holds, in pieces of whole grains; several calls for one piece.
using FetchSink = std::function<Result<void>(uint64_t grain, View content)>;
// One job: its head, then ranges of groups. Reads again, once, when the segment has changed.
Result<uint64_t> fetch(Io& io, Archive& archive, const FetchJob& job, const FetchSink& sink);

// What is wanted of the job, in its order.
FetchJob narrowed(const FetchJob& job, const std::function<bool(uint64_t grain)>& wanted);

// The jobs of a run of regions of a snapshot.
Result<std::vector<FetchJob>> plan(Io& io, Archive& archive, uint32_t disk, uint32_t seq,
                                   uint32_t first_region, uint32_t end_region);

using RestoreProgress = std::function<void(uint64_t done_grains, uint64_t total_grains)>;
Result<RestoreReport> restore(Io& io, Archive& archive, const Archive::Found& snapshot,
                              RestoreTarget& target, const RestoreProgress& progress);

}  // namespace firn::archive
