// SPDX-License-Identifier: Apache-2.0
// Pushing a snapshot: what changed since the newest one of its disk in the archive is read, zeroes
// and known blocks are left out, the rest is packed into segments; then the metadata is committed.
// Source: US 11436102, US 11663160, US 11385817.
//
//  P1  The outcome is the snapshot, complete, or no snapshot: a push that ends early leaves garbage
//      that the next writer removes, and acknowledged nothing.
//  P2  Chunk ids ascend in the order of the disk: a sequential disk is few rows.
//  P3  Blocks are deduplicated only against chunks whose segments are in the store.
//  P4  Each segment is put once. Nothing is listed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "archive/archive.h"

namespace firn::archive {

// The disk's content, read by several fibers at a time, each with its own `lane`.
class PushSource {
 public:
  virtual ~PushSource() = default;
  virtual unsigned lanes() const = 0;
  virtual Result<void> read(Io& io, unsigned lane, uint64_t at, Bytes into) = 0;

 protected:
  PushSource() = default;
};

// Where the new snapshot may differ from the newest in the archive, in grains.
struct TouchedRun {
  uint64_t grain = 0;
  uint64_t count = 0;
  bool zero = false;  // Known to read as zeroes.
};

struct PushRequest {
  format::Uuid disk_uuid{};
  format::Uuid snapshot_uuid{};
  std::string disk;
  std::string name;
  uint64_t bytes = 0;
  int64_t created_ns = 0;
  std::vector<TouchedRun> touched;  // Ascending, not overlapping, within the disk.
  // Nobody tracked: `touched` covers the whole disk, and each block is compared with the newest
  // snapshot in the archive by its identity.
  bool compare = false;
  std::string holder;      // Who pushes: "HOST DIRECTORY".
  bool take_over = false;  // Another's push of this disk that has not ended is ended.
};

struct PushReport {
  uint32_t seq = 0;
  uint64_t read_bytes = 0;
  uint64_t zero_grains = 0;
  uint64_t unchanged_grains = 0;
  uint64_t duplicate_grains = 0;
  uint64_t new_grains = 0;
  uint64_t segments = 0;
  uint64_t stored_bytes = 0;  // Segments and manifest.
  uint64_t extents = 0;
  uint64_t hint_lookups = 0;  // In the metadata.
  uint64_t indexes_read = 0;
};

// What the archive has of a disk: the snapshots that may be a base.
struct BaseInfo {
  uint32_t disk = 0;                          // 0: none yet.
  std::vector<format::SnapshotRow> complete;  // Oldest first.
};
Result<BaseInfo> bases_of(Io& io, Archive& archive, const format::Uuid& disk);
// What the archive's newest snapshot of the disk changed since snapshot `seq`: to be looked at
// again when the pool's base is not the newest.
Result<std::vector<TouchedRun>> changed_since(Io& io, Archive& archive, uint32_t disk,
                                              uint32_t seq);
// Ascending runs, joined; where both cover, `a` decides.
std::vector<TouchedRun> merged(std::span<const TouchedRun> a, std::span<const TouchedRun> b);

using PushProgress = std::function<void(uint64_t done, uint64_t total)>;
Result<PushReport> push(Io& io, Archive& archive, const PushRequest& request, PushSource& source,
                        const PushProgress& progress);

}  // namespace firn::archive
