// SPDX-License-Identifier: Apache-2.0
// Barrier: many callers share one run of an expensive action that must *begin* after they asked (a
// flush, a journal commit). At most one run is in progress and one is gathering.
#pragma once

#include "io/io.h"

namespace firn {

class Barrier {
 public:
  // Returns the result of a run of `action` that began after this call. The leader of each round
  // runs it; the others wait. A failed run fails everybody who shared it.
  template <class Action>
  Result<void> pass(Io& io, Action&& action) {
    const uint64_t mine = started_ + 1;  // The next run to start is the first that covers us.
    while (running_ && started_ < mine) io.park(waiters_);
    if (started_ >= mine) {  // Somebody led it meanwhile; wait for its end.
      while (finished_ < mine) io.park(waiters_);
      if (failed_round_ >= mine) return failed_;  // A failure is final: see W4.
      return ok;
    }
    started_ = mine;
    running_ = true;
    Result<void> result = action();
    running_ = false;
    finished_ = mine;
    if (!result) {
      failed_round_ = mine;
      failed_ = result.error();
    }
    io.wake(waiters_);
    return result;
  }
  uint64_t rounds() const { return finished_; }

 private:
  uint64_t started_ = 0;
  uint64_t finished_ = 0;
  uint64_t failed_round_ = 0;
  Error failed_{};
  bool running_ = false;
  WaitList waiters_;
};

}  // namespace firn
