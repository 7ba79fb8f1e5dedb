// SPDX-License-Identifier: Apache-2.0
// ThinDisk: a disk whose grains get space when they are first written. Source: US 9038066, US
// 8874859.
//
//  T1  An overwrite of an own grain is one device write and no metadata; unless the disk appends:
//      then it is a new grain like any other (T2), and the old one is freed in the same atom.
//  T2  New grains of one turn lie side by side in the layer's open block and go down as one device
//      write.
//  T3  A grain is mapped after its data is written, never before (W1 before W3).
//  T4  A grain of zeroes takes no space: written, discarded or zeroed, it reads as zero.
//  T5  Requests that overlap are ordered by their arrival; each grain ends up as one of them left
//      it.
//  T6  A freed grain is not given out while somebody may still read it: readers hold their range.
//  T7  Writers are inside the fence. Whoever closes it has the disk between two writes: what was
//      acknowledged is in the map, and nothing else is under way.
//  T8  A grain that an ancestor wrote is never written: the new content gets a grain of its own,
//      and
//      only the map entry changes. When a consolidation has meanwhile made the old one own, it is
//      freed in the same atom.
//
// Needs from its engine: nothing above it may cache; several front ends may share one ThinDisk
// (D1).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "disk/changes.h"
#include "disk/device.h"
#include "disk/gate.h"
#include "disk/layer.h"
#include "disk/range_locks.h"
#include "disk/slices.h"
#include "policy/placement.h"
#include "store/blocks.h"
#include "store/pool.h"

namespace firn::disk {

struct ThinCounters {
  uint64_t reads = 0, writes = 0, zeroes = 0, discards = 0, flushes = 0;
  uint64_t read_bytes = 0, written_bytes = 0;
  uint64_t in_place_writes = 0;  // Device writes to own grains.
  uint64_t appended_grains = 0;  // Own grains that got a new place.
  uint64_t first_touch_grains = 0;
  uint64_t gathered_writes = 0;  // Device writes that carried new grains.
  uint64_t merged_reads = 0;     // Old content read to complete a partial grain.
};

class ThinDisk final : public BlockDevice {
 public:
  enum class Use : uint8_t { live, snapshot };
  // `gate`: the pool's, closed by the check. A snapshot is only read.
  ThinDisk(store::Pool& pool, Gate& gate, std::string name, std::shared_ptr<Layer> layer, Use use);
  ~ThinDisk() override;

  Geometry geometry() const override;
  Result<void> read(Io& io, Range range, Iovec into) override;
  Result<void> write(Io& io, Range range, Iovec from, WriteFlags flags) override;
  Result<void> zero(Io& io, Range range, ZeroFlags flags) override;
  Result<void> discard(Io& io, Range range) override;
  Result<void> flush(Io& io) override;
  Result<void> map(Io& io, Range range, ExtentSink& sink) override;

  // Grows at once. Shrinking gives the tail back first; nobody may have the disk attached then.
  Result<void> resize(Io& io, uint64_t bytes);
  // Where overwrites go; by default in place.
  void set_placement(policy::Placement::Mode mode) { placement_.set_mode(mode); }
  // On: what is zeroed or discarded says so in the map, also where nothing was and below nothing
  // is. For a disk of which absent grains are still elsewhere (disk/backed.h).
  void set_explicit_zeroes(bool on) { explicit_zeroes_ = on; }
  // Called when free blocks get few, at most once for each block that is filled: somebody should
  // empty sparse ones. `appending`: this disk leaves some behind, and writes in place until then.
  using Shortage = std::function<void(bool appending)>;
  void on_shortage(Shortage tell) { tell_shortage_ = std::move(tell); }

  // T7. Lock order: fence, the pool's gate, ranges, admission.
  Gate& fence() { return fence_; }
  // Waits until nobody reads what the disk shows now; new readers wait until it is dropped.
  RangeLocks::Hold lock_all(Io& io);
  RangeLocks::Hold lock_leaf(Io& io, uint64_t index);  // The same for one leaf's grains.
  // From here on the disk is what `next` says, of the same family, whose record says which block
  // the disk was filling. The caller has closed the fence and is in an atom.
  void switch_layer(std::shared_ptr<Layer> next);

  // Every change of what the guest reads is told to it, from inside the fence (disk/changes.h). The
  // caller has closed the fence, or nobody else has the disk yet. nullptr: nobody is told.
  void set_tracker(ChangeTracker* tracker) { tracker_ = tracker; }

