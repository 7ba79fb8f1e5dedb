// SPDX-License-Identifier: Apache-2.0
#include "disk/shrink.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/aligned.h"
#include "disk/freeing.h"

namespace firn::disk {

using format::GrainEntry;
using format::kFanout;
using store::GrainRun;

namespace {
constexpr uint64_t kOwnBit = uint64_t{1} << 63;

// Whether `raw` shows `grain`, whoever owns it.
bool shows(uint64_t raw, uint64_t grain) {
  const GrainEntry entry = format::grain_entry_of(raw);
  return entry.is_data() && entry.grain == grain;
}
}  // namespace

struct Shrink::Batch {
  std::vector<Move> moves;
  std::vector<PageRef> pages;    // Leaves with an entry that shows one of them; the owner's first.
  std::vector<GrainRun> carved;  // Where they go, in order; not yet used.
};

// Every open disk of the family stands still on one leaf (H3).
class Shrink::Lock {
 public:
  Lock(Io& io, std::vector<std::shared_ptr<ThinDisk>> disks, uint64_t index)
      : disks_(std::move(disks)) {
#ifdef FIRN_MUTANT_shrink_locks_another_leaf
    ++index;
#endif
    for (const auto& disk : disks_) holds_.push_back(disk->lock_leaf(io, index));
  }

