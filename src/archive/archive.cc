// SPDX-License-Identifier: Apache-2.0
#include "archive/archive.h"

#include <algorithm>

#include "base/check.h"

namespace firn::archive {

using format::ArchiveLabel;
using format::SnapshotRow;
using format::SnapshotState;

store::LsmHow lsm_how() {
  store::LsmHow how;
  how.capacity_bytes = 16 * kMiB;
  how.cache_bytes = 16 * kMiB;
  how.index_cache_bytes = 8 * kMiB;
  how.table_bytes = 4 * kMiB;
  how.drop_stale_log = true;  // What was not published was acknowledged to nobody (A1).
  return how;
}

Result<ArchiveLabel> create_archive(Io& io, ObjectStore& store, const CreateHow& how) {
  ArchiveLabel label;
  random_bytes(label.uuid);
  label.created_ns = static_cast<uint64_t>(io.wall_clock_ns());
  label.segment_bytes = static_cast<uint32_t>(how.segment_bytes);
  label.level = static_cast<std::byte>(how.level);
  label.sample = std::byte{3};
  TRY(make_secrets(label, how.credentials));
  const auto bytes = format::encode(label);
  const ::iovec body = slice_of(View(bytes));
  const Result<void> put = store.put(io, kLabelKey, Iovec(&body, 1), {.once = true});
  if (put) return label;
  std::array<std::byte, format::kArchiveLabelBytes> there{};
  const Result<size_t> got = store.get(io, kLabelKey, 0, there);
  // A lost acknowledgement: it is ours.
  if (got && *got == there.size() && std::ranges::equal(there, bytes)) return label;
  if (put.error().code != Errc::exists) return put.error();
  return fail(Errc::exists, "{}: there is an archive already", store.name());
}

Result<std::unique_ptr<Archive>> Archive::open(Io& io, ObjectStore& store, How how) {
  std::array<std::byte, format::kArchiveLabelBytes> bytes{};
  const Result<size_t> got = store.get(io, kLabelKey, 0, bytes);
  if (!got && got.error().code == Errc::not_found) {
    return fail(Errc::not_found, "{}: there is no archive; make one with firn archive create",
                store.name());
  }
  if (!got) return got.error();
  SegmentForge forge;
  forge.label = TRY(format::decode_archive_label(View(bytes).first(*got)));
  const bool locked =
      forge.label.key_source != std::byte{} && how.credentials.source == format::KeySource::none;
  if (how.keyless && locked) {
    forge.secrets.encrypted = true;  // With a key that opens nothing.
  } else {
    forge.secrets = TRY(unlock(forge.label, how.credentials));
  }
  std::unique_ptr<Archive> archive(new Archive(store, std::move(how), std::move(forge)));
  TRY(archive->open_meta(io));
  return archive;
}

namespace {

// As the writer. Of several that come at the same time one is first; the others try again.
Result<std::unique_ptr<store::Lsm>> take_over(Io& io, ObjectStore& store,
                                              const std::string& log_directory) {
  constexpr int kTries = 8;
  for (int i = 1;; ++i) {
    Result<std::unique_ptr<store::Lsm>> lsm = store::Lsm::open(io, store, log_directory, lsm_how());
    if (lsm || lsm.error().code != Errc::fenced || i == kTries) return lsm;
    io.sleep(std::chrono::milliseconds(1 + io.random() % 50));
  }
}

}  // namespace

Result<void> Archive::open_meta(Io& io) {
  std::unique_ptr<store::Lsm> lsm = how_.log_directory.empty()
                                        ? TRY(store::Lsm::open_reader(io, store_, lsm_how()))
                                        : TRY(take_over(io, store_, how_.log_directory));
  meta_ = std::make_unique<Meta>(std::move(lsm));
  chunks_ = std::make_unique<ChunkMap>(*meta_);
  usage_ = std::make_unique<Usage>(*meta_);
  uuids_.clear();
  return ok;
}

Result<void> Archive::close(Io& io) {
  const Result<void> closed = meta_->close(io);
  // Another writer is there by now. What was promised is published; the rest were hints.
  if (!closed && closed.error().code == Errc::fenced) return ok;
  return closed;
}

Result<void> Archive::reopen(Io& io) {
  static_cast<void>(meta_->close(io).has_value());  // Fenced: it has nothing to say.
  return open_meta(io);
}

Result<void> Archive::apply(Io& io) {
  usage_->stage(io.wall_clock_ns(), how_.grace_ns);
  return meta_->apply(io);
}

Result<void> Archive::publish(Io& io) {
  TRY(apply(io));
  return meta_->publish(io);
}

void Archive::forget() {
  meta_->forget();
  usage_->forget();
  chunks_->forget();
}

Result<std::vector<DiskEntry>> Archive::disks(Io& io) {
  std::vector<DiskEntry> disks;
  const std::unique_ptr<Meta::Cursor> cursor = TRY(meta_->scan(io, "d", format::end_of("d")));
  while (TRY(cursor->next(io))) {
    disks.push_back({TRY(format::decode_disk_key(cursor->key())),
                     TRY(format::decode_disk_row(cursor->value()))});
  }
  return disks;
}

Result<std::optional<DiskEntry>> Archive::find_disk(Io& io, const format::Uuid& uuid) {
  for (DiskEntry& disk : TRY(disks(io))) {
    if (disk.row.uuid == uuid) return std::optional<DiskEntry>(std::move(disk));
  }
  return std::optional<DiskEntry>();
}

Result<DiskEntry> Archive::disk(Io& io, uint32_t number) {
  std::optional<format::DiskRow> row =
      TRY(read_row(io, *meta_, format::disk_key(number), format::decode_disk_row));
  if (row.has_value()) return DiskEntry{number, std::move(*row)};
  return fail(Errc::corrupt, "archive {}: disk {} is referred to, but is not there", store_.name(),
              number);
}

Result<std::vector<SnapshotRow>> Archive::snapshots(Io& io, uint32_t disk) {
  std::vector<SnapshotRow> rows;
  const std::string prefix = format::snapshot_key(disk, 0).substr(0, 5);
  const std::unique_ptr<Meta::Cursor> cursor = TRY(meta_->scan(io, prefix, format::end_of(prefix)));
  while (TRY(cursor->next(io))) rows.push_back(TRY(format::decode_snapshot_row(cursor->value())));
  return rows;
}

Result<Archive::Found> Archive::find(Io& io, std::string_view disk, std::string_view snapshot) {
  std::optional<Found> found;
  for (const DiskEntry& entry : TRY(disks(io))) {
    for (SnapshotRow& row : TRY(snapshots(io, entry.number))) {
      if (row.state != SnapshotState::complete) continue;
      if (row.disk != disk && entry.row.name != disk && format::uuid_text(entry.row.uuid) != disk) {
        continue;
      }
      if (row.name != snapshot && format::uuid_text(row.uuid) != snapshot) continue;
      if (found.has_value() && found->snapshot.pushed_ns > row.pushed_ns) continue;
      found = Found{entry, std::move(row)};
    }
  }
  if (found.has_value()) return std::move(*found);
  return fail(Errc::not_found, "archive {}: there is no snapshot {}@{}; see firn archive list",
              store_.name(), disk, snapshot);
}

Result<SegmentName> Archive::place_of(Io& io, uint32_t disk, uint64_t segment) {
  if (!uuids_.contains(disk)) uuids_[disk] = TRY(this->disk(io, disk)).row.uuid;
  return SegmentName{uuids_[disk], segment, 0};
}

Result<uint64_t> Archive::reserve_segments(Io& io, uint32_t disk, uint64_t count) {
  DiskEntry entry = TRY(this->disk(io, disk));
  const uint64_t first = entry.row.next_segment;
  entry.row.next_segment += count;
  meta_->put(format::disk_key(disk), format::encode(entry.row));
  return first;
}

}  // namespace firn::archive
