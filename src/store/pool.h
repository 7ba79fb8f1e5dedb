// SPDX-License-Identifier: Apache-2.0
// Pool: a directory that holds everything. Owns the superblock, the metadata pages, the journal,
// the block table and the data file; knows nothing of disks and maps (see disk/).
//
// Belongs to the shard that opened it (W1). Every verb names the pool's directory in its errors.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "io/io.h"
#include "policy/job_pace.h"

namespace firn::store {

class Blocks;
class PageRef;
class PageStore;

// Room for the largest single change, and for its successor.
inline constexpr uint64_t kJournalBytesMin = 64 * kKiB;

// What is decided once, at creation.
struct PoolShape {
  uint64_t bytes = 64 * kGiB;  // Capacity; rounded down to whole storage blocks.
  std::string data_path;  // Empty: DIR/data. Else a file or block device; DIR/data links to it.
  std::string journal;    // Empty: DIR/journal. Else "file:PATH" or "pmem:PATH".
  uint64_t journal_bytes = 16 * kMiB;
  uint64_t journal_slot_bytes = 4 * kKiB;
};

// Requests to the data file at once; more wait in the order of their priority. No device of today
// gets faster beyond it, and what waits here can still be overtaken.
inline constexpr uint32_t kDeviceDepth = 128;

// One contended thing, since the pool was opened.
struct QueueInfo {
  const char* resource = "";  // "device", "journal".
  uint32_t waiting = 0;       // Now.
  uint64_t direct = 0;        // Found it free.
  uint64_t queued = 0;        // Waited.
  uint64_t inherited = 0;     // Got the priority of somebody who waited for them.
  uint64_t depth_max = 0;     // Most that waited at once.
};

// Why guest data is read or written: a guest asked; a shrink empties storage blocks; or a layer is
// taken out, for which nothing is to be moved (P5).
enum class DataBy : uint8_t { guest, shrink, consolidate };
inline constexpr size_t kDataBys = 3;
struct DataMoved {
  uint64_t read_bytes = 0;
  uint64_t written_bytes = 0;
};

// What is decided each time it is opened.
struct PoolSettings {
  uint64_t cache_bytes = 64 * kMiB;       // Metadata pages kept in memory.
  uint64_t ready_low_bytes = 256 * kMiB;  // The formatter starts below this much READY space ...
  uint64_t ready_high_bytes = kGiB;       // ... and stops here (never more than 4 % of the pool).
  bool background = true;                 // Run the formatter and the journal's idle drain.
  bool read_only = false;                 // Look only: takes a shared lock, replays into memory.
};

// A point in time; all byte counts. allocated + freeing + raw + ready + bad == capacity (S2).
struct PoolInfo {
  std::string directory;
  std::string uuid;
  uint32_t format_version = 0;
  uint64_t capacity_bytes = 0;
  uint64_t allocated_bytes = 0;  // Storage blocks that belong to a family.
  uint64_t used_bytes = 0;       // Grains in use inside them.
  uint64_t freeing_bytes = 0;
  uint64_t raw_bytes = 0;
  uint64_t ready_bytes = 0;
  uint64_t bad_bytes = 0;
  uint64_t metadata_pages = 0;  // 4 KiB pages in use in `meta`.
  uint64_t metadata_capacity_pages = 0;
  uint64_t cache_pages = 0;  // Of them in memory now.
  uint64_t epoch = 0;
  uint64_t commits = 0;  // Journal commits since opened.
  uint64_t transactions = 0;
  uint64_t journal_bytes_written = 0;
  uint64_t replayed_transactions = 0;  // By the last open.
  uint64_t taken_over_bytes = 0;  // By the last open, of changes that a killed process had left.
  uint64_t page_writes = 0;       // Home writes of metadata pages.
  uint64_t page_reads = 0;
  uint64_t inline_formatted_bytes = 0;
  uint64_t background_formatted_bytes = 0;
  uint64_t inline_format_writes = 0;
  uint64_t data_flushes = 0;
  std::array<DataMoved, kDataBys> data_moved{};  // By DataBy, since opened.
  std::array<QueueInfo, 2> queues{{{"device"}, {"journal"}}};
  bool fenced = false;  // A flush or the journal failed; writes are refused until reopened.
};

class Pool {
 public:
  // Makes DIR (its parent must exist) and everything in it; the superblock last. Errc::exists when
  // DIR holds a pool already, Errc::invalid when it holds something else.
  static Result<void> create(Io& io, const std::string& directory, const PoolShape& shape);
  // Takes the lock, replays the journal, starts the background fibers. Errc::busy names host and
  // pid of the holder; Errc::too_new, Errc::corrupt, Errc::not_found say what is wrong with which
  // file.
  static Result<std::unique_ptr<Pool>> open(Io& io, const std::string& directory,
                                            const PoolSettings& settings);
  ~Pool();
  // Writes everything home, so that the next open replays nothing, and releases the lock. Call
  // once.
  Result<void> close(Io& io);

  Result<void> grow(Io& io, uint64_t bytes);
  PoolInfo info() const;
  const std::string& directory() const;
  const std::array<std::byte, 16>& uuid() const;

  // --- for disk/
  PageStore& pages();
  Blocks& blocks();
  uint32_t data_alignment() const;  // Of places, lengths and memory.
  // The only way to guest data. Counts what was moved.
  Result<void> read_data(Io& io, DataBy by, uint64_t at, Iovec into);
  Result<void> write_data(Io& io, DataBy by, uint64_t at, Iovec from);
  // W2: everything written to the data file by calls that completed before this one is durable.
  // Callers share runs. A failure fences the pool.
  Result<void> flush_data(Io& io);
  // The guest's flush: W2 for the data, then W3 and W4, one journal commit for all metadata changed
  // so far. Costs no commit when nothing changed.
  Result<void> flush(Io& io);
  // What was changed so far outlives this process, if not the machine: call it before a client is
  // told that its change was made. Waits only when that takes a commit.
  Result<void> preserve(Io& io);
  // Errc::fenced once the pool is fenced; Errc::invalid when it was opened to look only.
  Result<void> writable() const;
  // writable(), and nothing is in use here that this version does not know: Errc::too_new. What an
  // unknown feature keeps looks like a leak.
  Result<void> repairable() const;
  // Guests come first: background work watches these.
  void guest_began();
  void guest_ended();
  size_t guests_in_flight() const;
  uint64_t guest_requests() const;  // Ever begun.
  // The same for reads and writes, whose time is told to those who watch(). Costs no clock while
  // nobody does.
  struct GuestMark {
    Time began{};  // Zero: nobody watched.
    uint64_t disturbances = 0;
  };
  GuestMark guest_began(Io& io);
  void guest_ended(Io& io, const GuestMark& mark);
  // A job whose pace follows what guests feel of its steps, and of the commits that these cause.
  // All that run at a time share one pace.
  void watch(policy::JobPace& pace);
  void unwatch();
  void disturb();  // At the beginning and the end of a step.
  // Whether this opening runs fibers of its own; then disk/ does too.
  bool background() const;
  // The pool root page, pinned: where disk/ keeps its catalog.
  PageRef root();

 private:
  Pool();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace firn::store
