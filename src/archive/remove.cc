// SPDX-License-Identifier: Apache-2.0
// Notes on the design. A row of the deleted snapshot K goes in the same batch in which its content
// reaches S, its successor, and its references are dropped: after a crash the rows of K that are
// left are exactly what is left to do.
#include "archive/remove.h"

#include <algorithm>

#include "archive/push_commit.h"
#include "base/check.h"

namespace firn::archive {

using format::RegionExtent;
using format::RegionRow;
using format::SnapshotRow;
using format::SnapshotState;

namespace {

struct Neighbours {
  SnapshotRow gone;
  std::optional<SnapshotRow> successor;
};

class Removal {
 public:
  Removal(Io& io, Archive& archive, const DiskEntry& disk, Neighbours of, RemovalReport& report)
      : io_(io), archive_(archive), disk_(disk), of_(std::move(of)), report_(report) {}
  Result<void> run();

 private:
  Result<void> merge_region(uint32_t region, const RegionRow& gone);
  Result<void> drop_covered(const RegionRow& gone, const RegionView* successor);
  Result<void> write_manifest();

  Io& io_;
  Archive& archive_;
  const DiskEntry& disk_;
  Neighbours of_;
  RemovalReport& report_;
};

// Nobody shows any more what the successor changed too.
Result<void> Removal::drop_covered(const RegionRow& gone, const RegionView* successor) {
  const auto dead = [&](const ChunkRun& run) {
    report_.freed_chunks += run.count;
    return archive_.usage().kill(io_, run.disk, run.segment, run.slot, run.count);
  };
  for (const RegionExtent& each : gone.own) {
    if (each.chunk == 0) continue;
    uint32_t i = 0;
    while (i < each.count) {
      const auto covered = [&](uint32_t at) {
        return successor == nullptr || successor->covers(each.start + at);
      };
      uint32_t n = 1;
      while (i + n < each.count && covered(i + n) == covered(i)) ++n;
      if (covered(i)) TRY(archive_.chunks().drop(io_, each.chunk + i, n, dead));
      i += n;
    }
  }
  return ok;
}

Result<void> Removal::merge_region(uint32_t region, const RegionRow& gone) {
  ++report_.regions;
  Meta& meta = archive_.meta();
  meta.remove(format::region_key(disk_.number, region, of_.gone.seq));
  if (!of_.successor.has_value()) {
    TRY(drop_covered(gone, nullptr));
    return ok;
  }
  const std::string key = format::region_key(disk_.number, region, of_.successor->seq);
  const std::optional<RegionRow> there = TRY(read_row(io_, meta, key, format::decode_region_row));
  RegionRow row;
  RegionView view;
  if (there.has_value()) {
    view.lay_under(there->own);
    TRY(drop_covered(gone, &view));
    row.flat = there->flat;
  }
  if (gone.flat.has_value() && !row.flat.has_value()) {  // Look-ups stay as short as they were.
    RegionView flat;
    if (there.has_value()) flat.lay_under(there->own);
    flat.lay_under(*gone.flat);
    row.flat = flat.extents(/*content=*/true);
  }
  view.lay_under(gone.own);
  row.own = view.extents(/*content=*/false);
  meta.put(key, format::encode(row));
  return ok;
}

Result<void> Removal::write_manifest() {
  SnapshotRow& row = *of_.successor;
  const SnapshotRow before = row;
  Meta& meta = archive_.meta();
  const std::string prefix = format::region_prefix(disk_.number);
  // Twice the same walk: first to know how many objects it takes, whose ids are reserved durably.
  uint64_t extents = 0;
  row.grains = 0;
  std::unique_ptr<ManifestWriter> writer;
  const auto walk = [&](auto&& take) -> Result<void> {
    const std::unique_ptr<Meta::Cursor> cursor =
        TRY(meta.scan(io_, prefix, format::end_of(prefix)));
    while (TRY(cursor->next(io_))) {
      const format::RegionAddress address = TRY(format::decode_region_key(cursor->key()));
      if (address.seq != row.seq) continue;
      for (const RegionExtent& each : TRY(format::decode_region_row(cursor->value())).own) {
        const uint64_t grain = uint64_t{address.region} * format::kRegionGrains + each.start;
        TRY(take(LogicalExtent{grain, each.count, each.chunk}));
      }
    }
    return ok;
  };
  TRY(walk([&](LogicalExtent extent) -> Result<void> {
    ++extents;
    if (extent.chunk != 0) row.grains += extent.count;
    return ok;
  }));
  row.extents = extents;
  ++row.revision;
  row.manifest_segment =
      TRY(archive_.reserve_segments(io_, disk_.number, extents / ManifestWriter::kPartExtents + 1));
  TRY(archive_.publish(io_));
  writer = std::make_unique<ManifestWriter>(io_, archive_, disk_, row, row.manifest_segment);
  TRY(walk([&](LogicalExtent extent) { return writer->add(extent); }));
  row.manifest_parts = TRY(writer->finish()).parts;
  meta.put(format::snapshot_key(disk_.number, row.seq), format::encode(row));
  TRY(archive_.publish(io_));
  return remove_manifest(io_, archive_, disk_.row.uuid, before);
}

Result<void> Removal::run() {
  Meta& meta = archive_.meta();
  const std::string prefix = format::region_prefix(disk_.number);
  {
    const std::unique_ptr<Meta::Cursor> cursor =
        TRY(meta.scan(io_, prefix, format::end_of(prefix)));
    while (TRY(cursor->next(io_))) {
      const format::RegionAddress address = TRY(format::decode_region_key(cursor->key()));
      if (address.seq != of_.gone.seq) continue;
      const RegionRow row = TRY(format::decode_region_row(cursor->value()));
      TRY(merge_region(address.region, row));
      if (archive_.full()) TRY(archive_.apply(io_));
    }
  }
  TRY(archive_.apply(io_));
  if (of_.successor.has_value()) TRY(write_manifest());
  TRY(remove_manifest(io_, archive_, disk_.row.uuid, of_.gone));
  meta.remove(format::snapshot_key(disk_.number, of_.gone.seq));
  TRY(archive_.publish(io_));
  ++report_.snapshots;
  return ok;
}

}  // namespace

Result<void> delete_snapshot(Io& io, Archive& archive, const Archive::Found& snapshot) {
  const int64_t now = io.wall_clock_ns();
  bool newest = true;
  for (const SnapshotRow& row : TRY(archive.snapshots(io, snapshot.disk.number))) {
    if (row.seq <= snapshot.snapshot.seq) continue;
    if (row.state == SnapshotState::complete) newest = false;
    if (row.state != SnapshotState::uploading && row.state != SnapshotState::aborted) continue;
    if (row.state == SnapshotState::uploading && !lease_is_over(row, now) && newest) {
      return fail(Errc::busy,
                  "archive {}: {}@{} is the base of a push by {} that has not ended; delete it "
                  "after that",
                  archive.store().name(), snapshot.snapshot.disk, snapshot.snapshot.name,
                  row.holder);
    }
    if (newest) TRY(abort_push(io, archive, snapshot.disk, row));
  }
  SnapshotRow row = snapshot.snapshot;
  row.state = SnapshotState::deleting;
  archive.meta().put(format::snapshot_key(snapshot.disk.number, row.seq), format::encode(row));
  return archive.publish(io);
}

Result<RemovalReport> finish_deletions(Io& io, Archive& archive) {
  RemovalReport report;
  for (const DiskEntry& disk : TRY(archive.disks(io))) {
    while (true) {
      std::optional<Neighbours> next;
      for (SnapshotRow& row : TRY(archive.snapshots(io, disk.number))) {
        if (!next.has_value()) {
          if (row.state == SnapshotState::deleting) next = Neighbours{std::move(row), {}};
        } else if (row.state == SnapshotState::complete || row.state == SnapshotState::deleting) {
          next->successor = std::move(row);
          break;
        }
      }
      if (!next.has_value()) break;
      TRY(Removal(io, archive, disk, std::move(*next), report).run());
    }
  }
  return report;
}

}  // namespace firn::archive
