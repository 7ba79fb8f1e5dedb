// SPDX-License-Identifier: Apache-2.0
#include "store/lsm.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "store/lsm_impl.h"
#include "store/lsm_merge.h"

namespace firn::store {

using format::LsmCatalog;
using format::LsmEntry;
using format::text_view;
using format::view_of_text;

namespace {

constexpr uint64_t kSpillBytes = kMiB;       // The log's bytes in memory before they are written.
constexpr uint64_t kScanAhead = 256 * kKiB;  // What a cursor reads at a time from each run.
constexpr int kTakeOverTries = 64;

format::Uuid random_uuid(Io& io) {
  format::Uuid uuid;
  const le64 a(io.random()), b(io.random());
  std::ranges::copy(view_of(a), uuid.begin());
  std::ranges::copy(view_of(b), uuid.begin() + 8);
  return uuid;
}

// The cache at one moment, as a source.
class CacheSource final : public LsmSource {
 public:
  CacheSource(const LsmCache::Snapshot& snapshot, std::string_view from) : walk_(snapshot, from) {}
  Result<bool> next(Io&) override {
    cell_ = walk_.next();
    return cell_ != nullptr;
  }
  LsmEntry entry() const override { return {cell_->key(), cell_->value(), cell_->removal}; }

 private:
  LsmCache::Walk walk_;
  const LsmCell* cell_ = nullptr;
};

class MergedCursor final : public Lsm::Cursor {
 public:
  MergedCursor(std::shared_ptr<LsmCache> cache, std::shared_ptr<const LsmView> view, std::string to)
      : cache_(std::move(cache)),
        view_(std::move(view)),
        snapshot_(cache_->snapshot()),
        to_(std::move(to)) {}

  void begin(LsmTables& tables, std::string_view from) {
    std::vector<std::unique_ptr<LsmSource>> sources;
    sources.push_back(std::make_unique<CacheSource>(snapshot_, from));
    for (const LsmView::Run& run : view_->runs) {
      std::vector<format::LsmTable> some;
      for (const format::LsmTable& table : run.tables) {
        if (table.last_key >= from && (to_.empty() || table.first_key < to_)) some.push_back(table);
      }
      if (some.empty()) continue;
      sources.push_back(
          std::make_unique<LsmRunSource>(tables, std::move(some), std::string(from), kScanAhead));
    }
    merge_.emplace(std::move(sources));
  }
  Result<bool> next(Io& io) override {
    while (!over_) {
      over_ = !TRY(merge_->next(io));
      if (over_) break;
      const LsmEntry entry = merge_->entry();
      over_ = !to_.empty() && entry.key >= to_;
      if (!over_ && !entry.removal) return true;
    }
    return false;
  }
  std::string_view key() const override { return merge_->entry().key; }
  std::string_view value() const override { return merge_->entry().value; }

