// SPDX-License-Identifier: Apache-2.0
#include "store/lsm_log.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/check.h"

namespace firn::store {

using format::kLsmLogSlots;
using format::LsmLogHead;

namespace {

// Reads a file from the front, with a window of bytes in memory.
class Window {
 public:
  Window(Io& io, File& file, uint64_t size) : io_(io), file_(file), size_(size) {}

  // Bytes from `at` on: at least `wanted` of them, fewer at the file's end. `at` never goes back.
  Result<View> look(uint64_t at, uint64_t wanted) {
    if (at > size_) return View{};
    wanted = std::min(wanted, size_ - at);
    if (at + wanted > first_ + bytes_.size()) {
      const uint64_t passed = std::min<uint64_t>(at - first_, bytes_.size());
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(passed));
      first_ = at;
      const uint64_t have = bytes_.size();
      const uint64_t more = std::min(std::max(wanted, kStep), size_ - at) - have;
      bytes_.resize(have + more);
      TRY(io_.read(file_, first_ + have, Bytes(bytes_).subspan(have)));
    }
    return View(bytes_).subspan(at - first_);
  }

 private:
  static constexpr uint64_t kStep = kMiB;
  Io& io_;
  File& file_;
  uint64_t size_;
  uint64_t first_ = 0;
  std::vector<std::byte> bytes_;
};

}  // namespace

Result<std::unique_ptr<LsmLog>> LsmLog::open(Io& io, const std::string& directory,
                                             uint64_t spare_bytes) {
  std::unique_ptr<LsmLog> log(new LsmLog);
  log->spare_bytes_ = spare_bytes;
  log->directory_ = directory;
  log->lock_ = TRY(io.open(directory + "/lock", {.create = true}));
  TRY(io.lock(*log->lock_, true));
  for (size_t i = 0; i < kLsmLogSlots; ++i) {
    log->files_[i] = TRY(io.open(fmt::format("{}/log-{}", directory, i), {.create = true}));
  }
  TRY(io.flush_directory(directory));
  TRY(log->look(io));
  return log;
}

Result<void> LsmLog::look(Io& io) {
  for (size_t i = 0; i < kLsmLogSlots; ++i) {
    const uint64_t size = TRY(io.size(*files_[i]));
    std::array<std::byte, sizeof(LsmLogHead)> bytes{};
    TRY(io.read(*files_[i], 0, Bytes(bytes).first(std::min(size, bytes.size()))));
    const auto head = format::decode_lsm_log_head(bytes);
    if (!head && head.error().code == Errc::not_found) continue;
    if (!head) return head.error();
    if (head->segment % kLsmLogSlots != i) {
      return fail(Errc::corrupt, "log: {}: segment {} does not belong here", files_[i]->name(),
                  head->segment.get());
    }
    if (found() && (head->tree != head_.tree || head->log != head_.log)) {
      return fail(Errc::corrupt, "log: {}: segments of two trees or logs", directory_);
    }
    head_ = *head;
    found_.push_back(head->segment);
  }
  std::ranges::sort(found_);
  return ok;
}

LsmLogHead LsmLog::head_of(uint64_t segment) const {
  LsmLogHead head = head_;
  head.segment = segment;
  return head;
}

Result<std::unique_ptr<LsmLog::Segment>> LsmLog::read_segment(
    Io& io, uint64_t number, const std::function<Result<void>(View)>& sink) {
  File& file = file_of(number);
  const LsmLogHead head = head_of(number);
  Window window(io, file, TRY(io.size(file)));
  auto segment = std::make_unique<Segment>();
  segment->number = number;
  segment->end = sizeof(LsmLogHead);
  while (true) {
    View bytes = TRY(window.look(segment->end, sizeof(format::LsmLogRecordHead)));
    if (bytes.size() < sizeof(format::LsmLogRecordHead)) break;
    const uint64_t length = load<format::LsmLogRecordHead>(bytes).bytes;
    if (length > format::kLsmLogRecordMax) break;
    bytes = TRY(window.look(segment->end, sizeof(format::LsmLogRecordHead) + length));
    const View batch = format::decode_lsm_record(bytes, head, segment->end, segment->records + 1);
    if (batch.empty()) break;
    const auto link = format::decode_lsm_link(batch);
    if (link && segment->records == 0) {
      // Never synced when the one before is cut short: a sync goes through them in order.
      if (!segments_.empty() && segments_.back()->number + 1 == number &&
          segments_.back()->records < *link) {
        break;
      }
    } else {
      TRY(sink(batch));
      segment->batches = true;
    }
    segment->end += sizeof(format::LsmLogRecordHead) + batch.size();
    ++segment->records;
  }
  return segment;
}

Result<bool> LsmLog::has_batches(Io& io) {
  for (const uint64_t number : found_) {
    const auto segment = TRY(read_segment(io, number, [](View) { return Result<void>(ok); }));
    if (segment->batches) return true;
  }
  return false;
}

