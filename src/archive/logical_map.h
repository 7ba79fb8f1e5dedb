// SPDX-License-Identifier: Apache-2.0
// The logical layer: which chunk each grain of a snapshot holds. Never where a chunk lies.
//
//  L1  A row says what one snapshot changed in one region of 1024 grains. The newest row not
//      younger than the snapshot that covers a grain decides; none: zeroes.
//  L2  Every 16th row of a region also says everything that the region shows (flat): a look-up
//      reads at most 16 rows. Flat extents hold no references.
//  L3  The rows of a deleted snapshot are merged into its successor's: nobody's content changes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "archive/meta.h"
#include "format/archive_rows.h"

namespace firn::archive {

inline constexpr uint32_t kFlatEvery = 16;

// A run of grains of a disk. Chunk 0: zeroes.
struct LogicalExtent {
  uint64_t grain = 0;
  uint64_t count = 0;
  uint64_t chunk = 0;
  uint64_t end() const { return grain + count; }
  bool operator==(const LogicalExtent&) const = default;
};
// Appends, joining with the last one where it goes on.
void append(std::vector<LogicalExtent>& to, LogicalExtent extent);
void append(std::vector<format::RegionExtent>& to, format::RegionExtent extent);

// The grains of one region while rows are laid over each other, the newest first.
class RegionView {
 public:
  RegionView();
  // Only grains that nothing newer covered take it.
  void lay_under(std::span<const format::RegionExtent> extents);
  void lay_over(std::span<const format::RegionExtent> extents);
  bool covers(uint32_t grain) const { return chunks_[grain] != kUnknown; }
  // 0: zeroes, or nothing known.
  uint64_t chunk_of(uint32_t grain) const { return covers(grain) ? chunks_[grain] : 0; }
  // Runs of what is covered; with `content` only those with a chunk.
  std::vector<format::RegionExtent> extents(bool content) const;

 private:
  static constexpr uint64_t kUnknown = UINT64_MAX;
  std::vector<uint64_t> chunks_;
};

struct RegionContent {
  std::vector<format::RegionExtent> extents;  // With a chunk; the rest is zeroes.
  uint32_t rows = 0;  // How many were read: those since the last flat one, and that.
};
// What a region shows at a snapshot.
Result<RegionContent> read_region(Io& io, Meta& meta, uint32_t disk, uint32_t region, uint32_t seq);

// Walks the regions of a snapshot in order; skips those that show nothing.
class SnapshotWalk {
 public:
  struct Region {
    uint32_t region = 0;
    std::vector<format::RegionExtent> extents;  // With a chunk.
  };
  // Regions in [first, end).
  static Result<std::unique_ptr<SnapshotWalk>> begin(Io& io, Meta& meta, uint32_t disk,
                                                     uint32_t seq, uint32_t first = 0,
                                                     uint32_t end = format::kRegionsMax);
  // False at the end.
  Result<bool> next(Io& io, Region& into);

 private:
  SnapshotWalk(std::unique_ptr<Meta::Cursor> cursor, uint32_t seq)
      : cursor_(std::move(cursor)), seq_(seq) {}

  std::unique_ptr<Meta::Cursor> cursor_;
  uint32_t seq_;
  bool has_ = false;  // The cursor stands on a row that is not used yet.
  bool started_ = false;
};

// Stages what snapshot `seq` changed in one region: its row, flattened when it is time.
Result<void> stage_region(Io& io, Meta& meta, uint32_t disk, uint32_t region, uint32_t seq,
                          std::vector<format::RegionExtent> own);

}  // namespace firn::archive
