// SPDX-License-Identifier: Apache-2.0
// LimitedDevice: a device with limits of requests and bytes a second. Decided by
// policy/token_bucket.
//
//  Q1  Reads, writes, zeroes and discards wait as the policy says, then go on; in order of arrival.
//      Bytes are those that move: of reads, of writes, and of zeroes that keep their space.
//  Q2  Flushes and looks never wait: others, or the guest's own work, may depend on them.
//  Q3  New limits hold for those who wait already, within kLook. Without any nobody waits longer.
//  Q4  All users of the device share the limits.
#pragma once

#include "base/list.h"
#include "disk/device.h"
#include "policy/token_bucket.h"

namespace firn::disk {

class LimitedDevice final : public BlockDevice {
 public:
  using Limits = policy::DiskLimits::Limits;
  struct Counters {
    uint64_t requests = 0;  // That the limits were asked about.
    uint64_t waits = 0;     // Of these, had to wait.
    uint64_t wait_ns = 0;
  };
  // How long new limits may go unnoticed by those who wait.
  static constexpr Duration kLook = std::chrono::milliseconds(100);

  LimitedDevice(Time now, BlockDevice& below, const Limits& limits)
      : below_(&below), policy_(limits, now) {}

  void set_limits(Time now, const Limits& limits);
  // For requests that come, or end their wait, from now on.
  void set_below(BlockDevice& below) { below_ = &below; }
  const Counters& counters() const { return counters_; }
  size_t waiting() const { return waiters_.count(); }

  Geometry geometry() const override { return below_->geometry(); }
  Result<void> read(Io& io, Range range, Iovec into) override;
  Result<void> write(Io& io, Range range, Iovec from, WriteFlags flags) override;
  Result<void> zero(Io& io, Range range, ZeroFlags flags) override;
  Result<void> discard(Io& io, Range range) override;
  Result<void> flush(Io& io) override { return below_->flush(io); }
  Result<void> map(Io& io, Range range, ExtentSink& sink) override {
    return below_->map(io, range, sink);
  }

 private:
  struct Waiter {
    uint64_t bytes = 0;
    Time due;
    Links<Waiter> links;
  };

  Result<void> admit(Io& io, Range range, uint64_t bytes);

  BlockDevice* below_;
  policy::DiskLimits policy_;
  List<Waiter, &Waiter::links> waiters_;  // In order of arrival.
  Counters counters_;
};

}  // namespace firn::disk
