// SPDX-License-Identifier: Apache-2.0
// Notes on the design. What is here is asked of the map below once for each region of 4 MiB, when
// it is first touched, and kept as bits from then on: a grain that is here stays here, so a request
// for such grains goes down without a lock. Fetching needs none either: what is elsewhere never
// changes; only putting it here does.
#include "disk/backed.h"

#include <algorithm>

#include "base/check.h"

namespace firn::disk {
namespace {

constexpr uint64_t kReadAround = 16;     // Grains: what is compressed together.
constexpr uint64_t kHydrateRegions = 8;  // At a time.
constexpr uint64_t kMapBytes = kGiB;     // At a time.

// Holes of the disk below that were not here when it was asked are data. Not as it is when a hole
// is told: what was fetched meanwhile would be no hole below, and none here.
class BackedExtents final : public ExtentSink {
 public:
  BackedExtents(ExtentSink& to, uint64_t at, std::vector<bool> here)
      : to_(to), at_(at), first_(at / kGrainBytes), here_(std::move(here)) {}

  bool add(ExtentRun run) override {
    const uint64_t end = at_ + run.length;
    if (run.kind != Extent::hole) {
      at_ = end;
      return give(run);
    }
    while (at_ < end) {
      uint64_t grain = at_ / kGrainBytes;
      const bool here = here_[grain - first_];
      const uint64_t last = (end - 1) / kGrainBytes;
      while (grain < last && here_[grain + 1 - first_] == here) ++grain;
      const uint64_t stop = std::min(end, (grain + 1) * kGrainBytes);
      const ExtentRun part = here ? ExtentRun{stop - at_, run.kind, run.depth}
                                  : ExtentRun{stop - at_, Extent::data, 2};
      at_ = stop;
      if (!give(part)) return false;
    }
    return true;
  }
  bool wants_more() const { return wants_more_; }

 private:
  bool give(ExtentRun run) {
    wants_more_ = to_.add(run);
    return wants_more_;
  }

  ExtentSink& to_;
  uint64_t at_;
  const uint64_t first_;
  const std::vector<bool> here_;
  bool wants_more_ = true;
};

class MappedGrains final : public ExtentSink {
 public:
  using Mapped = std::function<void(uint64_t first, uint64_t end)>;
  MappedGrains(uint64_t at, Mapped mapped) : at_(at), mapped_(std::move(mapped)) {}
  bool add(ExtentRun run) override {
    const uint64_t end = at_ + run.length;
    if (run.kind != Extent::hole) mapped_(at_ / kGrainBytes, (end - 1) / kGrainBytes + 1);
    at_ = end;
    return true;
  }

