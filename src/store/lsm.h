// SPDX-License-Identifier: Apache-2.0
// Lsm: an ordered map from byte strings to byte strings that lives in an object store. Writes go to
// a cache in memory and a log on a local disk; transfers move them to the store as sorted tables,
// while writers go on. Source: US 11620261 (consistent cache staging), US 11093472 (tables and
// catalog), US 11675745 (names of objects); the protocol of catalogs and epochs is ours.
// docs/format/lsm_table.md, lsm_catalog.md, lsm_log.md
//
// Terms: a *generation* is what was written between two transfers. A *version* is the number of a
// catalog; it ascends by one. An *epoch* is the number of a writer's reign; it ascends.
//
// Contract:
//  L1  A batch is atomic: everybody, at any time, after any crash, sees all of it or nothing.
//  L2  write() makes a batch visible to this Lsm at once. sync() makes everything written before it
//      durable on the local disk; transfer() makes it durable in the store and visible to others.
//  L3  What a transfer publishes is the state at one instant between its call and its return, and
//      everything written before the call is in it. Writers are never held for it (but see L7).
//  L4  The atomic point is the creation of one catalog object. Before, no reader sees any of the
//      generation; after, every one that looks sees all of it.
//  L5  One writer at a time. open() takes over: from then on the former writer's next publish fails
//      with Errc::fenced, and it takes no more writes. Nothing it published is lost.
//  L6  No object is ever changed: tables, catalogs and epochs are made once, under names that are
//      never used twice. The one exception is `newest`, a hint that may be old or missing.
//  L7  Memory and log are bounded: beyond 2 x capacity of data that waits for the store a write is
//      delayed in proportion, at 3 x it waits until a transfer is through. While the store fails,
//      writes go on up to there, and nothing is lost.
//  L8  An object is removed only when the newest catalog does not need it, its removal was
//      announced in a catalog `readers_grace` before, and no cursor of this process holds it;
//      objects of a younger epoch never. Errors leave garbage, never holes.
//  L9  Readers need the store alone and never write. A version stays readable for `readers_grace`
//      after a newer one replaced it; after that a read may fail with Errc::not_found: refresh().
//
// One shard. Everything that takes an Io& may wait, and may be called by many fibers at once; close
// before destruction. Nothing here knows what keys and values mean.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/time.h"
#include "base/units.h"
#include "io/io.h"
#include "io/object_store.h"

namespace firn::store {

inline constexpr size_t kLsmKeyBytesMax = 1024;  // And at least 1.
inline constexpr size_t kLsmValueBytesMax = kMiB;

struct LsmHow {
  std::string prefix = "m/";             // Of all keys; ends in '/'.
  uint64_t capacity_bytes = 256 * kMiB;  // Dirty data that starts a transfer.
  Duration interval =
      std::chrono::seconds(5);             // A generation is not older when its transfer starts.
  uint64_t table_bytes = 16 * kMiB;        // Size of tables, roughly.
  uint64_t block_bytes = 16 * kKiB;        // Of a table's blocks, before compression, roughly.
  uint32_t uploads = 4;                    // Tables under way at the same time.
  uint64_t cache_bytes = 256 * kMiB;       // Clean entries that are kept for reading.
  uint64_t index_cache_bytes = 64 * kMiB;  // Indexes and filters of tables.
  bool compress = true;                    // Blocks by zstd, where it helps.
  Duration readers_grace = std::chrono::minutes(10);
  uint32_t catalogs_kept = 16;  // At least, besides those younger than readers_grace.
  // Transfers and compaction by fibers of its own. Without (BlockingIo): write() transfers by
  // itself when capacity is exceeded, and compact() is the caller's.
  bool background = true;
  // The local log holds synced writes, but another writer has taken the tree over since: they can
  // never be merged. False: open() fails with Errc::fenced and says so. True: they are dropped.
  bool drop_stale_log = false;
};

// Writes and removals that become visible together (L1). Later ones win over earlier ones. Bytes
// are copied. A key or value of a wrong size is the caller's error (CHECK).
class LsmBatch {
 public:
  void put(View key, View value);
  void put(std::string_view key, std::string_view value);
  void remove(View key);
  void remove(std::string_view key);
  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  uint64_t bytes() const { return bytes_.size(); }  // About; batches are at most 16 MiB (CHECK).

