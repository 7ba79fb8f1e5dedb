// SPDX-License-Identifier: Apache-2.0
// The page store: metadata pages of `meta` in a bounded cache, changed by transactions. What
// changed since the last commit becomes one transaction; what is committed is written home later.
//
//  G1  Changes made between two io. calls of a fiber are one atom: a commit takes all of them or
//      none.
//  G2  A page is written home only in a state that is committed (redo before home).
//  G3  A page that comes from disk passed its checksum, kept apart from it, and its own form; else
//      Errc::corrupt naming it. It is never served.
//  G4  A freed page may be born again at once: what it holds changes only through commits, so both
//      lives change hands in one atom.
//  G5  Memory: pages in use beyond `cache_pages` are only those pinned or not yet home. Info pages
//      stay resident: 1/255 of the metadata (8.5 MiB for each TiB mapped).
//  G6  After an error of the journal or of a home write the store is fenced: it changes nothing
//      more.
//  G7  What is changed under an admission is never more than was admitted: the ring has room for
//      it. Checked (DCHECK) whenever only one is held.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/aligned.h"
#include "base/list.h"
#include "format/block_table.h"
#include "format/page.h"
#include "io/barrier.h"
#include "io/io.h"
#include "store/journal.h"
#include "store/page_table.h"
#include "store/queue.h"

namespace firn::store {

using format::PageKind;
using format::PageNo;

struct alignas(64) Page {
  // Looked at by every request: one line.
  PageNo no = 0;
  AlignedBuffer content;
  uint32_t pins = 0;
  PageKind kind = PageKind::free;  // As its info says, once somebody has asked for it; else free.
  uint8_t level = 0;               // Beside `kind`.
  bool loading = false;
  bool used = false;  // Since eviction passed by.
  Links<Page> idle;   // Clean: evicted from the front, unless it is pinned or was used again.

  std::array<uint64_t, 8> changed{};  // A bit for each 8-byte word changed since the last commit.
  uint64_t oldest_unhomed = 0;        // First commit whose change is not home yet; 0: clean.
  uint64_t newest = 0;                // Last commit that changed it.
  uint32_t changed_words = 0;
  bool pending = false;   // In the next commit.
  bool fresh = false;     // Its record starts from zeroes.
  bool broken = false;    // Could not be read: out of the cache, and gone with its last pin.
  bool resident = false;  // Info page: never evicted.
  Links<Page> dirty;      // Not home, by oldest_unhomed.
  Links<Page> changing;   // Pending.
};

class PageStore;
class Shadow;

// A pin: while it lives the page stays in memory and at its address.
class PageRef {
 public:
  PageRef() = default;
  PageRef(PageStore* store, Page* page) : store_(store), page_(page) { ++page->pins; }
  PageRef(PageRef&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)), page_(std::exchange(other.page_, nullptr)) {}
  PageRef& operator=(PageRef&& other) noexcept {
    std::swap(store_, other.store_);
    std::swap(page_, other.page_);
    return *this;
  }
  PageRef(const PageRef&) = delete;
  PageRef& operator=(const PageRef&) = delete;
  ~PageRef() { reset(); }
  void reset();
  PageRef again() const { return page_ == nullptr ? PageRef() : PageRef(store_, page_); }

  explicit operator bool() const { return page_ != nullptr; }
  PageNo no() const { return page_->no; }
  View view() const { return page_->content.bytes(); }
  uint64_t word(size_t index) const { return load<le64>(view().subspan(index * 8)); }

 private:
  friend class PageStore;
  PageStore* store_ = nullptr;
  Page* page_ = nullptr;
};

// A page number set aside for a page that is about to be born; returned when dropped unborn.
class PageReservation {
 public:
  PageReservation() = default;
  PageReservation(PageStore* store, PageNo page) : store_(store), page_(page) {}
  PageReservation(PageReservation&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)), page_(std::exchange(other.page_, 0)) {}
  PageReservation& operator=(PageReservation&& other) noexcept {
    std::swap(store_, other.store_);
    std::swap(page_, other.page_);
    return *this;
  }
  ~PageReservation();
  explicit operator bool() const { return store_ != nullptr; }

 private:
  friend class PageStore;
  PageStore* store_ = nullptr;
  PageNo page_ = 0;
};

struct PageCounters {
  uint64_t page_reads = 0;
  uint64_t page_writes = 0;
  uint64_t home_rounds = 0;
  uint64_t evictions = 0;
};

class PageStore {
 public:
  struct Config {
    uint64_t cache_pages = 16384;
    uint64_t grains = 0;  // Of the pool: map entries beyond it are corrupt.
    uint64_t groups = 0;  // Of `meta` as the pool root says.
    bool read_only = false;
  };
  // What a commit does between taking the changes and writing them: W2, the flush of guest data.
  using BeforeJournal = std::function<Result<void>(Io&)>;

