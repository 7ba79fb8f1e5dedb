// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// A page is in one or more of these states:
//   idle      clean and unpinned; may be evicted
//   pending   changed since the last commit began: its words are marked in `changed`
//   dirty     changed by a commit whose home write has not happened: oldest_unhomed..newest
// A commit (commit_once) takes all pending words of all pages in one stroke (take_changes, no
// waiting), flushes guest data (W2), writes the transaction (W3) and commits the journal (W4). A
// home round (write_home) copies page images in the same stroke in which a commit takes changes, so
// that the images are exactly what that commit makes durable (G2); it writes them after the commit
// (W5). The next commit flushes `meta` before it writes its own transaction, which says that those
// before are not needed any more and so frees their slots (W6).
//
// A torn home write is harmless: every word in which the old and the new image differ belongs to a
// transaction that is still in the ring, and replay puts it right before the checksum is looked at.
#include "store/pages.h"

#include <algorithm>
#include <bit>

#include "format/grain_map.h"
#include "store/shadow.h"

namespace firn::store {

using format::InfoPage;
using format::kGroupPages;
using format::kPageWords;
using format::PageInfo;

void PageRef::reset() {
  if (page_ != nullptr) store_->unpin(*std::exchange(page_, nullptr));
}

PageReservation::~PageReservation() {
  if (store_ == nullptr) return;
  store_->free_map_[page_ / 64] |= uint64_t{1} << (page_ % 64);
  ++store_->free_pages_;
}

PageStore::PageStore(File& meta, Journal& journal, CommitIds& ids, const format::Uuid& uuid,
                     Config config, BeforeJournal before_journal)
    : meta_(meta),
      journal_(journal),
      ids_(ids),
      uuid_(uuid),
      config_(config),
      before_journal_(std::move(before_journal)),
      groups_(config.groups) {}

PageStore::~PageStore() = default;

// --- the cache

Page& PageStore::adopt(PageNo no) {
  auto page = std::make_unique<Page>();
  page->no = no;
  page->content = AlignedBuffer(kPageBytes);
  return pages_.put(std::move(page));
}

void PageStore::drop(Page& page) {
  CHECK(page.pins == 0 && !page.pending);
  if (List<Page, &Page::dirty>::contains(&page)) dirty_.remove(&page);
  if (List<Page, &Page::idle>::contains(&page)) idle_.remove(&page);
  pages_.drop(page);
}

void PageStore::unpin(Page& page) {
  CHECK(page.pins > 0);
  if (page.broken) {
    if (--page.pins == 0)
      std::erase_if(broken_, [&](const auto& one) { return one.get() == &page; });
    return;
  }
  if (--page.pins > 0 || page.resident || page.pending || page.oldest_unhomed != 0) return;
  page.used = true;
  if (List<Page, &Page::idle>::contains(&page)) return;
  idle_.push_back(&page);
  evict_beyond_budget();
}

// A page stays in the list while it is pinned: who reads it again and again moves nothing. So
// eviction passes by what is pinned, and by some of what was used since it passed by before.
void PageStore::evict_beyond_budget() {
  size_t spared = 0;
  size_t looks = idle_.count();
  for (; pages_.size() > config_.cache_pages + info_pages_.size() && looks > 0; --looks) {
    Page* const oldest = idle_.pop_front();
    if (oldest->pins > 0 || (std::exchange(oldest->used, false) && ++spared <= kSparedAtOnce)) {
      idle_.push_back(oldest);
      continue;
    }
    ++counters_.evictions;
    pages_.drop(*oldest);
  }
}

Page& PageStore::info_page(PageNo page) const {
  const uint64_t group = page / kGroupPages;
  CHECK(group < info_pages_.size(), "page {} is beyond the metadata", page);
  return *info_pages_[group];
}

PageInfo PageStore::info(PageNo page) const {
  const View content = info_page(page).content.bytes();
  return load<PageInfo>(content.subspan(offsetof(InfoPage, entries) +
                                        format::info_entry_of(page) * sizeof(PageInfo)));
}

void PageStore::set_info(PageNo page, const PageInfo& info) {
  Page& holder = info_page(page);
  const size_t at = offsetof(InfoPage, entries) + format::info_entry_of(page) * sizeof(PageInfo);
  std::memcpy(holder.content.data() + at, &info, sizeof info);
  mark_changed(holder, at / 8, sizeof info / 8);
}

Result<void> PageStore::check_form(PageNo page, PageKind kind, View content) const {
  switch (kind) {
    case PageKind::map:
      return format::check_map_page(content, config_.grains);
    case PageKind::block_table:
      return format::check_block_page(content);
    case PageKind::index:
      for (size_t i = 0; i < format::kFanout; ++i) {
        const auto entry = TRY(format::decode_index_entry(load<le64>(content.subspan(i * 8))));
        if (entry.page >= groups_ * kGroupPages) {
          return fail(Errc::corrupt, "metadata page {}: entry {} points to page {}, beyond the end",
                      page, i, entry.page);
        }
      }
      return ok;
    case PageKind::pool_root:
      TRY(format::decode_pool_root(content));
      return ok;
    case PageKind::catalog:     // Each record is decoded by whoever reads it.
    case PageKind::change_log:  // Any counter and any bit is possible.
    case PageKind::change_intents:
    case PageKind::free:
      return ok;
  }
  return ok;
}

Result<void> PageStore::read_page(Io& io, Page& page, PageKind kind) {
  ++counters_.page_reads;
  TRY(io.read(meta_, page.no * kPageBytes, page.content.bytes()));
  const PageInfo expected = info(page.no);
  const uint32_t crc = format::page_crc(uuid_, page.no, page.content.bytes());
  if (crc != expected.crc) {
    return fail(Errc::corrupt, "metadata page {} in '{}': crc {:08x}, expected {:08x}", page.no,
                meta_.name(), crc, expected.crc.get());
  }
  return check_form(page.no, kind, page.content.bytes());
}

bool PageStore::is_such(PageNo no, PageKind kind, std::optional<uint8_t> level) const {
  if (no >= groups_ * kGroupPages || format::is_info_page(no)) return false;
  const PageInfo known = info(no);
  return static_cast<PageKind>(known.kind) == kind &&
         (!level || static_cast<uint8_t>(known.level) == *level);
}

// The same of a page in memory, which remembers the answer: it stays true until the page is freed.
bool PageStore::is_such(Page& page, PageKind kind, std::optional<uint8_t> level) const {
  if (page.kind == PageKind::free) {
    if (!is_such(page.no, kind, level)) return false;
    page.kind = kind;
    page.level = static_cast<uint8_t>(info(page.no).level);
  }
  return page.kind == kind && (!level || page.level == *level);
}

Result<PageRef> PageStore::get(Io& io, PageNo no, PageKind kind, std::optional<uint8_t> level) {
  if (!is_such(no, kind, level)) {
    return fail(Errc::corrupt,
                "metadata page {} in '{}' is not what refers to it says: kind {}, level {}", no,
                meta_.name(), static_cast<unsigned>(kind), level.value_or(0));
  }
  while (true) {
    Page* const present = lookup(no);
    if (present == nullptr) break;
    PageRef pin(this, present);  // Also while it loads: what somebody waits for is not freed.
    if (!present->loading) return pin;
    io.park(work_loads_);
  }
  Page& page = adopt(no);
  page.loading = true;
  PageRef pin(this, &page);
  const Result<void> loaded = read_page(io, page, kind);
  page.loading = false;
  io.wake(work_loads_);
  if (!loaded) {
    page.broken = true;  // Those who waited for it look again, and get an error of their own.
    broken_.push_back(pages_.take(page));
    return loaded.error();
  }
  evict_beyond_budget();
  return pin;
}

PageRef PageStore::find(PageNo no, PageKind kind, std::optional<uint8_t> level) {
  Page* const page = lookup(no);
  if (page == nullptr || page->loading || !is_such(*page, kind, level)) return {};
  return PageRef(this, page);
}

// --- changes

void PageStore::mark_changed(Page& page, size_t first_word, size_t words) {
  CHECK(!config_.read_only && !page.loading);
  uint64_t cost = 0;
  if (!page.pending) {
    page.pending = true;
    changing_.push_back(&page);
    cost += 96;  // Its record, its entry in the info page and that page's share.
    if (List<Page, &Page::idle>::contains(&page)) idle_.remove(&page);
  }
  for (size_t i = first_word; i < first_word + words; ++i) {
    const uint64_t bit = uint64_t{1} << (i % 64);
    if ((page.changed[i / 64] & bit) != 0) continue;
    page.changed[i / 64] |= bit;
    cost += page.changed_words++ < kPageWords / 2 ? 16 : 8;
  }
  pending_bytes_ += cost;
  if (!sealing_) changed_bytes_ += cost;
  note(page, first_word, words);
}

void PageStore::note(const Page& page, size_t first_word, size_t words) {
  if (shadow_ == nullptr || sealing_) return;
  const View changed = View(page.content.bytes()).subspan(first_word * 8, words * 8);
  shadow_->note(page.no, words == 0 && page.fresh, first_word, changed);
}

void PageStore::forget_changes(Page& page) {
  if (!page.pending) return;
  changing_.remove(&page);
  page.pending = false;
  page.changed.fill(0);
  page.changed_words = 0;
}

void PageStore::set_word(const PageRef& page, size_t index, uint64_t value) {
  const le64 word(value);
  std::memcpy(page.page_->content.data() + index * 8, &word, sizeof word);
  mark_changed(*page.page_, index, 1);
}

void PageStore::set_bytes(const PageRef& page, size_t at, View bytes) {
  CHECK(aligned(at, 8) && aligned(bytes.size(), 8) && at + bytes.size() <= kPageBytes);
  std::memcpy(page.page_->content.data() + at, bytes.data(), bytes.size());
  mark_changed(*page.page_, at / 8, bytes.size() / 8);
}

PageRef PageStore::born(PageReservation reservation, PageKind kind, uint8_t level,
                        uint32_t family) {
  CHECK(reservation);
  const PageNo no = reservation.page_;
  reservation.store_ = nullptr;
  ++used_pages_;
  PageInfo info;
  info.kind = static_cast<std::byte>(kind);
  info.level = static_cast<std::byte>(level);
  info.family = family;
  set_info(no, info);
  Page& page = adopt(no);
  std::memset(page.content.data(), 0, kPageBytes);
  page.fresh = true;
  mark_changed(page, 0, 0);
  return PageRef(this, &page);
}

void PageStore::free(PageNo no, PageKind kind) {
  CHECK(static_cast<PageKind>(info(no).kind) == kind && used_pages_ > 0);
  set_info(no, PageInfo{});
  --used_pages_;
  free_map_[no / 64] |= uint64_t{1} << (no % 64);
  ++free_pages_;
  Page* const page = lookup(no);
  if (page == nullptr) return;
  CHECK(page->pins == 0 && !page->loading, "page {} is freed under somebody", no);
  forget_changes(*page);
  drop(*page);
}

Result<PageReservation> PageStore::reserve(Io& io) {
  TRY(fenced());
  while (free_pages_ == 0) TRY(grow(io));
  for (size_t i = 0; i < free_map_.size(); ++i) {
    const size_t at = (free_hint_ + i) % free_map_.size();
    if (free_map_[at] == 0) continue;
    const auto bit = static_cast<uint64_t>(std::countr_zero(free_map_[at]));
    free_map_[at] &= ~(uint64_t{1} << bit);
    free_hint_ = at;
    --free_pages_;
    return PageReservation(this, at * 64 + bit);
  }
  CHECK(false, "{} free pages that cannot be found", free_pages_);
  return fail(Errc::no_space, "metadata: no free page");
}

void PageStore::add_group() {
  const PageNo no = groups_ * kGroupPages;
  Page& page = adopt(no);
  page.resident = true;
  InfoPage info;
  info.magic = format::kInfoMagic;
  info.page = no;
  std::memcpy(page.content.data(), &info, sizeof info);
  page.fresh = true;
  info_pages_.push_back(&page);
  ++groups_;
  free_map_.resize(groups_ * kGroupPages / 64);
  for (PageNo entry = no + 1; entry < no + kGroupPages; ++entry) {
    free_map_[entry / 64] |= uint64_t{1} << (entry % 64);
  }
  free_pages_ += format::kGroupEntries;
  mark_changed(page, 0, 2);
}

Result<void> PageStore::grow(Io& io) {
  return growing_.pass(io, [&]() -> Result<void> {
    if (free_pages_ >= kGroupEntriesLow) return ok;  // Somebody freed some meanwhile.
    const uint64_t more = std::clamp<uint64_t>(groups_ / 8, 4, 64);
    const AlignedBuffer zeroes(kGroupPages * kPageBytes);
    std::memset(zeroes.data(), 0, zeroes.size());
    for (uint64_t i = 0; i < more;
         ++i) {  // Written, so that a home write changes no file metadata.
      TRY(io.write(meta_, (groups_ + i) * zeroes.size(), zeroes.bytes()));
    }
#ifndef FIRN_MUTANT_no_grow_flush
    TRY(io.flush(meta_));
#endif
    const NoWait atom;
    if (shadow_ != nullptr) shadow_->miss();  // Its pages are older than the group.
    for (uint64_t i = 0; i < more; ++i) add_group();
    Page* const root = lookup(format::kRootPage);
    CHECK(root != nullptr && root->pins > 0, "the pool keeps its root pinned");
    const le64 groups(groups_);
    std::memcpy(root->content.data() + offsetof(format::PoolRoot, groups), &groups, sizeof groups);
    mark_changed(*root, offsetof(format::PoolRoot, groups) / 8, 1);
    return ok;
  });
}

// --- admission

uint64_t PageStore::room() const {
  // One slot stays free for make_room().
  const uint64_t slots = journal_.free_slots();
  const uint64_t free = (slots > 0 ? slots - 1 : 0) * journal_.payload_bytes_per_slot();
  const uint64_t taken = pending_bytes_ + committing_bytes_ + admitted_bytes_;
  return free > taken ? free - taken : 0;
}

void PageStore::end_admission(const Admission& ended) {
  CHECK(admitted_bytes_ >= ended.bytes_);
  admitted_bytes_ -= ended.bytes_;
  if (ended.alone_ && ended.number_ == admissions_given_) {  // G7
    DCHECK(changed_bytes_ - ended.began_ <= ended.bytes_, "{} bytes changed, {} were admitted",
           changed_bytes_ - ended.began_, ended.bytes_);
  }
  if (space_io_ != nullptr && !space_.empty()) space_io_->wake(space_);
}

Result<PageStore::Admission> PageStore::admit(Io& io, uint64_t bytes, Priority priority) {
  space_io_ = &io;
  TRY(fenced());
  if (room() < bytes) {
    const auto turn = admissions_.enter(io, priority);
    TRY(wait_for_room(io, bytes));
  }
  if (quiet()) io.wake(work_);
  if (wants_commit()) io.wake(pressing_);
  const bool alone = admitted_bytes_ == 0;
  admitted_bytes_ += bytes;
  ++admissions_given_;
  return Admission(this, bytes, alone);
}

Result<void> PageStore::wait_for_room(Io& io, uint64_t bytes) {
  while (true) {
    TRY(fenced());
    if (room() >= bytes) return ok;
    if (!quiet() || journal_.in_flight_slots() > 1) {
      ++room_wanted_;
      const Result<void> done = write_home(io);
      --room_wanted_;
      TRY(done);
      continue;
    }
    if (admitted_bytes_ == 0) {
      return fail(Errc::no_space, "journal: a change of {} bytes does not fit its {} slots", bytes,
                  journal_.slots());
    }
    io.park(space_);
  }
}

bool PageStore::quiet() const {
  return changing_.empty() && dirty_.empty() && !home_unflushed_ && committing_bytes_ == 0;
}

bool PageStore::wants_write_home() const {
  return journal_.free_slots() < journal_.slots() / 2 || dirty_.count() > config_.cache_pages / 2;
}

void PageStore::fence(Error why) {
  if (fenced_) return;
  fenced_ = true;
  why_fenced_ = why;
}

Result<void> PageStore::fenced() const {
  if (!fenced_) return ok;
  return fail(Errc::fenced, "'{}' takes no changes after an earlier error: {}", meta_.name(),
              text_of(why_fenced_));
}

// --- commit

void PageStore::seal_checksums() {
  sealing_ = true;
  for (Page* page = changing_.front(); page != nullptr; page = changing_.after(page)) {
    if (format::is_info_page(page->no)) continue;
    PageInfo entry = info(page->no);
    entry.crc = format::page_crc(uuid_, page->no, page->content.bytes());
    set_info(page->no, entry);
  }
  for (Page* page = changing_.front(); page != nullptr; page = changing_.after(page)) {
    if (!format::is_info_page(page->no)) continue;
    const le32 crc(format::info_crc(uuid_, page->no, page->content.bytes()));
    std::memcpy(page->content.data() + offsetof(InfoPage, crc), &crc, sizeof crc);
    mark_changed(*page, offsetof(InfoPage, crc) / 8, 1);
  }
  sealing_ = false;
}

namespace {

template <class T>
void append(std::vector<std::byte>& payload, const T& record) {
  const View bytes = view_of(record);
  payload.insert(payload.end(), bytes.begin(), bytes.end());
}

uint32_t sealed_crc(const PageStore& store, const Page& page) {
  if (format::is_info_page(page.no)) {
    return load<le32>(View(page.content.bytes()).subspan(offsetof(InfoPage, crc)));
  }
  return store.info(page.no).crc;
}

}  // namespace

void PageStore::emit(const Page& page, std::vector<std::byte>& payload) const {
  const size_t head_at = payload.size();
  format::PageRecord record;
  record.page = page.no;
  record.crc = sealed_crc(*this, page);
  record.flags = page.fresh ? format::kRecordFresh : uint16_t{0};
  append(payload, record);
  uint16_t runs = 0;
  const auto is_changed = [&](size_t i) { return (page.changed[i / 64] >> (i % 64) & 1) != 0; };
  for (size_t i = 0; i < kPageWords;) {
    if (page.changed[i / 64] >> (i % 64) == 0) {
      i = (i / 64 + 1) * 64;
      continue;
    }
    if (!is_changed(i)) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < kPageWords && is_changed(end)) ++end;
    append(payload, format::WordRun{static_cast<uint16_t>(i), static_cast<uint16_t>(end - i), {}});
    const View words = View(page.content.bytes()).subspan(i * 8, (end - i) * 8);
    payload.insert(payload.end(), words.begin(), words.end());
    ++runs;
    i = end;
  }
  record.runs = runs;
  std::memcpy(payload.data() + head_at, &record, sizeof record);
}

