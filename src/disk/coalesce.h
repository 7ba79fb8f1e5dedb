// SPDX-License-Identifier: Apache-2.0
// CoalescedDevice: gathers reads and writes that come while others are in flight, and sends them
// down together, neighbours as one request. Decided by policy/io_coalesce.
//
//  K1  A request waits for others only, and only while some are in flight below. At depth 1, and
//      where the policy sees no gain, it goes straight down on its own fiber.
//  K2  Holding is not caching: a request ends when what carried it has ended below (D1, D2).
//  K3  A request fails for its own range only: what failed together is tried once more one by one.
//  K4  Zeroes, discards and looks pass by. A flush covers what has completed; what is held is sent
//      before it, not waited for.
//  K5  The steady state allocates nothing but lists of more than 16 slices.
//
// Its destructor waits for a timer of its own: not outside of a fiber while requests were there
// less than Limits::hold_max ago.
#pragma once

#include <memory>
#include <vector>

#include "disk/device.h"
#include "policy/io_coalesce.h"

namespace firn::disk {

class CoalescedDevice final : public BlockDevice {
 public:
  using Limits = policy::IoCoalesce::Limits;
  using Mode = policy::IoCoalesce::Mode;
  struct Counters {
    uint64_t retried = 0;  // Requests tried again by themselves: K3.
  };

  CoalescedDevice(Io& io, BlockDevice& below, const Limits& limits)
      : below_(below), policy_(limits), timer_(io) {}
  ~CoalescedDevice() override;

  void set_mode(Io& io, Mode mode);
  const policy::IoCoalesce::Counters& decided() const { return policy_.counters(); }
  const Counters& counters() const { return counters_; }

  Geometry geometry() const override { return below_.geometry(); }
  Result<void> read(Io& io, Range range, Iovec into) override;
  Result<void> write(Io& io, Range range, Iovec from, WriteFlags flags) override;
  Result<void> zero(Io& io, Range range, ZeroFlags flags) override {
    return below_.zero(io, range, flags);
  }
  Result<void> discard(Io& io, Range range) override { return below_.discard(io, range); }
  Result<void> flush(Io& io) override;
  Result<void> map(Io& io, Range range, ExtentSink& sink) override {
    return below_.map(io, range, sink);
  }

 private:
  using Batch = policy::CoalesceBatch;
  using Extent = policy::CoalesceBatch::Extent;
  // A guest's request, on the stack of its fiber.
  struct Request : policy::CoalesceRequest {
    Iovec slices;
    std::unique_ptr<Batch> leads;  // It is the first of this batch, and is to send it.
    bool done = false;
    Result<void> result;
    WaitList waits;
  };

  Result<void> transfer(Io& io, Request& request);
  void send_due(Io& io, const Request* self);
  void lead(Io& io, Request& leader);
  void send_extent(Io& io, const Extent& extent);
  Result<void> send_down(Io& io, const Request& first, Range range, Iovec slices);
  void keep_time(Io& io);
  std::unique_ptr<Batch> fresh_batch();

  BlockDevice& below_;
  policy::IoCoalesce policy_;
  Counters counters_;
  std::vector<std::unique_ptr<Batch>> spare_;
  bool gathering_ = false;  // Somebody lets the rest of a burst arrive, and then sends.
  bool timed_ = false;      // The timer's fiber runs.
  Group timer_;             // Last: its fiber uses everything above.
};

}  // namespace firn::disk
