// SPDX-License-Identifier: Apache-2.0
// Inside the tree in the bucket: see store/lsm.h for what it promises. lsm.cc opens, writes and
// reads; lsm_transfer.cc moves generations to the store and publishes; lsm_compact.cc merges and
// removes.
//
// The order of a generation's life:
//  1. LIVE: batches go to the cache and the log, in one step without a wait.
//  2. STABLE: in one step without a wait the live tree is frozen, its clone becomes live, and the
//     log begins a new segment.
//  3. Its entries become tables, which are put into the store. A failed upload keeps its bytes.
//  4. PUBLISHED: a catalog names the tables and the log's segment. An append whose outcome is not
//     known is `doubt_`, and is settled, with the same bytes, before any other one.
//  5. The segment's file is free, the frozen tree is given back, its entries in the live tree are
//     clean.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/mutex.h"
#include "policy/lsm_pace.h"
#include "store/lsm.h"
#include "store/lsm_cache.h"
#include "store/lsm_catalog.h"
#include "store/lsm_log.h"
#include "store/lsm_table_reader.h"
#include "store/lsm_table_writer.h"

namespace firn::store {

// A catalog, and its tables as runs, newest first. Who reads holds one; nothing it names is removed
// from the store meanwhile by this process.
struct LsmView {
  format::LsmCatalog catalog;
  struct Run {
    uint32_t level = 0;
    std::vector<format::LsmTable> tables;
    // The table that has `key` if any has, or null.
    const format::LsmTable* table_of(std::string_view key) const;
  };
  std::vector<Run> runs;
  std::vector<uint32_t> runs_by_level;

  explicit LsmView(format::LsmCatalog from);
};

class LsmImpl final : public Lsm {
 public:
  LsmImpl(ObjectStore& store, const LsmHow& how, bool writer);
  ~LsmImpl() override;

  Result<void> take_over(Io& io, const std::string& log_directory);
  Result<void> look(Io& io, uint64_t version);

  Result<void> write(Io& io, LsmBatch&& batch) override;
  Result<void> sync(Io& io) override;
  Result<uint64_t> transfer(Io& io) override;
  Result<std::optional<std::string>> get(Io& io, View key) override;
  Result<std::unique_ptr<Cursor>> scan(Io& io, std::string_view from, std::string_view to) override;
  Result<uint64_t> refresh(Io& io) override;
  Result<void> compact(Io& io) override;
  Result<void> collect(Io& io) override;
  Result<void> close(Io& io) override;
  LsmStats stats() const override;

 private:
  using View_ = std::shared_ptr<const LsmView>;
  // A table on its way to the store.
  struct Staged {
    format::LsmTable table;
    LsmBody body;  // Until it is stored.
    bool stored = false;
  };
  using StagedTables = std::deque<Staged>;
  // Uploads with a limit of how many at a time, and their first error.
  class Uploads;
  // An append to the chain of catalogs whose outcome is not known yet.
  struct Doubt {
    format::LsmCatalog next;
    std::vector<std::byte> body;
    uint64_t generation = 0;  // That becomes published by it; 0: none.
  };
  // What it makes of the newest catalog; false: nothing, because it does not fit any more.
  using Edit = std::function<bool(format::LsmCatalog&)>;

  // --- lsm.cc
  Result<void> check_writer() const;
  Result<bool> log_continues(Io& io, const std::optional<format::LsmCatalog>& newest);
  Result<format::LsmCatalog> append_first(Io& io, bool* continues);
  Result<void> restore(Io& io, bool continues);
  Result<void> apply(View batch);
  policy::LsmPressure pressure() const;
  Result<void> admit(Io& io);
  Result<void> transfer_inline(Io& io);
  void trim_cache();
  void set_view(format::LsmCatalog catalog);
  bool current(const View_& view) const { return view == view_; }

  // --- lsm_transfer.cc
  Result<void> transfer_once(Io& io);
  Result<void> freeze(Io& io);
  Result<void> stage(Io& io);
  Result<void> upload(Io& io, Staged& staged);
  Result<void> publish(Io& io, uint64_t generation, const Edit& edit);
  Result<void> settle(Io& io);
  void install(Io& io);
  Result<void> settle_first(Io& io);
  void write_hint(Io& io);
  format::LsmTableId next_table_id() { return {epoch_, ++table_numbers_}; }
  LsmTableShape shape() const { return {how_.table_bytes, how_.block_bytes, how_.compress}; }
  void tend(Io& io);  // The fiber that transfers.
  void pause(Io& io, Duration span);

  // --- lsm_compact.cc
  Result<void> merge_level(Io& io, uint32_t level);
  Result<void> merge_into(Io& io, const LsmView& view, uint32_t level, StagedTables& out);
  Result<void> find_orphans(Io& io, std::vector<format::LsmTableId>& orphans,
                            std::vector<uint64_t>& stale_catalogs);
  Result<std::vector<format::LsmTableId>> remove_retired(Io& io, int64_t now_ns);
  Result<void> remove_catalogs(Io& io, int64_t now_ns, uint64_t* floor);
  uint64_t oldest_pinned();
  bool collection_due(Io& io) const;
  void tidy(Io& io);  // The fiber that merges and removes.

  ObjectStore& store_;
  const LsmHow how_;
  const bool writer_;
  LsmCatalogs catalogs_;
  LsmTables tables_;
  std::shared_ptr<LsmCache> cache_;  // Cursors hold it, too.
  std::unique_ptr<LsmLog> log_;

  uint64_t epoch_ = 0;
  uint64_t table_numbers_ = 0;
  View_ view_;
  std::vector<std::weak_ptr<const LsmView>> old_views_;

  LsmCache::Snapshot stable_;
  uint64_t stable_dirty_bytes_ = 0;
  uint64_t stable_segment_ = 0;
  StagedTables staged_;  // Of the stable generation.
  bool staged_all_ = false;
  std::optional<Doubt> doubt_;
  uint64_t hinted_ = 0;
  std::optional<Time> dirty_since_;            // The live generation's first write.
  std::optional<Time> try_after_;              // Inline transfers rest after a failure.
  std::vector<format::LsmTableId> abandoned_;  // Ours, put for nothing.
  bool orphans_known_ = false;

  Mutex transferring_;
  Mutex publishing_;
  Mutex compacting_;
  Mutex collecting_;
  WaitList room_;  // Writers at the hard limit.
  WaitList work_;  // tend(), while nothing is dirty.
  WaitList tidy_work_;
  bool tidy_wanted_ = false;
  std::optional<Group> fibers_;
  bool stopping_ = false;
  bool closed_ = false;
  bool fenced_ = false;
  LsmStats stats_;
};

}  // namespace firn::store
