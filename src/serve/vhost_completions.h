// SPDX-License-Identifier: Apache-2.0
// VhostCompletions: what the rules of a disk (completion.h) mean for one ring: which requests that
// have ended are held back for now, and whether the guest is to be told of those that are not.
//
// Contract:
//  C1  Without rules, and with rules that hold nothing, no clock is read, and all passes at once.
//  C2  What is held comes out of due(), once each, in the order in which the policy lets it go;
//      drain() gives all of it. Nothing is held after that until resume().
//  C3  While deadline() is something, somebody must call due() and may_signal() by then.
//
// Waits for nothing and signals nobody: the queue that owns it does.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>

#include "serve/completion.h"
#include "serve/vhost_counters.h"
#include "serve/vhost_device.h"

namespace firn::serve {

class VhostCompletions {
 public:
  using Held = policy::PacedCompletion;

  VhostCompletions(Io& io, const CompletionRules* rules, VhostCounters& counters,
                   uint32_t queue_size)
      : io_(io), rules_(rules), counters_(counters), queue_size_(queue_size) {}
  ~VhostCompletions();

  // A request was taken: the guest lives, which is a point at which it can take answers.
  void taken(Held& request);
  // It has ended below. True: give it back; false: it is held.
  bool ended(Held& request, const Served& served);
  // What is held and should be given back now; `listening`: the guest waits for a signal.
  std::span<Held* const> due(bool listening);
  std::span<Held* const> drain();
  void resume() { draining_ = false; }
  // Whether is_listening() would let something go.
  bool waits_for_guest() const {
    return held() > 0 && pace_->limits().mode == policy::CompletionPace::Mode::stable;
  }
  size_t held() const { return pace_ == nullptr ? 0 : pace_->held(); }

  // `count` were published. Call before may_signal().
  void published(uint32_t count, bool urgent);
  // Whether the guest is to be told, if it wants to be.
  bool may_signal();
  // It did not want to be.
  void not_signalled() {
    if (gather_) gather_->not_signalled();
  }
  std::optional<Time> deadline() const;

 private:
  using Gather = policy::CompletionCoalesce;
  void look_at_rules();
  void note(Gather::Verdict verdict) { signal_ |= verdict == Gather::Verdict::deliver; }

  Io& io_;
  const CompletionRules* rules_;  // Null: none.
  VhostCounters& counters_;
  uint32_t queue_size_;
  uint64_t version_ = 0;
  bool pacing_ = false;
  bool gathering_ = false;
  bool draining_ = false;
  bool fresh_ = false;   // A request came since due() was asked.
  bool signal_ = false;  // Something was published that the guest may be told of.
  uint32_t in_flight_ = 0;
  uint32_t untold_ = 0;  // Requests of which `gather_` does not know yet.
  std::optional<Gather> gather_;
  std::unique_ptr<policy::CompletionPace> pace_;
  std::array<Held*, 64> released_{};
};

}  // namespace firn::serve
