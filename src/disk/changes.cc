// SPDX-License-Identifier: Apache-2.0
// The life of a ChangeTracker, its intents and its marks; the log is in changes_log.cc.
//
// Notes on the design
//
// Intents. A region's bit is *set* in its page, and *durable* after a commit that began later. A
// miss sets a whole run of regions and commits; others that miss meanwhile share the commit.
//
// Generations say when a bit may go (K4). Every flight touches its regions in the generation in
// which it begins. A generation ends when no flight of the one before it is left; so a flight in
// the air is of this generation or of the last one, and its regions are in `recent_` or `older_`.
// What is in neither, after all marks went to the log, is idle: its bit is cleared. A mark that
// came after the bitmap was swapped is of such a flight, too.
//
// Order of locks: turn, gate, range, admission, as in thin_write.cc; nothing here waits for a turn
// with an admission held.
#include "disk/changes.h"

#include "base/log.h"

namespace firn::disk {

using format::ChangesRecord;
using format::ChangesState;
using format::kIntentBits;
using format::kLogEntries;
using store::PageKind;

namespace {
constexpr uint64_t kIntentWords = kIntentBits / 64;
uint64_t log_pages_of(uint64_t blocks) { return (blocks + kLogEntries - 1) / kLogEntries; }

bool means_give_up(Error why) { return why.code == Errc::no_space || why.code == Errc::corrupt; }

format::Uuid fresh_branch(Io& io) {
  format::Uuid uuid;
  const std::array<le64, 2> words{le64(io.random()), le64(io.random())};
  std::memcpy(uuid.data(), words.data(), uuid.size());
  return uuid;
}
}  // namespace

ChangeTracker::ChangeTracker(store::Pool& pool, PageRef page, size_t at,
                             const ChangesRecord& record, std::string name)
    : pool_(pool),
      page_(std::move(page)),
      at_(at),
      record_(record),
      name_(std::move(name)),
      shift_(static_cast<uint32_t>(record.block_shift)),
      log_(pool.pages(), page_.again(), at + offsetof(ChangesRecord, log), PageKind::change_log),
      intents_(pool.pages(), page_.again(), at + offsetof(ChangesRecord, intents),
               PageKind::change_intents) {}

ChangesRecord ChangeTracker::fresh_record(const format::Uuid& disk, uint64_t bytes,
                                          int64_t now_ns) {
  ChangesRecord record;
  record.state = static_cast<std::byte>(ChangesState::invalid);
  record.block_shift = static_cast<std::byte>(format::change_block_shift(bytes));
  record.disk = disk;
  record.bytes = bytes;
  record.created_ns = static_cast<uint64_t>(now_ns);
  return record;
}

Result<std::unique_ptr<ChangeTracker>> ChangeTracker::open(Io& io, store::Pool& pool, PageRef page,
                                                           size_t at, std::string name) {
  const auto record = TRY(format::decode_changes(page.view().subspan(at, format::kRecordBytes)));
  std::unique_ptr<ChangeTracker> tracker(
      new ChangeTracker(pool, std::move(page), at, record, std::move(name)));
  if (static_cast<ChangesState>(record.state) != ChangesState::invalid) TRY(tracker->recover(io));
  tracker->flushed_ = io.now();
  return tracker;
}

// --- geometry and the record

uint64_t ChangeTracker::block_count(uint64_t bytes) const {
  return (bytes + block_bytes() - 1) >> shift_;
}

ChangeTracker::Span ChangeTracker::blocks_of(Range range) const {
  const uint64_t end = std::min(((range.end() - 1) >> shift_) + 1, live_.size());
  return {std::min(range.at >> shift_, end), end};
}

ChangeTracker::Span ChangeTracker::regions_of(Range range) const {
  const uint32_t shift = shift_ + format::kRegionShift;
  const uint64_t end = std::min(((range.end() - 1) >> shift) + 1, set_.size());
  return {std::min(range.at >> shift, end), end};
}

void ChangeTracker::put(size_t offset, View bytes) {
  pool_.pages().set_bytes(page_, at_ + offset, bytes);
}
void ChangeTracker::put_state(ChangesState state) {
  record_.state = static_cast<std::byte>(state);
  put(0, view_of(record_).first(8));
}
void ChangeTracker::put_counter() {
  put(offsetof(ChangesRecord, event_counter), view_of(record_.event_counter));
}

void ChangeTracker::size_bitmaps(uint64_t bytes) {
  const uint64_t blocks = block_count(bytes);
  const uint64_t regions = (blocks + (1U << format::kRegionShift) - 1) >> format::kRegionShift;
  for (Bits* bits : {&live_, &taken_}) bits->resize(blocks);
  for (Bits* bits : {&live_pages_, &taken_pages_, &lost_pages_}) bits->resize(log_pages_of(blocks));
  for (Bits* bits : {&set_, &durable_, &recent_, &older_}) bits->resize(regions);
}

uint64_t ChangeTracker::memory_bytes() const {
  return sizeof *this + 8 * (live_.words() + taken_.words() + live_pages_.words() +
                             taken_pages_.words() + set_.words() * 4);
}

ChangeId ChangeTracker::now() const {
  return {record_.disk, record_.branch, record_.event_counter};
}

// --- beginning and ending

void ChangeTracker::activate() {
  CHECK(!active_ && flights_[0] + flights_[1] == 0);
  const auto stored = load<ChangesRecord>(page_.view().subspan(at_));
  CHECK(stored.log.page == format::kNoPage && stored.intents.page == format::kNoPage,
        "the log of before is still there");
  record_.event_counter = 0;
  record_.valid_from = 0;
  format::cut_growths(record_, 0);
  record_.block_shift = static_cast<std::byte>(format::change_block_shift(record_.bytes));
  shift_ = static_cast<uint32_t>(record_.block_shift);
  put_state(ChangesState::invalid);
  put_counter();
  put(offsetof(ChangesRecord, valid_from), view_of(record_.valid_from));
  put(offsetof(ChangesRecord, growths), std::as_bytes(std::span(record_.growths)));
  size_bitmaps(record_.bytes);
  mixed_ = false;
  generation_ = 0;
  reach_ = {};
  active_ = beginning_ = true;
}

void ChangeTracker::invalidate() {
  active_ = beginning_ = false;
  put_state(ChangesState::invalid);
  size_bitmaps(0);
}

Result<void> ChangeTracker::begin(Io& io, BlockDevice& disk) {
  const Result<void> begun = begin_now(io, disk);
  if (!begun && beginning_ && pool_.writable()) {
    const auto admission = TRY(pool_.pages().admit(io));
    if (beginning_) invalidate();
  }
  return begun;
}

Result<void> ChangeTracker::begin_now(Io& io, BlockDevice& disk) {
  class Allocated final : public ExtentSink {
   public:
    explicit Allocated(ChangeTracker& tracker) : tracker_(tracker) {}
    bool add(ExtentRun run) override {
      const Span blocks = tracker_.blocks_of({at_, run.length});
      if (run.kind == Extent::data && blocks.first < blocks.end) {
        tracker_.taken_.set_range(blocks.first, blocks.end);
        tracker_.taken_pages_.set_range(blocks.first / kLogEntries, log_pages_of(blocks.end));
      }
      at_ += run.length;
      return tracker_.beginning_;
    }

   private:
    ChangeTracker& tracker_;
    uint64_t at_ = 0;
  };
  const auto hold = turn(io);
  CHECK(beginning_ || !active_);
  Allocated sink(*this);
  taken_counter_ = 1;
  if (beginning_) TRY(disk.map(io, {0, record_.bytes}, sink));
  if (beginning_) TRY(write_taken(io));
  {
    const auto admission = TRY(pool_.pages().admit(io));
    if (!beginning_) {
      return fail(Errc::cancelled, "disk '{}': its content was exchanged while tracking began",
                  name_);
    }
    const NoWait atom;
    record_.branch = fresh_branch(io);
    record_.event_counter = 1;
    put(offsetof(ChangesRecord, branch), record_.branch);
    put_counter();
    put_state(ChangesState::open);
    beginning_ = false;
  }
  ++counters_.events;
  return pool_.flush(io);
}

Result<void> ChangeTracker::free_pages(Io& io) {
  CHECK(!active_);
  const auto hold = turn(io);
  const auto nobody = walking_.lock(io);
  TRY(log_.free_all(io));
  return intents_.free_all(io);
}

void ChangeTracker::resize(uint64_t bytes) {
  if (bytes > record_.bytes) {
    format::add_growth(record_, record_.bytes >> shift_, record_.event_counter + 1);
  } else {
    format::cut_growths(record_, block_count(bytes));
  }
  record_.bytes = bytes;
  put(offsetof(ChangesRecord, bytes), view_of(record_.bytes));
  put(offsetof(ChangesRecord, growths), std::as_bytes(std::span(record_.growths)));
  if (active_) size_bitmaps(bytes);
}

Result<void> ChangeTracker::for_each_page(Io& io, store::PageStore& pages, const PageRef& page,
                                          size_t at, const store::PageTree::VisitPage& visit) {
  store::PageTree log(pages, page.again(), at + offsetof(ChangesRecord, log), PageKind::change_log);
  store::PageTree intents(pages, page.again(), at + offsetof(ChangesRecord, intents),
                          PageKind::change_intents);
  TRY(log.for_each_page(io, visit));
  return intents.for_each_page(io, visit);
}

// --- on the way of a write

ChangeTracker::Flight::Flight(ChangeTracker& tracker, Range range)
    : tracker_(&tracker), range_(range), generation_(tracker.generation_) {
  ++tracker.flights_[generation_ % 2];
  const Span regions = tracker.regions_of(range);
  tracker.recent_.set_range(regions.first, regions.end);
}

Result<ChangeTracker::Flight> ChangeTracker::intend(Io& io, Range range) {
  if (!active_ || range.empty()) return Flight();
  Flight flight(*this, range);
  const Span regions = regions_of(range);
  if (durable_.all(regions.first, regions.end)) {
    reach_.hit();
    return flight;
  }
  ++counters_.intent_misses;
  TRY(make_durable(io, regions));
  return flight;
}

void ChangeTracker::mark(Range range) {
  if (!active_ || range.empty()) return;
  ++counters_.marks;
  ++writes_;
  const Span blocks = blocks_of(range);
  if (blocks.first + 1 == blocks.end) {
    if (live_.set(blocks.first)) live_pages_.set(blocks.first / kLogEntries);
  } else if (blocks.first < blocks.end) {
    live_.set_range(blocks.first, blocks.end);
    live_pages_.set_range(blocks.first / kLogEntries, log_pages_of(blocks.end));
  }
}

// --- intents

Result<void> ChangeTracker::make_durable(Io& io, Span regions) {
  while (active_ && !durable_.all(regions.first, regions.end)) {
    Span run = regions;
    if (!set_.all(regions.first, regions.end)) {
      const uint64_t reach = reach_.miss(set_.size());
      run = {round_down(regions.first, reach), std::min(round_up(regions.end, reach), set_.size())};
      TRY(set_intents(io, run));
    }
    if (!active_) break;
#ifndef FIRN_MUTANT_intent_not_durable
    TRY(pool_.flush(io));
#endif
    run.end = std::min(run.end, set_.size());
    for (uint64_t region = run.first; region < run.end; ++region) {
      if (set_.test(region)) durable_.set(region);
    }
  }
  return ok;
}

Result<void> ChangeTracker::set_intents(Io& io, Span run) {
  for (uint64_t page = run.first / kIntentBits; page * kIntentBits < run.end; ++page) {
    const Result<void> done = put_intents(io, page, run);
    if (done) continue;
    if (!means_give_up(done.error())) return done;
    return give_up(io, done.error());
  }
  return ok;
}

// The guest comes first: where no intent can be kept, its write goes on without being tracked.
Result<void> ChangeTracker::give_up(Io& io, Error why) {
  log(LogLevel::error,
      "disk '{}': changes are not tracked any more, the next backup is a full one: {}", name_,
      text_of(why));
  {
    const auto admission = TRY(pool_.pages().admit(io));
    invalidate();
  }
  return pool_.flush(io);
}

// Sets those bits of the run that lie in this page.
Result<void> ChangeTracker::put_intents(Io& io, uint64_t page, Span run) {
  const auto admission = TRY(pool_.pages().admit(io));
  const PageRef leaf = TRY(intents_.make_leaf(io, page));
  if (!active_) return ok;
  const NoWait atom;
  if (static_cast<ChangesState>(record_.state) == ChangesState::clean) {
    put_state(ChangesState::open);
  }
  const uint64_t first = std::max(run.first, page * kIntentBits);
  const uint64_t end = std::min({run.end, (page + 1) * kIntentBits, set_.size()});
  if (first >= end) return ok;
  if (worker_ != nullptr) io.wake(*worker_);
  set_.set_range(first, end);
  recent_.set_range(first, end);
  for (uint64_t word = first / 64; word * 64 < end; ++word) {
    const uint64_t slot = word % kIntentWords;
    if (leaf.word(slot) != set_.word(word)) pool_.pages().set_word(leaf, slot, set_.word(word));
  }
  return ok;
}

// Clears the bits of idle regions, or all of them.
Result<void> ChangeTracker::clear_idle(Io& io, bool all) {
  for (uint64_t page = 0; page * kIntentWords < set_.words(); ++page) {
    const auto kept = [&](uint64_t word) {
#ifdef FIRN_MUTANT_intent_cleared_early
      const uint64_t busy = older_.word(word);
#else
      const uint64_t busy = recent_.word(word) | older_.word(word);
#endif
      return all ? 0 : set_.word(word) & busy;
    };
    const auto any = [&] {
      const uint64_t end = std::min((page + 1) * kIntentWords, set_.words());
      for (uint64_t word = page * kIntentWords; word < end; ++word) {
        if (kept(word) != set_.word(word)) return true;
      }
      return false;
    };
    if (!any()) continue;
    const auto admission = TRY(pool_.pages().admit(io));
    const PageRef leaf = TRY(intents_.make_leaf(io, page));
    const NoWait atom;
    const uint64_t end = std::min((page + 1) * kIntentWords, set_.words());
    for (uint64_t word = page * kIntentWords; word < end; ++word) {
      const uint64_t keep = kept(word);
      if (keep == set_.word(word)) continue;
      set_.set_word(word, keep);
      durable_.set_word(word, durable_.word(word) & keep);
      pool_.pages().set_word(leaf, word % kIntentWords, keep);
    }
  }
  return ok;
}

void ChangeTracker::end_generation() {
  older_.swap(recent_);
  recent_.clear_all();
  ++generation_;
  flushes_ = 0;
}

// --- after a stop

Result<void> ChangeTracker::recover(Io& io) {
  size_bitmaps(record_.bytes);
  active_ = true;
  if (static_cast<ChangesState>(record_.state) == ChangesState::clean) return ok;
  for (uint64_t page = 0; page * kIntentBits < set_.size() && active_; ++page) {
    TRY(recover_intents(io, page));
  }
  if (!active_) return ok;
  mixed_ = live_.count() > 0;
  counters_.recovered_blocks = live_.count();
  if (!mixed_) return ok;
  log(LogLevel::info, "disk '{}': was not closed; {} blocks of {} KiB count as changed", name_,
      live_.count(), block_bytes() / kKiB);
  return ok;
}

Result<void> ChangeTracker::recover_intents(Io& io, uint64_t page) {
  const uint64_t first = page * kIntentBits;
  const uint64_t end = std::min(first + kIntentBits, set_.size());
  const auto leaf = intents_.leaf(io, page);
  if (!leaf && leaf.error().code != Errc::corrupt) return leaf.error();
  if (leaf && !*leaf) return ok;
  const auto take_in = [&](uint64_t region) {
    const uint64_t blocks = uint64_t{1} << format::kRegionShift;
    const uint64_t stop = std::min((region + 1) * blocks, live_.size());
    live_.set_range(region * blocks, stop);
    live_pages_.set_range(region * blocks / kLogEntries, log_pages_of(stop));
    recent_.set(region);
  };
  if (leaf) {
    for (uint64_t region = first; region < end; ++region) {
      if ((leaf->word((region - first) / 64) >> (region % 64) & 1) == 0) continue;
      take_in(region);
      set_.set(region);
      durable_.set(region);
    }
    return ok;
  }
  // What the page said is not known: anything may have changed.
  log(LogLevel::error, "disk '{}': all blocks of an intent page count as changed: {}", name_,
      text_of(leaf.error()));
  for (uint64_t region = first; region < end; ++region) take_in(region);
  if (!pool_.writable()) return ok;
  const auto admission = TRY(pool_.pages().admit(io));
  Result<void> mended = intents_.drop_leaf(io, page);
  if (mended) mended = put_intents(io, page, {first, end});
  if (mended || !means_give_up(mended.error())) return mended;
  invalidate();
  return ok;
}

}  // namespace firn::disk
