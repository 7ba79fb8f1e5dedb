// SPDX-License-Identifier: Apache-2.0
// Disks: the catalog of a pool's disks and their snapshots, and the way to open one.
//
// A snapshot is a frozen layer with a name; the disk goes on in a new layer on top of it, as a
// clone
// does. Both are two records in one transaction: no data moves, at any depth (P4). A layer whose
// name
// is gone is taken out in the background by moving references (P5). Source: US 9038066, US 9116726.
//
// Names: 1 to 128 bytes of [A-Za-z0-9._:-], not beginning with '.' or '-'; '@' and '/' never (they
// separate snapshots and paths). Every change is one transaction, durable when the verb returns.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "disk/device.h"
#include "disk/tracking.h"
#include "store/pool.h"

namespace firn::disk {

struct DiskInfo {
  std::string name;
  std::string uuid;
  uint64_t bytes = 0;           // What the guest sees.
  uint64_t mapped_bytes = 0;    // Own grains: data that its live layer holds in the pool.
  uint64_t metadata_bytes = 0;  // Own map pages.
  int64_t created_ns = 0;       // Wall clock.
  uint32_t attached = 0;        // How many front-end users hold it open now.
  uint32_t snapshots = 0;
  uint32_t layers = 1;        // Of its chain, down to the base.
  uint32_t layers_going = 0;  // Of them, those that a job is about to take out.
  std::string origin;  // "DISK@SNAP" that it is a clone of, as long as that snapshot is there.
  std::map<std::string, std::string> settings;
};

struct SnapshotInfo {
  std::string disk;
  std::string name;
  std::string uuid;
  uint64_t bytes = 0;           // What it shows.
  uint64_t mapped_bytes = 0;    // Own grains: what was written between the one before and this one.
  uint64_t metadata_bytes = 0;  // Own map pages.
  int64_t created_ns = 0;       // Wall clock.
  uint32_t attached = 0;
  uint32_t layer = 0;               // Its layer's id: ascends in order of creation.
  bool current = true;              // The disk rests on it; false beside a revert.
  bool shared = false;              // Its layer stays when its name goes: several stand on it.
  std::vector<std::string> clones;  // Disks, other than its own, that rest on it directly.
};

enum class JobKind : uint8_t { consolidate, drop, shrink };
enum class JobState : uint8_t { waiting, running, failed };

// Work in the background on layers that have lost their name.
struct JobInfo {
  JobKind kind = JobKind::drop;
  JobState state = JobState::waiting;
  uint32_t layer = 0;        // The one that goes.
  uint32_t into = 0;         // Of a consolidation: the layer that takes its references.
  std::string disk;          // Whose live layer `into` is, if it is one.
  uint64_t steps_done = 0;   // Metadata transactions so far ...
  uint64_t steps_total = 0;  // ... of about so many.
  std::string error;         // Of a failed one.
  uint32_t failures = 0;     // In a row.
  // When a failed one is tried again; nothing: when the pool is next opened.
  std::optional<Duration> again_in{};
};
struct ShrinkInfo {
  uint64_t moved_bytes = 0;
  uint64_t skipped_bytes = 0;   // Shown by too many maps to be moved.
  uint64_t emptied_bytes = 0;   // Storage blocks that came back to the pool.
  uint64_t returned_bytes = 0;  // Given back to the host's file system.
};
struct JobCounters {
  uint64_t consolidated = 0;  // Layers taken out of chains.
  uint64_t dropped = 0;
  uint64_t failed = 0;
  uint64_t steps = 0;           // Metadata transactions.
  uint64_t work_ns = 0;         // Time in those that take layers out, without the rests ...
  uint64_t shrink_work_ns = 0;  // ... and in those of shrinks.
  uint64_t shrunk = 0;          // Runs of a shrink, asked for or not.
  uint64_t moved_bytes =
      0;  // Guest data that shrinks read and wrote again. Nothing else moves any.
};

// Where two layers differ.
struct DiffRun {
  uint64_t at = 0;
  uint64_t length = 0;
  Extent kind = Extent::data;  // What the second one has there: data, or nothing but zeroes.
};
class DiffSink {
 public:
  virtual ~DiffSink() = default;
  virtual bool add(DiffRun run) = 0;  // In order; false: enough, stop.
};

struct CheckReport {
  uint64_t disks = 0;
  uint64_t snapshots = 0;
  uint64_t layers = 0;
  uint64_t pages = 0;          // Metadata pages visited.
  uint64_t grains = 0;         // Own data grains counted.
  uint64_t leaked_blocks = 0;  // ALLOCATED, but holding no own grain and nobody's open block.
  uint64_t leaked_grains = 0;  // Marked used, owned by no map.
  uint64_t leaked_pages = 0;
  uint64_t double_owned = 0;  // Grains or pages with two owners.
  uint64_t unmarked = 0;      // Owned, but marked free.
  uint64_t corrupt_pages = 0;
  uint64_t repaired = 0;
  std::vector<std::string> findings;  // One sentence each, at most 1,000.
  bool clean() const { return findings.empty(); }
};

class Disks {
 public:
  // `io` must outlive it: it runs a fiber of its own, which its destructor waits for.
  static Result<std::unique_ptr<Disks>> open(Io& io, store::Pool& pool);
  virtual ~Disks() = default;