  PageStore(File& meta, Journal& journal, CommitIds& ids, const format::Uuid& uuid, Config config,
            BeforeJournal before_journal);
  ~PageStore();

  // --- opening, before anything else, in this order.
  // Applies the transactions in memory.
  Result<void> replay(Io& io, const std::vector<Replayed>& transactions);
  // Reads the pool root and every info page, builds the map of free pages, and verifies what was
  // replayed.
  Result<format::PoolRoot> load_info(Io& io);
  // Writes everything replayed home and makes it durable, so that the epoch may end. No journal
  // needed.
  Result<void> settle_replay(Io& io);
  // Instead of the three above, for a new `meta` of one group: its info page and pool root, written
  // home.
  Result<void> format_first_group(Io& io, const format::PoolRoot& root);

  // Changes what page records of a shadow say, as new changes; before anything else has been done
  // with what load_info() read. All of them or, when one cannot be, none: Errc::corrupt.
  Result<void> take_over(Io& io, View records);
  // From here on every change is noted there. It outlives the store.
  void attach(Shadow* shadow) { shadow_ = shadow; }

  // --- pages The page, of this kind and, when the caller knows, this level; waits for the disk
  // when it is not in memory.
  Result<PageRef> get(Io& io, PageNo page, PageKind kind, std::optional<uint8_t> level = {});
  // Only when it is in memory, and what the caller takes it for.
  PageRef find(PageNo page, PageKind kind, std::optional<uint8_t> level = {});
  // A number for a new page; grows `meta` when it must. Errc::no_space.
  Result<PageReservation> reserve(Io& io);

  // --- changes; none of these waits. Together between two waits they are an atom (G1).
  PageRef born(PageReservation reservation, PageKind kind, uint8_t level, uint32_t family);
  void set_word(const PageRef& page, size_t index, uint64_t value);
  void set_bytes(const PageRef& page, size_t at, View bytes);  // 8-byte aligned, whole words.
  void free(PageNo page, PageKind kind);
  format::PageInfo info(PageNo page) const;

  // --- durability
  // One commit of everything changed before this call (W2 to W4). Callers share runs.
  Result<void> commit(Io& io);
  // What was changed so far outlives this process (store/shadow.h H1). Call it before somebody is
  // told that his change was made; waits only when it takes a commit to keep the promise.
  Result<void> preserve(Io& io);
  // Keeps a change of up to `bytes` of journal from overrunning the ring: waits until there is room
  // and holds it until the admission is dropped.
  class Admission;
  Result<Admission> admit(Io& io, uint64_t bytes = kAdmissionBytes,
                          Priority priority = Priority::guest);
  static constexpr uint64_t kAdmissionBytes = 40 * 1024;

  // One round of home writes: the oldest `pages_max` dirty pages.
  Result<void> write_home(Io& io, size_t pages_max = kRoundPages);
  Result<void> write_all_home(Io& io);  // Until quiet(): the next open replays nothing.
  static constexpr size_t kRoundPages = 256;
  bool wants_write_home() const;
  bool quiet() const;  // Nothing pending, and everything home and durable there.
  bool has_pending() const { return !changing_.empty(); }
  WaitList& work() { return work_; }      // Woken when quiet() ends.
  WaitList& urgent() { return urgent_; }  // Woken when wants_write_home() begins.
  // Enough has changed that a commit should not wait for somebody's flush: whoever flushes, or
  // takes a snapshot, pays for what is pending then. Pages copied by first touches are whole.
  bool wants_commit() const { return pending_bytes_ > kPendingBytesMax; }
  WaitList& pressing() { return pressing_; }  // Woken when wants_commit() holds.
  static constexpr uint64_t kPendingBytesMax = 128 * 1024;

  // The id of the commit that will carry a change made now, and the last one that is durable: what
  // was freed under id n may be reused once n <= durable_id().
  uint64_t next_change_id() const { return taken_id_ + 1; }
  uint64_t durable_id() const { return durable_id_; }

  void fence(Error why);
  Result<void> fenced() const;
  bool is_fenced() const { return fenced_; }
  bool wants_group() const { return free_pages_ < kGroupEntriesLow; }
  Result<void> grow(Io& io);  // Adds page groups to `meta`, ahead of need.
  static constexpr uint64_t kGroupEntriesLow = 512;
  // Nobody but the caller's one reference holds the page.
  bool sole_pin(const PageRef& page) const { return page.page_->pins == 1; }
  const PageCounters& counters() const { return counters_; }
  const Queue& admissions() const { return admissions_; }
  uint64_t used_pages() const { return used_pages_; }
  uint64_t capacity_pages() const { return groups_ * format::kGroupEntries; }
  uint64_t cached_pages() const { return pages_.size(); }
  uint64_t groups() const { return groups_; }
  uint64_t changed_bytes() const { return changed_bytes_; }  // Of journal, at most, ever.