  const std::shared_ptr<Layer>& layer() const { return layer_; }
  const std::string& name() const { return name_; }
  void set_name(std::string name) { name_ = std::move(name); }
  const ThinCounters& counters() const { return counters_; }

 private:
  enum class Where : uint8_t { nowhere, zero, here, inherited };
  // Grains side by side on the disk and in the pool.
  struct Run {
    Where where = Where::nowhere;
    uint64_t first = 0;  // On the disk.
    uint64_t count = 0;
    uint64_t grain = 0;  // In the pool, when it holds data.
    bool has_data() const { return where == Where::here || where == Where::inherited; }
  };
  using Runs = SmallVector<Run, 8>;
  struct Gathering;

  Result<Runs> find(Io& io, uint64_t first, uint64_t count);
  Result<Run> find_one(Io& io, uint64_t grain);
  static Run run_at(const Leaf& leaf, uint64_t grain);
  bool is_short(uint64_t first_byte, Iovec slices) const;
  Result<void> read_pieces(Io& io, Range range, Iovec into);
  Result<void> read_piece(Io& io, Range range, Iovec into);
  Result<void> read_parts(Io& io, Range range, Iovec into);
  Result<void> read_grains(Io& io, uint64_t first_byte, const Runs& runs, Iovec into);
  Result<void> write_pieces(Io& io, Range range, Iovec from);
  Result<void> write_piece(Io& io, Range range, Iovec from, bool keep_zeroes);
  Result<void> write_parts(Io& io, Range range, Iovec from, bool keep_zeroes);
  Result<void> write_partial(Io& io, uint64_t grain, uint64_t at, Iovec from);
  Result<void> write_grain(Io& io, uint64_t grain, Iovec from, bool keep_zeroes);
  Result<void> write_grains(Io& io, uint64_t first, Iovec from, bool keep_zeroes);
  Result<void> write_run(Io& io, const Run& run, uint64_t first, Iovec from);
  bool appends();
  Result<void> append(Io& io, uint64_t first, Iovec from);
  void note_order(Range range);
  void note_place(const PageRef& leaf, uint64_t slot);
  Result<void> write_in_place(Io& io, const Run& run, uint64_t first, Iovec from);
  Result<void> write_new(Io& io, uint64_t first, uint64_t count, Iovec from);
  Result<store::GrainRun> carve(Io& io, uint32_t wanted);
  Result<PageRef> own_leaf(Io& io, uint64_t index);
  Result<void> write_gathered(Io& io, store::GrainRun run, Iovec from);
  Result<void> publish(Io& io, uint64_t first, store::GrainRun& run);
  Result<void> unmap(Io& io, uint64_t first, uint64_t count);
  Result<void> unmap_leaf(Io& io, uint64_t leaf, uint64_t begin, uint64_t end);
  Result<uint64_t> unmap_some(Io& io, const PageRef& leaf, uint64_t begin, uint64_t end);
  bool needs_unmap(format::GrainEntry entry) const;
  Result<void> may_write() const;
  Result<ChangeTracker::Flight> intend(Io& io, uint64_t first, uint64_t count);
  void mark(uint64_t first, uint64_t count);
  Result<void> check_range(Range range) const;
  Error named(Error why, uint64_t at) const;
  bool drops_to_absent() const { return layer_->is_base() && !explicit_zeroes_; }
  Result<uint64_t> leaf_to_unmap(Io& io, Layer& layer, uint64_t from) const;

  store::Pool& pool_;
  Gate& gate_;
  std::string name_;
  const Use use_;
  std::shared_ptr<Layer> layer_;
  ChangeTracker* tracker_ = nullptr;
  Gate fence_;
  RangeLocks locks_;
  store::OpenBlock open_;
  bool reopened_ = false;
  bool explicit_zeroes_ = false;
  Mutex opening_;
  policy::Placement placement_{{}};
  uint32_t writing_ = 0;              // Writes in flight.
  uint64_t next_byte_ = 0;            // Where the last write ended.
  uint32_t sequential_permille_ = 0;  // Running means.
  uint32_t fragmentation_permille_ = 0;
  Shortage tell_shortage_;
  std::shared_ptr<Gathering> gathering_;  // The batch that still takes grains, if any.
  ThinCounters counters_;
};

}  // namespace firn::disk
