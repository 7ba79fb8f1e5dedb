// SPDX-License-Identifier: Apache-2.0
// An archive of snapshots in an object store, opened. docs/architecture.md, "A snapshot in the
// bucket".
//
//  A1  A snapshot is there when its row says `complete` in a published version of the metadata. All
//      its data, and its manifest, are in the store before that.
//  A2  What a push or a deletion leaves half done is finished or undone by the next writer; nothing
//      half done is ever shown.
//  A3  One writer at a time, the newest: the other's next publish fails with Errc::fenced, and
//      what it was doing is garbage or is done again. Readers are never held up.
//  A4  Ids of chunks, segments and snapshots are reserved durably before they are used, and never
//      used twice.
//  A5  The segments alone are enough to make all the rest again (rebuild).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "archive/chunk_map.h"
#include "archive/logical_map.h"
#include "archive/segment_reader.h"
#include "archive/usage.h"

namespace firn::archive {

inline constexpr const char* kLabelKey = "archive";

struct CreateHow {
  uint64_t segment_bytes = 16 * kMiB;
  int level = 3;
  Credentials credentials;
};
// Errc::exists when there is one already.
Result<format::ArchiveLabel> create_archive(Io& io, ObjectStore& store, const CreateHow& how);

struct DiskEntry {
  uint32_t number = 0;
  format::DiskRow row;
};

class Archive {
 public:
  struct How {
    Credentials credentials;
    bool keyless = false;  // Only to check what is stored: no key is needed.
    // Where the writer's log lies; must exist. Empty: only to read.
    std::string log_directory;
    int64_t grace_ns = int64_t{3600} * 1'000'000'000;  // Before an object that lost all is removed.
  };
  static Result<std::unique_ptr<Archive>> open(Io& io, ObjectStore& store, How how);
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;
  Result<void> close(Io& io);
  // As the writer again, after another one was. After an error it can do nothing but this again.
  Result<void> reopen(Io& io);

  const format::ArchiveLabel& label() const { return forge_.label; }
  const SegmentForge& forge() const { return forge_; }
  ObjectStore& store() { return store_; }
  SegmentReader& reader() { return reader_; }
  Meta& meta() { return *meta_; }
  ChunkMap& chunks() { return *chunks_; }
  Usage& usage() { return *usage_; }
  int64_t grace_ns() const { return how_.grace_ns; }
  // Whether it is time to apply(): batches are bounded.
  bool full() const { return meta_->full() || usage_->changed() >= 500; }
  // Stages what usage has gathered, and applies everything as one batch.
  Result<void> apply(Io& io);
  Result<void> publish(Io& io);
  // Drops what is staged.
  void forget();

  Result<std::vector<DiskEntry>> disks(Io& io);
  Result<std::optional<DiskEntry>> find_disk(Io& io, const format::Uuid& uuid);
  // By the number in the metadata; Errc::corrupt when there is none.
  Result<DiskEntry> disk(Io& io, uint32_t number);
  Result<std::vector<format::SnapshotRow>> snapshots(Io& io, uint32_t disk);
  // DISK@SNAP, or DISK@UUID; of several with one name the newest. Errc::not_found.
  struct Found {
    DiskEntry disk;
    format::SnapshotRow snapshot;
  };
  Result<Found> find(Io& io, std::string_view disk, std::string_view snapshot);
  Result<SegmentName> place_of(Io& io, uint32_t disk, uint64_t segment);
  // Reserves so many segment ids of a disk; published with the next publish().
  Result<uint64_t> reserve_segments(Io& io, uint32_t disk, uint64_t count);

 private:
  Archive(ObjectStore& store, How how, SegmentForge forge)
      : store_(store),
        how_(std::move(how)),
        forge_(std::move(forge)),
        packers_(static_cast<int>(forge_.label.level)),
        reader_(store, forge_) {
    forge_.packers = &packers_;
  }
  Result<void> open_meta(Io& io);

  ObjectStore& store_;
  How how_;
  SegmentForge forge_;
  PackerPool packers_;
  SegmentReader reader_;
  std::unique_ptr<Meta> meta_;
  std::unique_ptr<ChunkMap> chunks_;
  std::unique_ptr<Usage> usage_;
  std::map<uint32_t, format::Uuid> uuids_;
};

// The metadata's place below the archive's prefix, and how it is kept.
store::LsmHow lsm_how();

}  // namespace firn::archive
