// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// A write is cut into at most three parts: a partial grain at each end and whole grains between.
// Whole grains that are own go down in place (T1). The others take grains from the open block:
// write_new carves them, gathers with everybody else who writes new grains in this turn (T2), and
// publishes map entries and block bits in one atom when the data is down (T3). A partial grain that
// is not own is completed with what it held before and then written as a whole.
//
// Order of locks: fence, gate, range, `opening_`, admission; then only I/O, page loads and the
// queue for the map's shape. Whoever holds an admission never waits for a range, a gate or
// `opening_`.
//
// A write takes an admission for each thing that it changes, and none while its data goes down:
// pages of the map that become own, opening a block, and each atom of entries. No single one may
// hold all of it. In bytes of journal, where a changed page costs 96 and a word of it 16 (8 beyond
// the first 256, so a whole page 6,240):
//   own leaf      root, two index pages and leaf copied whole                        24,960
//                 their four entries in info pages, the layer's record, the block's page   960
//   one atom      256 entries of the leaf                                             4,192
//                 a block's entry and the layer's record                                400
//                 128 blocks that lose 256 grains (Freeing), each in a page of its own:
//                 128 * (96 + 2 * 16) + 256 * 16                                     20,480
// 256 new grains may be 256 atoms, when each goes to the last hole of another block: altogether
// that is far more than one admission, and so is the freeing of 256 grains in 256 blocks.
//
// While a write is under way a consolidation may turn inherited entries of this layer into own ones
// (never the other way). So what is own is asked again inside each atom, and what was own by then
// is freed there; a write in place was own before and stays so.
//
// What cuts lists is in functions of its own: many fibers wait in the middle of a small request,
// and the less of its stack each has touched, the less is cold when it goes on.
#include <algorithm>

#include "base/aligned.h"
#include "disk/freeing.h"
#include "disk/thin.h"
#include "policy/shrink_pick.h"

