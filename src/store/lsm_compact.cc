// SPDX-License-Identifier: Apache-2.0
// Merging runs, and removing what nothing needs. docs/decisions/0041-lsm-tiers.md says why tiers.
#include <algorithm>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "store/lsm_impl.h"
#include "store/lsm_merge.h"
#include "store/lsm_uploads.h"

namespace firn::store {

using format::LsmCatalog;
using format::LsmTableId;

namespace {
constexpr uint64_t kMergeAhead = kMiB;
constexpr size_t kListStep = 1000;
constexpr size_t kRetireAtOnce = 4096;  // Orphans in one catalog.
}  // namespace

// --- merging

Result<void> LsmImpl::compact(Io& io) {
  TRY(check_writer());
  const auto hold = compacting_.lock(io);
  TRY(settle_first(io));
  while (const auto level = policy::LsmTiers::pick(view_->runs_by_level)) {
    if (*level + 1 >= format::kLsmLevelsMax) break;
    TRY(merge_level(io, *level));
  }
  return ok;
}

// The runs of `level` become tables. Behind the last run of all a removal hides nothing.
Result<void> LsmImpl::merge_into(Io& io, const LsmView& view, uint32_t level, StagedTables& out) {
  std::vector<std::unique_ptr<LsmSource>> sources;
  bool deepest = true;
  for (const LsmView::Run& run : view.runs) {
    if (run.level > level) deepest = false;
    if (run.level != level) continue;
    sources.push_back(std::make_unique<LsmRunSource>(tables_, run.tables, "", kMergeAhead));
  }
  LsmMerge merge(std::move(sources));
  Uploads uploads(io, *this);
  bool over = false;
  while (!over && !uploads.failed()) {
    LsmTableWriter writer(view.catalog.tree, next_table_id(), shape());
    while (!writer.full()) {
      over = !TRY(merge.next(io));
      if (over) break;
      if (!merge.entry().removal || !deepest) writer.add(io, merge.entry());
    }
    if (writer.empty()) break;
    if (stopping_) return fail(Errc::cancelled, "{}: is closing", store_.name());
    LsmMadeTable made = writer.finish(io);
    out.push_back({std::move(made.table), std::move(made.body), false});
    uploads.start(out.back());
  }
  return uploads.finish();
}

Result<void> LsmImpl::merge_level(Io& io, uint32_t level) {
  const View_ view = view_;  // Its tables stay while they are read.
  StagedTables out;
  auto merged = merge_into(io, *view, level, out);
  const auto now = merged ? store_.wall_clock_ns(io) : Result<int64_t>(merged.error());
  if (!now) {  // No catalog knows them.
    for (const Staged& staged : out) abandoned_.push_back(staged.table.id);
    return now.error();
  }
  uint64_t run =
      0;  // Of the merged ones the newest: newer than what is deeper, older than the rest.
  std::set<LsmTableId> gone;
  for (const format::LsmTable& table : view->catalog.tables) {
    if (table.level != level) continue;
    run = std::max(run, table.run);
    gone.insert(table.id);
  }
  TRY(publish(io, 0, [&](LsmCatalog& next) {
    const size_t found =
        std::erase_if(next.tables, [&](const auto& table) { return gone.contains(table.id); });
    if (found != gone.size()) return false;  // An earlier merge was in doubt, and has happened.
    const auto place =
        std::ranges::find_if(next.tables, [&](const auto& t) { return t.run < run; });
    std::vector<format::LsmTable> fresh;
    for (const Staged& staged : out) {
      fresh.push_back(staged.table);
      fresh.back().run = run;
      fresh.back().level = level + 1;
    }
    next.tables.insert(place, fresh.begin(), fresh.end());
    for (const LsmTableId& id : gone) next.retired.push_back({id, next.version, *now});
    return true;
  }));
  ++stats_.compactions;
  return ok;
}

// --- removing (L8)

// The oldest version that a cursor or a get of this process still looks at.
uint64_t LsmImpl::oldest_pinned() {
  uint64_t oldest = view_->catalog.version;
  for (const auto& weak : old_views_) {
    if (const auto view = weak.lock()) oldest = std::min(oldest, view->catalog.version);
  }
  return oldest;
}

// What a crash left behind: tables of earlier epochs that the catalog does not know, and catalogs
// below the floor. Tables of our own epoch may be on their way; of later ones we know nothing.
Result<void> LsmImpl::find_orphans(Io& io, std::vector<LsmTableId>& orphans,
                                   std::vector<uint64_t>& stale_catalogs) {
  std::vector<LsmTableId> seen;
  const std::string prefix = how_.prefix + "table/";
  for (std::string after;;) {
    const auto found = TRY(store_.list(io, prefix, after, kListStep));
    for (const ObjectInfo& object : found) {
      LsmTableId id;
      if (parse_lsm_table_key(how_.prefix, object.key, id) && id.epoch < epoch_) seen.push_back(id);
    }
    if (found.size() < kListStep) break;
    after = found.back().key;
  }
  const auto low = TRY(store_.list(io, how_.prefix + "catalog/", "", kListStep));
  for (const ObjectInfo& object : low) {
    const auto version = catalogs_.version_of(object.key);
    if (version && *version < view_->catalog.floor) stale_catalogs.push_back(*version);
  }
  // Compared with what is known after the list: a table is retired before it goes.
  std::set<LsmTableId> known;
  for (const auto& table : view_->catalog.tables) known.insert(table.id);
  for (const auto& retired : view_->catalog.retired) known.insert(retired.id);
  for (const LsmTableId& id : seen) {
    if (!known.contains(id)) orphans.push_back(id);
  }
  return ok;
}

Result<std::vector<LsmTableId>> LsmImpl::remove_retired(Io& io, int64_t now_ns) {
  const View_ view = view_;
  const uint64_t pinned = oldest_pinned();
  std::vector<LsmTableId> removed;
  for (const format::LsmRetired& retired : view->catalog.retired) {
    if (retired.id.epoch > epoch_ || retired.version > pinned) continue;
    if (now_ns - retired.since_ns < how_.readers_grace.count()) continue;
    TRY(store_.remove(io, lsm_table_key(how_.prefix, retired.id)));
    tables_.forget(retired.id);
    removed.push_back(retired.id);
    ++stats_.removed_objects;
    if (stopping_) break;
  }
  return removed;
}

// Catalogs that were announced a grace ago.
Result<void> LsmImpl::remove_catalogs(Io& io, int64_t now_ns, uint64_t* floor) {
  const View_ view = view_;
  *floor = view->catalog.floor;
  if (now_ns - view->catalog.doomed_since_ns < how_.readers_grace.count()) return ok;
  for (; *floor < view->catalog.doomed && !stopping_; ++*floor) {
    TRY(store_.remove(io, catalogs_.key_of(*floor)));
    ++stats_.removed_objects;
  }
  return ok;
}

Result<void> LsmImpl::collect(Io& io) {
  TRY(check_writer());
  const auto hold = collecting_.lock(io);
  TRY(settle_first(io));
  std::vector<LsmTableId> orphans = abandoned_;
  std::vector<uint64_t> stale;
  if (!orphans_known_) TRY(find_orphans(io, orphans, stale));
  const bool all = orphans.size() <= kRetireAtOnce;
  if (!all) orphans.resize(kRetireAtOnce);  // The rest next time.
  const int64_t now = TRY(store_.wall_clock_ns(io));
  // Nothing is removed by a writer that has been replaced without knowing it.
  TRY(catalogs_.confirm(io, epoch_));
  for (const uint64_t version : stale) TRY(store_.remove(io, catalogs_.key_of(version)));
  const std::vector<LsmTableId> removed = TRY(remove_retired(io, now));
  uint64_t floor = 0;
  TRY(remove_catalogs(io, now, &floor));
  const LsmCatalog& catalog = view_->catalog;
  const uint64_t keep = std::max<uint64_t>(how_.catalogs_kept, 1);
  const uint64_t doomed = std::max(
      catalog.doomed, std::min(hinted_, catalog.version > keep ? catalog.version - keep : 1));
  const bool announce = floor == catalog.doomed && doomed >= catalog.doomed + keep;
  if (orphans.empty() && removed.empty() && floor == catalog.floor && !announce) {
    orphans_known_ = true;
    return ok;
  }
  const std::set<LsmTableId> gone(removed.begin(), removed.end());
  TRY(publish(io, 0, [&](LsmCatalog& next) {
    std::erase_if(next.retired, [&](const auto& retired) { return gone.contains(retired.id); });
    for (const LsmTableId& id : orphans) {
      const auto same = [&](const auto& retired) { return retired.id == id; };
      if (std::ranges::none_of(next.retired, same)) next.retired.push_back({id, next.version, now});
    }
    next.floor = floor;
    if (announce) {
      next.doomed = doomed;
      next.doomed_since_ns = now;
    }
    return true;
  }));
  const size_t ours = static_cast<size_t>(
      std::ranges::count_if(orphans, [this](const LsmTableId& id) { return id.epoch == epoch_; }));
  abandoned_.erase(abandoned_.begin(), abandoned_.begin() + static_cast<ptrdiff_t>(ours));
  stats_.orphans_found += orphans.size() - ours;
  orphans_known_ = orphans_known_ || all;
  return ok;
}

// --- the fiber

// By our own clock, so that asking costs nothing; collect() asks the store's.
bool LsmImpl::collection_due(Io& io) const {
  if (!orphans_known_ || !abandoned_.empty()) return true;
  const LsmCatalog& catalog = view_->catalog;
  const int64_t then = io.wall_clock_ns() - how_.readers_grace.count();
  if (!catalog.retired.empty() && catalog.retired.front().since_ns <= then) return true;
  if (catalog.doomed > catalog.floor) return catalog.doomed_since_ns <= then;
  return catalog.version >= catalog.doomed + 2 * uint64_t{how_.catalogs_kept};
}

void LsmImpl::tidy(Io& io) {
  while (!stopping_ && !fenced_) {
    if (!std::exchange(tidy_wanted_, false)) {
      io.park(tidy_work_);
      continue;
    }
    Result<void> done = compact(io);
    if (done && !stopping_ && collection_due(io)) done = collect(io);
    if (!done && !stopping_ && !fenced_) {  // The next publish wakes it again.
      log(LogLevel::warning, "lsm: merging or removing failed: {}", text_of(done.error()));
    }
  }
}

}  // namespace firn::store