 private:
  std::vector<std::shared_ptr<ThinDisk>> disks_;
  std::vector<RangeLocks::Hold> holds_;
};

policy::ShrinkChoice Shrink::look() {
  std::vector<uint16_t> used;
  for (const auto& filled : pool_.blocks().blocks_of(family_)) used.push_back(filled.used);
  return policy::choose_victims(used, kBlockGrains);
}

Result<Shrink::Report> Shrink::run(Io& io) {
  const auto filled = pool_.blocks().blocks_of(family_);
  const policy::ShrinkChoice choice = look();
  victims_.assign(pool_.blocks().blocks(), false);
  for (const size_t i : choice.victims) victims_[filled[i].block] = true;
  for (const size_t i : choice.receivers) receivers_.push_back(filled[i].block);
  std::ranges::reverse(receivers_);
  std::vector<uint32_t> layers;
  for (const auto& [id, seen] : catalog_.layers()) {
    if (seen.layer.family == family_) layers.push_back(id);
  }
  Result<void> moved;
  for (size_t i = 0; i < layers.size() && moved && !choice.victims.empty(); ++i) {
    moved = move_layer(io, layers[i]);
  }
  pool_.blocks().give_back(std::exchange(open_, {}));
  TRY(std::move(moved));
  for (const size_t i : choice.victims) {
    if (pool_.blocks().state_of(filled[i].block) != store::BlockState::allocated) {
      ++report_.emptied_blocks;
    }
  }
  return report_;
}

Result<void> Shrink::move_layer(Io& io, uint32_t id) {
  if (!catalog_.layers().contains(id)) return ok;
  const auto layer = TRY(openings_.layer(io, id));
  for (uint64_t index = 0;; ++index) {
    index = TRY(layer->next_own_leaf(io, index));
    if (index == UINT64_MAX) return ok;
    TRY(move_leaf(io, *layer, index));
  }
}

Result<void> Shrink::move_leaf(Io& io, Layer& layer, uint64_t index) {
  for (uint64_t from = 0; from < kFanout;) {
    Batch seen;
    TRY(collect(io, layer, index, from, seen));
    if (seen.moves.empty()) return ok;
    from = seen.moves.front().slot;
    bool again = true;
    while (again) {
      // Writers hold fence and gate before ranges; so does this.
      const uint64_t generation = openings_.generation();
      const std::vector<std::shared_ptr<ThinDisk>> disks = openings_.disks();
      std::vector<Gate::Pass> inside;
      for (const auto& disk : disks) inside.push_back(disk->fence().enter(io));
      TRY(steps_.step(
          io, [&] { return std::make_unique<Lock>(io, disks, index); },
          [&]() -> Result<void> {
            again = !TRY(move(io, layer, index, generation, from));
            inside.clear();  // Before the rest: a snapshot may be waiting.
            return ok;
          }));
    }
  }
  return ok;
}

// Own entries of the leaf, from slot `from` on, that lie in blocks to be emptied.
Result<void> Shrink::collect(Io& io, Layer& layer, uint64_t index, uint64_t from, Batch& batch) {
  const Leaf leaf = TRY(layer.leaf(io, index));
  if (!leaf || !leaf.own) return ok;
  for (uint64_t slot = from; slot < kFanout && batch.moves.size() < kMovesMax; ++slot) {
    const GrainEntry entry = format::grain_entry_of(leaf.page.word(slot));
    if (!entry.is_data() || !entry.own || !is_victim(entry.grain)) continue;
    batch.moves.push_back({slot, entry.grain, 0});
  }
  if (!batch.moves.empty()) batch.pages.push_back(leaf.page.again());
  return ok;
}

// The leaves of layers above that were copied while they showed one of the grains. Where a layer no
// longer shows any of them, none that stands on it does.
Result<void> Shrink::copies_of(Io& io, uint32_t layer, uint64_t index, Batch& batch) {
  struct Above {
    uint32_t layer;
    PageNo below;  // The leaf of the layer under it.
  };
  std::vector<Above> todo;
  std::set<PageNo> known = {batch.pages[0].no()};
  for (const uint32_t child : catalog_.children(layer)) {
    todo.push_back({child, batch.pages[0].no()});
  }
  while (!todo.empty() && batch.pages.size() <= kCopiesMax) {
    const Above above = todo.back();
    todo.pop_back();
    const auto seen = catalog_.layers().find(above.layer);
    if (seen == catalog_.layers().end()) continue;
    const uint64_t root = seen->second.layer.root;
    const Leaf leaf =
        TRY(find_leaf(io, pool_.pages(), {root & format::kPageNoMax, (root & kOwnBit) != 0},
                      static_cast<uint8_t>(seen->second.layer.root_level), index));
    if (!leaf) continue;
    if (leaf.page.no() != above.below) {
      const bool shown = std::ranges::any_of(batch.moves, [&](const Move& move) {
        return shows(leaf.page.word(move.slot), move.from);
      });
      if (!shown) continue;
      if (known.insert(leaf.page.no()).second) batch.pages.push_back(leaf.page.again());
    }
    for (const uint32_t child : catalog_.children(above.layer)) {
      todo.push_back({child, leaf.page.no()});
    }
  }
  return ok;
}

// As many moves as their entries, in all their pages, leave room for in one admission.
void Shrink::fit(Batch& batch) const {
  constexpr uint64_t kRoom = store::PageStore::kAdmissionBytes / 2;  // The rest: blocks.
  const uint64_t each = kRoom / batch.pages.size();
  constexpr uint64_t kRecord = 96, kWord = 16;
  const uint64_t most = each > kRecord ? std::max<uint64_t>((each - kRecord) / kWord, 1) : 1;
  if (batch.moves.size() > most) batch.moves.resize(most);
}

Result<void> Shrink::carve(Io& io, Batch& batch) {
  for (size_t done = 0; done < batch.moves.size();) {
    const GrainRun run =
        pool_.blocks().carve(open_, static_cast<uint32_t>(batch.moves.size() - done));
    for (uint32_t i = 0; i < run.count; ++i) batch.moves[done++].to = run.first + i;
    if (run.count > 0) {
      batch.carved.push_back(run);
      continue;
    }
    pool_.blocks().give_back(std::exchange(open_, {}));
    if (receivers_.empty()) {
      return fail(Errc::no_space, "pool '{}': no more room to move grains of family {} to",
                  pool_.directory(), family_);
    }
    open_ = TRY(pool_.blocks().reopen(io, receivers_.back(), family_));
    receivers_.pop_back();
  }
  return ok;
}

Result<void> Shrink::copy_data(Io& io, const Batch& batch) {
  AlignedBuffer data(batch.moves.size() * kGrainBytes);
  const auto for_runs = [&](auto&& place, auto&& act) -> Result<void> {
    for (size_t i = 0; i < batch.moves.size();) {
      size_t end = i + 1;
      while (end < batch.moves.size() && place(end) == place(end - 1) + 1) ++end;
      const Bytes part = data.bytes().subspan(i * kGrainBytes, (end - i) * kGrainBytes);
      TRY(act(store::data_byte_of(place(i)), part));
      i = end;
    }
    return ok;
  };
  TRY(for_runs([&](size_t i) { return batch.moves[i].from; },
               [&](uint64_t at, Bytes part) {
                 const ::iovec slice = slice_of(part);
                 return pool_.read_data(io, store::DataBy::shrink, at, Iovec(&slice, 1));
               }));
  return for_runs([&](size_t i) { return batch.moves[i].to; },
                  [&](uint64_t at, Bytes part) {
                    const ::iovec slice = slice_of(part);
                    return pool_.write_data(io, store::DataBy::shrink, at, Iovec(&slice, 1));
                  });
}

// Inside gate, ranges and admission. False: a disk was opened meanwhile, once more.
Result<bool> Shrink::move(Io& io, Layer& layer, uint64_t index, uint64_t generation,
                          uint64_t& from) {
  Batch batch;
  TRY(collect(io, layer, index, from, batch));
  if (batch.moves.empty()) {
    from = kFanout;
    return true;
  }
#ifndef FIRN_MUTANT_shrink_forgets_copies
  TRY(copies_of(io, layer.id(), index, batch));
#endif
  fit(batch);
  const uint64_t next = batch.moves.back().slot + 1;
  if (batch.pages.size() > kCopiesMax) {
    report_.skipped_grains += batch.moves.size();
    from = next;
    return true;
  }
  Result<void> moved = carve(io, batch);
#ifdef FIRN_MUTANT_shrink_maps_before_data
  if (moved) moved = switch_over(io, batch, generation);
  if (moved) moved = copy_data(io, batch);
#else
  if (moved) moved = copy_data(io, batch);
  if (moved) moved = switch_over(io, batch, generation);
#endif
  for (const GrainRun& run : batch.carved) pool_.blocks().uncarve(run);
  if (!moved && moved.error().code == Errc::busy) return false;
  TRY(std::move(moved));
  from = next;
  return true;
}

// H2
Result<void> Shrink::switch_over(Io& io, Batch& batch, uint64_t generation) {
  std::vector<PageRef> blocks;
  for (const GrainRun& run : batch.carved) {
    blocks.push_back(TRY(pool_.blocks().pin(io, run.block())));
  }
  Freeing freeing(pool_.blocks());
  for (const Move& move : batch.moves) {
    const bool planned = TRY(freeing.plan(io, move.from));
    CHECK(planned);
  }
  const NoWait atom;
  if (openings_.generation() != generation) {
    return fail(Errc::busy, "a disk of family {} was opened", family_);
  }
  for (const Move& move : batch.moves) {
    CHECK(shows(batch.pages[0].word(move.slot), move.from), "grain {} moved under a lock",
          move.from);
    for (const PageRef& page : batch.pages) {
      const uint64_t raw = page.word(move.slot);
      if (!shows(raw, move.from)) continue;
      const GrainEntry entry{format::GrainType::data, (raw & kOwnBit) != 0, move.to};
      pool_.pages().set_word(page, move.slot, format::encode(entry));
    }
    freeing.choose(move.from);
  }
  for (size_t i = 0; i < batch.carved.size(); ++i) {
    pool_.blocks().mark_used(blocks[i], batch.carved[i], family_);
  }
  batch.carved.clear();
  report_.moved_grains += freeing.apply();
  return ok;
}

}  // namespace firn::disk