std::vector<std::byte> PageStore::take_changes(uint64_t id) {
  const NoWait atom;
  std::vector<std::byte> payload;
  seal_checksums();
  payload.reserve(pending_bytes_);
  while (Page* const page = changing_.pop_front()) {
    emit(*page, payload);
    page->pending = false;
    page->fresh = false;
    page->changed.fill(0);
    page->changed_words = 0;
    page->newest = id;
    if (page->oldest_unhomed == 0) {
      page->oldest_unhomed = id;
      dirty_.push_back(page);
    }
  }
  pending_bytes_ = 0;
  if (payload.empty()) return payload;
  taken_id_ = id;
  if (shadow_ != nullptr) shadow_->taken(id);
  return payload;
}

Result<void> PageStore::flush_home(Io& io) {
  if (!home_unflushed_) return ok;
  home_unflushed_ = false;  // What is written home meanwhile sets it again.
  const Result<void> flushed = io.flush(meta_);
  if (!flushed) home_unflushed_ = true;
  return flushed;
}

// Guest data and home pages, side by side: neither needs the other, the transaction needs both.
Result<void> PageStore::flush_before_journal(Io& io) {
  if (!home_unflushed_) return before_journal_(io);
  Result<void> home;
  Group beside(io);
  io.spawn(beside, [&] { home = flush_home(io); });
  const Result<void> data = before_journal_(io);
  beside.wait();
  return data ? home : data;
}

