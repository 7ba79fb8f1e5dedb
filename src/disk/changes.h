// SPDX-License-Identifier: Apache-2.0
// ChangeTracker: which blocks of a disk changed since which event, for any number of askers, and
// right after a crash. Sources: US 8443166, US 8954665.
//
//  K1  A block whose content differs from what it was at event c is told to whoever asks since c;
//      after a crash, too. What is told may be more, never less.
//  K2  A block is marked when its write has completed, before it is acknowledged; a write that
//      changed nothing leaves no mark.
//  K3  Before anything changes what the guest reads in a region, the region's intent bit is
//      durable. It must be: an overwrite in place goes to the medium when the medium likes, before
//      any flush, and a crash forgets the bitmap in memory. New grains and discards take part in
//      the rule, although the next commit carries both their map and their intent: what a reader
//      saw of them before the crash is taken back by it, and that is a change, too.
//  K4  An intent bit is cleared only when no write in its region is in flight, and every mark there
//      is in the log, in the same commit or an earlier one.
//  K5  Intent bits are set only while the state on disk is OPEN (INVALID while tracking begins);
//      CLEAN says that there is none.
//  K6  The counter goes up once for each event, in the caller's atom: the snapshot of an event and
//      its counter become durable together. All data written before is durable by then (W2), so
//      that no crash can take back what an event has told.
//  K7  A mark made after an event is told to whoever asks since that event, wherever it is kept:
//      live bitmap, bitmap being written, log.
//
// The price: a write whose region has its bit costs two bitmap tests and a bitmap set. One that
// misses waits for a commit (policy::IntentReach keeps those rare). The log is written at
// events and at flushes only.
#pragma once

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "base/units.h"
#include "disk/bits.h"
#include "disk/device.h"
#include "format/changes.h"
#include "io/mutex.h"
#include "policy/change_pace.h"
#include "store/pages.h"
#include "store/pool.h"
#include "store/tree.h"

namespace firn::disk {

using format::ChangeId;
using store::PageRef;

// Where query() puts what it finds: dirty runs, in order, never touching each other.
class ChangeSink {
 public:
  virtual ~ChangeSink() = default;
  // False: enough, stop.
  virtual bool add(Range dirty) = 0;
};

struct ChangeCounters {
  uint64_t events = 0;
  uint64_t flushes = 0;
  uint64_t marks = 0;             // Writes, zeroes and discards that were marked.
  uint64_t intent_misses = 0;     // Of them, those that waited for a commit.
  uint64_t log_pages = 0;         // Pages of the log written by events and flushes.
  uint64_t recovered_blocks = 0;  // Called changed by the last open because of a crash.
  uint64_t lost_log_pages = 0;    // Found unreadable.
};

class ChangeTracker {
 public:
  class Flight;

  // The record lies at `at` of `page`. What the state on disk says of a crash is taken in here.
  // A record or a log that cannot be used makes a tracker that is not active.
  static Result<std::unique_ptr<ChangeTracker>> open(Io& io, store::Pool& pool, PageRef page,
                                                     size_t at, std::string name);
  // A record for a disk that was never tracked: INVALID, so activate() and begin() come next.
  static format::ChangesRecord fresh_record(const format::Uuid& disk, uint64_t bytes,
                                            int64_t now_ns);

  // --- on the way of a write
  // Returns when the regions' intent bits are durable (K3). The flight must be held until the write
  // is done, and marked when it changed anything or nobody knows. Inert when not active.
  Result<Flight> intend(Io& io, Range range);
  // Of what needs no flight because nothing can be in flight: the caller holds the fence closed.
  void mark(Range range);

  // --- beginning and ending. The caller has the disk's fence closed for those without Io, and none
  // of them waits; they are part of its atom.
  bool active() const { return active_; }
  // From here on writes are marked. The log says nothing yet, on disk the state is INVALID.
  void activate();
  // The log is lost or means another content (revert, off): on disk the state is INVALID. Answers
  // are refused until activate() and begin() have made a new branch.
  void invalidate();
  // After activate(): a new branch whose enabling event, 1, is every block of `disk` that holds
  // data.
  Result<void> begin(Io& io, BlockDevice& disk);
  // After invalidate(): gives all pages back; the record is the caller's to clear.
  Result<void> free_pages(Io& io);
  // The disk has this size now. What was added belongs to the coming event.
  void resize(uint64_t bytes);

  // --- events: turn, then fence and atom with take(), then settle, then the pool's flush.
  // One event or flush at a time.
  Mutex::Hold turn(Io& io) { return turns_.lock(io); }
  // Errc::no_space when the counters are used up: the tracking must begin anew.
  Result<void> ready() const;
  // No wait: swaps the bitmap, counts up; the new counter.
  uint64_t take();
  // Writes the taken bitmap to the log and clears intents that are not needed any more.
  Result<void> settle(Io& io);
  // All of it, for an event that nothing else happens at.
  Result<ChangeId> event(Io& io);

  // --- in the background
  bool wants_flush(Time now) const;
  Result<void> flush(Io& io);
  // Before the pool is closed: after it the state on disk is CLEAN. No flight may be up.
  Result<void> close(Io& io);

