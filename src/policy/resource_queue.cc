// SPDX-License-Identifier: Apache-2.0
// Notes on the design.
//
// Ageing without a timer. Priority p that has waited w has priority p + w / age; comparing two at
// any instant is comparing since - p * age, which does not change. Each level is in order of
// arrival, so the best of all is the best of eight heads.
//
// Blocked waiters are in no level. They are found by looking through all of them, only when
// somebody with dependants ends.
#include "policy/resource_queue.h"

#include <algorithm>

#include "base/check.h"

namespace firn::policy {

using State = ResourceWaiter::State;

// --- the levels

void ResourceQueue::line_up(ResourceWaiter& waiter) {
  waiter.state = State::waiting;
  waiter.level = waiter.effective();
  Level& level = levels_[waiter.level];
  ResourceWaiter* before = level.last;
  while (before != nullptr && before->order > waiter.order) before = before->links.previous;
  ResourceWaiter* const after = before != nullptr ? before->links.next : level.first;
  waiter.links = {before, after, true};
  (before != nullptr ? before->links.next : level.first) = &waiter;
  (after != nullptr ? after->links.previous : level.last) = &waiter;
  ++waiting_;
}

void ResourceQueue::step_out(ResourceWaiter& waiter) {
  if (waiter.state == State::blocked) {
    blocked_.remove(&waiter);
  } else {
    CHECK(waiter.state == State::waiting);
    Level& level = levels_[waiter.level];
    const Links<ResourceWaiter> links = waiter.links;
    (links.previous != nullptr ? links.previous->links.next : level.first) = links.next;
    (links.next != nullptr ? links.next->links.previous : level.last) = links.previous;
    waiter.links = {};
  }
  --waiting_;
}

ResourceWaiter* ResourceQueue::best() const {
  ResourceWaiter* chosen = nullptr;
  Duration chosen_key{};
  for (size_t i = levels_.size(); i > 0; --i) {
    ResourceWaiter* const head = levels_[i - 1].first;
    if (head == nullptr) continue;
    const Duration key = head->since.since_origin - limits_.age * static_cast<int64_t>(i - 1);
    if (chosen == nullptr || (limits_.age > Duration::zero() && key < chosen_key)) {
      chosen = head, chosen_key = key;
    }
  }
  return chosen;
}

// --- inheritance

// Raises a waiter and, along the chain, whatever it waits for. Ends: each step raises somebody.
void ResourceQueue::inherit(ResourceWaiter* waiter, uint8_t priority) {
  while (waiter != nullptr && waiter->queue != nullptr && waiter->effective() < priority) {
    ResourceQueue& queue = *waiter->queue;
    ++queue.counters_.inherited;
    waiter->inherited = priority;
    if (waiter->state == State::waiting) {
      queue.step_out(*waiter);
      queue.line_up(*waiter);
      waiter = queue.limits_.capacity == 1 ? queue.holders_.front() : nullptr;
    } else {
      waiter = waiter->state == State::blocked ? waiter->after : waiter->elsewhere;
    }
  }
}

void ResourceQueue::let_holder_inherit(const ResourceWaiter& waiter) {
  if (limits_.capacity == 1) inherit(holders_.front(), waiter.effective());
}

// --- coming and going

void ResourceQueue::hold(Time now, ResourceWaiter& waiter) {
  waiter.state = State::holding;
  waiter.issued = now;
  holders_.push_back(&waiter);
  ++counters_.issued;
}

ResourceQueue::Entry ResourceQueue::enter(Time now, ResourceWaiter& waiter) {
  CHECK(waiter.state == State::outside && waiter.priority < ResourceWaiter::kPriorities);
  const bool blocked = waiter.after != nullptr && waiter.after->queue == this;
  if (!blocked) waiter.after = nullptr;  // It has ended already.
  const bool direct = !blocked && is_available() && best() == nullptr;
  if (!direct && waiting_ >= limits_.waiters_max) {
    ++counters_.refused;
    return Entry::full;
  }
  waiter.queue = this;
  waiter.inherited = 0;
  waiter.dependants = 0;
  waiter.since = now;
  waiter.order = ++orders_;
  if (direct) {
    ++counters_.direct;
    hold(now, waiter);
    return Entry::go;
  }
  ++counters_.queued;
  if (blocked) {
    waiter.state = State::blocked;
    ++waiter.after->dependants;
    blocked_.push_back(&waiter);
    ++waiting_;
    inherit(waiter.after, waiter.effective());
  } else {
    line_up(waiter);
    let_holder_inherit(waiter);
  }
  counters_.depth_max = std::max<uint64_t>(counters_.depth_max, waiting_);
  return Entry::wait;
}

ResourceWaiter* ResourceQueue::next(Time now) {
  if (!is_available()) return nullptr;
  ResourceWaiter* const chosen = best();
  if (chosen == nullptr) return nullptr;
  step_out(*chosen);
  hold(now, *chosen);
  if (limits_.capacity == 1) {  // It now stands in the way of those who stay.
    for (size_t i = levels_.size(); i > 0; --i) {
      if (levels_[i - 1].first == nullptr) continue;
      let_holder_inherit(*levels_[i - 1].first);
      break;
    }
  }
  return chosen;
}

void ResourceQueue::leave(Time now, ResourceWaiter& holder, bool failed) {
  (void)now;
  CHECK(holder.state == State::holding && holder.queue == this);
  holders_.remove(&holder);
  holder.state = State::outside;
  holder.queue = nullptr;
  if (!failed) {
    checks_ = 0;
    unavailable_ = false;
  }
  end_dependency(holder, failed);
}

void ResourceQueue::denied(Time now, ResourceWaiter& holder) {
  CHECK(holder.state == State::holding && holder.queue == this);
  holders_.remove(&holder);
  ++counters_.denied;
  line_up(holder);
  unavailable_ = true;
  schedule_check(now);
}

// --- dependencies and cancelling

void ResourceQueue::end_dependency(const ResourceWaiter& ended, bool failed) {
  uint32_t left = ended.dependants;
  for (ResourceWaiter *at = blocked_.front(), *following = nullptr; left > 0; at = following) {
    CHECK(at != nullptr);
    following = Waiters::after(at);
    if (at->after != &ended) continue;
    --left;
    step_out(*at);
    at->after = nullptr;
    if (failed) {
      throw_out(*at);
    } else {
      line_up(*at);
      let_holder_inherit(*at);
    }
  }
}

// Its own dependants are thrown out when it is taken from the list: no recursion over data.
void ResourceQueue::throw_out(ResourceWaiter& waiter) {
  waiter.state = State::cancelled;
  cancelled_.push_back(&waiter);
  ++counters_.cancelled;
}

ResourceWaiter* ResourceQueue::next_cancelled() {
  ResourceWaiter* const waiter = cancelled_.pop_front();
  if (waiter == nullptr) return nullptr;
  waiter->state = State::outside;
  waiter->queue = nullptr;
  end_dependency(*waiter, true);
  return waiter;
}

void ResourceQueue::cancel(ResourceWaiter& waiter) {
  CHECK(waiter.queue == this);
  if (waiter.state == State::cancelled) {
    cancelled_.remove(&waiter);
  } else {
    if (waiter.state == State::blocked) --waiter.after->dependants;
    step_out(waiter);
  }
  waiter.state = State::outside;
  waiter.queue = nullptr;
  end_dependency(waiter, true);
}

void ResourceQueue::cancel_owner(uint64_t owner) {
  const auto throw_all = [&](ResourceWaiter* at) {
    for (ResourceWaiter* following = nullptr; at != nullptr; at = following) {
      following = at->links.next;
      if (at->owner != owner) continue;
      if (at->state == State::blocked) --at->after->dependants;
      step_out(*at);
      throw_out(*at);
    }
  };
  for (const Level& level : levels_) throw_all(level.first);
  throw_all(blocked_.front());
}

// --- checks

void ResourceQueue::schedule_check(Time now) {
  const Schedule& schedule = limits_.schedule;
  Duration interval = schedule.first;
  if (schedule.kind == Schedule::Kind::exponential) {
    for (uint32_t i = 0; i < checks_ && interval < schedule.cap; ++i) interval *= schedule.factor;
    interval = std::min(interval, schedule.cap);
  }
  checks_ = std::min(checks_ + 1, 64U);
  const auto spread = static_cast<uint64_t>(interval.count()) * schedule.jitter_permille / 1000;
  next_check_ = now + interval + Duration(spread > 0 ? prng_.below(spread) : 0);
}

void ResourceQueue::make_unavailable(Time now) {
  if (unavailable_) return;
  unavailable_ = true;
  schedule_check(now);
}

std::optional<Time> ResourceQueue::next_check() const {
  if (!unavailable_ || waiting_ == 0) return std::nullopt;
  return next_check_;
}

void ResourceQueue::checked(Time now, bool is_available) {
  ++counters_.checks;
  unavailable_ = !is_available;
  if (unavailable_) schedule_check(now);
}

const ResourceWaiter* ResourceQueue::overdue(Time now) const {
  const ResourceWaiter* const oldest = holders_.front();
  if (oldest == nullptr || limits_.hold_max == Duration::zero()) return nullptr;
  return now - oldest->issued > limits_.hold_max ? oldest : nullptr;
}

void ResourceTable::sweep(Time now) {
  for (auto at = queues_.begin(); at != queues_.end();) {
    Entry& entry = at->second;
    const uint64_t issued = entry.queue.counters().issued;
    if (!entry.queue.idle() || issued != entry.issued) {
      entry.idle_since.reset();
      entry.issued = issued;
    } else if (!entry.idle_since) {
      entry.idle_since = now;
    } else if (now - *entry.idle_since >= linger_) {
      at = queues_.erase(at);
      continue;
    }
    ++at;
  }
}

}  // namespace firn::policy