 private:
  friend class PageRef;
  friend class PageReservation;
  // Page images as of one commit, on their way home.
  struct Capture {
    struct Image {
      PageNo page;
      uint64_t newest;
      AlignedBuffer content;
    };
    size_t pages_max = 0;
    std::vector<Image> images;
  };

  Page* lookup(PageNo page) const { return pages_.find(page); }
  Page& adopt(PageNo page);
  void drop(Page& page);
  void unpin(Page& page);
  static constexpr size_t kSparedAtOnce = 32;
  void evict_beyond_budget();
  void mark_changed(Page& page, size_t first_word, size_t words);
  void forget_changes(Page& page);
  void note(const Page& page, size_t first_word, size_t words);
  Result<void> read_page(Io& io, Page& page, PageKind kind);
  Result<void> check_form(PageNo page, PageKind kind, View content) const;
  Page& info_page(PageNo page) const;
  bool is_such(PageNo page, PageKind kind, std::optional<uint8_t> level) const;
  bool is_such(Page& page, PageKind kind, std::optional<uint8_t> level) const;
  void set_info(PageNo page, const format::PageInfo& info);
  void seal_checksums();
  std::vector<std::byte> take_changes(uint64_t id);
  void emit(const Page& page, std::vector<std::byte>& payload) const;
  Result<void> commit_once(Io& io);
  Result<void> write_transaction(Io& io, uint64_t id, View payload, uint64_t home_durable);
  void make_room();
  Result<void> flush_home(Io& io);
  Result<void> flush_before_journal(Io& io);
  void capture_oldest(Capture& capture);
  Result<void> write_captured(Io& io, Capture& capture);
  void settle(const Capture& capture);
  uint64_t horizon() const;
  void add_group();
  Result<void> load_group(Io& io, uint64_t group);
  Result<void> verify_replayed();
  void count_pages();
  class ReplaySink;
  class Overlay;
  uint64_t room() const;
  Result<void> wait_for_room(Io& io, uint64_t bytes);
  void end_admission(const Admission& ended);

  File& meta_;
  Journal& journal_;
  CommitIds& ids_;
  const format::Uuid uuid_;
  Config config_;
  BeforeJournal before_journal_;
  PageTable<Page> pages_;
  std::vector<std::unique_ptr<Page>> broken_;
  List<Page, &Page::idle> idle_;
  List<Page, &Page::dirty> dirty_;
  List<Page, &Page::changing> changing_;
  std::vector<Page*> info_pages_;                  // By group.
  std::vector<uint64_t> free_map_;                 // A bit for each page: may be given out.
  std::unordered_map<PageNo, uint32_t> replayed_;  // Checksums that replay promises.
  uint64_t free_hint_ = 0;
  uint64_t free_pages_ = 0;
  uint64_t used_pages_ = 0;
  uint64_t groups_;
  uint64_t pending_bytes_ = 0;     // Upper bound of the next payload.
  uint64_t changed_bytes_ = 0;     // The same, of all ever.
  uint64_t committing_bytes_ = 0;  // Taken for a commit, not yet in slots.
  uint64_t admitted_bytes_ = 0;
  uint64_t admissions_given_ = 0;
  uint64_t room_wanted_ = 0;           // Fibers that cannot be admitted until slots are freed.
  Capture* capture_wanted_ = nullptr;  // Filled by the next commit that begins.
  uint64_t taken_id_ = 0;              // Last commit whose changes are taken.
  uint64_t durable_id_ = 0;
  bool home_unflushed_ = false;
  Shadow* shadow_ = nullptr;
  bool sealing_ = false;  // Checksums change, which the shadow does not keep.
  bool fenced_ = false;
  Error why_fenced_{};
  Barrier commits_;
  Barrier growing_;
  bool homing_ = false;
  WaitList homing_done_;
  Queue admissions_{1};  // Those for whom the journal has no room yet.
  WaitList space_;
  Io* space_io_ = nullptr;  // Whose fibers wait for space.
  WaitList work_loads_;     // For a page that somebody else is reading.
  WaitList work_;
  WaitList urgent_;
  WaitList pressing_;
  PageCounters counters_;
};

class PageStore::Admission {
 public:
  Admission(PageStore* store, uint64_t bytes, bool alone)
      : store_(store),
        bytes_(bytes),
        alone_(alone),
        number_(store->admissions_given_),
        began_(store->changed_bytes_) {}
  Admission(Admission&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)),
        bytes_(other.bytes_),
        alone_(other.alone_),
        number_(other.number_),
        began_(other.began_) {}
  Admission& operator=(Admission&&) = delete;
  ~Admission() {
    if (store_ != nullptr) store_->end_admission(*this);
  }

 private:
  friend class PageStore;
  PageStore* store_;
  uint64_t bytes_;
  bool alone_;  // No other was held when it was given.
  uint64_t number_;
  uint64_t began_;  // Bytes changed until then.
};

}  // namespace firn::store
