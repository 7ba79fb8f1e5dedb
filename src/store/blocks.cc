// SPDX-License-Identifier: Apache-2.0
#include "store/blocks.h"

#include <algorithm>
#include <bit>

#include "base/log.h"

namespace firn::store {

using format::BlockEntry;
using format::kBlocksPerPage;

Blocks::Blocks(PageStore& pages, PageRef root, File& data, Queue& device)
    : pages_(pages),
      data_(data),
      device_(device),
      table_(pages, std::move(root), offset_of(format::Tree::block_table), PageKind::block_table) {}

BlockEntry Blocks::entry_of(const PageRef& page, BlockNo block) const {
  return firn::load<BlockEntry>(page.view().subspan(block % kBlocksPerPage * sizeof(BlockEntry)));
}

void Blocks::put_entry(const PageRef& page, BlockNo block, const BlockEntry& entry) {
  // Word by word: an allocation changes two or three of the eight, and the journal carries no more.
  const BlockEntry old = entry_of(page, block);
  const size_t first = block % kBlocksPerPage * sizeof(BlockEntry);
  for (size_t at = 0; at < sizeof(BlockEntry); at += 8) {
    const View now = view_of(entry).subspan(at, 8);
    if (!std::ranges::equal(now, view_of(old).subspan(at, 8)))
      pages_.set_bytes(page, first + at, now);
  }
}

void Blocks::count(const Summary& summary, int64_t by) {
  const auto step = static_cast<uint64_t>(by);
  counters_.used_grains += step * summary.used;
  if (summary.freeing) {
    counters_.freeing += step;
    return;
  }
  switch (summary.state) {
    case BlockState::raw:
      counters_.raw += step;
      break;
    case BlockState::ready:
      counters_.ready += step;
      break;
    case BlockState::allocated:
      counters_.allocated += step;
      break;
    case BlockState::bad:
      counters_.bad += step;
      break;
  }
}

// Puts a free block where takers look for it.
void Blocks::list(BlockNo block) {
  if (summaries_[block].state == BlockState::raw) {
    (summaries_[block].written ? written_ : raw_).push_back(block);
  }
  if (summaries_[block].state == BlockState::ready) ready_.push_back(block);
}

Result<void> Blocks::load(Io& io) {
  const PageRef root = pages_.find(format::kRootPage, PageKind::pool_root);
  CHECK(root);
  summaries_.assign(firn::load<format::PoolRoot>(root.view()).blocks, Summary{});
  TRY(table_.for_each(io, [&](Io&, uint64_t index, const PageRef& page) -> Result<void> {
    for (size_t i = 0; i < kBlocksPerPage; ++i) {
      const BlockNo block = index * kBlocksPerPage + i;
      const BlockEntry entry = entry_of(page, block);
      if (block >= summaries_.size()) {
        if (entry.state == std::byte{}) continue;
        return fail(Errc::corrupt, "block table: block {} is beyond the pool's {}", block,
                    summaries_.size());
      }
      Summary& summary = summaries_[block];
      summary.state = static_cast<BlockState>(entry.state);
      summary.used = entry.used;
      summary.family = entry.family;
      summary.written = summary.state == BlockState::allocated;
    }
    return ok;
  }));
  for (BlockNo block = 0; block < summaries_.size(); ++block) {
    count(summaries_[block], 1);
    list(block);
  }
  return ok;
}

Result<void> Blocks::extend(Io& io, uint64_t blocks) {
  const auto admission = TRY(pages_.admit(io));
  const PageRef root = TRY(pages_.get(io, format::kRootPage, PageKind::pool_root));
  const NoWait atom;
  CHECK(blocks >= summaries_.size());
  pages_.set_word(root, offsetof(format::PoolRoot, blocks) / 8, blocks);
  while (summaries_.size() < blocks) {
    raw_.push_back(summaries_.size());
    count(summaries_.emplace_back(), 1);
  }
  return ok;
}

void Blocks::settle() {
  const uint64_t durable = pages_.durable_id();
#ifdef FIRN_MUTANT_early_block_reuse
  while (!freeing_.empty()) {
#else
  while (!freeing_.empty() && freeing_.front().id <= durable) {
#endif
    const BlockNo block = freeing_.front().block;
    freeing_.pop_front();
    count(summaries_[block], -1);
    summaries_[block].freeing = false;
    count(summaries_[block], 1);
    list(block);
  }
  while (!freed_grains_.empty() && freed_grains_.front().id <= durable) freed_grains_.pop_front();
}

Result<PageRef> Blocks::pin(Io& io, BlockNo block) {
  return table_.make_leaf(io, block / kBlocksPerPage);
}

// --- taking

Result<BlockNo> Blocks::take_free(Io& io) {
  settle();
  for (std::deque<BlockNo>* const list : {&written_, &ready_}) {
    if (list->empty()) continue;
    const BlockNo block = list->front();
    list->pop_front();
    summaries_[block].taken = true;
    return block;
  }
  return format_raw(io);
}

Result<void> Blocks::write_block(Io& io, Priority priority, BlockNo block, View bytes) {
  const auto turn = device_.enter(io, priority);
  return io.write(data_, data_byte_of_block(block), bytes);
}

// The inline path: only when READY space does not suffice, and only the block that is taken (S5).
Result<BlockNo> Blocks::format_raw(Io& io) {
  constexpr int kTries = 4;  // Bad blocks skipped before the error is the caller's.
  for (int i = 0; i < kTries && !raw_.empty(); ++i) {
    const BlockNo block = raw_.front();
    raw_.pop_front();
    summaries_[block].taken = true;
    AlignedBuffer zeroes(kBlockBytes);
    std::memset(zeroes.data(), 0, zeroes.size());
    const Result<void> wrote = write_block(io, Priority::guest, block, zeroes.bytes());
    if (wrote) {
      counters_.inline_formatted_bytes += kBlockBytes;
      ++counters_.inline_format_writes;
      return block;
    }
    summaries_[block].taken = false;
    if (wrote.error().code != Errc::io) {
      raw_.push_front(block);
      return wrote.error();
    }
    TRY(mark_bad(io, block));
  }
  return fail(Errc::no_space, "'{}' is full: no free storage block of {}", data_.name(),
              summaries_.size());
}

Result<void> Blocks::mark_bad(Io& io, BlockNo block) {
  log(LogLevel::error, "storage block {} of '{}' cannot be written; it is set aside", block,
      data_.name());
  const PageRef page = TRY(pin(io, block));
  const NoWait atom;
  count(summaries_[block], -1);
  summaries_[block].state = BlockState::bad;
  count(summaries_[block], 1);
  BlockEntry entry = entry_of(page, block);
  entry.state = static_cast<std::byte>(BlockState::bad);
  put_entry(page, block, entry);
  return ok;
}

Result<OpenBlock> Blocks::open(Io& io, BlockNo block) {
  Result<PageRef> page = pin(io, block);
  if (!page) {
    summaries_[block].taken = false;
    list(block);
    return page.error();
  }
  const BlockEntry entry = entry_of(*page, block);
  OpenBlock open;
  open.block = block;
  open.generation = entry.generation;
  for (size_t i = 0; i < open.free.size(); ++i) open.free[i] = ~entry.bitmap[i].get();
  return open;
}

// The last resort before ENOSPC: grains freed one by one inside the family's own blocks.
Result<OpenBlock> Blocks::take_holes(Io& io, uint32_t family) {
  for (size_t i = 0; i < summaries_.size(); ++i) {
    const BlockNo block = (hole_hint_ + i) % summaries_.size();
    Summary& summary = summaries_[block];
    if (summary.state != BlockState::allocated || summary.family != family || summary.held() ||
        summary.freeing || summary.used == kBlockGrains) {
      continue;
    }
    [[maybe_unused]] const bool settled =
        std::none_of(freed_grains_.begin(), freed_grains_.end(),
                     [&](const Freed& freed) { return freed.block == block; });
#ifndef FIRN_MUTANT_early_grain_reuse
    if (!settled) continue;  // S3
#endif
    hole_hint_ = block;
    summary.taken = true;
    return open(io, block);
  }
  return fail(Errc::no_space, "'{}' is full: no free storage block of {}", data_.name(),
              summaries_.size());
}

Result<OpenBlock> Blocks::reopen(Io& io, BlockNo block, uint32_t family) {
  if (block >= summaries_.size()) return OpenBlock{};
  settle();
  Summary& summary = summaries_[block];
  if (summary.state != BlockState::allocated || summary.family != family || summary.held() ||
      summary.used == kBlockGrains ||
      std::any_of(freed_grains_.begin(), freed_grains_.end(),
                  [&](const Freed& freed) { return freed.block == block; })) {
    return OpenBlock{};
  }
  summary.taken = true;
  return open(io, block);
}

std::vector<Blocks::Filled> Blocks::blocks_of(uint32_t family) const {
  std::vector<Filled> filled;
  for (BlockNo block = 0; block < summaries_.size(); ++block) {
    const Summary& summary = summaries_[block];
    if (summary.state != BlockState::allocated || summary.family != family || summary.held()) {
      continue;
    }
    filled.push_back({block, summary.used});
  }
  return filled;
}

Result<uint64_t> Blocks::trim(Io& io) {
  TRY(pages_.commit(io));
  settle();
  uint64_t trimmed = 0;
  for (std::deque<BlockNo>* const list : {&raw_, &written_}) {
    for (size_t left = list->size(); left > 0 && !list->empty();) {
      // A part at a time: whoever needs a block meanwhile finds one.
      std::vector<BlockNo> part;
      while (part.size() < kTrimAtOnce && left > 0 && !list->empty()) {
        part.push_back(list->front());
        list->pop_front();
        summaries_[part.back()].taken = true;
        summaries_[part.back()].written = false;
        --left;
      }
      std::ranges::sort(part);
      const Result<void> punched = punch(io, part);
      for (const BlockNo block : part) {
        summaries_[block].taken = false;
        raw_.push_back(block);
      }
      if (!punched) return punched.error();
      trimmed += part.size();
    }
  }
  return trimmed;
}

// Runs of neighbours at once.
Result<void> Blocks::punch(Io& io, const std::vector<BlockNo>& sorted) {
  for (size_t i = 0; i < sorted.size();) {
    size_t end = i + 1;
    while (end < sorted.size() && sorted[end] == sorted[end - 1] + 1) ++end;
    TRY(io.punch(data_, data_byte_of_block(sorted[i]), (end - i) * kBlockBytes));
    i = end;
  }
  return ok;
}

Result<OpenBlock> Blocks::take(Io& io, uint32_t family) {
  io.wake(taken_);
  const Result<BlockNo> block = take_free(io);
  if (block) return open(io, *block);
  if (block.error().code != Errc::no_space) return block.error();
  Result<OpenBlock> holes = take_holes(io, family);
  if (holes || (freeing_.empty() && freed_grains_.empty())) return holes;
  // Space is there, but its freeing is not durable: make it so and look once more.
  TRY(pages_.commit(io));
  const Result<BlockNo> again = take_free(io);
  if (again) return open(io, *again);
  return take_holes(io, family);
}

void Blocks::give_back(const OpenBlock& open) {
  if (open.block == kNoBlock) return;
  Summary& summary = summaries_[open.block];
  CHECK(summary.taken && !summary.freeing);
  summary.taken = false;
  release(open.block);
}

// A block that nobody holds any more goes where its state belongs.
void Blocks::release(BlockNo block) {
  Summary& summary = summaries_[block];
  if (summary.held()) return;
  const auto unsettled = std::find_if(freed_grains_.rbegin(), freed_grains_.rend(),
                                      [&](const Freed& freed) { return freed.block == block; });
  if (summary.state == BlockState::raw && unsettled != freed_grains_.rend()) {
    count(summary, -1);
    summary.freeing = true;  // S3: it emptied in its layer's hand, and that is not durable yet.
    count(summary, 1);
    freeing_.push_back(*unsettled);
    return;
  }
  list(block);
}

void Blocks::uncarve(GrainRun run) {
  Summary& summary = summaries_[run.block()];
  CHECK(summary.carved >= run.count);
  summary.carved = static_cast<uint16_t>(summary.carved - run.count);
  release(run.block());
}

GrainRun Blocks::carve(OpenBlock& open, uint32_t wanted) {
  if (open.block == kNoBlock || open.empty()) return {};
  uint32_t first = 0;
  for (size_t i = 0; i < open.free.size(); ++i) {
    if (open.free[i] == 0) continue;
    first = static_cast<uint32_t>(i * 64) + static_cast<uint32_t>(std::countr_zero(open.free[i]));
    break;
  }
  GrainRun run{open.block * kBlockGrains + first, 0};
  for (uint32_t at = first; at < kBlockGrains && run.count < wanted; ++at) {
    const uint64_t bit = uint64_t{1} << (at % 64);
    if ((open.free[at / 64] & bit) == 0) break;
    open.free[at / 64] &= ~bit;
    ++run.count;
  }
  Summary& summary = summaries_[open.block];
  summary.carved = static_cast<uint16_t>(summary.carved + run.count);
  return run;
}

// --- changes

void Blocks::mark_used(const PageRef& page, GrainRun run, uint32_t family) {
  const BlockNo block = run.block();
  Summary& summary = summaries_[block];
  CHECK(!summary.freeing && (summary.state != BlockState::allocated || summary.family == family));
  BlockEntry entry = entry_of(page, block);
  count(summary, -1);
  if (summary.state != BlockState::allocated) {
    entry.state = static_cast<std::byte>(BlockState::allocated);
    entry.family = family;
    entry.generation = entry.generation + 1;
    summary.state = BlockState::allocated;
    summary.family = family;
    summary.written = true;
  }
  for (uint64_t grain = run.first; grain < run.first + run.count; ++grain) {
    le64& word = entry.bitmap[grain % kBlockGrains / 64];
    const uint64_t bit = uint64_t{1} << (grain % 64);
    CHECK((word & bit) == 0, "grain {} gets a second owner", grain);
    word = word | bit;
  }
  summary.used = static_cast<uint16_t>(summary.used + run.count);
  entry.used = summary.used;
  count(summary, 1);
  put_entry(page, block, entry);
  uncarve(run);
}

void Blocks::mark_free(const PageRef& page, uint64_t grain) {
  GrainSet grains{};
  grains[grain % kBlockGrains / 64] = uint64_t{1} << (grain % 64);
  mark_free(page, grain / kBlockGrains, grains);
}

void Blocks::mark_free(const PageRef& page, BlockNo block, const GrainSet& grains) {
  Summary& summary = summaries_[block];
  CHECK(summary.state == BlockState::allocated);
  BlockEntry entry = entry_of(page, block);
  uint32_t freed = 0;
  for (size_t i = 0; i < grains.size(); ++i) {
    CHECK((entry.bitmap[i] & grains[i]) == grains[i], "a grain of storage block {} is freed twice",
          block);
    entry.bitmap[i] = entry.bitmap[i] & ~grains[i];
    freed += static_cast<uint32_t>(std::popcount(grains[i]));
  }
  CHECK(freed > 0);
  count(summary, -1);
  summary.used = static_cast<uint16_t>(summary.used - freed);
  entry.used = summary.used;
  const uint64_t id = pages_.next_change_id();
  if (summary.used == 0) {
    entry.state = static_cast<std::byte>(BlockState::raw);
    entry.family = 0;
    summary.state = BlockState::raw;
    summary.family = 0;
    if (!summary.held()) {  // A block that a layer is filling stays with it.
      summary.freeing = true;
      freeing_.push_back({block, id});
    }
  }
  if (!summary.freeing && (freed_grains_.empty() || freed_grains_.back().block != block ||
                           freed_grains_.back().id != id)) {
    freed_grains_.push_back({block, id});
  }
  count(summary, 1);
  put_entry(page, block, entry);
}

// --- the background formatter

Result<bool> Blocks::format_one(Io& io) {
  settle();
  const auto only = formatting_.lock(io);
  const auto admission = TRY(pages_.admit(io));
  if (raw_.empty()) return false;
  const BlockNo block = raw_.front();
  raw_.pop_front();
  summaries_[block].taken = true;
  AlignedBuffer zeroes(kBlockBytes);
  std::memset(zeroes.data(), 0, zeroes.size());
  Result<void> wrote = write_block(io, Priority::format, block, zeroes.bytes());
  Result<PageRef> page = wrote ? pin(io, block) : Result<PageRef>(wrote.error());
  summaries_[block].taken = false;
  if (!page) {
    if (!wrote && wrote.error().code == Errc::io) {
      TRY(mark_bad(io, block));
      return true;
    }
    raw_.push_back(block);
    return page.error();
  }
  // READY promises zeroes: the commit that carries it flushes the data first (W2).
  const NoWait atom;
  BlockEntry entry = entry_of(*page, block);
  entry.state = static_cast<std::byte>(BlockState::ready);
  put_entry(*page, block, entry);
  count(summaries_[block], -1);
  summaries_[block].state = BlockState::ready;
  count(summaries_[block], 1);
  ready_.push_back(block);
  counters_.background_formatted_bytes += kBlockBytes;
  return true;
}

}  // namespace firn::store
