// SPDX-License-Identifier: Apache-2.0
// Whether a layer keeps the contract of disk/device.h: random histories through it, over a device
// that takes its time, against what the contract allows. For tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/prng.h"
#include "disk/device.h"
#include "disk/slices.h"
#include "sim/sim_io.h"

namespace firn::disk {

// A device in memory whose requests take a drawn time, so that they overlap and pass each other.
class SlowMemory final : public BlockDevice {
 public:
  SlowMemory(uint64_t bytes, Prng& prng) : prng_(prng), now_(bytes), medium_(bytes) {}

  const std::vector<std::byte>& medium() const { return medium_; }
  void fail_at(uint64_t byte) { bad_ = byte; }
  void shrink(uint64_t bytes) { now_.resize(bytes); }
  void set_latency(Duration latency) { latency_ = latency; }
  uint64_t transfers() const { return transfers_; }  // Reads and writes.
  uint64_t in_flight_max() const { return in_flight_max_; }

  Geometry geometry() const override { return {.bytes = now_.size()}; }
  Result<void> read(Io& io, Range range, Iovec into) override {
    TRY(transfer(io, range, into));
    copy_out(View(now_).subspan(range.at, range.length), into);
    return finish(range);
  }
  Result<void> write(Io& io, Range range, Iovec from, WriteFlags flags) override {
    TRY(transfer(io, range, from));
    copy_in(from, Bytes(now_).subspan(range.at, range.length));
    if (flags.fua) harden(range);
    return finish(range);
  }
  Result<void> zero(Io& io, Range range, ZeroFlags) override { return discard(io, range); }
  Result<void> discard(Io& io, Range range) override {
    CHECK(range.within(now_.size()), "D6");
    pause(io);
    std::fill_n(now_.begin() + static_cast<ptrdiff_t>(range.at), range.length, std::byte{0});
    return ok;
  }
  Result<void> flush(Io& io) override {
    // No more than D2 promises; but never older than what is durable already.
    const uint64_t number = ++flushes_;
    const auto pending = pending_.emplace(number, now_).first;
    pause(io);
    if (number > flushed_) medium_ = pending->second;
    flushed_ = std::max(flushed_, number);
    pending_.erase(pending);
    return ok;
  }
  Result<void> map(Io&, Range range, ExtentSink& sink) override {
    sink.add({range.length, Extent::data, 1});
    return ok;
  }

 private:
  Result<void> transfer(Io& io, Range range, Iovec slices) {
    CHECK(range.within(now_.size()) && total_of(slices) == range.length, "D6");
    ++transfers_;
    in_flight_max_ = std::max(in_flight_max_, ++in_flight_);
    pause(io);
    --in_flight_;
    return ok;
  }
  Result<void> finish(Range range) const {
    if (bad_ && range.overlaps({*bad_, 1})) return fail(Errc::io, "byte {} is bad", *bad_);
    return ok;
  }
  void pause(Io& io) {
    if (latency_ > Duration::zero()) {
      io.sleep(
          Duration(static_cast<int64_t>(prng_.below(2 * static_cast<uint64_t>(latency_.count())))));
    }
  }
  void harden(Range range) {
    const View from = View(now_).subspan(range.at, range.length);
    std::ranges::copy(from, medium_.begin() + static_cast<ptrdiff_t>(range.at));
    for (auto& [number, image] : pending_) {
      std::ranges::copy(from, image.begin() + static_cast<ptrdiff_t>(range.at));
    }
  }

  Prng& prng_;
  std::vector<std::byte> now_, medium_;
  std::map<uint64_t, std::vector<std::byte>> pending_;  // Flushes under way.
  uint64_t flushes_ = 0, flushed_ = 0;
  std::optional<uint64_t> bad_;
  Duration latency_ = std::chrono::microseconds(50);
  uint64_t transfers_ = 0, in_flight_ = 0, in_flight_max_ = 0;
};

// What was asked of each sector, and when it began and ended: D1 and D5 for requests that overlap.
class SectorHistory {
 public:
  static constexpr uint64_t kSector = 512;
  struct Write {
    Range range;
    uint8_t stamp = 0;
    uint64_t began = 0;
    uint64_t ended = UINT64_MAX;
  };
  explicit SectorHistory(uint64_t bytes) : by_sector_(bytes / kSector) {}

  uint64_t now() { return ++clock_; }
  size_t begin(Range range, uint8_t stamp) {
    writes_.push_back({range, stamp, now(), UINT64_MAX});
    for (uint64_t at = range.at; at < range.end(); at += kSector) {
      by_sector_[at / kSector].push_back(writes_.size() - 1);
    }
    return writes_.size() - 1;
  }
  void end(size_t write) { writes_[write].ended = now(); }
  // Whether a read that began at `began` and ends now may have found `stamp` in the sector.
  bool allows(uint64_t at, uint8_t stamp, uint64_t began) {
    uint64_t floor = 0;  // Begin of the last write that had ended before.
    for (const size_t each : by_sector_[at / kSector]) {
      if (writes_[each].ended < began) floor = std::max(floor, writes_[each].began);
    }
    if (floor == 0 && stamp == 0) return true;
    // A write is out of question once another one began after its end, and ended before us.
    return std::ranges::any_of(by_sector_[at / kSector], [&](size_t each) {
      return writes_[each].stamp == stamp && writes_[each].ended > floor;
    });
  }

