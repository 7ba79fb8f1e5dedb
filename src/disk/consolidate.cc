// SPDX-License-Identifier: Apache-2.0
#include "disk/consolidate.h"

#include "disk/freeing.h"

namespace firn::disk {

using format::GrainEntry;
using format::GrainType;
using format::IndexEntry;
using format::kFanout;
using store::PageKind;

namespace {
constexpr uint64_t kOwnBit = uint64_t{1} << 63;
constexpr Duration kWalkThrough = std::chrono::microseconds(200);
constexpr PageKind kind_at(uint8_t level) { return level == 0 ? PageKind::map : PageKind::index; }
}  // namespace

IndexEntry Consolidation::entry(const Layer& layer, const PageRef& page, uint64_t slot) const {
  if (!page) return layer.root();
  const uint64_t raw = page.word(slot);
  return {raw & format::kPageNoMax, (raw & kOwnBit) != 0};
}
IndexEntry Consolidation::upper_at(const Place& place) const {
  return entry(upper_, place.upper, place.slot);
}
IndexEntry Consolidation::lower_at(const Place& place) const {
  return entry(lower_, place.lower, place.slot);
}

Result<void> Consolidation::run(Io& io) {
  if (!lower_.root().own) return ok;
  // A disk that grew has levels above what lower covers: lower's whole map is below their slot 0.
  Place place;
  uint8_t level = upper_.level();
  if (level < lower_.level()) {
    return fail(Errc::corrupt, "layer {} is lower than layer {} under it", upper_.id(),
                lower_.id());
  }
  for (; level > lower_.level(); --level) {
    const IndexEntry above = upper_at(place);
    if (!above.own) {
      return fail(Errc::corrupt, "layer {} inherits a level that layer {} does not have",
                  upper_.id(), lower_.id());
    }
    place.upper = TRY(upper_.node(io, above.page, level));
    place.slot = 0;
  }
  return pair(io, place, level);
}

Result<void> Consolidation::pair(Io& io, const Place& place, uint8_t level) {
  if (!lower_at(place).own) return ok;
  if (!upper_at(place).own) TRY(take_over(io, place));
  if (!lower_at(place).own) return ok;
  return level == 0 ? pair_leaf(io, place) : pair_index(io, place, level);
}

// upper inherits the page: from now on it owns it, with all that is below.
Result<void> Consolidation::take_over(Io& io, const Place& place) {
  return steps_.step(io, [&]() -> Result<void> {
    const auto only = upper_.shaping().enter(
        io, store::Priority::job);  // A writer may be copying this very page.
    const NoWait atom;
    const IndexEntry mine = upper_at(place);
    const IndexEntry theirs = lower_at(place);
    if (mine.own) return ok;
    if (mine.page != theirs.page) {
      return fail(Errc::corrupt, "layer {} shows page {} where layer {} under it has page {}",
                  upper_.id(), mine.page, lower_.id(), theirs.page);
    }
#ifndef FIRN_MUTANT_merge_keeps_lower_s_bit
    lower_.set_child(place.lower, place.slot, {mine.page, false});
#endif
    upper_.set_child(place.upper, place.slot, {mine.page, true});
    return ok;
  });
}

// --- index pages

Result<void> Consolidation::pair_index(Io& io, const Place& place, uint8_t level) {
  {
    const PageRef upper = TRY(upper_.node(io, upper_at(place).page, level));
    const PageRef lower = TRY(lower_.node(io, lower_at(place).page, level));
    TRY(steps_.step(io, [&]() -> Result<void> {
      const auto only = upper_.shaping().enter(io, store::Priority::job);
      return move_children(upper, lower);
    }));
    for (uint64_t slot = 0; slot < kFanout; ++slot) {
      if ((lower.word(slot) & kOwnBit) == 0) continue;
      TRY(pair(io, {upper.again(), lower.again(), slot}, static_cast<uint8_t>(level - 1)));
    }
  }
  return retire(io, place, level);
}

// Everything below this page that upper inherits whole, in one atom.
Result<void> Consolidation::move_children(const PageRef& upper, const PageRef& lower) {
  const NoWait atom;
  for (uint64_t slot = 0; slot < kFanout; ++slot) {
    const uint64_t theirs = lower.word(slot);
    const uint64_t mine = upper.word(slot);
    if ((theirs & kOwnBit) == 0 || (mine & kOwnBit) != 0) continue;
    if (mine != (theirs & ~kOwnBit)) {
      return fail(Errc::corrupt, "layer {} shows page {} where layer {} under it has page {}",
                  upper_.id(), mine, lower_.id(), theirs & ~kOwnBit);
    }
    pool_.pages().set_word(upper, slot, theirs);
#ifndef FIRN_MUTANT_merge_keeps_lower_s_bit
    pool_.pages().set_word(lower, slot, mine);
#endif
  }
  return ok;
}

// --- leaves

Result<void> Consolidation::pair_leaf(Io& io, const Place& place) {
  for (uint64_t from = 0; from < kFanout;) {
    PageRef upper = TRY(upper_.node(io, upper_at(place).page, 0));
    PageRef lower = TRY(lower_.node(io, lower_at(place).page, 0));
    TRY(steps_.step(io, [&]() -> Result<void> {
      from = TRY(merge_grains(io, place, std::move(upper), std::move(lower), from));
      return ok;
    }));
  }
  if (!lower_at(place).own) return ok;  // Went with its last grains.
  return retire(io, place, 0);
}

// As many entries from `from` as one atom takes; where it stopped. When all of them went at once,
// lower's page goes in the same atom.
Result<uint64_t> Consolidation::merge_grains(Io& io, const Place& place, PageRef upper,
                                             PageRef lower, uint64_t from) {
  const auto superseded = [&](uint64_t slot) {
    const GrainEntry theirs = format::grain_entry_of(lower.word(slot));
#ifdef FIRN_MUTANT_merge_frees_what_is_shown
    return theirs.is_data() && theirs.own;
#else
    return theirs.is_data() && theirs.own && (upper.word(slot) & kOwnBit) != 0;
#endif
  };
  Freeing freeing(pool_.blocks());
  for (uint64_t slot = from; slot < kFanout; ++slot) {
    if (!superseded(slot)) continue;
    if (!TRY(freeing.plan(io, format::grain_entry_of(lower.word(slot)).grain))) break;
  }
  const NoWait atom;
  uint64_t end = from;
  for (; end < kFanout; ++end) {
    const uint64_t theirs = lower.word(end);
    if (superseded(end) && !freeing.covers(format::grain_entry_of(theirs).grain)) break;
    const uint64_t mine = upper.word(end);
    if ((theirs & kOwnBit) != 0 && (mine & kOwnBit) == 0 && mine != (theirs & ~kOwnBit)) {
      return fail(Errc::corrupt,
                  "layer {} shows {:#x} in page {} where layer {} under it has {:#x}", upper_.id(),
                  mine, upper.no(), lower_.id(), theirs);
    }
  }
#ifdef FIRN_MUTANT_retire_under_a_walker
  const bool at_once = from == 0 && end == kFanout;
#else
  const bool at_once = from == 0 && end == kFanout && pool_.pages().sole_pin(lower);
#endif
  for (uint64_t slot = from; slot < end; ++slot) {
    if (superseded(slot)) freeing.choose(format::grain_entry_of(lower.word(slot)).grain);
    hand_over(upper, lower, slot, !at_once);
  }
#ifdef FIRN_MUTANT_merge_forgets_superseded
  const uint64_t freed = 0;
#else
  const uint64_t freed = freeing.apply();
#endif
  if (freed > 0) lower_.add_own_grains(-static_cast<int64_t>(freed));
  if (at_once) {
    const PageNo page = lower.no();
    lower.reset();
    retire_now(place, page, 0);
  }
  return end;
}

// One entry: upper gets what it inherits from lower; lower shows what upper has. On a base, zeroes
// that only hid an ancestor become nothing.
void Consolidation::hand_over(const PageRef& upper, const PageRef& lower, uint64_t slot,
                              bool keep_lower) {
  const uint64_t theirs = lower.word(slot);
  if ((theirs & kOwnBit) != 0 || lower_.is_base()) {
    uint64_t mine = upper.word(slot);
    if ((theirs & kOwnBit) != 0) mine |= kOwnBit;
    if (lower_.is_base() && format::grain_entry_of(mine).type == GrainType::zero) mine = 0;
    if (mine != upper.word(slot)) pool_.pages().set_word(upper, slot, mine);
  }
  const uint64_t shown = upper.word(slot) & ~kOwnBit;
  if (keep_lower && lower.word(slot) != shown) pool_.pages().set_word(lower, slot, shown);
}

// --- lower's page, of which nothing is own any more

Result<void> Consolidation::retire(Io& io, const Place& place, uint8_t level) {
  while (lower_at(place).own) {
    const PageNo page = lower_at(place).page;
    TRY(steps_.step(io, [&]() -> Result<void> {
      PageRef lower = TRY(lower_.node(io, page, level));
      const NoWait atom;
      for (uint64_t slot = 0; slot < kFanout; ++slot) {
        CHECK((lower.word(slot) & kOwnBit) == 0, "page {} still owns entry {}", page, slot);
      }
      if (!pool_.pages().sole_pin(lower)) return ok;  // Somebody walks through: a little later.
      lower.reset();
      retire_now(place, page, level);
      return ok;
    }));
    if (lower_at(place).own) io.sleep(kWalkThrough);
  }
  return ok;
}

void Consolidation::retire_now(const Place& place, PageNo page, uint8_t level) {
  lower_.set_child(place.lower, place.slot, {upper_at(place).page, false});
  pool_.pages().free(page, kind_at(level));
  lower_.add_own_pages(-1);
}

}  // namespace firn::disk