Result<void> PageStore::write_transaction(Io& io, uint64_t id, View payload,
                                          uint64_t home_durable) {
  if (journal_.slots_for(payload.size()) > journal_.free_slots()) {
    return fail(Errc::no_space, "journal: a transaction of {} bytes found {} free slots",
                payload.size(), journal_.free_slots());
  }
  const uint64_t given = TRY(journal_.write(io, payload, home_durable));
  CHECK(given == id, "two committers");
  return ok;
}

// Only a transaction frees slots (J5). When the ring is short of them and nothing has changed, one
// that says the old thing again does.
void PageStore::make_room() {
  if (!changing_.empty() || journal_.in_flight_slots() <= 1) return;
  if (room_wanted_ == 0 && journal_.free_slots() >= journal_.slots() / 2) return;
  Page* const root = lookup(format::kRootPage);
  CHECK(root != nullptr && root->pins > 0, "the pool keeps its root pinned");
  mark_changed(*root, 0, 1);
}

Result<void> PageStore::commit_once(Io& io) {
  TRY(fenced());
  make_room();
  const uint64_t id = ids_.peek();
  const std::vector<std::byte> payload = take_changes(id);
  if (capture_wanted_ != nullptr) capture_oldest(*std::exchange(capture_wanted_, nullptr));
  committing_bytes_ = payload.size();
#ifdef FIRN_MUTANT_free_before_home
  journal_.applied(id - 1);
#endif
  const uint64_t home_written = journal_.applied();
#ifdef FIRN_MUTANT_no_home_flush
  home_unflushed_ = false;
#endif
#ifdef FIRN_MUTANT_journal_before_data
  Result<void> done = flush_home(io);
  if (done && !payload.empty()) done = write_transaction(io, id, payload, home_written);
  if (done) done = before_journal_(io);
#else
  Result<void> done = flush_before_journal(io);                                           // W2, W6
  if (done && !payload.empty()) done = write_transaction(io, id, payload, home_written);  // W3
#endif
  committing_bytes_ = 0;
  if (done && !payload.empty()) done = journal_.commit(io);  // W4
  if (!done) {
    fence(done.error());
    io.wake(space_);
    return done;
  }
  durable_id_ = taken_id_;
  if (shadow_ != nullptr) shadow_->durable();
  if (!space_.empty()) io.wake(space_);
  if (wants_write_home()) io.wake(urgent_);
  return ok;
}