 private:
  uint64_t clock_ = 0;
  std::vector<Write> writes_;
  std::vector<std::vector<size_t>> by_sector_;
};

using MakeLayer = std::function<std::unique_ptr<BlockDevice>(Io&, BlockDevice&, Prng&)>;

// One random history of `clients` at once.
class LayerTrial {
 public:
  static constexpr uint64_t kBytes = 256 * kKiB;
  static constexpr uint64_t kSteps = 60;

  LayerTrial(uint64_t seed, uint64_t clients) : seed_(seed), prng_(seed), clients_(clients) {}

  void run(const MakeLayer& make) {
    sim::World world;
    sim::SimIo io(world, seed_);
    io.run([&] {
      SlowMemory below(kBytes, prng_);
      if (prng_.below(4) == 0) below.set_latency(Duration::zero());
      std::unique_ptr<BlockDevice> layer = make(io, below, prng_);
      EXPECT_EQ(layer->geometry().bytes, kBytes);
      {
        Group group(io);
        for (uint64_t i = 0; i < clients_; ++i) {
          io.spawn(group, [&, i] { client(io, *layer, below, i); });
        }
      }
      expect_read(io, *layer, {0, kBytes});
      layer.reset();
    });
  }

 private:
  // Small, often next to what others ask for; sometimes of any length.
  Range draw(uint64_t step, uint64_t client) {
    const uint64_t sectors = kBytes / SectorHistory::kSector;
    uint64_t first = prng_.below(sectors);
    uint64_t count = 1 + prng_.below(8);
    if (seed_ % 3 != 0) {  // Clients walk side by side.
      first = (step * clients_ + client) * 8 % sectors;
      count = prng_.below(5) == 0 ? 1 + prng_.below(24) : 8;
    }
    count = std::min(count, sectors - first);
    return {first * SectorHistory::kSector, count * SectorHistory::kSector};
  }

  void client(Io& io, BlockDevice& layer, SlowMemory& below, uint64_t which) {
    for (uint64_t step = 0; step < kSteps; ++step) {
      const Range range = draw(step, which);
      const uint64_t what = prng_.below(16);
      if (what < 8) {
        write(io, layer, below, range, what == 0);
      } else if (what < 14) {
        expect_read(io, layer, range);
      } else if (what == 14) {
        flush(io, layer, below);
      } else {
        const size_t number = history_.begin(range, 0);
        EXPECT_TRUE(prng_.below(2) == 0 ? layer.zero(io, range, {}) : layer.discard(io, range));
        history_.end(number);
      }
      if (prng_.below(6) == 0) io.sleep(std::chrono::microseconds(prng_.below(200)));
    }
  }

  void write(Io& io, BlockDevice& layer, SlowMemory& below, Range range, bool fua) {
    const auto stamp = static_cast<uint8_t>(1 + prng_.below(255));
    std::vector<std::byte> bytes(range.length, std::byte{stamp});
    // In pieces of memory, as a guest has them.
    const size_t head = prng_.below(bytes.size());
    const std::array<::iovec, 2> slices{slice_of(View(bytes).first(head)),
                                        slice_of(View(bytes).subspan(head))};
    const Iovec from = head == 0 ? Iovec(&slices[1], 1) : Iovec(slices);
    const size_t number = history_.begin(range, stamp);
    EXPECT_TRUE(layer.write(io, range, from, {.fua = fua}));
    history_.end(number);
    if (fua) expect_durable(below, range, history_.now());
  }

  void expect_read(Io& io, BlockDevice& layer, Range range) {
    std::vector<std::byte> bytes(range.length, std::byte{0xee});
    const ::iovec slice = slice_of(Bytes(bytes));
    const uint64_t began = history_.now();
    ASSERT_TRUE(layer.read(io, range, Iovec(&slice, 1)));
    expect_allowed(bytes, range, began, "read");
  }

  void flush(Io& io, BlockDevice& layer, SlowMemory& below) {
    const uint64_t began = history_.now();
    ASSERT_TRUE(layer.flush(io));
    expect_durable(below, {0, kBytes}, began);
  }

  // What had ended before `began` is on the medium, or something newer.
  void expect_durable(SlowMemory& below, Range range, uint64_t began) {
    const View medium(below.medium());
    expect_allowed(medium.subspan(range.at, range.length), range, began, "medium");
  }

  void expect_allowed(View bytes, Range range, uint64_t began, const char* what) {
    for (uint64_t at = 0; at < range.length; at += SectorHistory::kSector) {
      const View sector = bytes.subspan(at, SectorHistory::kSector);
      const auto stamp = static_cast<uint8_t>(sector[0]);
      EXPECT_TRUE(std::ranges::all_of(sector, [&](std::byte b) { return b == sector[0]; }))
          << what << ": a torn sector at " << range.at + at << ", seed " << seed_;
      EXPECT_TRUE(history_.allows(range.at + at, stamp, began))
          << what << ": " << int{stamp} << " at " << range.at + at << ", seed " << seed_;
      if (testing::Test::HasFailure()) return;
    }
  }

  uint64_t seed_;
  Prng prng_;
  uint64_t clients_;
  SectorHistory history_{kBytes};
};

// Deep and shallow, side by side and all over the place.
inline void expect_layer_conforms(const MakeLayer& make) {
  for (uint64_t seed = 1; seed <= 60 && !testing::Test::HasFailure(); ++seed) {
    LayerTrial(seed, std::array<uint64_t, 4>{1, 3, 16, 40}[seed % 4]).run(make);
  }
}

}  // namespace firn::disk
