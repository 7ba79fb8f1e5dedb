// SPDX-License-Identifier: Apache-2.0
#include "serve/vhost_completions.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace firn::serve {

using policy::CompletionPace;

VhostCompletions::~VhostCompletions() { CHECK(held() == 0, "drain() the queue first"); }

// The pace is made when it is first wanted, and stays: something may be held.
void VhostCompletions::look_at_rules() {
  if (rules_ == nullptr || rules_->version == version_) return;
  version_ = rules_->version;
  pacing_ = rules_->pace.mode != CompletionPace::Mode::off;
  if (pacing_ && pace_ == nullptr) pace_ = std::make_unique<CompletionPace>(rules_->pace, 1);
  if (pace_ != nullptr) pace_->set_limits(io_.now(), rules_->pace);
  if (rules_->gathers != gathering_) {
    gathering_ = rules_->gathers;
    if (gathering_) {
      gather_.emplace(Gather::Limits{.queue_size = queue_size_}, io_.now());
      gather_->restart(io_.now(), in_flight_);
      untold_ = 0;
    } else {
      signal_ |= gather_->pending() > 0;
      gather_.reset();
    }
  }
}

void VhostCompletions::taken(Held& request) {
  look_at_rules();
  ++in_flight_;
  if (gather_) ++untold_;
  fresh_ = true;
  request.issued = pacing_ ? io_.now() : Time();
}

bool VhostCompletions::ended(Held& request, const Served& served) {
  if (!pacing_ || draining_) return true;
  if (request.issued == Time()) return true;  // It was taken before there was a pace.
  pace_->issue(request.issued, request, served.op, served.bytes, 0);
  if (pace_->done(io_.now(), request)) return true;
  ++counters_.paced;
  return false;
}

std::span<VhostCompletions::Held* const> VhostCompletions::due(bool listening) {
  if (held() == 0) return {};
  look_at_rules();
  const bool safe = listening || std::exchange(fresh_, false);
  size_t count = 0;
  if (safe) {
    count = pace_->safepoint(0, released_);
    counters_.paced_by_safepoint += count;
  }
  const size_t matured = pace_->matured(io_.now(), std::span(released_).subspan(count));
  counters_.paced_by_maturity += matured;
  counters_.paced -= count + matured;
  return {released_.data(), count + matured};
}

std::span<VhostCompletions::Held* const> VhostCompletions::drain() {
  draining_ = true;
  if (held() == 0) return {};
  const size_t count = pace_->drain(0, released_);
  counters_.paced -= count;
  return {released_.data(), count};
}

void VhostCompletions::published(uint32_t count, bool urgent) {
  CHECK(count <= in_flight_);
  look_at_rules();
  in_flight_ -= count;
  if (!gather_) {
    signal_ = true;
    return;
  }
  const Time now = io_.now();
  if (untold_ > 0) note(gather_->submit(now, std::exchange(untold_, 0)));
  note(gather_->complete(now, {.urgent = urgent}, count));
  if (!signal_) ++counters_.calls_held;
}

bool VhostCompletions::may_signal() {
  if (gather_ && !signal_ && gather_->pending() > 0) {
    const Time now = io_.now();
    note(gather_->tick(now));
    if (signal_) ++counters_.calls_late;
  }
  return std::exchange(signal_, false);
}

std::optional<Time> VhostCompletions::deadline() const {
  const std::optional<Time> signal = gather_ ? gather_->deadline() : std::nullopt;
  const std::optional<Time> pace = held() > 0 ? pace_->deadline() : std::nullopt;
  if (!signal || !pace) return signal ? signal : pace;
  return std::min(*signal, *pace);
}

}  // namespace firn::serve
