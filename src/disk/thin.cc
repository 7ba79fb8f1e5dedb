// SPDX-License-Identifier: Apache-2.0
// Reading, looking and the life of a ThinDisk; writing is in thin_write.cc.
#include "disk/thin.h"

#include <algorithm>

#include "base/aligned.h"

namespace firn::disk {

using format::GrainEntry;
using format::GrainType;

namespace {

// Requests are taken in pieces of this size, so that one large request holds neither memory nor
// locks.
constexpr uint64_t kPieceBytes = kMiB;

// Counts a guest's read as long as it lasts: background work steps back.
class Guest {
 public:
  Guest(store::Pool& pool, Io& io) : pool_(pool), io_(io), mark_(pool_.guest_began(io)) {}
  ~Guest() { pool_.guest_ended(io_, mark_); }
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

 private:
  store::Pool& pool_;
  Io& io_;
  const store::Pool::GuestMark mark_;
};

}  // namespace

ThinDisk::ThinDisk(store::Pool& pool, Gate& gate, std::string name, std::shared_ptr<Layer> layer,
                   Use use)
    : pool_(pool), gate_(gate), name_(std::move(name)), use_(use), layer_(std::move(layer)) {}

ThinDisk::~ThinDisk() { pool_.blocks().give_back(open_); }

Geometry ThinDisk::geometry() const {
  return {.bytes = layer_->bytes(),
          .block = 512,
          .optimal = kGrainBytes,
          .discard = kGrainBytes,
          .volatile_cache = true,
          .read_only = use_ == Use::snapshot};
}

RangeLocks::Hold ThinDisk::lock_all(Io& io) {
  return locks_.lock(io, 0, kDiskBytesMax / kGrainBytes, RangeLocks::Mode::exclusive);
}

RangeLocks::Hold ThinDisk::lock_leaf(Io& io, uint64_t index) {
  return locks_.lock(io, index * kLeafGrains, kLeafGrains, RangeLocks::Mode::exclusive);
}

void ThinDisk::switch_layer(std::shared_ptr<Layer> next) {
  CHECK(next->family() == layer_->family());
  layer_ = std::move(next);
}

// A front end has looked before, but a forced revert may have made the disk smaller since.
Result<void> ThinDisk::check_range(Range range) const {
  if (range.within(layer_->bytes())) return ok;
  return fail(Errc::invalid, "disk '{}': {} bytes at {} are beyond its end at {}", name_,
              range.length, range.at, layer_->bytes());
}

Result<void> ThinDisk::may_write() const {
  if (use_ == Use::live) return pool_.writable();
  return fail(Errc::invalid, "snapshot '{}' is read-only", name_);
}

// A page that is not what it should be: whose it is, says who meets it (P3).
Error ThinDisk::named(Error why, uint64_t at) const {
  if (why.code != Errc::corrupt) return why;
  return fail(Errc::corrupt, "{} '{}' at byte {}: {}", use_ == Use::live ? "disk" : "snapshot",
              name_, at, text_of(why));
}

// The grain alone, of a leaf that exists.
ThinDisk::Run ThinDisk::run_at(const Leaf& leaf, uint64_t grain) {
  Run one{Where::nowhere, grain, 1, 0};
  const uint64_t raw = leaf.page.word(grain % kLeafGrains);
  if (raw == 0) return one;
  const GrainEntry entry = format::grain_entry_of(raw);
  one.grain = entry.grain;
  one.where = !entry.is_data() ? Where::zero : leaf.owns(entry) ? Where::here : Where::inherited;
  return one;
}

// The short way of find(), for requests of one grain.
Result<ThinDisk::Run> ThinDisk::find_one(Io& io, uint64_t grain) {
  const std::shared_ptr<Layer> layer = layer_;
  const Result<Leaf> leaf = layer->leaf(io, grain / kLeafGrains);
  if (!leaf) return named(leaf.error(), grain * kGrainBytes);
  return *leaf ? run_at(*leaf, grain) : Run{Where::nowhere, grain, 1, 0};
}

// Part of one grain, or all of it, in one piece of memory that the device takes as it is: what most
// small requests are. No list has to be cut for it.
bool ThinDisk::is_short(uint64_t first_byte, Iovec slices) const {
  if (slices.size() != 1) return false;
  const uint64_t within = first_byte % kGrainBytes;
  const uint64_t length = slices[0].iov_len;
  return within + length <= kGrainBytes &&
         aligned(within | length | reinterpret_cast<uintptr_t>(slices[0].iov_base),
                 pool_.data_alignment());
}

// Where grains [first, first + count) are, as maximal runs.
Result<ThinDisk::Runs> ThinDisk::find(Io& io, uint64_t first, uint64_t count) {
  Runs runs;
  const std::shared_ptr<Layer> layer = layer_;  // A snapshot taken meanwhile changes nothing here.
  const uint64_t end = first + count;
  for (uint64_t at = first; at < end;) {
    Result<Leaf> found = layer->leaf(io, at / kLeafGrains);
    if (!found) return named(found.error(), at * kGrainBytes);
    const Leaf leaf = found.take();
    const uint64_t leaf_end = std::min(end, (at / kLeafGrains + 1) * kLeafGrains);
    for (; at < leaf_end; ++at) {
      const Run one = leaf ? run_at(leaf, at) : Run{Where::nowhere, at, leaf_end - at, 0};
      Run* const last = runs.empty() ? nullptr : &runs.back();
      if (last != nullptr && last->where == one.where &&
          (!one.has_data() || last->grain + last->count == one.grain)) {
        last->count += one.count;
      } else {
        runs.push_back(one);
      }
      at += one.count - 1;
    }
  }
  return runs;
}

// --- reading

Result<void> ThinDisk::read(Io& io, Range range, Iovec into) {
  CHECK(total_of(into) == range.length);
  TRY(check_range(range));
  const Guest guest(pool_, io);
  ++counters_.reads;
  counters_.read_bytes += range.length;
  if (range.length <= kPieceBytes) return read_piece(io, range, into);
  return read_pieces(io, range, into);
}

Result<void> ThinDisk::read_pieces(Io& io, Range range, Iovec into) {
  for (uint64_t done = 0; done < range.length;) {
    const uint64_t piece = std::min(kPieceBytes, range.length - done);
    const Slices slices = cut(into, done, piece);
    TRY(read_piece(io, {range.at + done, piece}, slices));
    done += piece;
  }
  return ok;
}

Result<void> ThinDisk::read_piece(Io& io, Range range, Iovec into) {
  if (range.empty()) return ok;
  const uint64_t first = range.at / kGrainBytes;
  const uint64_t count = (range.end() - 1) / kGrainBytes - first + 1;
  const auto hold = locks_.lock(io, first, count, RangeLocks::Mode::shared);
  if (is_short(range.at, into)) {
    const Run run = TRY(find_one(io, first));
    if (run.has_data()) {
      const uint64_t at = store::data_byte_of(run.grain) + range.at % kGrainBytes;
      return pool_.read_data(io, store::DataBy::guest, at, into);
    }
    fill_zero(into);
    return ok;
  }
  return read_parts(io, range, into);
}

Result<void> ThinDisk::read_parts(Io& io, Range range, Iovec into) {
  const uint64_t first = range.at / kGrainBytes;
  const uint64_t count = (range.end() - 1) / kGrainBytes - first + 1;
  const Runs runs = TRY(find(io, first, count));
  const uint32_t alignment = pool_.data_alignment();
  if (aligned(range.at | range.length, alignment) && all_aligned(into, alignment)) {
    return read_grains(io, range.at, runs, into);
  }
  AlignedBuffer bounce(count * kGrainBytes);
  const ::iovec whole = slice_of(bounce.bytes());
  TRY(read_grains(io, first * kGrainBytes, runs, Iovec(&whole, 1)));
  copy_out(View(bounce.bytes()).subspan(range.at - first * kGrainBytes, range.length), into);
  return ok;
}

// Fills `into`, which begins at disk byte `first_byte` inside the first run.
Result<void> ThinDisk::read_grains(Io& io, uint64_t first_byte, const Runs& runs, Iovec into) {
  const uint64_t end_byte = first_byte + total_of(into);
  Result<void> result;
  Group others(io);
  for (size_t i = 0; i < runs.size(); ++i) {
    const Run& run = runs[i];
    const uint64_t begin = std::max(run.first * kGrainBytes, first_byte);
    const uint64_t end = std::min((run.first + run.count) * kGrainBytes, end_byte);
    Slices slices = cut(into, begin - first_byte, end - begin);
    if (!run.has_data()) {
      fill_zero(slices);
      continue;
    }
    const uint64_t at = store::data_byte_of(run.grain) + (begin - run.first * kGrainBytes);
    if (i + 1 == runs.size()) {  // The last one needs no fiber of its own.
      Result<void> got = pool_.read_data(io, store::DataBy::guest, at, slices);
      if (!got && result) result = std::move(got);
      continue;
    }
    auto held = std::make_unique<Slices>(std::move(slices));
    io.spawn(others, [this, &io, &result, at, held = std::move(held)] {
      Result<void> got = pool_.read_data(io, store::DataBy::guest, at, *held);
      if (!got && result) result = std::move(got);
    });
  }
  others.wait();
  return result;
}

// --- looking

Result<void> ThinDisk::map(Io& io, Range range, ExtentSink& sink) {
  TRY(check_range(range));
  constexpr uint64_t kGrainsAtOnce = 32 * kLeafGrains;
  ExtentRun pending;
  const auto emit = [&](ExtentRun run) {
    if (run.kind == pending.kind && run.depth == pending.depth) {
      pending.length += run.length;
      return true;
    }
    const bool more = pending.length == 0 || sink.add(pending);
    pending = run;
    return more;
  };
  uint64_t at = range.at;
  while (at < range.end()) {
    const uint64_t first = at / kGrainBytes;
    uint64_t count = std::min((range.end() - 1) / kGrainBytes - first + 1, kGrainsAtOnce);
    const std::shared_ptr<Layer> layer = layer_;
    const uint64_t leaf = TRY(layer->next_leaf(io, first / kLeafGrains));
    if (leaf > first / kLeafGrains) {  // Nothing until there: one step, however far.
      const uint64_t end =
          leaf == UINT64_MAX ? range.end() : std::min(range.end(), leaf * kLeafBytes);
      if (!emit({end - at, Extent::hole, 0})) return ok;
      at = end;
      continue;
    }
    const auto hold = locks_.lock(io, first, count, RangeLocks::Mode::shared);
    for (const Run& run : TRY(find(io, first, count))) {
      const uint64_t end = std::min((run.first + run.count) * kGrainBytes, range.end());
      const Extent kind = run.has_data()             ? Extent::data
                          : run.where == Where::zero ? Extent::zero
                                                     : Extent::hole;
      const uint32_t depth = run.where == Where::nowhere     ? 0
                             : run.where == Where::inherited ? 2
                                                             : 1;
      if (!emit({end - at, kind, depth})) return ok;
      at = end;
    }
  }
  if (pending.length > 0) sink.add(pending);
  return ok;
}

// --- durability and size

Result<void> ThinDisk::flush(Io& io) {
  pool_.guest_began();
  ++counters_.flushes;
#ifdef FIRN_MUTANT_flush_without_commit
  Result<void> done = pool_.flush_data(io);
#else
  Result<void> done = pool_.flush(io);
#endif
  pool_.guest_ended();
  return done;
}

Result<void> ThinDisk::resize(Io& io, uint64_t bytes) {
  TRY(may_write());
  const uint64_t old = layer_->bytes();
  if (bytes < old) {
    // What lies behind the new end must read as zero when the disk grows again.
    const uint64_t grain_end = std::min(round_up(bytes, kGrainBytes), old);
    if (grain_end > bytes) TRY(zero(io, {bytes, grain_end - bytes}, {}));
    TRY(discard(io, {grain_end, old - grain_end}));
  }
  {
    const auto inside = fence_.enter(io);
    const auto pass = gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    const NoWait atom;
    layer_->set_bytes(bytes);
    if (tracker_ != nullptr) tracker_->resize(bytes);
  }
  return pool_.flush(io);
}

}  // namespace firn::disk