Result<size_t> LsmLog::replay(Io& io, uint64_t published,
                              const std::function<Result<void>(View)>& sink) {
  size_t with_something = 0;
  uint64_t last = published;
  uint64_t before = 0;
  for (const uint64_t number : found_) {
    if (number <= published) continue;
    if (before != 0 && number != before + 1) {
      return fail(Errc::corrupt, "log: {}: segment {} is missing", directory_, before + 1);
    }
    before = number;
    auto segment = TRY(read_segment(io, number, sink));
    last = number;
    if (!segment->batches) continue;
    ++with_something;
    segments_.push_back(std::move(segment));
  }
  found_.clear();
  if (segments_.empty()) {
    TRY(begin(io, head_.tree, head_.log, last + 1));
    return with_something;
  }
  // What is torn behind the end must never come back when the place is written again.
  for (const auto& segment : segments_) {
    File& file = file_of(segment->number);
    TRY(io.resize(file, segment->end));
    TRY(io.flush(file));
  }
  return with_something;
}

Result<void> LsmLog::begin(Io& io, format::Uuid tree, format::Uuid log, uint64_t segment) {
  found_.clear();
  segments_.clear();
  head_ = {};
  head_.tree = tree;
  head_.log = log;
  for (const auto& file : files_) {
    TRY(io.resize(*file, 0));
    TRY(io.flush(*file));
  }
  segments_.push_back(TRY(make_segment(io, segment)));
  return ok;
}

Result<std::unique_ptr<LsmLog::Segment>> LsmLog::make_segment(Io& io, uint64_t number) {
  // Records of an earlier segment may lie behind: their checksums say so. Space that is there
  // already makes syncs cheap.
  TRY(io.write(file_of(number), 0, View(format::encode(head_of(number)))));
  auto segment = std::make_unique<Segment>();
  segment->number = number;
  segment->end = sizeof(LsmLogHead);
  segment->dirty = true;
  return segment;
}

uint64_t LsmLog::bytes() const {
  uint64_t sum = 0;
  for (const auto& segment : segments_) {
    if (!segment->retired) sum += segment->end + segment->pending.size();
  }
  return sum;
}

void LsmLog::append(View batch) {
  Segment& segment = live();
  format::append_lsm_record(segment.pending, head_of(segment.number),
                            segment.end + segment.pending.size(), ++segment.records, batch);
}

Result<void> LsmLog::note(Result<void> result) {
  if (!result && !broken_) broken_ = result.error();
  return result;
}

Result<void> LsmLog::write_out(Io& io, Segment& segment) {
  if (segment.pending.empty() || segment.retired) return ok;
  const std::vector<std::byte> bytes = std::exchange(segment.pending, {});
  const uint64_t at = segment.end;
  segment.end += bytes.size();
  segment.dirty = true;
  return io.write(file_of(segment.number), at, View(bytes));
}

Result<void> LsmLog::spill(Io& io) {
  const auto hold = writing_.lock(io);
  if (broken_) return *broken_;
  return note(write_out(io, live()));
}

Result<void> LsmLog::flush_all(Io& io) {
  const auto hold = writing_.lock(io);
  if (broken_) return *broken_;
  // By number: the deque may grow at its end while this waits; nobody takes from it meanwhile.
  for (size_t i = 0; i < segments_.size(); ++i) {
    Segment& segment = *segments_[i];
    TRY(note(write_out(io, segment)));
    if (!segment.dirty || segment.retired) continue;
    segment.dirty = false;
    ++flushes_;
    TRY(note(io.flush(file_of(segment.number))));
  }
  return ok;
}

Result<void> LsmLog::sync(Io& io) {
  return syncs_.pass(io, [&] { return flush_all(io); });
}

Result<void> LsmLog::prepare(Io& io) {
  if (next_) return ok;
  if (broken_) return *broken_;
  const uint64_t number = live().number + 1;
  for (const auto& segment : segments_) {
    CHECK(segment->number % kLsmLogSlots != number % kLsmLogSlots, "a segment in use");
  }
  next_ = TRY(make_segment(io, number));
  return ok;
}

uint64_t LsmLog::switch_segment() {
  CHECK(next_, "prepare() first");
  std::vector<std::byte> link;
  format::append_lsm_link(link, live().records);
  segments_.push_back(std::move(next_));
  append(link);
  return segments_[segments_.size() - 2]->number;
}

void LsmLog::retire(uint64_t segment) {
  for (const auto& one : segments_) {
    if (one->number > segment) continue;
    one->retired = true;
    one->pending = {};
  }
}

Result<void> LsmLog::reclaim(Io& io) {
  std::vector<uint64_t> large;
  {
    const auto hold = writing_.lock(io);
    while (segments_.size() > 1 && segments_.front()->retired) {
      const Segment& segment = *segments_.front();
      if (segment.end > spare_bytes_) large.push_back(segment.number);
      segments_.pop_front();
    }
  }
  for (const uint64_t number : large) TRY(io.resize(file_of(number), spare_bytes_));
  return ok;
}

Result<void> LsmLog::forget(Io& io) {
  const auto hold = writing_.lock(io);
  for (const auto& file : files_) TRY(io.resize(*file, 0));
  return ok;
}

}  // namespace firn::store
