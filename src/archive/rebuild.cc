// SPDX-License-Identifier: Apache-2.0
// Notes on the design. One listing finds all segments; their heads say what they are. Manifests
// give the snapshots and their logical maps; indexes of data segments say where each chunk lies;
// references are what the maps refer to. The new metadata is written into an empty tree: until its
// first publish there is none, so a rebuild that is killed is begun again.
#include <algorithm>
#include <map>

#include "archive/audit.h"
#include "archive/places.h"
#include "archive/push_commit.h"

namespace firn::archive {
namespace {

using format::ManifestExtent;
using format::SegmentBlock;
using format::SegmentHeader;
using format::SnapshotRow;

constexpr size_t kFindingsMax = 1000;
constexpr size_t kPage = 1000;

Result<void> list_all(Io& io, ObjectStore& store, const std::string& prefix,
                      const std::function<Result<void>(const ObjectInfo&)>& take) {
  std::string after;
  while (true) {
    const std::vector<ObjectInfo> page = TRY(store.list(io, prefix, after, kPage));
    for (const ObjectInfo& object : page) TRY(take(object));
    if (page.size() < kPage) return ok;
    after = page.back().key;
  }
}

// The label is copied into every segment.
Result<void> restore_label(Io& io, ObjectStore& store) {
  const Result<ObjectInfo> there = store.head(io, kLabelKey);
  if (there || there.error().code != Errc::not_found) return ok;
  std::optional<std::vector<std::byte>> found;
  for (const char* prefix : {"d/", "c/"}) {
    std::string after;
    while (!found.has_value()) {
      const std::vector<ObjectInfo> page = TRY(store.list(io, prefix, after, kPage));
      for (const ObjectInfo& object : page) {
        std::vector<std::byte> bytes(format::kArchiveLabelBytes);
        const Result<size_t> got = store.get(io, object.key, format::kSegmentHeaderBytes, bytes);
        if (got && *got == bytes.size() && format::decode_archive_label(bytes)) {
          found = std::move(bytes);
          break;
        }
      }
      if (page.size() < kPage) break;
      after = page.back().key;
    }
  }
  if (!found.has_value()) {
    return fail(Errc::not_found, "{}: there is neither an archive nor a segment of one",
                store.name());
  }
  const ::iovec body = slice_of(View(*found));
  return store.put(io, kLabelKey, Iovec(&body, 1), {.once = true});
}

class Rebuilder {
 public:
  Rebuilder(Io& io, Archive& archive) : io_(io), archive_(archive) {}
  Result<RebuildReport> run();

 private:
  struct Manifest {
    SnapshotRow row;
    std::map<uint32_t, uint64_t> parts;  // Part to segment.
    uint32_t count = 0;                  // 0: the last part was not met.
  };
  struct Disk {
    uint32_t number = 0;
    format::DiskRow row;
    std::map<std::pair<uint32_t, uint32_t>, Manifest> manifests;  // By seq and revision.
  };
  void find(std::string text) {
    if (report_.findings.size() < kFindingsMax) report_.findings.push_back(std::move(text));
  }
  Result<void> read_object(const ObjectInfo& object);
  Result<void> read_data(Disk& disk, const SegmentName& name, const SegmentHead& head);
  Result<void> read_manifest(Disk& disk, const SegmentName& name, const SegmentHead& head);
  Result<bool> write_snapshot(const Disk& disk, const Manifest& manifest);
  Result<std::vector<ManifestExtent>> extents_of(const Disk& disk, const Manifest& manifest);
  void count(uint64_t chunk, uint64_t count);
  bool all_there(const std::vector<ManifestExtent>& extents) const;
  Result<void> write_chunks();
  Result<void> write_hints();
  Disk& disk_of(const format::Uuid& uuid);

