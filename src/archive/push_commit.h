// SPDX-License-Identifier: Apache-2.0
// The life of a snapshot's row: reserved, committed, or undone. Shared by pushes and cleaning.
//
//  none -> uploading -> complete -> deleting -> none
//              `-----> aborted -> none
#pragma once

#include <span>

#include "archive/archive.h"
#include "archive/push.h"

namespace firn::archive {

// Whether who pushes it may be taken for dead: it had an hour, and a second for each 4 MB that it
// had to look at. Nothing is renewed: that would fence whoever else writes.
bool lease_is_over(const format::SnapshotRow& uploading, int64_t now_ns);
// How many segment ids a push of so many grains sets aside: never fewer than it can need.
uint64_t segments_to_reserve(uint64_t data_grains, uint64_t extents, uint64_t segment_bytes);

// A segment that a push put: chunks [first_chunk, + slots) lie in its slots.
struct PlacedSegment {
  uint64_t segment = 0;
  uint64_t first_chunk = 0;
  format::SegmentRow row;
};

struct Begun {
  DiskEntry disk;
  format::SnapshotRow row;
};
// Reserves ids durably. Errc::exists: it is there already; Errc::busy: somebody pushes this disk.
Result<Begun> begin_push(Io& io, Archive& archive, const PushRequest& request);

// Writes the manifest of a snapshot's difference: objects from `segment` on. Returns how many.
struct ManifestPut {
  uint32_t parts = 0;
  uint64_t bytes = 0;
};
class ManifestWriter {
 public:
  static constexpr uint32_t kPartExtents = 400'000;

  ManifestWriter(Io& io, Archive& archive, const DiskEntry& disk, const format::SnapshotRow& row,
                 uint64_t segment);
  Result<void> add(LogicalExtent extent);
  Result<ManifestPut> finish();

 private:
  void open_part();
  Result<void> close_part(bool last);

  Io& io_;
  Archive& archive_;
  const DiskEntry& disk_;
  format::SnapshotRow row_;
  uint64_t segment_;
  ManifestPut put_;
  std::unique_ptr<SegmentBuilder> part_;
};
Result<void> remove_manifest(Io& io, Archive& archive, const format::Uuid& disk,
                             const format::SnapshotRow& row);

// Makes it complete: rows of the logical map, of chunks and of segments, then the snapshot's own,
// published. Errc::not_found: a chunk that it shares has gone meanwhile; Errc::fenced: see A3.
Result<void> commit_push(Io& io, Archive& archive, const Begun& begun,
                         std::span<const LogicalExtent> extents,
                         std::span<const PlacedSegment> placed);

// Removes every row that a commit may have left, but not the snapshot's own.
Result<void> undo_rows(Io& io, Archive& archive, const DiskEntry& disk,
                       const format::SnapshotRow& row);
// The same, its objects and its own row: nothing is left. Published.
Result<void> abort_push(Io& io, Archive& archive, const DiskEntry& disk,
                        const format::SnapshotRow& row);

}  // namespace firn::archive