 private:
  std::shared_ptr<LsmCache> cache_;  // Outlives the snapshot.
  std::shared_ptr<const LsmView> view_;
  LsmCache::Snapshot snapshot_;
  std::string to_;
  std::optional<LsmMerge> merge_;
  bool over_ = false;
};

}  // namespace

// --- LsmBatch

void LsmBatch::put(View key, View value) {
  format::append_lsm_put(bytes_, key, value);
  ++count_;
  CHECK(bytes_.size() <= kLsmBatchBytesMax, "a batch of {} bytes", bytes_.size());
}
void LsmBatch::put(std::string_view key, std::string_view value) {
  put(view_of_text(key), view_of_text(value));
}
void LsmBatch::remove(View key) {
  format::append_lsm_removal(bytes_, key);
  ++count_;
  CHECK(bytes_.size() <= kLsmBatchBytesMax, "a batch of {} bytes", bytes_.size());
}
void LsmBatch::remove(std::string_view key) { remove(view_of_text(key)); }

// --- LsmView

LsmView::LsmView(LsmCatalog from) : catalog(std::move(from)) {
  const format::LsmTable* before = nullptr;
  for (const format::LsmTable& table : catalog.tables) {
    if (before == nullptr || before->run != table.run) {
      runs.push_back({table.level, {}});
      if (runs_by_level.size() <= table.level) runs_by_level.resize(table.level + 1);
      ++runs_by_level[table.level];
    }
    runs.back().tables.push_back(table);
    before = &table;
  }
}

const format::LsmTable* LsmView::Run::table_of(std::string_view key) const {
  const auto found = std::ranges::lower_bound(tables, key, {}, [](const format::LsmTable& table) {
    return std::string_view(table.last_key);
  });
  return found == tables.end() || found->first_key > key ? nullptr : &*found;
}

// --- opening

LsmImpl::LsmImpl(ObjectStore& store, const LsmHow& how, bool writer)
    : store_(store),
      how_(how),
      writer_(writer),
      catalogs_(store, how.prefix),
      tables_(store, how.prefix, how.index_cache_bytes),
      cache_(std::make_shared<LsmCache>()) {
  CHECK(!how.prefix.empty() && how.prefix.back() == '/' && how.capacity_bytes > 0);
  CHECK(how.block_bytes <= format::kLsmBlockTargetMax && how.uploads > 0);
}

LsmImpl::~LsmImpl() { CHECK(!fibers_, "close() comes before destruction"); }

Result<std::unique_ptr<Lsm>> Lsm::open(Io& io, ObjectStore& store, const std::string& log_directory,
                                       const LsmHow& how) {
  auto lsm = std::make_unique<LsmImpl>(store, how, true);
  TRY(lsm->take_over(io, log_directory));
  return std::unique_ptr<Lsm>(std::move(lsm));
}

Result<std::unique_ptr<Lsm>> Lsm::open_reader(Io& io, ObjectStore& store, const LsmHow& how,
                                              uint64_t version) {
  auto lsm = std::make_unique<LsmImpl>(store, how, false);
  TRY(lsm->look(io, version));
  return std::unique_ptr<Lsm>(std::move(lsm));
}

Result<void> LsmImpl::look(Io& io, uint64_t version) {
  if (version != 0) {
    set_view(TRY(catalogs_.load(io, version)));
    return ok;
  }
  auto newest = TRY(catalogs_.newest(io, 0));
  if (!newest) return fail(Errc::not_found, "{}: no tree at {}", store_.name(), how_.prefix);
  set_view(std::move(*newest));
  return ok;
}

void LsmImpl::set_view(LsmCatalog catalog) {
  tables_.set_tree(catalog.tree);
  if (view_) old_views_.push_back(view_);
  std::erase_if(old_views_, [](const auto& view) { return view.expired(); });
  view_ = std::make_shared<const LsmView>(std::move(catalog));
}

// Whether the local log belongs behind `newest`. If not, and it holds something, that is lost: an
// error unless the caller agreed.
Result<bool> LsmImpl::log_continues(Io& io, const std::optional<LsmCatalog>& newest) {
  if (!log_->found()) return false;
  if (newest && log_->tree() == newest->tree && log_->log() == newest->log) return true;
  if (how_.drop_stale_log || !TRY(log_->has_batches(io))) return false;
  if (!newest || log_->tree() != newest->tree) {
    return fail(Errc::invalid, "the local log belongs to tree {}, and not to the one at {} {}",
                format::uuid_text(log_->tree()), store_.name(), how_.prefix);
  }
  return fail(Errc::fenced,
              "the local log holds writes that another writer, who took over at {} {}, never saw",
              store_.name(), how_.prefix);
}

// The catalog with which the reign begins.
Result<LsmCatalog> LsmImpl::append_first(Io& io, bool* continues) {
  for (int i = 0; i < kTakeOverTries; ++i) {
    auto newest = TRY(catalogs_.newest_for_writer(io));
    if (newest && newest->epoch >= epoch_) {
      return fail(Errc::fenced, "{} {}: epoch {} took over meanwhile", store_.name(), how_.prefix,
                  newest->epoch);
    }
    *continues = TRY(log_continues(io, newest));
    LsmCatalog next;
    if (newest) next = std::move(*newest);
    if (next.version == 0) next.tree = random_uuid(io);
    if (!*continues) {
      next.log = random_uuid(io);
      next.log_segment = 0;
    }
    ++next.version;
    next.epoch = epoch_;
    next.stamp = random_uuid(io);
    next.written_ns = io.wall_clock_ns();
    const auto body = format::encode(next);
    auto appended = catalogs_.append(io, next.version, epoch_, body);
    for (int again = 0; again < 3 && !appended && appended.error().code == Errc::io; ++again) {
      appended = catalogs_.append(io, next.version, epoch_, body);  // K3.
    }
    if (appended) return next;
    if (appended.error().code != Errc::exists) return appended.error();
  }
  return fail(Errc::busy, "{} {}: the former writer is too fast", store_.name(), how_.prefix);
}

Result<void> LsmImpl::restore(Io& io, bool continues) {
  const LsmCatalog& catalog = view_->catalog;
  if (!continues) {
    TRY(log_->begin(io, catalog.tree, catalog.log, 1));
    return ok;
  }
  const size_t segments =
      TRY(log_->replay(io, catalog.log_segment, [this](View batch) { return apply(batch); }));
  if (cache_->dirty_entries() > 0) dirty_since_ = io.now();
  // Two at most may wait for the store (G3), and one comes with every transfer.
  if (segments > 1) TRY(transfer(io));
  return ok;
}

Result<void> LsmImpl::take_over(Io& io, const std::string& log_directory) {
  log_ = TRY(LsmLog::open(io, log_directory, how_.capacity_bytes / 2));
  // What would be refused is refused before the former writer is fenced.
  if (log_->found()) TRY(log_continues(io, TRY(catalogs_.newest(io, 0))));
  epoch_ = TRY(catalogs_.claim_epoch(io));
  bool continues = false;
  set_view(TRY(append_first(io, &continues)));
  write_hint(io);
  TRY(restore(io, continues));
  if (how_.background) {
    fibers_.emplace(io);
    io.spawn(*fibers_, [this, &io] { tend(io); });
    io.spawn(*fibers_, [this, &io] { tidy(io); });
  }
  return ok;
}

Result<void> LsmImpl::close(Io& io) {
  if (closed_) return ok;
  stopping_ = true;
  io.wake(work_);
  io.wake(tidy_work_);
  io.wake(room_);
  fibers_.reset();
  Result<void> result = ok;
  if (writer_ && !fenced_) {
    const auto moved = transfer(io);
    if (moved) {
      if (hinted_ != view_->catalog.version) write_hint(io);
      result = log_->forget(io);
    } else {
      result = moved.error();
      const auto kept = log_->sync(io);
      static_cast<void>(kept);  // The first error is the one to tell.
    }
  }
  closed_ = true;
  stable_.reset();
  if (log_) log_->release();
  return result;
}

// --- writing

Result<void> LsmImpl::check_writer() const {
  if (!writer_)
    return fail(Errc::invalid, "{} {}: is open for reading", store_.name(), how_.prefix);
  if (closed_) return fail(Errc::cancelled, "{} {}: is closed", store_.name(), how_.prefix);
  if (fenced_) {
    return fail(Errc::fenced, "{} {}: another writer has taken over from epoch {}", store_.name(),
                how_.prefix, epoch_);
  }
  return ok;
}

policy::LsmPressure LsmImpl::pressure() const {
  const uint64_t dirty = cache_->dirty_bytes();
  const uint64_t live = cache_->dirty_entries() == 0 ? 0 : std::max(dirty, log_->bytes_live());
  return {live, std::max(dirty + stable_dirty_bytes_, log_->bytes()), how_.capacity_bytes};
}

Result<void> LsmImpl::apply(View batch) {
  format::LsmBatchReader reader(batch);
  while (TRY(reader.next())) {
    const LsmEntry entry = reader.entry();
    cache_->put(entry.key, entry.value, entry.removal);
  }
  return ok;
}

// Without fibers: the writer moves a full generation itself. A store that fails is not asked at
// every write.
Result<void> LsmImpl::transfer_inline(Io& io) {
  const bool hard = policy::LsmPace::must_stop(pressure());
  if (!hard && try_after_ && io.now() < *try_after_) return ok;
  const auto moved = transfer(io);
  if (moved) {
    try_after_.reset();
    return ok;
  }
  try_after_ = io.now() + std::chrono::seconds(1);
  return hard || moved.error().code == Errc::fenced ? Result<void>(moved.error()) : ok;
}

// L7.
Result<void> LsmImpl::admit(Io& io) {
  bool delayed = false;
  while (true) {
    TRY(check_writer());
    const policy::LsmPressure now = pressure();
    if (policy::LsmPace::must_stop(now)) {
      if (stopping_) return fail(Errc::cancelled, "{}: is closing", store_.name());
      if (!how_.background) {
        TRY(transfer_inline(io));
        continue;
      }
      io.wake(work_);
      const Time begin = io.now();
      io.park(room_);
      stats_.delayed += io.now() - begin;
      continue;
    }
    const Duration delay =
        policy::LsmPace::pressure_delay(now) + policy::LsmPace::debt_delay(view_->runs.size());
    if (delayed || delay == Duration{}) return ok;
    delayed = true;
    stats_.delayed += delay;
    io.sleep(delay);
  }
}

void LsmImpl::trim_cache() {
  const uint64_t dirty = cache_->dirty_bytes() + stable_dirty_bytes_;
  for (int i = 0; i < 2 && cache_->bytes() > how_.cache_bytes + dirty; ++i) {
    stats_.evicted += cache_->evict_some();
  }
}

Result<void> LsmImpl::write(Io& io, LsmBatch&& batch) {
  TRY(check_writer());
  if (batch.empty()) return ok;
  TRY(admit(io));
  if (log_->broken()) return *log_->broken();
  {
    const NoWait atomic;  // L1, L3: a clone sees a batch whole; the log has the cache's order.
    CHECK(apply(batch.bytes_), "a batch of our own making");
    log_->append(batch.bytes_);
  }
  ++stats_.batches;
  trim_cache();
  if (!dirty_since_) dirty_since_ = io.now();
  io.wake(work_);
  if (log_->pending_bytes() >= kSpillBytes) TRY(log_->spill(io));
  if (!how_.background && pressure().live_bytes >= how_.capacity_bytes) TRY(transfer_inline(io));
  return ok;
}

Result<void> LsmImpl::sync(Io& io) {
  TRY(check_writer());
  TRY(log_->sync(io));
  return check_writer();
}

// --- reading

Result<std::optional<std::string>> LsmImpl::get(Io& io, View key_bytes) {
  const std::string_view key = text_view(key_bytes);
  CHECK(!key.empty() && key.size() <= kLsmKeyBytesMax, "a key of {} bytes", key.size());
  if (const LsmCell* cell = cache_->find(key)) {
    ++stats_.hits;
    if (cell->removal) return std::optional<std::string>();
    return std::optional<std::string>(cell->value());
  }
  ++stats_.misses;
  const View_ view = view_;
  const uint64_t hash = format::lsm_hash(key_bytes);
  for (const LsmView::Run& run : view->runs) {
    const format::LsmTable* const table = run.table_of(key);
    if (table == nullptr) continue;
    auto found = TRY(tables_.get(io, *table, key, hash));
    if (!found.there) continue;
    if (found.removal) break;
    // Only while nothing newer can have come and gone: published and evicted.
    if (current(view)) cache_->remember(key, found.value);
    trim_cache();
    return std::optional<std::string>(std::move(found.value));
  }
  return std::optional<std::string>();
}

Result<std::unique_ptr<Lsm::Cursor>> LsmImpl::scan(Io&, std::string_view from,
                                                   std::string_view to) {
  if (closed_) return fail(Errc::cancelled, "{} {}: is closed", store_.name(), how_.prefix);
  auto cursor = std::make_unique<MergedCursor>(cache_, view_, std::string(to));
  cursor->begin(tables_, from);
  return std::unique_ptr<Cursor>(std::move(cursor));
}

Result<uint64_t> LsmImpl::refresh(Io& io) {
  if (writer_) return view_->catalog.version;
  auto newest = TRY(catalogs_.newest(io, view_->catalog.version));
  if (!newest)
    return fail(Errc::not_found, "{}: no tree at {} any more", store_.name(), how_.prefix);
  if (newest->version > view_->catalog.version) {
    set_view(std::move(*newest));
    cache_ = std::make_shared<LsmCache>();  // What it remembers may be old.
  }
  return view_->catalog.version;
}

LsmStats LsmImpl::stats() const {
  LsmStats stats = stats_;
  stats.epoch = view_->catalog.epoch;
  stats.version = view_->catalog.version;
  stats.tables = view_->catalog.tables.size();
  stats.runs = view_->runs.size();
  for (const format::LsmTable& table : view_->catalog.tables) stats.table_bytes += table.bytes;
  stats.retired_objects = view_->catalog.retired.size();
  stats.live_generation = cache_->live();
  stats.stable_generation = stable_ ? stable_.generation() : 0;
  stats.live_root = cache_->root_number();
  stats.stable_root = stable_.root_number();
  stats.dirty_bytes_live = cache_->dirty_bytes();
  stats.dirty_bytes_stable = stable_dirty_bytes_;
  stats.cache_bytes = cache_->bytes();
  stats.filtered = tables_.filtered();
  if (log_) {
    stats.log_bytes = log_->bytes();
    stats.log_flushes = log_->flushes();
  }
  stats.fenced = fenced_;
  return stats;
}

}  // namespace firn::store