 private:
  friend class LsmImpl;
  std::vector<std::byte> bytes_;  // As in the log: docs/format/lsm_log.md.
  size_t count_ = 0;
};
inline constexpr uint64_t kLsmBatchBytesMax = 16 * kMiB;

struct LsmStats {
  // --- the tree
  uint64_t epoch = 0;
  uint64_t version = 0;  // Of the newest catalog known.
  uint64_t tables = 0;
  uint64_t runs = 0;
  uint64_t table_bytes = 0;
  uint64_t retired_objects = 0;  // Wait for their grace.
  // --- the caches
  uint64_t live_generation = 0;
  uint64_t stable_generation = 0;  // 0: none.
  uint64_t live_root = 0;          // Numbers of root nodes, for people.
  uint64_t stable_root = 0;
  uint64_t dirty_bytes_live = 0;
  uint64_t dirty_bytes_stable = 0;
  uint64_t cache_bytes = 0;  // All entries and nodes in memory.
  uint64_t evicted = 0;
  uint64_t hits = 0;  // get() answered by the cache.
  uint64_t misses = 0;
  uint64_t filtered = 0;  // Tables that a bloom filter spared a read.
  // --- work
  uint64_t batches = 0;
  uint64_t log_bytes = 0;  // Of generations that are not published.
  uint64_t log_flushes = 0;
  uint64_t transfers = 0;
  uint64_t transfer_errors = 0;
  uint64_t compactions = 0;
  uint64_t tables_written = 0;
  uint64_t removed_objects = 0;
  uint64_t orphans_found = 0;
  Duration latch{};      // The last time writers were held for a clone,
  Duration latch_max{};  // and the longest.
  Duration delayed{};    // Writers altogether, by L7 and by the debt of compaction.
  bool fenced = false;
};

class Lsm {
 public:
  virtual ~Lsm() = default;
  Lsm(const Lsm&) = delete;
  Lsm& operator=(const Lsm&) = delete;

  // Takes over as the writer (L5), making the tree when there is none. `log_directory` must exist;
  // one process at a time (Errc::busy). What it holds of this tree and is not in the store yet is
  // replayed. The store must outlive the Lsm.
  static Result<std::unique_ptr<Lsm>> open(Io& io, ObjectStore& store,
                                           const std::string& log_directory, const LsmHow& how);
  // Sees the newest version, or `version`. Errc::not_found: no tree there, or no such version any
  // more. Its write, transfer and so on fail with Errc::invalid.
  static Result<std::unique_ptr<Lsm>> open_reader(Io& io, ObjectStore& store, const LsmHow& how,
                                                  uint64_t version = 0);

  virtual Result<void> write(Io& io, LsmBatch&& batch) = 0;
  virtual Result<void> sync(Io& io) = 0;
  // Returns the version that holds everything written before the call. An error says nothing of
  // loss: the next transfer goes on where this one stopped. Errc::fenced is final.
  virtual Result<uint64_t> transfer(Io& io) = 0;
  virtual Result<std::optional<std::string>> get(Io& io, View key) = 0;
  Result<std::optional<std::string>> get(Io& io, std::string_view key) {
    return get(io, std::as_bytes(std::span(key)));
  }

  // An ordered walk over what was visible at the moment of scan(); later writes do not show. It
  // holds memory and tables until it is destroyed, which is before the Lsm is.
  class Cursor {
   public:
    virtual ~Cursor() = default;
    // To the next entry; false behind the last one.
    virtual Result<bool> next(Io& io) = 0;
    // Of the entry, until the next call.
    virtual std::string_view key() const = 0;
    virtual std::string_view value() const = 0;
  };
  // From `from` on, up to but without `to`; an empty `to` is the end.
  virtual Result<std::unique_ptr<Cursor>> scan(Io& io, std::string_view from,
                                               std::string_view to) = 0;

  // Reader: looks for a newer version; returns the one that it sees now. Writer: the same number as
  // stats(), without a request.
  virtual Result<uint64_t> refresh(Io& io) = 0;
  // Merges runs of tables until there is no debt.
  virtual Result<void> compact(Io& io) = 0;
  // Removes what is garbage by L8: retired tables and catalogs, and, once after each open(), what a
  // crash left behind.
  virtual Result<void> collect(Io& io) = 0;
  // Transfers what is left, stops the fibers, gives the log back. On an error the log keeps what
  // the store does not have; the Lsm is closed all the same.
  virtual Result<void> close(Io& io) = 0;
  virtual LsmStats stats() const = 0;

 protected:
  Lsm() = default;
};

}  // namespace firn::store
