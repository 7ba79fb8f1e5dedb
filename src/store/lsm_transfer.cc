// SPDX-License-Identifier: Apache-2.0
// Generations on their way to the store, and the one door through which catalogs change.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "store/lsm_impl.h"
#include "store/lsm_uploads.h"

namespace firn::store {

using format::LsmCatalog;

namespace {

constexpr Duration kTick = std::chrono::milliseconds(20);  // How late a trigger may be.
constexpr uint64_t kHintEvery = 8;                         // Versions.
constexpr size_t kSweepNodes = 64;                         // At a time; then others run.
constexpr int kPutTries = 3;

}  // namespace

// --- 2. freezing

Result<void> LsmImpl::freeze(Io& io) {
  // A log that is broken takes no more writes; what the cache has can be saved all the same.
  const bool broken = log_->broken().has_value();
  if (!broken) {
    TRY(log_->reclaim(io));  // What was published by who settled a doubt.
    TRY(log_->prepare(io));
  }
  const Time begin = io.now();
  {
    const NoWait latch;  // Writers are held for this, and for nothing else.
    if (cache_->dirty_entries() == 0) return ok;
    stable_dirty_bytes_ = cache_->dirty_bytes();
    stable_ = cache_->freeze();
    stable_segment_ = broken ? log_->live_segment() : log_->switch_segment();
    dirty_since_.reset();
    staged_.clear();
    staged_all_ = false;
  }
  stats_.latch = io.now() - begin;
  stats_.latch_max = std::max(stats_.latch_max, stats_.latch);
  return ok;
}

// --- 3. tables

Result<void> LsmImpl::upload(Io& io, Staged& staged) {
  const std::string key = lsm_table_key(how_.prefix, staged.table.id);
  std::vector<::iovec> body;
  for (const auto& piece : staged.body) body.push_back(slice_of(View(piece)));
  for (int i = 1;; ++i) {
    const auto put = store_.put(io, key, Iovec(body), {.once = true});
    if (!put && put.error().code == Errc::exists) {
      // The name is ours alone, so an earlier try of these bytes went through.
      const ObjectInfo there = TRY(store_.head(io, key));
      if (there.bytes != staged.table.bytes) {
        return fail(Errc::corrupt, "{}: is there with {} bytes instead of {}", key, there.bytes,
                    staged.table.bytes);
      }
    } else if (!put) {
      if (put.error().code == Errc::io && i < kPutTries) continue;
      return put.error();
    }
    staged.stored = true;
    while (!staged.body.empty()) {  // Piece by piece: giving back all at once takes long.
      staged.body.pop_back();
      if (staged.body.size() % 16 == 0) io.yield();
    }
    ++stats_.tables_written;
    return ok;
  }
}

// Goes on behind what an earlier, failed call has made.
Result<void> LsmImpl::stage(Io& io) {
  Uploads uploads(io, *this);
  for (Staged& staged : staged_) {
    if (!staged.stored) uploads.start(staged);
  }
  const std::string behind = staged_.empty() ? std::string() : staged_.back().table.last_key;
  const format::Uuid tree = view_->catalog.tree;
  LsmCache::Walk walk(stable_, behind, stable_.generation());
  while (!staged_all_ && !uploads.failed()) {
    LsmTableWriter writer(tree, next_table_id(), shape());
    const LsmCell* cell = nullptr;
    while (!writer.full() && (cell = walk.next()) != nullptr) {
      if (cell->key() == behind) continue;
      writer.add(io, {cell->key(), cell->value(), cell->removal});
    }
    staged_all_ = cell == nullptr;
    if (writer.empty()) break;
    LsmMadeTable made = writer.finish(io);
    staged_.push_back({std::move(made.table), std::move(made.body), false});
    uploads.start(staged_.back());
  }
  return uploads.finish();
}

// --- 4. publishing

Result<void> LsmImpl::settle(Io& io) {
  if (!doubt_) return ok;
  const auto appended = catalogs_.append(io, doubt_->next.version, epoch_, doubt_->body);
  if (appended) {
    install(io);
    return ok;
  }
  const Errc code = appended.error().code;
  if (code != Errc::fenced && code != Errc::exists) return appended.error();  // K3.
  // A number that a lower epoch took after our first catalog: impossible for one that obeys (K1).
  fenced_ = true;
  doubt_.reset();
  io.wake(room_);
  io.wake(work_);
  io.wake(tidy_work_);
  log(LogLevel::warning, "lsm: {}", text_of(appended.error()));
  return fail(Errc::fenced, "{} {}: another writer has taken over from epoch {}", store_.name(),
              how_.prefix, epoch_);
}

Result<void> LsmImpl::settle_first(Io& io) {
  const auto hold = publishing_.lock(io);
  TRY(check_writer());
  return settle(io);
}

Result<void> LsmImpl::publish(Io& io, uint64_t generation, const Edit& edit) {
  const auto hold = publishing_.lock(io);
  TRY(check_writer());
  TRY(settle(io));
  Doubt doubt;
  doubt.next = view_->catalog;
  ++doubt.next.version;
  doubt.next.epoch = epoch_;
  doubt.next.written_ns = io.wall_clock_ns();
  const le64 a(io.random()), b(io.random());
  std::ranges::copy(view_of(a), doubt.next.stamp.begin());
  std::ranges::copy(view_of(b), doubt.next.stamp.begin() + 8);
  if (!edit(doubt.next))
    return fail(Errc::busy, "catalog {}: changed meanwhile", doubt.next.version);
  doubt.body = format::encode(doubt.next);
  if (doubt.body.size() > format::kLsmCatalogBytesMax) {
    return fail(Errc::no_space, "catalog {}: {} bytes are too many", doubt.next.version,
                doubt.body.size());
  }
  doubt.generation = generation;
  doubt_ = std::move(doubt);
  return settle(io);
}

// --- 5. What was in doubt has happened.
void LsmImpl::install(Io& io) {
  set_view(std::move(doubt_->next));
  const uint64_t generation = doubt_->generation;
  doubt_.reset();
  tidy_wanted_ = true;
  io.wake(tidy_work_);
  if (generation == 0) return;
  CHECK(stable_ && stable_.generation() == generation);
  cache_->publish(generation);
  log_->retire(stable_segment_);
  stable_.reset();
  stable_dirty_bytes_ = 0;
  staged_.clear();
  ++stats_.transfers;
  io.wake(room_);
}

void LsmImpl::write_hint(Io& io) {
  const View_ view = view_;
  if (catalogs_.hint(io, view->catalog)) hinted_ = std::max(hinted_, view->catalog.version);
}

// --- all of it

Result<void> LsmImpl::transfer_once(Io& io) {
  if (!stable_) TRY(freeze(io));
  if (!stable_) return ok;
  TRY(stage(io));
  const uint64_t generation = stable_.generation();
  TRY(publish(io, generation, [this](LsmCatalog& next) {
    uint64_t run = 1;
    for (const format::LsmTable& table : next.tables) run = std::max(run, table.run + 1);
    std::vector<format::LsmTable> fresh;
    for (const Staged& staged : staged_) {
      fresh.push_back(staged.table);
      fresh.back().run = run;
    }
    next.tables.insert(next.tables.begin(), fresh.begin(), fresh.end());
    next.log_segment = stable_segment_;
    return true;
  }));
  if (view_->catalog.version >= hinted_ + kHintEvery) write_hint(io);
  TRY(log_->reclaim(io));
  while (cache_->sweep(kSweepNodes)) io.yield();
  return ok;
}

Result<uint64_t> LsmImpl::transfer(Io& io) {
  TRY(check_writer());
  if (doubt_) TRY(settle_first(io));
  const uint64_t wanted = cache_->live() - (cache_->dirty_entries() > 0 ? 0 : 1);
  while (cache_->published() < wanted) {
    const auto hold = transferring_.lock(io);
    TRY(settle_first(io));
    if (cache_->published() >= wanted) break;
    const auto moved = transfer_once(io);
    if (!moved) {
      ++stats_.transfer_errors;
      return moved.error();
    }
  }
  return view_->catalog.version;
}

// --- the fiber

// In slices, so that closing does not wait.
void LsmImpl::pause(Io& io, Duration span) {
  for (const Time end = io.now() + span; !stopping_ && !fenced_ && io.now() < end;) {
    io.sleep(std::min(kTick, end - io.now()));
  }
}

void LsmImpl::tend(Io& io) {
  uint32_t failures = 0;
  while (!stopping_ && !fenced_) {
    const bool under_way = stable_ || doubt_;
    if (!under_way && cache_->dirty_entries() == 0) {
      io.park(work_);
      continue;
    }
    const Duration age = dirty_since_ ? io.now() - *dirty_since_ : Duration{};
    if (!under_way && !policy::LsmPace::transfer_due(pressure(), age, how_.interval)) {
      io.sleep(std::clamp(how_.interval - age, Duration(1), kTick));
      continue;
    }
    const auto moved = transfer(io);
    if (moved) {
      failures = 0;
      continue;
    }
    if (failures++ == 0) {
      log(LogLevel::warning, "lsm: a transfer failed and is tried again: {}",
          text_of(moved.error()));
    }
    pause(io, policy::lsm_retry_pause(failures));
  }
  io.wake(room_);
}

}  // namespace firn::store