  // Woken when there will be something to flush; must outlive it.
  void set_worker(WaitList* worker) { worker_ = worker; }
  bool at_work() const { return active_ && (set_.count() > 0 || live_.count() > 0); }

  // --- asking
  ChangeId now() const;  // Of the last event.
  // The counter of the id, or Errc::invalid and why a full copy is needed.
  Result<uint64_t> check(const ChangeId& id) const;
  // Blocks that changed after event `since`, which check() gave. With `until`, those that changed
  // up to that event: what has changed after it only is left out as far as is known.
  Result<void> query(Io& io, uint64_t since, std::optional<uint64_t> until, Range range,
                     ChangeSink& sink);

  const format::Uuid& disk() const { return record_.disk; }
  uint64_t block_bytes() const { return uint64_t{1} << shift_; }
  uint64_t bytes() const { return record_.bytes; }
  uint64_t memory_bytes() const;
  uint64_t log_bytes_max() const;
  const ChangeCounters& counters() const { return counters_; }
  const std::string& name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }
  // Every metadata page of log and intents of the record at `at`, for the check.
  static Result<void> for_each_page(Io& io, store::PageStore& pages, const PageRef& page, size_t at,
                                    const store::PageTree::VisitPage& visit);

 private:
  struct Span {  // Of blocks or regions.
    uint64_t first = 0;
    uint64_t end = 0;
  };
  class Emitter;
  struct Question;

  ChangeTracker(store::Pool& pool, PageRef page, size_t at, const format::ChangesRecord& record,
                std::string name);
  Span blocks_of(Range range) const;
  Span regions_of(Range range) const;
  uint64_t block_count(uint64_t bytes) const;
  void put(size_t offset, View bytes);
  void put_state(format::ChangesState state);
  void put_counter();
  void size_bitmaps(uint64_t bytes);

  Result<void> begin_now(Io& io, BlockDevice& disk);
  Result<void> recover(Io& io);
  Result<void> recover_intents(Io& io, uint64_t page);
  Result<void> make_durable(Io& io, Span regions);
  Result<void> set_intents(Io& io, Span run);
  Result<void> give_up(Io& io, Error why);
  Result<void> put_intents(Io& io, uint64_t page, Span run);
  Result<void> clear_idle(Io& io, bool all);
  void end_generation();
  bool older_flights_gone() const { return flights_[(generation_ + 1) % 2] == 0; }

  void swap_bitmaps(uint64_t counter);
  void take_back();
  Result<void> write_taken(Io& io);
  Result<void> write_log_page(Io& io, uint64_t index);
  Result<PageRef> log_page(Io& io, uint64_t index);
  void lose_log_page(uint64_t index, Error why);
  Result<void> settle_now(Io& io, bool end_generation);
  void come_to_rest();
  Result<bool> query_leaf(Io& io, uint64_t index, const Question& question, Emitter& emitter);

  store::Pool& pool_;
  PageRef page_;
  size_t at_;
  format::ChangesRecord record_;  // But for the roots: those are the trees' own.
  std::string name_;
  uint32_t shift_;
  store::PageTree log_;
  store::PageTree intents_;
  bool active_ = false;
  bool beginning_ = false;  // Active, but the log is not made yet.

  Bits live_;        // Blocks marked since the last event or flush.
  Bits live_pages_;  // Log pages that a flush of `live_` would touch.
  Bits taken_;       // Marked before it; on the way to the log with `taken_counter_`.
  Bits taken_pages_;
  Bits lost_pages_;  // Of the log: told once that they cannot be read.
  uint64_t taken_counter_ = 0;
  bool mixed_ = false;  // `live_` has blocks that changed before the last event.

  // By region. An intent is set in its page, then durable; recent and older say which regions were
  // written to in this generation and in the one before.
  Bits set_, durable_, recent_, older_;
  uint64_t generation_ = 0;
  std::array<uint64_t, 2> flights_{};  // By the parity of the generation in which they began.
  policy::IntentReach reach_;
  uint64_t writes_ = 0;  // Since the last flush.
  Time flushed_{};
  uint32_t flushes_ = 0;  // Since the last generation ended.
  Mutex turns_;
  Mutex walking_;  // A leaf of the log is not dropped while somebody looks for it.
  WaitList* worker_ = nullptr;
  ChangeCounters counters_;
};

// A write between its intent and its completion.
class ChangeTracker::Flight {
 public:
  Flight() = default;
  Flight(ChangeTracker& tracker, Range range);
  Flight(Flight&& other) noexcept
      : tracker_(std::exchange(other.tracker_, nullptr)),
        range_(other.range_),
        generation_(other.generation_) {}
  Flight& operator=(Flight&&) = delete;
  ~Flight() {
    if (tracker_ != nullptr) --tracker_->flights_[generation_ % 2];
  }
  // The content has changed, or may have.
  void mark() {
    if (tracker_ != nullptr) tracker_->mark(range_);
  }
  void mark(Range part) {
    if (tracker_ != nullptr) tracker_->mark(part);
  }

 private:
  ChangeTracker* tracker_ = nullptr;
  Range range_;
  uint64_t generation_ = 0;
};

}  // namespace firn::disk