  Io& io_;
  Archive& archive_;
  std::map<format::Uuid, Disk> disks_;
  std::map<std::pair<uint32_t, uint64_t>, format::SegmentRow> segments_;
  std::vector<Place> places_;          // Ascending, not overlapping, once settled.
  std::map<uint64_t, int64_t> steps_;  // References, as differences.
  uint64_t chunk_end_ = 1;
  RebuildReport report_;
};

Rebuilder::Disk& Rebuilder::disk_of(const format::Uuid& uuid) {
  Disk& disk = disks_[uuid];
  if (disk.number == 0) {
    disk.number = static_cast<uint32_t>(disks_.size());
    disk.row.uuid = uuid;
    disk.row.name = format::uuid_text(uuid);
  }
  return disk;
}

Result<void> Rebuilder::read_data(Disk& disk, const SegmentName& name, const SegmentHead& head) {
  format::SegmentRow row;
  row.slots = head.header.slots;
  row.live.emplace();
  row.bytes = format::shape_of(head.header).bytes;
  row.head_bytes = static_cast<uint32_t>(format::shape_of(head.header).payload_at);
  row.generation = head.header.generation;
  row.present = head.header.present;
  row.tier = name.tier;
  row.created_ns = static_cast<int64_t>(head.header.created_ns.get());
  segments_[{disk.number, name.segment}] = std::move(row);
  ++report_.segments;
  for (const SegmentBlock& block : TRY(archive_.reader().blocks(io_, head))) {
    chunk_end_ = std::max(chunk_end_, block.chunk + 1);
    if (!places_.empty()) {
      Place& last = places_.back();
      if (last.disk == disk.number && last.segment == name.segment && last.end() == block.chunk &&
          last.slot + last.count == block.slot) {
        ++last.count;
        continue;
      }
    }
    places_.push_back({block.chunk, 1, disk.number, name.segment, block.slot});
  }
  return ok;
}

Result<void> Rebuilder::read_manifest(Disk& disk, const SegmentName& name,
                                      const SegmentHead& head) {
  const std::string record = TRY(archive_.reader().record(io_, head));
  SnapshotRow row = TRY(format::decode_snapshot_row(record));
  Manifest& manifest = disk.manifests[{row.seq, head.header.revision}];
  manifest.row = std::move(row);
  manifest.parts[head.header.part] = name.segment;
  if (head.header.parts != 0) manifest.count = head.header.parts;
  return ok;
}

Result<void> Rebuilder::read_object(const ObjectInfo& object) {
  ++report_.objects;
  const std::optional<SegmentName> name = parse_segment_key(object.key);
  if (!name.has_value()) {
    find(fmt::format("object {}: not the name of a segment", object.key));
    return ok;
  }
  const auto read = [&]() -> Result<void> {
    const std::shared_ptr<SegmentHead> head = TRY(archive_.reader().read_head(io_, object.key, 0));
    const SegmentHeader& header = head->header;
    if (header.archive != archive_.label().uuid || header.disk != name->disk ||
        header.segment_id != name->segment) {
      return fail(Errc::corrupt, "object {}: it is another segment", object.key);
    }
    if (object.bytes != format::shape_of(header).bytes) {
      find(fmt::format("object {}: {} bytes of {}", object.key, object.bytes,
                       format::shape_of(header).bytes));
    }
    Disk& disk = disk_of(name->disk);
    disk.row.next_segment = std::max(disk.row.next_segment, name->segment + 1);
    return header.kind == std::byte{1} ? read_data(disk, *name, *head)
                                       : read_manifest(disk, *name, *head);
  };
  const Result<void> done = read();
  if (done) return ok;
  if (done.error().code != Errc::corrupt && done.error().code != Errc::not_found) {
    return done.error();
  }
  find(std::string(text_of(done.error())));
  return ok;
}

void Rebuilder::count(uint64_t chunk, uint64_t count) {
  ++steps_[chunk];
  --steps_[chunk + count];
}

bool Rebuilder::all_there(const std::vector<ManifestExtent>& extents) const {
  for (const ManifestExtent& each : extents) {
    if (each.chunk == 0) continue;
    uint64_t at = each.chunk;
    const uint64_t end = at + each.count;
    while (at < end) {
      auto place = std::ranges::upper_bound(places_, at, {}, &Place::first);
      if (place == places_.begin() || (--place)->end() <= at) return false;
      at = place->end();
    }
  }
  return true;
}

Result<std::vector<ManifestExtent>> Rebuilder::extents_of(const Disk& disk,
                                                          const Manifest& manifest) {
  std::vector<ManifestExtent> extents;
  for (uint32_t part = 0; part < manifest.count; ++part) {
    const auto segment = manifest.parts.find(part);
    if (segment == manifest.parts.end()) return fail(Errc::not_found, "part {} is missing", part);
    const std::shared_ptr<const SegmentHead> head =
        TRY(archive_.reader().head(io_, {disk.row.uuid, segment->second, 0}, 0));
    std::vector<std::byte> plain;
    for (uint32_t group = 0; group < head->groups.size(); ++group) {
      TRY(archive_.reader().groups(io_, *head, group, group + 1, plain));
      for (size_t at = 0; at + sizeof(ManifestExtent) <= plain.size();
           at += sizeof(ManifestExtent)) {
        extents.push_back(load<ManifestExtent>(View(plain).subspan(at)));
      }
    }
  }
  TRY(format::check_extents(extents));
  return extents;
}

Result<bool> Rebuilder::write_snapshot(const Disk& disk, const Manifest& manifest) {
  const std::string name = manifest.row.disk + "@" + manifest.row.name;
  const Result<std::vector<ManifestExtent>> extents = extents_of(disk, manifest);
  if (manifest.count == 0 || !extents) {
    find(fmt::format("snapshot {}: its manifest is not whole: {}", name,
                     extents ? "the last part is missing" : text_of(extents.error())));
    return false;
  }
  if (!all_there(*extents)) {
    find(fmt::format("snapshot {}: blocks of it are in no segment", name));
  }
  std::vector<format::RegionExtent> own;
  uint64_t region = 0;
  const auto close = [&]() -> Result<void> {
    if (own.empty()) return ok;
    TRY(stage_region(io_, archive_.meta(), disk.number, static_cast<uint32_t>(region),
                     manifest.row.seq, std::move(own)));
    own.clear();
    return archive_.full() ? archive_.apply(io_) : Result<void>(ok);
  };
  for (const ManifestExtent& each : *extents) {
    uint64_t grain = each.grain;
    uint64_t chunk = each.chunk;
    uint64_t left = each.count;
    if (chunk != 0) count(chunk, left);
    while (left > 0) {
      if (grain / format::kRegionGrains != region) {
        TRY(close());
        region = grain / format::kRegionGrains;
      }
      const uint64_t start = grain % format::kRegionGrains;
      const uint64_t n = std::min<uint64_t>(left, format::kRegionGrains - start);
      append(own, {static_cast<uint16_t>(start), static_cast<uint16_t>(n), chunk});
      grain += n;
      left -= n;
      if (chunk != 0) chunk += n;
    }
  }
  TRY(close());
  return true;
}

Result<void> Rebuilder::write_chunks() {
  // Walks places and references side by side: both ascend.
  int64_t weight = 0;
  auto step = steps_.begin();
  for (const Place& place : places_) {
    uint64_t at = place.first;
    while (at < place.end()) {
      for (; step != steps_.end() && step->first <= at; ++step) weight += step->second;
      const uint64_t end = step == steps_.end() ? place.end() : std::min(place.end(), step->first);
      if (weight > 0) {
        const auto slot = static_cast<uint16_t>(place.slot + (at - place.first));
        TRY(archive_.chunks().insert(
            io_, {at, end - at, place.disk, place.segment, slot, static_cast<uint32_t>(weight)}));
        std::vector<uint16_t>& live = *segments_[{place.disk, place.segment}].live;
        for (uint64_t i = 0; i < end - at; ++i) live.push_back(static_cast<uint16_t>(slot + i));
        report_.chunks += end - at;
        if (archive_.full()) TRY(archive_.apply(io_));
      }
      at = end;
    }
  }
  for (auto& [address, row] : segments_) {
    std::ranges::sort(*row.live);
    row.live_count = static_cast<uint32_t>(row.live->size());
    archive_.usage().add(address.first, address.second, row);
    TRY(archive_.apply(io_));
  }
  return ok;
}

Result<void> Rebuilder::write_hints() {
  const unsigned mask = (1U << static_cast<unsigned>(archive_.label().sample)) - 1;
  for (const auto& [address, row] : segments_) {
    if (row.tier != 0 || row.live_count == 0) continue;
    const SegmentName name = TRY(archive_.place_of(io_, address.first, address.second));
    const std::shared_ptr<const SegmentHead> head =
        TRY(archive_.reader().head(io_, name, row.head_bytes));
    for (const SegmentBlock& block : TRY(archive_.reader().blocks(io_, *head))) {
      if ((static_cast<unsigned>(block.identity[31]) & mask) != 0) continue;
      archive_.meta().put(format::hint_key(block.identity), format::encode_hint(block.chunk));
      if (archive_.full()) TRY(archive_.apply(io_));
    }
  }
  return ok;
}

Result<RebuildReport> Rebuilder::run() {
  for (const char* prefix : {"d/", "c/"}) {
    TRY(list_all(io_, archive_.store(), prefix,
                 [this](const ObjectInfo& object) { return read_object(object); }));
  }
  places_ = settled(std::move(places_));
  for (auto& [uuid, disk] : disks_) {
    // Ascending: of each snapshot the highest revision that is whole.
    std::map<uint32_t, const Manifest*> newest;
    for (const auto& [key, manifest] : disk.manifests) {
      chunk_end_ = std::max(chunk_end_, manifest.row.chunk_end);
      disk.row.next_segment = std::max(disk.row.next_segment, manifest.row.segment_end);
      disk.row.next_seq = std::max(disk.row.next_seq, key.first + 1);
      disk.row.name = manifest.row.disk;
      const bool whole = manifest.count != 0 && manifest.parts.size() == manifest.count;
      if (whole || !newest.contains(key.first)) newest[key.first] = &manifest;
    }
    for (const auto& [seq, manifest] : newest) {
      if (!TRY(write_snapshot(disk, *manifest))) continue;
      SnapshotRow row = manifest->row;
      row.state = format::SnapshotState::complete;
      row.manifest_segment = manifest->parts.begin()->second;
      row.manifest_parts = manifest->count;
      archive_.meta().put(format::snapshot_key(disk.number, seq), format::encode(row));
      ++report_.snapshots;
    }
    archive_.meta().put(format::disk_key(disk.number), format::encode(disk.row));
    TRY(archive_.apply(io_));
  }
  format::ArchiveRow counters;
  counters.next_disk = static_cast<uint32_t>(disks_.size()) + 1;
  counters.next_chunk = chunk_end_;
  archive_.meta().put(format::archive_key(), format::encode(counters));
  TRY(write_chunks());
  TRY(write_hints());
  TRY(archive_.publish(io_));
  return std::move(report_);
}

}  // namespace

Result<RebuildReport> rebuild(Io& io, ObjectStore& store, const Credentials& credentials,
                              const std::string& log_directory) {
  TRY(restore_label(io, store));
  const std::string prefix = lsm_how().prefix;
  TRY(list_all(io, store, prefix,
               [&](const ObjectInfo& object) { return store.remove(io, object.key); }));
  Archive::How how;
  how.credentials = credentials;
  how.log_directory = log_directory;
  const std::unique_ptr<Archive> archive = TRY(Archive::open(io, store, std::move(how)));
  Result<RebuildReport> report = Rebuilder(io, *archive).run();
  const Result<void> closed = archive->close(io);
  if (report && !closed) return closed.error();
  return report;
}

}  // namespace firn::archive
