// SPDX-License-Identifier: Apache-2.0
// BackedDisk: a disk that is served while most of it is still elsewhere, and fetched meanwhile.
//
//  B1  A grain that the disk below maps, as data or as zero, is here; an absent one is elsewhere.
//      So what is here is known after a crash without a record of its own. The disk below must say
//      zeroes explicitly: its settings have kBackedKey (ThinDisk::set_explicit_zeroes).
//  B2  What somebody wrote, zeroed or discarded is never overwritten by what is fetched: a fetched
//      grain goes down only while it is absent, under a lock that writers take too. Nothing waits
//      for the network under that lock.
//  B3  A range that cannot be fetched fails; it never reads as zeroes. What is here goes on.
//  B4  What readers wait for goes first: no background fetch begins while one is under way.
//  B5  Memory: 128 bytes for each 4 MiB that is here in part; a bit for each that is here.
//
// The disk keeps its size, and nobody else writes to it, until hydrate() has said that all is here.
#pragma once

#include <bitset>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "disk/device.h"
#include "disk/range_locks.h"

namespace firn::disk {

// The setting that says that absent grains are elsewhere, and how those begin that say where.
// Nobody sets them by hand; Disks::arrived() removes them.
inline constexpr std::string_view kBackedKey = "base.url";
inline constexpr std::string_view kBackedPrefix = "base.";

// Where the grains are that are not here. Its content never changes.
class Backing {
 public:
  virtual ~Backing() = default;
  using Wanted = std::function<bool(uint64_t grain)>;
  // Whole grains; by several fibers at a time.
  using Sink = std::function<Result<void>(uint64_t grain, View content)>;
  // Gives the wanted ones of the grains [first, first + count); those that it does not give are
  // zeroes. An error of the sink comes back as it is.
  virtual Result<void> fetch(Io& io, uint64_t first, uint64_t count, const Wanted& wanted,
                             const Sink& sink) = 0;

 protected:
  Backing() = default;
};

// Bytes that were fetched: because somebody waited for them, or in the background.
struct Fetched {
  uint64_t waited_for = 0;
  uint64_t background = 0;
};

class BackedDisk final : public BlockDevice {
 public:
  // What is fetched is counted in `fetched`, too.
  BackedDisk(std::shared_ptr<BlockDevice> below, std::unique_ptr<Backing> backing,
             std::shared_ptr<Fetched> fetched = std::make_shared<Fetched>());

  // Fetches some of what is missing, in order; true: nothing is. After an error the next call goes
  // on behind what failed, and comes back to it. One fiber at a time.
  Result<bool> hydrate(Io& io);
  struct Progress {
    uint64_t done_bytes = 0;  // In whole regions.
    uint64_t total_bytes = 0;
  };
  Progress progress() const;

  Geometry geometry() const override { return below_->geometry(); }
  Result<void> read(Io& io, Range range, Iovec into) override;
  Result<void> write(Io& io, Range range, Iovec from, WriteFlags flags) override;
  Result<void> zero(Io& io, Range range, ZeroFlags flags) override;
  Result<void> discard(Io& io, Range range) override;
  Result<void> flush(Io& io) override { return below_->flush(io); }
  // What is not here is data.
  Result<void> map(Io& io, Range range, ExtentSink& sink) override;

 private:
  static constexpr uint64_t kRegionGrains = 1024;
  using Region = std::bitset<kRegionGrains>;
  struct Grains {
    uint64_t first = 0;
    uint64_t count = 0;
    uint64_t end() const { return first + count; }
  };

  bool is_complete() const { return regions_done_ == done_.size(); }
  bool is_here(uint64_t grain) const;
  bool are_here(Grains grains) const;
  void note_here(Grains grains);
  void note_done(uint64_t region);
  std::vector<bool> seen_here(Grains grains) const;  // As it is now.
  Grains touched_by(Range range) const;              // In part, too.
  Grains covered_by(Range range) const;              // Whole; a short last one counts.
  Result<void> look(Io& io, Grains grains);
  Result<void> look_at(Io& io, uint64_t region);
  Result<void> ensure(Io& io, Grains grains);
  Result<void> ensure_edges(Io& io, Range range);
  Result<void> fetch(Io& io, Grains grains, uint64_t Fetched::*counter);
  Result<void> store(Io& io, uint64_t grain, View content);
  template <class Change>
  Result<void> change(Io& io, Range range, const Change& below);

  const std::shared_ptr<BlockDevice> below_;
  const std::unique_ptr<Backing> backing_;
  const std::shared_ptr<Fetched> fetched_;
  const uint64_t bytes_;
  const uint64_t grains_;
  std::vector<bool> done_;              // Regions that are here.
  std::map<uint64_t, Region> partial_;  // Those of the others that were looked at.
  uint64_t regions_done_ = 0;
  uint64_t cursor_ = 0;   // Of hydrate(): goes round until all regions are here.
  RangeLocks changing_;   // B2: whoever changes grains that are not here.
  RangeLocks fetching_;   // Readers that want the same: one fetches.
  uint32_t waiting_ = 0;  // Readers that wait for a fetch: B4.
  WaitList nobody_waits_;
};

}  // namespace firn::disk
