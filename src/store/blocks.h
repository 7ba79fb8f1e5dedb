// SPDX-License-Identifier: Apache-2.0
// Storage blocks: who has which MiB of the data file, and what state the free ones are in. Free
// space is kept in two structures, formatted (READY) and yet to be formatted (RAW); a write formats
// RAW space itself only when READY space does not suffice. Source: US 9747298.
//
//   ALLOCATED -- last grain freed --> FREEING -- that commit durable --> RAW -- zeroes written -->
//   READY READY or RAW -- taken by a writing layer --> ALLOCATED          anything -- EIO on
//   formatting --> BAD
//
//  S1  ALLOCATED on disk if and only if `used` > 0, and `used` counts the bits of the bitmap.
//  S2  allocated + freeing + raw + ready + bad == capacity, at every moment between two waits.
//  S3  Nothing freed is given out before its freeing is durable: a crash must not leave two owners.
//  S4  Freeing does no I/O on data: its cost does not depend on how much is freed.
//  S6  A block is free, or offered for its holes, only when nobody fills it and no carved grain of
//      it is still on its way to being used: in memory the last writes of a full block look like
//      holes.
//  S5  A take formats only when no READY block is there, nor one that was in use since the pool was
//      opened or before: its bytes are written, and nobody relies on what they are (a grain is
//      mapped after it was written as a whole). It formats only the block it takes.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "format/data_label.h"
#include "format/grain_map.h"
#include "store/pages.h"
#include "store/tree.h"

namespace firn::store {

using format::BlockNo;
using format::BlockState;

inline constexpr uint64_t kNoBlock = UINT64_MAX;

// Where a storage block and a grain begin in the data file: behind its label area.
constexpr uint64_t data_byte_of_block(BlockNo block) {
  return format::kLabelAreaBytes + block * kBlockBytes;
}
constexpr uint64_t data_byte_of(format::GrainNo grain) {
  return format::kLabelAreaBytes + grain * kGrainBytes;
}

struct BlockCounters {
  uint64_t allocated = 0, freeing = 0, raw = 0, ready = 0, bad = 0;  // Blocks.
  uint64_t used_grains = 0;
  uint64_t inline_formatted_bytes = 0;
  uint64_t inline_format_writes = 0;  // Takes that had to format.
  uint64_t background_formatted_bytes = 0;
};

// A block being filled by one layer: the grains of it that were free when it was taken, handed out
// once.
struct OpenBlock {
  BlockNo block = kNoBlock;
  uint32_t generation = 0;
  std::array<uint64_t, 4> free{};
  bool empty() const { return (free[0] | free[1] | free[2] | free[3]) == 0; }
};
// A run of grains inside one block.
struct GrainRun {
  uint64_t first = 0;  // GrainNo.
  uint32_t count = 0;
  BlockNo block() const { return first / kBlockGrains; }
};

class Blocks {
 public:
  Blocks(PageStore& pages, PageRef root, File& data, Queue& device);

  // Reads the block table. Before anything else.
  Result<void> load(Io& io);
  Result<void> extend(Io& io, uint64_t blocks);

  // A block for `family` to fill: READY, else RAW formatted now, else holes in the family's own
  // blocks. Errc::no_space. The block is the caller's until it is assigned by mark_used or handed
  // back.
  Result<OpenBlock> take(Io& io, uint32_t family);
  void give_back(const OpenBlock& open);
  // The block that a layer was filling before a restart, if it still has room and is the family's.
  Result<OpenBlock> reopen(Io& io, BlockNo block, uint32_t family);
  // Woken whenever space was taken: the formatter's cue.
  WaitList& taken() { return taken_; }
  // Up to `wanted` grains side by side, taken out of `open`; count 0 when it is empty. They are the
  // caller's until mark_used or uncarve, also after the block was handed back (S6).
  GrainRun carve(OpenBlock& open, uint32_t wanted);
  void uncarve(GrainRun run);

  // Blocks of a family that nobody is filling, and how many grains they hold.
  struct Filled {
    BlockNo block = 0;
    uint16_t used = 0;
  };
  std::vector<Filled> blocks_of(uint32_t family) const;
  // Gives RAW blocks back to the host's file system; they read as zero, and are RAW as before. How
  // many. Errc::unsupported where the medium cannot.
  Result<uint64_t> trim(Io& io);

  // The page with the block's entry, made if need be. The caller holds an admission.
  Result<PageRef> pin(Io& io, BlockNo block);

  // --- changes; none waits. `entry_page` is pin(block). Part of the caller's atom (G1).
  void mark_used(const PageRef& entry_page, GrainRun run, uint32_t family);
  void mark_free(const PageRef& entry_page, uint64_t grain);
  // All grains of one block whose bits are set in `grains`.
  using GrainSet = std::array<uint64_t, kBlockGrains / 64>;
  void mark_free(const PageRef& entry_page, BlockNo block, const GrainSet& grains);

  // Formats one RAW block in the background: zeroes, then READY. False when there is none to do.
  Result<bool> format_one(Io& io);
  // What freed blocks became durable since: FREEING -> RAW. Cheap; called by take() and
  // format_one().
  void settle();

  const BlockCounters& counters() const { return counters_; }
  // Blocks that can be filled at once.
  uint64_t fillable() const { return ready_.size() + written_.size(); }
  uint64_t free_blocks() const { return counters_.raw + counters_.ready + counters_.freeing; }
  uint64_t blocks() const { return summaries_.size(); }
  // For the check: what memory believes.
  BlockState state_of(BlockNo block) const { return summaries_[block].state; }
  PageTree& table() { return table_; }
  // Held while the formatter changes the table; whoever must have it stand still takes it.
  Mutex& formatting() { return formatting_; }

 private:
  struct Summary {
    BlockState state = BlockState::raw;
    bool taken = false;  // In somebody's hand: being formatted or filled for the first time.
    bool freeing = false;
    bool written = false;  // Every byte of it is; never true of a block that was trimmed.
    uint16_t used = 0;
    uint16_t carved = 0;  // Handed out, not yet used.
    uint32_t family = 0;

    bool held() const { return taken || carved > 0; }  // S6
  };
  struct Freed {
    BlockNo block;
    uint64_t id;  // Commit that carries the freeing.
  };

  format::BlockEntry entry_of(const PageRef& page, BlockNo block) const;
  void put_entry(const PageRef& page, BlockNo block, const format::BlockEntry& entry);
  void count(const Summary& summary, int64_t by);
  void list(BlockNo block);
  void release(BlockNo block);
  Result<OpenBlock> open(Io& io, BlockNo block);
  Result<BlockNo> take_free(Io& io);
  Result<BlockNo> format_raw(Io& io);
  Result<void> write_block(Io& io, Priority priority, BlockNo block, View bytes);
  Result<OpenBlock> take_holes(Io& io, uint32_t family);
  Result<void> mark_bad(Io& io, BlockNo block);
  static constexpr size_t kTrimAtOnce = 256;
  Result<void> punch(Io& io, const std::vector<BlockNo>& sorted);

  PageStore& pages_;
  File& data_;
  Queue& device_;
  PageTree table_;
  std::vector<Summary> summaries_;
  std::deque<BlockNo> raw_;      // Oldest first.
  std::deque<BlockNo> written_;  // RAW as well, but `written`.
  std::deque<BlockNo> ready_;
  std::deque<Freed> freeing_;       // Ascending ids.
  std::deque<Freed> freed_grains_;  // Blocks with grains whose freeing is not durable yet.
  BlockNo hole_hint_ = 0;
  WaitList taken_;
  Mutex formatting_;
  BlockCounters counters_;
};

}  // namespace firn::store