Result<void> PageStore::commit(Io& io) {
  return commits_.pass(io, [&] { return commit_once(io); });
}

Result<void> PageStore::preserve([[maybe_unused]] Io& io) {
#ifndef FIRN_MUTANT_answer_unpreserved
  if (shadow_ != nullptr && !shadow_->seal()) return commit(io);
#endif
  return ok;
}

// --- home writes

void PageStore::capture_oldest(Capture& capture) {
  const NoWait atom;
  for (Page* page = dirty_.front(); page != nullptr && capture.images.size() < capture.pages_max;
       page = dirty_.after(page)) {
    AlignedBuffer copy(kPageBytes);
    std::memcpy(copy.data(), page->content.data(), kPageBytes);
    capture.images.push_back({page->no, page->newest, std::move(copy)});
  }
  std::sort(capture.images.begin(), capture.images.end(),
            [](const auto& a, const auto& b) { return a.page < b.page; });
}

Result<void> PageStore::write_captured(Io& io, Capture& capture) {
  // A few runs at a time, so that a guest's request never queues behind a whole round (P6).
  constexpr size_t kWriters = 8;
  size_t next = 0;
  Result<void> result;
  const auto writer = [&] {
    std::vector<::iovec> run;
    while (next < capture.images.size() && result) {
      const size_t first = next;
      run.clear();
      while (next < capture.images.size() &&
             capture.images[next].page == capture.images[first].page + (next - first)) {
        run.push_back(slice_of(capture.images[next++].content.bytes()));
      }
      counters_.page_writes += run.size();
      Result<void> wrote = io.write(meta_, capture.images[first].page * kPageBytes, Iovec(run));
      if (!wrote && result) result = std::move(wrote);
    }
  };
  Group writers(io);
  for (size_t i = 0; i < kWriters; ++i) io.spawn(writers, [&writer] { writer(); });
  writers.wait();
  return result;
}