namespace firn::disk {

using format::GrainEntry;
using format::GrainType;
using store::GrainRun;

namespace {
constexpr uint64_t kPieceBytes = kMiB;
}  // namespace

// New grains of one turn, side by side: one device write. The first to come leads: it lets the
// others of its turn join, writes for all, and wakes them.
struct ThinDisk::Gathering {
  uint64_t first = 0;  // GrainNo.
  uint64_t count = 0;
  Slices slices;
  bool done = false;
  Result<void> result;
  WaitList followers;
};

Result<void> ThinDisk::write(Io& io, Range range, Iovec from, WriteFlags flags) {
  CHECK(total_of(from) == range.length);
  TRY(may_write());
  TRY(check_range(range));
  std::optional<store::Pool::GuestMark> mark;
  if (!flags.background) mark = pool_.guest_began(io);
  ++counters_.writes;
  ++writing_;
  note_order(range);
  counters_.written_bytes += range.length;
  const bool whole = range.at % kPieceBytes + range.length <= kPieceBytes;
  Result<void> result = whole ? write_piece(io, range, from, false) : write_pieces(io, range, from);
  --writing_;
  if (result) result = flags.fua ? pool_.flush(io) : pool_.preserve(io);
  if (mark) pool_.guest_ended(io, *mark);
  return result;
}

Result<void> ThinDisk::write_pieces(Io& io, Range range, Iovec from) {
  for (uint64_t done = 0; done < range.length;) {
    const uint64_t piece =
        std::min(kPieceBytes - (range.at + done) % kPieceBytes, range.length - done);
    const Slices slices = cut(from, done, piece);
    TRY(write_piece(io, {range.at + done, piece}, slices, false));
    done += piece;
  }
  return ok;
}

// --- placement

namespace {
constexpr uint32_t mean_of(uint32_t mean, bool yes) {
  return mean - mean / 64 + (yes ? 1000 / 64 : 0);
}
}  // namespace

void ThinDisk::note_order(Range range) {
  sequential_permille_ = mean_of(sequential_permille_, range.at == next_byte_);
  next_byte_ = range.end();
}

// Whether the first of the grains just placed continues its neighbour below as it does above.
void ThinDisk::note_place(const PageRef& leaf, uint64_t slot) {
  if (slot == 0) return;
  const GrainEntry before = format::grain_entry_of(leaf.word(slot - 1));
  if (!before.is_data()) return;
  const bool apart = before.grain + 1 != format::grain_entry_of(leaf.word(slot)).grain;
  fragmentation_permille_ = mean_of(fragmentation_permille_, apart);
}

bool ThinDisk::appends() {
  using policy::Placement;
  const Placement::Choice choice =
      placement_.look({.depth = writing_,
                       .sequential_permille = sequential_permille_,
                       .ready_blocks = pool_.blocks().fillable(),
                       .fragmentation_permille = fragmentation_permille_});
  if (placement_.reason() == Placement::Reason::space && tell_shortage_) tell_shortage_(true);
  return choice == Placement::Choice::append;
}

Result<void> ThinDisk::write_piece(Io& io, Range range, Iovec from, bool keep_zeroes) {
  if (range.empty()) return ok;
  const uint64_t first = range.at / kGrainBytes;
  const uint64_t count = (range.end() - 1) / kGrainBytes - first + 1;
  const auto inside = fence_.enter(io);
  const auto pass = gate_.enter(io);
  const auto hold = locks_.lock(io, first, count, RangeLocks::Mode::exclusive);
  TRY(check_range(range));  // It may have become smaller meanwhile.
  const auto flight = TRY(intend(io, first, count));
  if (range.length == kGrainBytes && is_short(range.at, from)) {
    return write_grain(io, first, from, keep_zeroes);
  }
  return write_parts(io, range, from, keep_zeroes);
}

Result<void> ThinDisk::write_parts(Io& io, Range range, Iovec from, bool keep_zeroes) {
  uint64_t at = range.at;
  if (!aligned(at, kGrainBytes) || range.length < kGrainBytes) {
    const uint64_t head = std::min(range.length, kGrainBytes - at % kGrainBytes);
    const Slices slices = cut(from, 0, head);
    TRY(write_partial(io, at / kGrainBytes, at % kGrainBytes, slices));
    at += head;
  }
  if (const uint64_t body = round_down(range.end() - at, kGrainBytes); body > 0) {
    const Slices slices = cut(from, at - range.at, body);
    TRY(write_grains(io, at / kGrainBytes, slices, keep_zeroes));
    at += body;
  }
  if (at < range.end()) {
    const Slices slices = cut(from, at - range.at, range.end() - at);
    TRY(write_partial(io, at / kGrainBytes, 0, slices));
  }
  return ok;
}

// --- change tracking. A flight is up from before anything changes until all is marked; what
// changes marks itself, so that a part of a request that failed leaves no mark.

Result<ChangeTracker::Flight> ThinDisk::intend(Io& io, uint64_t first, uint64_t count) {
  if (tracker_ == nullptr) return ChangeTracker::Flight();
  return tracker_->intend(io, {first * kGrainBytes, count * kGrainBytes});
}

void ThinDisk::mark(uint64_t first, uint64_t count) {
  if (tracker_ != nullptr) tracker_->mark({first * kGrainBytes, count * kGrainBytes});
}

// Less than a grain: completed with what it held, and written whole. In place as well, although the
// device could write sectors: two sector writes to one grain may reach the medium in either order,
// and a crash between them would leave a grain that never was (P2).
Result<void> ThinDisk::write_partial(Io& io, uint64_t grain, uint64_t at, Iovec from) {
  const uint64_t length = total_of(from);
  const Runs runs = TRY(find(io, grain, 1));
  const Run& run = runs[0];
  AlignedBuffer whole(kGrainBytes);
  if (run.has_data()) {
    ++counters_.merged_reads;
    const ::iovec old = slice_of(whole.bytes());
    TRY(pool_.read_data(io, store::DataBy::guest, store::data_byte_of(run.grain), Iovec(&old, 1)));
  } else {
    std::memset(whole.data(), 0, whole.size());
  }
  copy_in(from, whole.bytes().subspan(at, length));
  const ::iovec slice = slice_of(whole.bytes());
  return write_grains(io, grain, Iovec(&slice, 1), false);
}

// The short way of write_grains(), for one grain in one piece.
Result<void> ThinDisk::write_grain(Io& io, uint64_t grain, Iovec from, bool keep_zeroes) {
  if (!keep_zeroes && all_zero(from)) return unmap(io, grain, 1);
  return write_run(io, TRY(find_one(io, grain)), grain, from);
}

// Whole grains from `first`, in parts: zeroes, own grains in place, new ones.
Result<void> ThinDisk::write_grains(Io& io, uint64_t first, Iovec from, bool keep_zeroes) {
  const uint64_t count = total_of(from) / kGrainBytes;
  AlignedBuffer bounce;
  ::iovec whole;
  if (!all_aligned(from, pool_.data_alignment())) {
    bounce = AlignedBuffer(count * kGrainBytes);
    copy_in(from, bounce.bytes());
    whole = slice_of(bounce.bytes());
    from = Iovec(&whole, 1);
  }
  const auto is_zero = [&](uint64_t i) {
    if (keep_zeroes) return false;
    const Slices grain = cut(from, i * kGrainBytes, kGrainBytes);
    return all_zero(grain);
  };
  for (const Run& run : TRY(find(io, first, count))) {
    for (uint64_t at = run.first; at < run.first + run.count;) {
      const uint64_t begin = at;
      const bool zeroes = is_zero(at - first);
      while (++at < run.first + run.count && is_zero(at - first) == zeroes) {
      }
      const Slices slices = cut(from, (begin - first) * kGrainBytes, (at - begin) * kGrainBytes);
      const Iovec part(slices.data(), slices.size());
      if (zeroes) {
        TRY(unmap(io, begin, at - begin));
      } else {
        TRY(write_run(io, run, begin, part));
      }
    }
  }
  return ok;
}

// Grains from `first` on, all of them in `run`.
Result<void> ThinDisk::write_run(Io& io, const Run& run, uint64_t first, Iovec from) {
  if (run.where != Where::here) {
    return write_new(io, first, total_of(from) / kGrainBytes, from);
  }
  return appends() ? append(io, first, from) : write_in_place(io, run, first, from);
}

Result<void> ThinDisk::append(Io& io, uint64_t first, Iovec from) {
  const uint64_t count = total_of(from) / kGrainBytes;
  const Result<void> appended = write_new(io, first, count, from);
  if (appended || appended.error().code != Errc::no_space) return appended;
  // Some of them may have a new place by now.
  for (const Run& now : TRY(find(io, first, count))) {
    const Slices part = cut(from, (now.first - first) * kGrainBytes, now.count * kGrainBytes);
    TRY(write_in_place(io, now, now.first, part));
  }
  return ok;
}

Result<void> ThinDisk::write_in_place(Io& io, const Run& run, uint64_t first, Iovec from) {
  ++counters_.in_place_writes;
  Result<void> written = pool_.write_data(
      io, store::DataBy::guest, store::data_byte_of(run.grain + (first - run.first)), from);
  mark(first, total_of(from) / kGrainBytes);  // Failed or not: nobody knows what is there now.
  return written;
}

// --- new grains

Result<GrainRun> ThinDisk::carve(Io& io, uint32_t wanted) {
  while (true) {
    const GrainRun run = pool_.blocks().carve(open_, wanted);
    if (run.count > 0) return run;
    const auto only = opening_.lock(io);
    if (!open_.empty()) continue;  // Somebody else opened one meanwhile.
    const auto admission = TRY(pool_.pages().admit(io));
    store::Blocks& blocks = pool_.blocks();
    blocks.give_back(std::exchange(open_, {}));
    if (!std::exchange(reopened_, true) && layer_->record().open_block != 0) {
      open_ = TRY(blocks.reopen(io, layer_->record().open_block - 1, layer_->family()));
      if (!open_.empty()) continue;
      blocks.give_back(std::exchange(open_, {}));
    }
    open_ = TRY(blocks.take(io, layer_->family()));
    if (policy::space_is_short(blocks.free_blocks(), blocks.blocks()) && tell_shortage_) {
      tell_shortage_(false);
    }
    layer_->set_open_block(open_.block + 1);
  }
}

Result<void> ThinDisk::write_gathered(Io& io, GrainRun run, Iovec from) {
  const std::shared_ptr<Gathering> batch = gathering_;
  if (batch != nullptr && batch->first + batch->count == run.first &&
      batch->count + run.count <= kBlockGrains) {
    batch->count += run.count;
    batch->slices.append(from);
    while (!batch->done) io.park(batch->followers);
    return batch->result ? Result<void>() : Result<void>(batch->result.error());
  }
  const auto mine = std::make_shared<Gathering>();
  mine->first = run.first;
  mine->count = run.count;
  mine->slices.append(from);
  gathering_ = mine;
  io.yield();
  if (gathering_ == mine) gathering_.reset();
  ++counters_.gathered_writes;
  mine->result =
      pool_.write_data(io, store::DataBy::guest, store::data_byte_of(mine->first), mine->slices);
  mine->done = true;
  io.wake(mine->followers);
  return mine->result ? Result<void>() : Result<void>(mine->result.error());
}

// Own it stays, whoever waits meanwhile: nobody freezes the layer inside the fence, and a page that
// somebody holds is not pruned.
Result<PageRef> ThinDisk::own_leaf(Io& io, uint64_t index) {
  const auto admission = TRY(pool_.pages().admit(io));
  return layer_->own_leaf(io, index);
}

// T3: map entries, block bits and counters change in one atom, after the data. What is published
// leaves `run`: an error leaves the rest in it.
Result<void> ThinDisk::publish(Io& io, uint64_t first, GrainRun& run) {
  for (uint64_t at = first; run.count > 0;) {
    const uint64_t most = std::min<uint64_t>(run.count, kLeafGrains - at % kLeafGrains);
    const PageRef leaf = TRY(own_leaf(io, at / kLeafGrains));
    const auto admission = TRY(pool_.pages().admit(io));
    const PageRef block = TRY(pool_.blocks().pin(io, run.block()));
    const auto old = [&](uint64_t i) {
      return format::grain_entry_of(leaf.word((at + i) % kLeafGrains));
    };
    Freeing superseded(pool_.blocks());  // T8
    for (uint64_t i = 0; i < most; ++i) {
      if (!old(i).is_data() || !old(i).own) continue;
      if (!TRY(superseded.plan(io, old(i).grain))) break;
    }
    const NoWait atom;
    uint32_t count = 0;
    for (; count < most; ++count) {
      const GrainEntry entry = old(count);
      if (entry.is_data() && entry.own) {
        if (!superseded.covers(entry.grain)) break;  // Own since a moment: once more.
#ifndef FIRN_MUTANT_publish_forgets_superseded
        superseded.choose(entry.grain);
#endif
      }
      pool_.pages().set_word(leaf, (at + count) % kLeafGrains,
                             format::encode(GrainEntry{GrainType::data, true, run.first + count}));
    }
    if (count == 0) continue;
    mark(at, count);
    note_place(leaf, at % kLeafGrains);
    pool_.blocks().mark_used(block, {run.first, count}, layer_->family());
    const uint64_t moved = superseded.apply();
    layer_->add_own_grains(static_cast<int64_t>(count) - static_cast<int64_t>(moved));
    counters_.first_touch_grains += count - moved;
    counters_.appended_grains += moved;
    run.first += count;
    run.count -= count;
    at += count;
  }
  return ok;
}

Result<void> ThinDisk::write_new(Io& io, uint64_t first, uint64_t count, Iovec from) {
  for (uint64_t done = 0; done < count;) {
    GrainRun run = TRY(carve(io, static_cast<uint32_t>(count - done)));
    const uint64_t taken = run.count;
    const Slices slices = cut(from, done * kGrainBytes, run.count * kGrainBytes);
#ifdef FIRN_MUTANT_map_before_data
    GrainRun whole = run;
    Result<void> written = publish(io, first + done, run);
    if (written) written = write_gathered(io, whole, slices);
#else
    Result<void> written = write_gathered(io, run, slices);  // W1
    if (written) written = publish(io, first + done, run);
#endif
    if (!written) {
      if (run.count > 0) pool_.blocks().uncarve(run);
      return written;
    }
    done += taken;
  }
  return ok;
}

// --- zeroes and discards

Result<void> ThinDisk::zero(Io& io, Range range, ZeroFlags flags) {
  TRY(may_write());
  TRY(check_range(range));
  if (flags.keep_space && flags.fast_only) {
    return fail(Errc::unsupported, "disk '{}': zeroes that keep their space have to be written",
                name_);
  }
  ++counters_.zeroes;
  const uint64_t first = round_up(range.at, kGrainBytes);
  const uint64_t last = round_down(range.end(), kGrainBytes);
  const AlignedBuffer zeroes(flags.keep_space ? kPieceBytes : kGrainBytes);
  std::memset(zeroes.data(), 0, zeroes.size());
  for (uint64_t at = range.at; at < range.end();) {
    if (!flags.keep_space && at == first && first < last) {
      TRY(discard(io, {first, last - first}));
      at = last;
      continue;
    }
    const uint64_t edge =
        flags.keep_space || at >= first ? range.end() : std::min(first, range.end());
    const uint64_t piece = std::min(zeroes.size() - at % zeroes.size(), edge - at);
    const ::iovec slice = slice_of(zeroes.bytes().first(piece));
    TRY(write_piece(io, {at, piece}, Iovec(&slice, 1), flags.keep_space));
    at += piece;
  }
  return flags.fua ? pool_.flush(io) : pool_.preserve(io);
}

Result<void> ThinDisk::discard(Io& io, Range range) {
  TRY(may_write());
  TRY(check_range(range));
  pool_.guest_began();
  ++counters_.discards;
  // Grains that are covered whole; at the end of the disk a last short one counts.
  const uint64_t first = round_up(range.at, kGrainBytes) / kGrainBytes;
  const uint64_t end = range.end() == layer_->bytes()
                           ? (range.end() + kGrainBytes - 1) / kGrainBytes
                           : range.end() / kGrainBytes;
  Result<void> result;
  for (uint64_t at = first; at < end && result;) {
    const std::shared_ptr<Layer> layer = layer_;  // Outside the fence: it may be exchanged.
    const Result<uint64_t> leaf = leaf_to_unmap(io, *layer, at / kLeafGrains);
    if (!leaf) {
      result = named(leaf.error(), at * kGrainBytes);
      break;
    }
    if (*leaf == UINT64_MAX || *leaf * kLeafGrains >= end) break;
    at = std::max(at, *leaf * kLeafGrains);
    const uint64_t stop = std::min(end, (*leaf + 1) * kLeafGrains);
    const auto inside = fence_.enter(io);
    const auto pass = gate_.enter(io);
    const auto hold = locks_.lock(io, at, stop - at, RangeLocks::Mode::exclusive);
    const auto flight = intend(io, at, stop - at);
    result = flight ? unmap_leaf(io, *leaf, at, stop) : Result<void>(flight.error());
    if (flight) mark(at, stop - at);
    at = stop;
  }
  if (result) result = pool_.preserve(io);
  pool_.guest_ended();
  return result;
}

// The caller holds the range, or has the disk to itself.
Result<void> ThinDisk::unmap(Io& io, uint64_t first, uint64_t count) {
  for (uint64_t at = first; at < first + count;) {
    const uint64_t leaf = TRY(leaf_to_unmap(io, *layer_, at / kLeafGrains));
    if (leaf == UINT64_MAX || leaf * kLeafGrains >= first + count) break;
    at = std::max(at, leaf * kLeafGrains);
    const uint64_t stop = std::min(first + count, (leaf + 1) * kLeafGrains);
    TRY(unmap_leaf(io, leaf, at, stop));
    at = stop;
  }
  return ok;
}

// Where there is no leaf there is nothing to forget; unless zeroes are to be said.
Result<uint64_t> ThinDisk::leaf_to_unmap(Io& io, Layer& layer, uint64_t from) const {
  if (explicit_zeroes_) return from;
  return layer.next_leaf(io, from);
}

// A base forgets; another layer says zero, which hides what its ancestors have (T4).
bool ThinDisk::needs_unmap(GrainEntry entry) const {
  return entry.is_data() || (entry.type == GrainType::zero && drops_to_absent()) ||
         (entry.type == GrainType::absent && explicit_zeroes_);
}

Result<void> ThinDisk::unmap_leaf(Io& io, uint64_t index, uint64_t begin, uint64_t end) {
  bool changed = false;
  for (uint64_t at = begin; at < end;) {
    const Leaf seen = TRY(layer_->leaf(io, index));
    while (at < end && seen &&
           !needs_unmap(format::grain_entry_of(seen.page.word(at % kLeafGrains)))) {
      ++at;
    }
    if (at == end || (!seen && !explicit_zeroes_)) break;
    const PageRef leaf = TRY(own_leaf(io, index));
    const auto admission = TRY(pool_.pages().admit(io));
    at = TRY(unmap_some(io, leaf, at, end));
    changed = true;
  }
  if (!changed || !drops_to_absent()) return ok;
  const auto admission = TRY(pool_.pages().admit(io));
  return layer_->prune_leaf(io, index);
}

// As many grains from `begin` as one atom takes; where it stopped.
Result<uint64_t> ThinDisk::unmap_some(Io& io, const PageRef& leaf, uint64_t begin, uint64_t end) {
  const auto entry_at = [&](uint64_t grain) {
    return format::grain_entry_of(leaf.word(grain % kLeafGrains));
  };
  Freeing freeing(pool_.blocks());
  for (uint64_t grain = begin; grain < end; ++grain) {
    const GrainEntry entry = entry_at(grain);
    if (!entry.is_data() || !entry.own) continue;
    if (!TRY(freeing.plan(io, entry.grain))) break;
  }
  const NoWait atom;
  uint64_t grain = begin;
  for (; grain < end; ++grain) {
    const GrainEntry entry = entry_at(grain);
    if (!needs_unmap(entry)) continue;
    if (entry.is_data() && entry.own) {
      if (!freeing.covers(entry.grain)) break;
      freeing.choose(entry.grain);
    }
    const GrainEntry gone = drops_to_absent() ? GrainEntry{} : GrainEntry{GrainType::zero, true, 0};
    pool_.pages().set_word(leaf, grain % kLeafGrains, format::encode(gone));
  }
  mark(begin, grain - begin);
  const uint64_t freed = freeing.apply();
  if (freed > 0) layer_->add_own_grains(-static_cast<int64_t>(freed));
  return grain;
}

}  // namespace firn::disk