  virtual std::vector<DiskInfo> list() const = 0;  // By name.
  virtual Result<DiskInfo> info(std::string_view name) const = 0;
  virtual Result<void> create(Io& io, std::string_view name, uint64_t bytes) = 0;
  virtual Result<void> rename(Io& io, std::string_view name, std::string_view to) = 0;
  // Grows at once, live. Shrinking discards the tail: refused with Errc::busy while attached.
  virtual Result<void> resize(Io& io, std::string_view name, uint64_t bytes) = 0;
  // Refused with Errc::busy while attached, and while it has snapshots unless they are to go too.
  // The name is gone durably when it returns. The space comes back by jobs; where nothing runs in
  // the background they are done before it returns. Clones of its snapshots stay as they are.
  virtual Result<void> remove(Io& io, std::string_view name, bool snapshots_too = false) = 0;

  // --- snapshots; of each the disk's name first. Live or not, under load or not.
  virtual Result<std::vector<SnapshotInfo>> snapshots(
      std::string_view disk) const = 0;  // Oldest first.
  virtual Result<SnapshotInfo> snapshot_info(std::string_view disk,
                                             std::string_view name) const = 0;
  // What was acknowledged before the call is in it, what is begun after it is not.
  virtual Result<void> snapshot(Io& io, std::string_view disk, std::string_view name) = 0;
  // Durable when it returns; the layer goes in the background. Errc::busy while attached.
  virtual Result<void> remove_snapshot(Io& io, std::string_view disk, std::string_view name) = 0;
  // The disk shows again what the snapshot does; what was written since is dropped. Errc::busy
  // while the disk is attached, unless forced: its clients see the content change under them.
  virtual Result<void> revert(Io& io, std::string_view disk, std::string_view name, bool force) = 0;
  // A new disk that begins as the snapshot.
  virtual Result<void> clone(Io& io, std::string_view disk, std::string_view name,
                             std::string_view to) = 0;
  // Where DISK[@SNAP] `b` differs from `a`, within `range` of b. Exact to the grain; follows the
  // maps where they part and reads no data.
  virtual Result<void> diff(Io& io, std::string_view a, std::string_view b, Range range,
                            DiffSink& sink) = 0;

  // Empties sparsely used storage blocks of the disk's family by moving grains, then gives free
  // space back to the host's file system. Beside guests; waits for other jobs.
  virtual Result<ShrinkInfo> shrink(Io& io, std::string_view name) = 0;

  // Which blocks changed since when; backups by several applications.
  virtual Tracking& tracking() = 0;
  virtual const Tracking& tracking() const = 0;
  // When nobody has a disk any more, before the pool is closed. Without it the next opening finds
  // what a crash leaves, and calls more changed than did.
  virtual Result<void> close(Io& io) = 0;

  // --- jobs
  // All that will be done without anybody's further word, in the order in which it is done. A layer
  // on which several others stand has no job yet.
  virtual std::vector<JobInfo> jobs() const = 0;
  virtual JobCounters job_counters() const = 0;
  // Does, or waits for, what is to be done now. The first error that stopped a job.
  virtual Result<void> sweep(Io& io) = 0;
  // Keys are checked by the engine; here they are stored. An empty value removes the key.
  virtual Result<void> set(Io& io, std::string_view name, std::string_view key,
                           std::string_view value) = 0;
  // All of the disk with this uuid is here (disk/backed.h), whatever it is called by now: what said
  // where it came from goes in one transaction. Nothing happens when there is no such disk.
  virtual Result<void> arrived(Io& io, std::string_view uuid) = 0;
  // DISK, or read-only DISK@SNAP, as a device, shared by everybody who attaches it: D1 holds across
  // all of them. Released by dropping the pointer on the pool's shard.
  virtual Result<std::shared_ptr<BlockDevice>> attach(Io& io, std::string_view name) = 0;
  // Walks every layer and recounts every grain, block and page. With `repair`, returns leaks to the
  // pool (offline only). Never repairs what is corrupt: it names it.
  virtual Result<CheckReport> check(Io& io, bool repair) = 0;

 protected:
  Disks() = default;
};

}  // namespace firn::disk