 private:
  uint64_t at_;
  Mapped mapped_;
};

}  // namespace

BackedDisk::BackedDisk(std::shared_ptr<BlockDevice> below, std::unique_ptr<Backing> backing,
                       std::shared_ptr<Fetched> fetched)
    : below_(std::move(below)),
      backing_(std::move(backing)),
      fetched_(std::move(fetched)),
      bytes_(below_->geometry().bytes),
      grains_((bytes_ + kGrainBytes - 1) / kGrainBytes),
      done_((grains_ + kRegionGrains - 1) / kRegionGrains, false) {}

// --- what is here

bool BackedDisk::is_here(uint64_t grain) const {
  const uint64_t region = grain / kRegionGrains;
  if (is_complete() || done_[region]) return true;
  const auto found = partial_.find(region);
  return found != partial_.end() && found->second.test(grain % kRegionGrains);
}

bool BackedDisk::are_here(Grains grains) const {
  if (is_complete()) return true;
  for (uint64_t grain = grains.first; grain < grains.end();) {
    if (!is_here(grain)) return false;
    grain = done_[grain / kRegionGrains] ? (grain / kRegionGrains + 1) * kRegionGrains : grain + 1;
  }
  return true;
}

void BackedDisk::note_done(uint64_t region) {
  if (done_[region]) return;
  done_[region] = true;
  ++regions_done_;
  partial_.erase(region);
}

// The caller has looked at them.
void BackedDisk::note_here(Grains grains) {
  for (uint64_t grain = grains.first; grain < grains.end();) {
    const uint64_t region = grain / kRegionGrains;
    const uint64_t end = std::min(grains.end(), (region + 1) * kRegionGrains);
    if (!done_[region]) {
      Region& bits = partial_.at(region);
      for (uint64_t at = grain; at < end; ++at) bits.set(at % kRegionGrains);
      if (bits.all()) note_done(region);
    }
    grain = end;
  }
}

BackedDisk::Grains BackedDisk::touched_by(Range range) const {
  if (range.empty()) return {};
  const uint64_t first = range.at / kGrainBytes;
  return {first, (range.end() - 1) / kGrainBytes + 1 - first};
}

BackedDisk::Grains BackedDisk::covered_by(Range range) const {
  const uint64_t first = round_up(range.at, kGrainBytes) / kGrainBytes;
  const uint64_t end = range.end() == bytes_ ? grains_ : range.end() / kGrainBytes;
  return {first, end > first ? end - first : 0};
}

Result<void> BackedDisk::look(Io& io, Grains grains) {
  if (grains.count == 0 || is_complete()) return ok;
  const uint64_t last = (grains.end() - 1) / kRegionGrains;
  for (uint64_t region = grains.first / kRegionGrains; region <= last; ++region) {
    if (!done_[region] && !partial_.contains(region)) TRY(look_at(io, region));
  }
  return ok;
}

Result<void> BackedDisk::look_at(Io& io, uint64_t region) {
  Region bits;
  const uint64_t first = region * kRegionGrains;
  for (uint64_t grain = grains_; grain < first + kRegionGrains; ++grain) {
    bits.set(grain % kRegionGrains);  // Beyond the end.
  }
  const uint64_t at = first * kGrainBytes;
  MappedGrains mapped(at, [&](uint64_t begin, uint64_t end) {
    for (uint64_t grain = begin; grain < end; ++grain) bits.set(grain % kRegionGrains);
  });
  const uint64_t length = std::min(bytes_ - at, kRegionGrains * kGrainBytes);
  TRY(below_->map(io, {at, length}, mapped));
  // Somebody who looked at the same time may have changed something since: what that one has noted
  // includes what we saw.
  if (done_[region] || !partial_.emplace(region, bits).second) return ok;
  if (bits.all()) note_done(region);
  return ok;
}

// --- fetching

Result<void> BackedDisk::store(Io& io, uint64_t grain, View content) {
  CHECK(content.size() % kGrainBytes == 0);
  const uint64_t count = content.size() / kGrainBytes;
  const auto hold = changing_.lock(io, grain, count, RangeLocks::Mode::exclusive);
  for (uint64_t i = 0; i < count;) {
    uint64_t n = 1;
    const bool here = is_here(grain + i);
    while (i + n < count && is_here(grain + i + n) == here) ++n;
    if (!here) {
      const uint64_t at = (grain + i) * kGrainBytes;
      const View part = content.subspan(i * kGrainBytes, std::min(n * kGrainBytes, bytes_ - at));
      const ::iovec slice = slice_of(part);
      TRY(below_->write(io, {at, part.size()}, Iovec(&slice, 1), {.background = true}));
      note_here({grain + i, n});
    }
    i += n;
  }
  return ok;
}

Result<void> BackedDisk::fetch(Io& io, Grains grains, uint64_t Fetched::*counter) {
  TRY(look(io, grains));
  TRY(backing_->fetch(
      io, grains.first, grains.count, [this](uint64_t grain) { return !is_here(grain); },
      [&](uint64_t grain, View content) -> Result<void> {
        const uint64_t end = grain + content.size() / kGrainBytes;
        CHECK(grain >= grains.first && end <= grains.end(), "content that nobody asked for");
        (*fetched_).*counter += content.size();
        return store(io, grain, content);
      }));
  // The rest is zeroes there, and absent here: that reads the same.
  note_here(grains);
  return ok;
}

// All of them are here when it returns.
Result<void> BackedDisk::ensure(Io& io, Grains grains) {
  if (grains.count == 0 || are_here(grains)) return ok;
  TRY(look(io, grains));
  if (are_here(grains)) return ok;
  const uint64_t first = round_down(grains.first, kReadAround);
  const Grains around{first, std::min(round_up(grains.end(), kReadAround), grains_) - first};
  ++waiting_;
  Result<void> fetched;
  {
    const auto only = fetching_.lock(io, around.first, around.count, RangeLocks::Mode::exclusive);
    if (!are_here(grains)) fetched = fetch(io, around, &Fetched::waited_for);
  }
  if (--waiting_ == 0) io.wake(nobody_waits_);
  return fetched;
}

Result<bool> BackedDisk::hydrate(Io& io) {
  while (waiting_ > 0) io.park(nobody_waits_);
  if (is_complete()) return true;
  while (cursor_ == done_.size() || done_[cursor_]) {
    cursor_ = cursor_ == done_.size() ? 0 : cursor_ + 1;
  }
  uint64_t end = cursor_ + 1;
  while (end < done_.size() && end - cursor_ < kHydrateRegions && !done_[end]) ++end;
  const uint64_t first = cursor_ * kRegionGrains;
  cursor_ = end;  // What is damaged does not hold up the rest: it has its next turn in a while.
  TRY(fetch(io, {first, std::min(end * kRegionGrains, grains_) - first}, &Fetched::background));
  return is_complete();
}

BackedDisk::Progress BackedDisk::progress() const {
  return {std::min(regions_done_ * kRegionGrains * kGrainBytes, bytes_), bytes_};
}

// --- the six verbs

Result<void> BackedDisk::read(Io& io, Range range, Iovec into) {
  if (!is_complete()) TRY(ensure(io, touched_by(range)));
  return below_->read(io, range, into);
}

// What a change leaves of a grain must be here before it.
Result<void> BackedDisk::ensure_edges(Io& io, Range range) {
  const Grains all = touched_by(range);
  const Grains whole = covered_by(range);
  if (whole.count == 0) return ensure(io, all);
  if (all.first < whole.first) TRY(ensure(io, {all.first, 1}));
  if (whole.end() < all.end()) TRY(ensure(io, {all.end() - 1, 1}));
  return ok;
}

template <class Change>
Result<void> BackedDisk::change(Io& io, Range range, const Change& below) {
  const Grains whole = covered_by(range);
  if (is_complete() || whole.count == 0 || are_here(whole)) return below();
  TRY(look(io, whole));
  const auto hold = changing_.lock(io, whole.first, whole.count, RangeLocks::Mode::exclusive);
  TRY(below());
  note_here(whole);
  return ok;
}

Result<void> BackedDisk::write(Io& io, Range range, Iovec from, WriteFlags flags) {
  if (!is_complete()) TRY(ensure_edges(io, range));
  return change(io, range, [&] { return below_->write(io, range, from, flags); });
}

Result<void> BackedDisk::zero(Io& io, Range range, ZeroFlags flags) {
  if (!is_complete()) TRY(ensure_edges(io, range));
  return change(io, range, [&] { return below_->zero(io, range, flags); });
}

// Grains that it covers in part stay as they are.
Result<void> BackedDisk::discard(Io& io, Range range) {
  return change(io, range, [&] { return below_->discard(io, range); });
}

std::vector<bool> BackedDisk::seen_here(Grains grains) const {
  std::vector<bool> here(grains.count);
  for (uint64_t grain = grains.first; grain < grains.end();) {
    const uint64_t region = grain / kRegionGrains;
    const uint64_t end = std::min(grains.end(), (region + 1) * kRegionGrains);
    const auto partial = partial_.find(region);
    for (; grain < end; ++grain) {
      here[grain - grains.first] = done_[region] || (partial != partial_.end() &&
                                                     partial->second.test(grain % kRegionGrains));
    }
  }
  return here;
}

Result<void> BackedDisk::map(Io& io, Range range, ExtentSink& sink) {
  for (uint64_t at = range.at; at < range.end();) {
    if (is_complete()) return below_->map(io, {at, range.end() - at}, sink);
    const uint64_t end = std::min(range.end(), round_down(at, kMapBytes) + kMapBytes);
    const Range piece{at, end - at};
    BackedExtents extents(sink, at, seen_here(touched_by(piece)));
    TRY(below_->map(io, piece, extents));
    if (!extents.wants_more()) return ok;
    at = end;
  }
  return ok;
}

}  // namespace firn::disk
