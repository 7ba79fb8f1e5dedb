// SPDX-License-Identifier: Apache-2.0
// Ring: one io_uring, entered once a turn.
//
// Contract: used by the thread that made it, only. Completions are delivered in the order in which
// the kernel posted them. Counts what it costs.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "base/bytes.h"
#include "base/result.h"
#include "io/fd_slots.h"
#include "io/io.h"
#include "io/spin.h"

namespace firn {

class Ring {
 public:
  struct Settings {
    uint32_t entries = 1024;     // Of the submission queue; completions have eight times as many.
    uint32_t file_slots = 4096;  // Fewer when RLIMIT_NOFILE is lower.
    bool plain = false;          // As on an old kernel: no deferred work, nothing registered.
  };
  static Result<std::unique_ptr<Ring>> make(const Settings& settings, Bytes arena);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // A cleared entry to fill. Submits early when the queue is full.
  io_uring_sqe& entry();
  // Submits everything; with `wait` until at least one completion is there or `timeout` is over.
  // Before it sleeps it looks at what is watched, and arms it; whatever is found there ends the
  // wait.
  void enter(bool wait, std::optional<Duration> timeout, const Pollers& pollers);
  // Submits everything, and delivers nothing: in the middle of a turn, for a device or a client
  // that would else have nothing to do.
  void push();
  // Instead of enter() under a deep load: submits everything and sleeps until `batch` completions
  // are there or `limit` is over. Looks at what is watched, but arms nothing: what comes there
  // waits no longer than `limit`. Does not sleep when something is there already.
  void gather(uint32_t batch, Duration limit, const Pollers& pollers);
  // The entry succeeds in silence, where the kernel can; else with a completion.
  void expect_no_completion(io_uring_sqe& sqe) const {
    if ((ring_.features & IORING_FEAT_CQE_SKIP) != 0) sqe.flags |= IOSQE_CQE_SKIP_SUCCESS;
  }
  // Entries that are not submitted yet.
  unsigned pending() const { return ::io_uring_sq_ready(&ring_); }
  // Calls consume(user_data, result, flags) for each completion that is there.
  template <class Consume>
  void reap(Consume&& consume) {
    unsigned head = 0;
    unsigned seen = 0;
    io_uring_cqe* each = nullptr;
    io_uring_for_each_cqe(&ring_, head, each) {
      ++seen;
      consume(each->user_data, each->res, each->flags);
    }
    io_uring_cq_advance(&ring_, seen);
    completions_ += seen;
    spin_.reaped(seen);
  }

  const std::shared_ptr<FdSlots>& slots() const { return slots_; }
  bool arena_registered() const { return arena_registered_; }
  bool deferred() const { return (ring_.flags & IORING_SETUP_DEFER_TASKRUN) != 0; }
  uint64_t enters() const { return enters_; }
  uint64_t entries_used() const { return entries_used_; }
  uint64_t completions() const { return completions_; }

 private:
  friend class RingTest;
  Ring() = default;
  Result<void> set_up(const Settings& settings);
  void set_up_slots(uint32_t wanted);
  bool must_enter() const;
  bool spin(Time begun, const Pollers& pollers);
  int sleep(std::optional<Duration> timeout, uint32_t count = 1);

  io_uring ring_{};
  bool made_ = false;
  bool arena_registered_ = false;
  std::shared_ptr<FdSlots> slots_;
  SpinBudget spin_;
  uint64_t enters_ = 0;
  uint64_t entries_used_ = 0;
  uint64_t completions_ = 0;
};

}  // namespace firn
