// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// A bit wanders from `live_` over `taken_` into the log; each step happens between two waits, and a
// question looks at all three at one moment for each page of the log. So a change that is in
// one of them is never missed on its way (K7).
//
// What could not be written goes back to `live_` and gets a later counter than its event: more is
// told then, not less, except to those who ask up to that event; `mixed_` says that they must be
// told of live bits as well. The same is true of what a crash left.
#include "base/log.h"
#include "disk/changes.h"

namespace firn::disk {

using format::ChangesRecord;
using format::ChangesState;
using format::kLogEntries;

// --- events

Result<void> ChangeTracker::ready() const {
  if (!active_ || beginning_) {
    return fail(Errc::invalid, "disk '{}': its changes are not tracked", name_);
  }
  if (record_.event_counter >= format::kEventMax) {
    return fail(Errc::no_space, "disk '{}': its change counter has come to its end", name_);
  }
  return ok;
}

void ChangeTracker::swap_bitmaps(uint64_t counter) {
  if (taken_.count() > 0) take_back();  // Its event failed half way.
  live_.swap(taken_);
  live_pages_.swap(taken_pages_);
  live_pages_.clear_all();
  taken_counter_ = counter;
  writes_ = 0;
}

void ChangeTracker::take_back() {
  live_.merge(taken_);
  live_pages_.merge(taken_pages_);
  taken_.clear_all();
  taken_pages_.clear_all();
  mixed_ = true;
}

uint64_t ChangeTracker::take() {
  CHECK(ready());
  record_.event_counter = record_.event_counter + 1;
  swap_bitmaps(record_.event_counter);
  mixed_ = false;
  put_counter();
  ++counters_.events;
  return record_.event_counter;
}

Result<void> ChangeTracker::settle(Io& io) { return settle_now(io, true); }

Result<ChangeId> ChangeTracker::event(Io& io) {
  const auto hold = turn(io);
  TRY(ready());
  {
    const auto admission = TRY(pool_.pages().admit(io));
    TRY(ready());
    const NoWait atom;
    take();
  }
  const ChangeId id = now();
  TRY(settle(io));
  TRY(pool_.flush(io));
  return id;
}

// --- in the background

bool ChangeTracker::wants_flush(Time now) const {
  if (!active_ || beginning_) return false;
  const Duration since = now - flushed_;
  if (live_.count() == 0) return set_.count() > 0 && since >= policy::ChangeFlush::kEvery;
  return policy::ChangeFlush::due(since, live_.count(), live_.size(), live_pages_.count(), writes_);
}

Result<void> ChangeTracker::flush(Io& io) {
  constexpr uint32_t kFlushesOfGeneration = 12;
  const auto hold = turn(io);
  if (!active_ || beginning_) return ok;
  swap_bitmaps(record_.event_counter + 1);
  mixed_ = false;
  flushed_ = io.now();
  ++counters_.flushes;
  return settle_now(io, ++flushes_ >= kFlushesOfGeneration);
}

Result<void> ChangeTracker::settle_now(Io& io, bool ends_generation) {
  const Result<void> written = write_taken(io);
  if (!written) {
    if (active_) take_back();
    return written;
  }
  if (!active_ || !ends_generation || !older_flights_gone()) return ok;
  const Result<void> cleared = clear_idle(io, false);
  if (!cleared) {  // They say more than is needed, that is all.
    log(LogLevel::warning, "disk '{}': intents stay: {}", name_, text_of(cleared.error()));
    return pool_.writable();
  }
  const auto admission = TRY(pool_.pages().admit(io));
  if (active_ && older_flights_gone()) end_generation();
  come_to_rest();
  return ok;
}

// K5. The caller holds an admission.
void ChangeTracker::come_to_rest() {
  if (active_ && !beginning_ && set_.count() == 0 && live_.count() == 0 && taken_.count() == 0 &&
      static_cast<ChangesState>(record_.state) == ChangesState::open) {
    put_state(ChangesState::clean);
  }
}

Result<void> ChangeTracker::close(Io& io) {
  const auto hold = turn(io);
  if (!active_ || beginning_ || !pool_.writable()) return ok;
  swap_bitmaps(record_.event_counter + 1);
  TRY(settle_now(io, false));
  if (flights_[0] + flights_[1] > 0 || live_.count() > 0) return ok;
  TRY(clear_idle(io, true));
  const auto admission = TRY(pool_.pages().admit(io));
  come_to_rest();
  return ok;
}

// --- writing the log

Result<void> ChangeTracker::write_taken(Io& io) {
  const auto next = [this](uint64_t from) {
    return taken_pages_.next(std::min(from, taken_pages_.size()), taken_pages_.size());
  };
  for (uint64_t index = next(0); index < taken_pages_.size(); index = next(index + 1)) {
    const Result<void> written = write_log_page(io, index);
    if (!active_) return ok;
    if (written) continue;
    if (written.error().code == Errc::corrupt) {
      log(LogLevel::error, "disk '{}': the change log is lost, the next backup is a full one: {}",
          name_, text_of(written.error()));
      const auto admission = TRY(pool_.pages().admit(io));
      if (active_) invalidate();
    }
    return written;
  }
  return ok;
}

Result<void> ChangeTracker::write_log_page(Io& io, uint64_t index) {
  const auto admission = TRY(pool_.pages().admit(io));
  const PageRef leaf = TRY(log_page(io, index));
  if (!active_) return ok;
  const NoWait atom;
  const uint64_t first = index * kLogEntries;
  const uint64_t end = std::min(first + kLogEntries, taken_.size());
  for (uint64_t block = taken_.next(first, end); block < end;) {
    const uint64_t word = (block - first) / 2;
    std::array<le32, 2> pair = load<std::array<le32, 2>>(leaf.view().subspan(word * 8));
    for (const uint64_t half : {0U, 1U}) {
      if (first + word * 2 + half < end && taken_.test(first + word * 2 + half)) {
        pair[half] = static_cast<uint32_t>(taken_counter_);
      }
    }
    pool_.pages().set_bytes(leaf, word * 8, view_of(pair));
    block = taken_.next(std::min(first + word * 2 + 2, end), end);
  }
  if (first < end) taken_.clear_range(first, end);
  if (index < taken_pages_.size()) taken_pages_.clear(index);
  ++counters_.log_pages;
  return ok;
}

void ChangeTracker::lose_log_page(uint64_t index, Error why) {
  if (index >= lost_pages_.size() || !lost_pages_.set(index)) return;
  ++counters_.lost_log_pages;
  log(LogLevel::error, "disk '{}': all blocks of page {} of its change log count as changed: {}",
      name_, index, text_of(why));
}

// The page, made when it is not there, and made anew when it cannot be read: all its blocks
// may have changed up to now. The caller holds an admission.
Result<PageRef> ChangeTracker::log_page(Io& io, uint64_t index) {
  auto leaf = log_.make_leaf(io, index);
  if (leaf || leaf.error().code != Errc::corrupt) return leaf;
  lose_log_page(index, leaf.error());
  const auto nobody = walking_.lock(io);
  TRY(log_.drop_leaf(io, index));
  PageRef fresh = TRY(log_.make_leaf(io, index));
  std::array<le32, kLogEntries> all;
  all.fill(static_cast<uint32_t>(taken_counter_));
  pool_.pages().set_bytes(fresh, 0, view_of(all));
  if (index < lost_pages_.size()) lost_pages_.clear(index);
  return fresh;
}

// --- asking

Result<uint64_t> ChangeTracker::check(const ChangeId& id) const {
  const auto full = [&]<class... Args>(fmt::format_string<Args...> form, Args&&... args) {
    return fail(Errc::invalid, "disk '{}': full copy needed because {}", name_,
                fmt::format(form, std::forward<Args>(args)...));
  };
  if (id.disk != record_.disk) {
    return full("the change id is of another disk, {}", format::uuid_text(id.disk));
  }
  if (!active_ || beginning_) return full("its changes were not tracked all the time since");
  if (id.branch != record_.branch) {
    return full("branch {} was left: the disk went back to a snapshot, or its tracking began anew",
                format::uuid_text(id.branch));
  }
  if (id.counter > record_.event_counter) {
    return full("event {} has not happened here, the last one is {}", id.counter,
                record_.event_counter.get());
  }
  if (id.counter < record_.valid_from) {
    return full("the log begins at event {}, {} is older", record_.valid_from.get(), id.counter);
  }
  return id.counter;
}

struct ChangeTracker::Question {
  uint64_t since = 0;
  bool with_live = false;
  Range range;
};

// Joins neighbours and cuts them to the range.
class ChangeTracker::Emitter {
 public:
  Emitter(ChangeSink& sink, Range within) : sink_(sink), within_(within) {}
  bool add(uint64_t at, uint64_t end) {
    at = std::max(at, within_.at);
    end = std::min(end, within_.end());
    if (at >= end) return true;
    if (!run_.empty() && run_.end() == at) {
      run_.length += end - at;
      return true;
    }
    const bool more = run_.empty() || sink_.add(run_);
    run_ = {at, end - at};
    return more;
  }
  void finish() {
    if (!run_.empty()) sink_.add(run_);
  }

