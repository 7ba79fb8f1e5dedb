// SPDX-License-Identifier: Apache-2.0
#include "archive/push_commit.h"

#include <algorithm>

#include "base/check.h"

namespace firn::archive {

using format::kRegionGrains;
using format::RegionExtent;
using format::SnapshotRow;
using format::SnapshotState;

namespace {

Result<DiskEntry> find_or_make_disk(Io& io, Archive& archive, const PushRequest& request) {
  std::optional<DiskEntry> found = TRY(archive.find_disk(io, request.disk_uuid));
  if (found.has_value()) return std::move(*found);
  Meta& meta = archive.meta();
  format::ArchiveRow counters =
      TRY(read_row(io, meta, format::archive_key(), format::decode_archive_row))
          .value_or(format::ArchiveRow());
  DiskEntry disk;
  disk.number = counters.next_disk++;
  disk.row.uuid = request.disk_uuid;
  meta.put(format::archive_key(), format::encode(counters));
  return disk;
}

Result<void> settle_others(Io& io, Archive& archive, const DiskEntry& disk,
                           const PushRequest& request) {
  const int64_t now = io.wall_clock_ns();
  for (const SnapshotRow& row : TRY(archive.snapshots(io, disk.number))) {
    if (row.uuid == request.snapshot_uuid && row.state == SnapshotState::complete) {
      return fail(Errc::exists, "archive {}: {}@{} is there already", archive.store().name(),
                  row.disk, row.name);
    }
    if (row.state != SnapshotState::uploading && row.state != SnapshotState::aborted) continue;
    const bool mine = row.holder == request.holder;
    const bool over = lease_is_over(row, now) || row.state == SnapshotState::aborted;
    if (!mine && !over && !request.take_over) {
      return fail(
          Errc::busy,
          "archive {}: disk {} is being pushed by {}; wait, or give --take-over if that has "
          "ended",
          archive.store().name(), request.disk, row.holder);
    }
    TRY(abort_push(io, archive, disk, row));
  }
  return ok;
}

}  // namespace

bool lease_is_over(const SnapshotRow& uploading, int64_t now_ns) {
  constexpr int64_t kHourNs = int64_t{3600} * 1'000'000'000;
  constexpr int64_t kGrainNs = 1'000'000;
  const uint64_t grains =
      std::min(uploading.chunk_end - uploading.chunk_first, uint64_t{format::kArchiveGrainsMax});
  const int64_t lease = kHourNs + static_cast<int64_t>(grains) * kGrainNs;
  return now_ns - uploading.pushed_ns > lease;
}

// Blocks that do not shrink are stored as they are, with a few bytes for each group: half a segment
// of them fills it for certain. An extent is a grain at least.
uint64_t segments_to_reserve(uint64_t data_grains, uint64_t extents, uint64_t segment_bytes) {
  constexpr uint64_t kFew = uint64_t{1} << 20;
  const uint64_t data = data_grains / (segment_bytes / kGrainBytes / 2) + 1;
  const uint64_t manifest = extents / ManifestWriter::kPartExtents + 1;
  return std::max(kFew, data + manifest);
}

Result<Begun> begin_push(Io& io, Archive& archive, const PushRequest& request) {
  Meta& meta = archive.meta();
  DiskEntry disk = TRY(find_or_make_disk(io, archive, request));
  TRY(settle_others(io, archive, disk, request));
  format::ArchiveRow counters =
      TRY(read_row(io, meta, format::archive_key(), format::decode_archive_row))
          .value_or(format::ArchiveRow());
  uint64_t grains = 0;
  uint64_t touched = 0;
  for (const TouchedRun& run : request.touched) {
    grains += run.zero ? 0 : run.count;
    touched += run.count;
  }
  SnapshotRow row;
  row.uuid = request.snapshot_uuid;
  row.seq = disk.row.next_seq++;
  row.bytes = request.bytes;
  row.created_ns = request.created_ns;
  row.pushed_ns = io.wall_clock_ns();
  row.segment_first = disk.row.next_segment;
  row.segment_end =
      row.segment_first + segments_to_reserve(grains, touched, archive.label().segment_bytes);
  row.chunk_first = counters.next_chunk;
  row.chunk_end = row.chunk_first + grains;
  row.disk = request.disk;
  row.name = request.name;
  row.holder = request.holder.substr(0, format::kArchiveNameMax);
  counters.next_chunk = row.chunk_end;
  if (counters.next_chunk > format::kChunkIdMax) {
    return fail(Errc::unsupported, "archive {}: no chunk ids are left", archive.store().name());
  }
  disk.row.next_segment = row.segment_end;
  disk.row.name = request.disk;
  meta.put(format::archive_key(), format::encode(counters));
  meta.put(format::disk_key(disk.number), format::encode(disk.row));
  meta.put(format::snapshot_key(disk.number, row.seq), format::encode(row));
  TRY(archive.publish(io));
  return Begun{std::move(disk), std::move(row)};
}

// --- the manifest

ManifestWriter::ManifestWriter(Io& io, Archive& archive, const DiskEntry& disk,
                               const SnapshotRow& row, uint64_t segment)
    : io_(io), archive_(archive), disk_(disk), row_(row), segment_(segment) {
  row_.state = SnapshotState::complete;  // As which it counts once all parts are there.
  open_part();
}

void ManifestWriter::open_part() {
  format::SegmentHeader header;
  header.kind = std::byte{static_cast<uint8_t>(format::SegmentKind::manifest)};
  header.disk = disk_.row.uuid;
  header.segment_id = segment_ + put_.parts;
  header.created_ns = static_cast<uint64_t>(io_.wall_clock_ns());
  header.seq_min = row_.seq;
  header.seq_max = row_.seq;
  header.part = put_.parts;
  header.revision = row_.revision;
  part_ = std::make_unique<SegmentBuilder>(io_, archive_.forge(), header);
}

Result<void> ManifestWriter::close_part(bool last) {
  if (last) part_->end_of_parts(put_.parts + 1);
  part_->finish(format::encode(row_));
  const std::vector<::iovec> body = part_->object();
  const std::string key = segment_key(disk_.row.uuid, segment_ + put_.parts, 0);
  TRY(archive_.store().put(io_, key, body, {}));
  put_.bytes += part_->bytes();
  ++put_.parts;
  part_.reset();
  return ok;
}

Result<void> ManifestWriter::add(LogicalExtent extent) {
  if (part_->items() >= kPartExtents) {
    TRY(close_part(/*last=*/false));
    open_part();
  }
  part_->add(
      format::ManifestExtent{extent.grain, static_cast<uint32_t>(extent.count), extent.chunk});
  return ok;
}

Result<ManifestPut> ManifestWriter::finish() {
  TRY(close_part(/*last=*/true));
  return put_;
}

Result<void> remove_manifest(Io& io, Archive& archive, const format::Uuid& disk,
                             const SnapshotRow& row) {
  for (uint32_t part = 0; part < row.manifest_parts; ++part) {
    TRY(archive.store().remove(io, segment_key(disk, row.manifest_segment + part, 0)));
  }
  return ok;
}

// --- the commit

namespace {

// Inserts new chunks at their first appearance, and counts the later ones.
class References {
 public:
  References(Archive& archive, uint32_t disk, std::span<const PlacedSegment> placed,
             uint64_t first_new)
      : archive_(archive), disk_(disk), placed_(placed), next_new_(first_new) {}

