// SPDX-License-Identifier: Apache-2.0
// Notes on the design. Each request sleeps on its own fiber until it is due, at most kLook at a
// time: there is no timer to cancel when limits change, and none at all while nobody waits.
//
// New limits: what those who wait were charged is given back in the old currency, and charged again
// in the new one, in the same order.
#include "disk/limits.h"

#include <algorithm>

namespace firn::disk {

void LimitedDevice::set_limits(Time now, const Limits& limits) {
  for (Waiter* each = waiters_.front(); each != nullptr; each = waiters_.after(each)) {
    policy_.refund(now, each->bytes);
  }
  policy_.set_limits(now, limits);
  for (Waiter* each = waiters_.front(); each != nullptr; each = waiters_.after(each)) {
    each->due = now + policy_.admit(now, each->bytes);
  }
}

Result<void> LimitedDevice::admit(Io& io, Range range, uint64_t bytes) {
  ++counters_.requests;
  const Time arrived = io.now();
  const Duration wait = policy_.admit(arrived, bytes);
  if (wait == Duration::zero()) return ok;
  Waiter mine;
  mine.bytes = bytes;
  mine.due = arrived + wait;
  waiters_.push_back(&mine);
  Time now = arrived;
  while (now < mine.due) {
    io.sleep(std::min(mine.due - now, kLook));
    now = io.now();
  }
  waiters_.remove(&mine);
  ++counters_.waits;
  counters_.wait_ns += static_cast<uint64_t>((now - arrived).count());
  // A revert may have made the device smaller meanwhile; that is no error of the caller's.
  if (range.within(below_->geometry().bytes)) return ok;
  return fail(Errc::invalid, "the device became smaller while a request at {} waited", range.at);
}

Result<void> LimitedDevice::read(Io& io, Range range, Iovec into) {
  TRY(admit(io, range, range.length));
  return below_->read(io, range, into);
}

Result<void> LimitedDevice::write(Io& io, Range range, Iovec from, WriteFlags flags) {
  TRY(admit(io, range, range.length));
  return below_->write(io, range, from, flags);
}

Result<void> LimitedDevice::zero(Io& io, Range range, ZeroFlags flags) {
  TRY(admit(io, range, flags.keep_space ? range.length : 0));
  return below_->zero(io, range, flags);
}

Result<void> LimitedDevice::discard(Io& io, Range range) {
  TRY(admit(io, range, 0));
  return below_->discard(io, range);
}

}  // namespace firn::disk