 private:
  ChangeSink& sink_;
  Range within_;
  Range run_;
};

// The blocks of one page of the log; false when the sink has enough.
Result<bool> ChangeTracker::query_leaf(Io& io, uint64_t index, const Question& question,
                                       Emitter& emitter) {
  PageRef leaf;
  bool lost = false;
  {
    const auto nobody_drops = walking_.lock(io);
    auto got = log_.leaf(io, index);
    if (!got && got.error().code != Errc::corrupt) return got.error();
    lost = !got;
    if (lost) lose_log_page(index, got.error());
    if (got) leaf = got.take();
  }
  if (!active_) return fail(Errc::cancelled, "disk '{}': its log was given up meanwhile", name_);
  const NoWait moment;
  const uint64_t first = std::max(index * kLogEntries, question.range.at >> shift_);
  const uint64_t end =
      std::min((index + 1) * kLogEntries,
               std::min(live_.size(), (question.range.end() + block_bytes() - 1) >> shift_));
  const bool grown = record_.growths[0].counter != 0;
  for (uint64_t block = first; block < end; ++block) {
    if (!lost && !leaf && !grown) {  // Bitmaps only.
      block = std::min(taken_.next(block, end), question.with_live ? live_.next(block, end) : end);
      if (block >= end) break;
    }
    const uint64_t counter =
        leaf ? load<le32>(leaf.view().subspan(block % kLogEntries * 4)).get() : 0;
    const bool dirty = lost || counter > question.since ||
#ifndef FIRN_MUTANT_taken_not_told
                       (taken_.test(block) && taken_counter_ > question.since) ||
#endif
                       (question.with_live && live_.test(block)) ||
                       (grown && format::grown_counter(record_, block) > question.since);
    if (dirty && !emitter.add(block << shift_, (block + 1) << shift_)) return false;
  }
  return true;
}

Result<void> ChangeTracker::query(Io& io, uint64_t since, std::optional<uint64_t> until,
                                  Range range, ChangeSink& sink) {
  CHECK(range.within(record_.bytes));
  TRY(ready());
  if (range.empty()) return ok;
  Question question{since, !until || mixed_, range};
  Emitter emitter(sink, range);
  const uint64_t last = ((range.end() - 1) >> shift_) / kLogEntries;
  for (uint64_t index = (range.at >> shift_) / kLogEntries; index <= last; ++index) {
    question.with_live = !until || mixed_;
    if (!TRY(query_leaf(io, index, question, emitter))) return ok;
  }
  emitter.finish();
  return ok;
}

}  // namespace firn::disk