  Result<void> take(Io& io, uint64_t chunk, uint64_t count) {
    while (count > 0) {
      uint64_t now = count;
      if (chunk == next_new_) {
        const PlacedSegment& segment = segment_of(chunk);
        now = std::min(count, segment.first_chunk + segment.row.slots - chunk);
        const auto slot = static_cast<uint16_t>(chunk - segment.first_chunk);
        if (slot == 0) archive_.usage().add(disk_, segment.segment, segment.row);
        TRY(archive_.chunks().insert(io, {chunk, now, disk_, segment.segment, slot, 1}));
        next_new_ += now;
      } else {
        if (chunk < next_new_) now = std::min(count, next_new_ - chunk);
        TRY(archive_.chunks().hold(io, chunk, now));
      }
      chunk += now;
      count -= now;
    }
    return ok;
  }

 private:
  const PlacedSegment& segment_of(uint64_t chunk) const {
    const auto behind = std::ranges::upper_bound(placed_, chunk, {}, &PlacedSegment::first_chunk);
    CHECK(behind != placed_.begin());
    return *(behind - 1);
  }

  Archive& archive_;
  uint32_t disk_;
  std::span<const PlacedSegment> placed_;
  uint64_t next_new_;
};

}  // namespace

Result<void> commit_push(Io& io, Archive& archive, const Begun& begun,
                         std::span<const LogicalExtent> extents,
                         std::span<const PlacedSegment> placed) {
  const uint32_t disk = begun.disk.number;
  References references(archive, disk, placed, begun.row.chunk_first);
  std::vector<RegionExtent> own;
  uint64_t region = 0;
  const auto close_region = [&]() -> Result<void> {
    if (own.empty()) return ok;
    for (const RegionExtent& each : own) {
      if (each.chunk != 0) TRY(references.take(io, each.chunk, each.count));
    }
    TRY(stage_region(io, archive.meta(), disk, static_cast<uint32_t>(region), begun.row.seq,
                     std::move(own)));
    own.clear();
    // A region, its references and the usage of its segments are one batch.
    if (archive.full()) TRY(archive.apply(io));
    return ok;
  };
  for (LogicalExtent extent : extents) {
    while (extent.count > 0) {
      if (extent.grain / kRegionGrains != region) {
        TRY(close_region());
        region = extent.grain / kRegionGrains;
      }
      const uint64_t start = extent.grain % kRegionGrains;
      const uint64_t count = std::min(extent.count, kRegionGrains - start);
      append(own, {static_cast<uint16_t>(start), static_cast<uint16_t>(count), extent.chunk});
      extent.grain += count;
      extent.count -= count;
      if (extent.chunk != 0) extent.chunk += count;
    }
  }
  TRY(close_region());
  SnapshotRow row = begun.row;
  row.state = SnapshotState::complete;
  archive.meta().put(format::snapshot_key(disk, row.seq), format::encode(row));
  return archive.publish(io);
}

// --- undoing

Result<void> undo_rows(Io& io, Archive& archive, const DiskEntry& disk, const SnapshotRow& row) {
  Meta& meta = archive.meta();
  TRY(archive.apply(io));
  archive.usage().forget();
  const auto sweep = [&](const std::string& from, const std::string& to,
                         auto&& take) -> Result<void> {
    const std::unique_ptr<Meta::Cursor> cursor = TRY(meta.scan(io, from, to));
    while (TRY(cursor->next(io))) {
      TRY(take(cursor->key(), cursor->value()));
      if (archive.full()) TRY(archive.apply(io));
    }
    return ok;
  };
  const std::string prefix = format::region_prefix(disk.number);
  const auto no_dead = [&](const ChunkRun& run) {
    return archive.usage().kill(io, run.disk, run.segment, run.slot, run.count);
  };
  const auto drop_shared = [&](uint64_t first, uint64_t end) -> Result<void> {
    const uint64_t before = std::min(end, row.chunk_first);
    if (first < before) TRY(archive.chunks().drop(io, first, before - first, no_dead));
    const uint64_t behind = std::max(first, row.chunk_end);
    if (behind < end) TRY(archive.chunks().drop(io, behind, end - behind, no_dead));
    return ok;
  };
  // What it shared is given back; what was new goes as a whole, below.
  TRY(sweep(prefix, format::end_of(prefix),
            [&](std::string_view key, std::string_view value) -> Result<void> {
              if (TRY(format::decode_region_key(key)).seq != row.seq) return ok;
              for (const RegionExtent& each : TRY(format::decode_region_row(value)).own) {
                if (each.chunk == 0) continue;
                TRY(drop_shared(each.chunk, each.chunk + each.count));
              }
              meta.remove(std::string(key));
              return ok;
            }));
  const auto remove = [&](std::string_view key, std::string_view) -> Result<void> {
    meta.remove(std::string(key));
    return ok;
  };
  if (row.chunk_end > row.chunk_first) {
    TRY(sweep(format::chunk_key(row.chunk_first), format::chunk_key(row.chunk_end), remove));
  }
  TRY(sweep(format::usage_key(disk.number, row.segment_first),
            format::usage_key(disk.number, row.segment_end), remove));
  archive.chunks().forget();
  return archive.apply(io);
}

Result<void> abort_push(Io& io, Archive& archive, const DiskEntry& disk, const SnapshotRow& row) {
  // From now on the one who pushes it cannot commit it.
  SnapshotRow aborted = row;
  aborted.state = SnapshotState::aborted;
  archive.meta().put(format::snapshot_key(disk.number, row.seq), format::encode(aborted));
  TRY(archive.publish(io));
  TRY(undo_rows(io, archive, disk, row));
  const std::string prefix = segment_prefix(disk.row.uuid, 0);
  std::string after = segment_key(disk.row.uuid, row.segment_first - 1, 0);
  const std::string end = segment_key(disk.row.uuid, row.segment_end, 0);
  while (true) {
    const std::vector<ObjectInfo> page = TRY(archive.store().list(io, prefix, after, 1000));
    for (const ObjectInfo& object : page) {
      if (object.key >= end) break;
      TRY(archive.store().remove(io, object.key));
    }
    if (page.size() < 1000 || page.back().key >= end) break;
    after = page.back().key;
  }
  archive.meta().remove(format::snapshot_key(disk.number, row.seq));
  return archive.publish(io);
}

}  // namespace firn::archive