void PageStore::settle(const Capture& capture) {
  for (const Capture::Image& image : capture.images) {
    Page* const page = lookup(image.page);
    // Freed meanwhile, or freed and born again: the new page has a later first change.
    if (page == nullptr || page->oldest_unhomed == 0 || page->oldest_unhomed > image.newest)
      continue;
    dirty_.remove(page);
    if (page->newest > image.newest) {
      page->oldest_unhomed = image.newest + 1;
      dirty_.push_back(page);
      continue;
    }
    page->oldest_unhomed = 0;
    if (page->pins == 0 && !page->pending && !page->resident) idle_.push_back(page);
  }
  evict_beyond_budget();
}

uint64_t PageStore::horizon() const {
  uint64_t first = ids_.peek();
  for (const Page* page = dirty_.front(); page != nullptr; page = dirty_.after(page)) {
    first = std::min(first, page->oldest_unhomed);
  }
  return first - 1;
}

Result<void> PageStore::write_home(Io& io, size_t pages_max) {
  while (homing_) {
    io.park(homing_done_);
    TRY(fenced());
  }
  homing_ = true;
  Capture capture;
  capture.pages_max = pages_max;
  capture_wanted_ = &capture;
#ifdef FIRN_MUTANT_home_before_commit
  capture_oldest(capture);
  TRY(write_captured(io, capture));
  capture.images.clear();
#endif
  Result<void> done = commit(io);
  capture_wanted_ = nullptr;
  if (done && !capture.images.empty()) {
    ++counters_.home_rounds;
    done = write_captured(io, capture);  // W5
    if (done) {
      home_unflushed_ = true;
      settle(capture);
    }
  }
  if (done) {
    if (horizon() > journal_.applied()) journal_.applied(horizon());
  } else {
    fence(done.error());
  }
  homing_ = false;
  io.wake(homing_done_);
  return done;
}

Result<void> PageStore::write_all_home(Io& io) {
  TRY(fenced());
  while (!quiet()) TRY(write_home(io));
  return ok;
}

}  // namespace firn::store
