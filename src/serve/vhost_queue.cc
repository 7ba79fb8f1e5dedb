// SPDX-License-Identifier: Apache-2.0
// Notes on the design. The leader serves what it takes on its own fiber: a request whose device
// answers at once costs no switch. Before it goes into a device it sees to it that a follower is
// runnable; who runs while the leader is with a device finds that it waits there, and leads from
// then on, while the old leader ends with its request. So a device that waits costs one fiber for
// each request, and the next request is begun in the same turn.
//
// The leader waits in one place, on wakeup_, and is woken by a request that ended, by a kick, by
// look(), or by the session. The fibers of a turn run in order, so that by the time it comes round,
// everything that the turn completed is in done_: batches form by themselves.
//
//  I1  in_flight_ counts slots between take() and publish().
//  I2  While ring_ exists and the shard may sleep, the queue is armed or watched.
#include "serve/vhost_queue.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace firn::serve {

VhostQueue::VhostQueue(Io& io, VhostDevice& device, const GuestMemory& memory,
                       VhostCounters& counters, Owner& owner, uint16_t number)
    : io_(io),
      device_(device),
      memory_(memory),
      counters_(counters),
      owner_(owner),
      number_(number) {}

VhostQueue::~VhostQueue() { CHECK(!is_running(), "stop() the queue first"); }

void VhostQueue::set_kick(std::unique_ptr<Event> event) {
  if (listening_ != nullptr) {
    io_.shutdown(*kick_);
    listening_.reset();
  }
  kick_ = std::move(event);
  if (!is_running()) return;
  listening_ = std::make_unique<Group>(io_);
  io_.spawn(*listening_, [this] { listen(); });
  wake_up();  // The old one may have been kicked meanwhile.
}

void VhostQueue::set_call(std::unique_ptr<Event> event) {
  call_ = std::move(event);
  // What was signalled to the old one may not have been heard.
  if (call_ != nullptr && is_running()) io_.signal(*call_);
}

Result<void> VhostQueue::start() {
  CHECK(!is_running() && has_kick());
  ring_ = TRY(Virtqueue::make(memory_, shape));
  counters_.resubmitted += ring_->recovered();
  completions_ =
      std::make_unique<VhostCompletions>(io_, device_.completion(), counters_, shape.size);
  slots_ = std::make_unique<Request[]>(shape.size);
  free_ = nullptr;
  for (uint32_t i = shape.size; i-- > 0;) {
    slots_[i].next = free_;
    free_ = &slots_[i];
  }
  paused_ = broken_ = stopping_ = armed_ = false;
  serving_ = followed_ = timed_ = false;
  publishing_ = true;
  idle_sleeps_ = 0;
  ring_->disarm();
  set_watched(true);
  running_ = std::make_unique<Group>(io_);
  listening_ = std::make_unique<Group>(io_);
  io_.spawn(*running_, [this] { lead(); });
  io_.spawn(*listening_, [this] { listen(); });
  if (call_ != nullptr) io_.signal(*call_);  // For what a predecessor could not say any more.
  return ok;
}

void VhostQueue::pause() {
  paused_ = true;
  for (auto held = completions_->drain(); !held.empty(); held = completions_->drain()) {
    let_go(held);
  }
  wake_up();
  while (in_flight_ > 0) io_.park(drained_);
}

void VhostQueue::resume() {
  if (!is_running()) return;
  if (const Result<void> found = ring_->locate(); !found) {
    break_ring(text_of(found.error()));
    return;
  }
  paused_ = false;
  armed_ = false;
  completions_->resume();
  if (broken_) return;
  ring_->disarm();
  set_watched(true);
  wake_up();
}

void VhostQueue::stop(Stop how) {
  if (!is_running()) return;
  publishing_ = how != Stop::abandoned;
  pause();
  stopping_ = true;
  wake_up();
  io_.shutdown(*kick_);
  listening_.reset();
  running_.reset();
  set_watched(false);
  shape.base = ring_->base();
  if (how == Stop::told) ring_->end_log();
  completions_.reset();
  ring_.reset();
  slots_.reset();
  kick_.reset();
}

// --- the fibers

void VhostQueue::lead() {
  const uint64_t mine = ++leader_;
  serving_ = false;
  for (uint32_t taken = 0; !stopping_;) {
    if (Request* const request = take()) {
      if (!std::exchange(followed_, true)) io_.spawn(*running_, [this] { follow(); });
      serving_ = true;
      serve(*request);
      if (leader_ != mine) {
        if (done_count_ >= kSettleEvery) settle();
        wake_up();
        return;
      }
      serving_ = false;
      if (++taken % kPublishEvery == 0) publish();
      continue;
    }
    taken = 0;
    settle();
    if (stopping_ || done_ != nullptr) continue;
    if (may_take() && ring_->has_more()) {
      io_.yield();  // A guest that is never done must not keep the others waiting.
    } else {
      io_.park(wakeup_);
    }
  }
}

void VhostQueue::follow() {
  followed_ = false;
  if (serving_ && !stopping_) lead();
}

void VhostQueue::listen() {
  while (io_.wait(*kick_)) {
    ++counters_.kicks;
    wake_up();
  }
}

void VhostQueue::serve(Request& request) {
  request.served = device_.serve(io_, request.chain);
  if (completions_->ended(request, request.served)) push_done(request);
}

void VhostQueue::push_done(Request& request) {
  request.next = nullptr;
  (done_ == nullptr ? done_ : done_last_->next) = &request;
  done_last_ = &request;
  ++done_count_;
}

void VhostQueue::let_go(std::span<policy::PacedCompletion* const> held) {
  for (policy::PacedCompletion* each : held) push_done(static_cast<Request&>(*each));
}

void VhostQueue::wake_up() {
  if (!wakeup_.empty()) io_.wake(wakeup_);
}

VhostQueue::Request* VhostQueue::take() {
  if (!may_take()) return nullptr;
  Request& request = *free_;
  const Took took = ring_->take(request.chain);
  if (took == Took::nothing) return nullptr;
  idle_sleeps_ = 0;
  if (armed_) {
    armed_ = false;
    ring_->disarm();
  }
  set_watched(true);
  if (took == Took::broken) {
    break_ring(ring_->why());
    return nullptr;
  }
  free_ = request.next;
  ++in_flight_;
  ++counters_.in_flight;
  completions_->taken(request);
  return &request;
}

void VhostQueue::publish() {
  if (done_ == nullptr) return;
  uint32_t count = 0;
  bool urgent = false;
  while (done_ != nullptr) {
    Request& request = *done_;
    done_ = request.next;
    if (publishing_) ring_->give_back(request.chain, request.served.written);
    urgent |= request.served.urgent;
    request.next = free_;
    free_ = &request;
    ++count;
  }
  done_count_ = 0;
  in_flight_ -= count;
  counters_.in_flight -= count;
  if (publishing_) ring_->publish();
  completions_->published(count, urgent);
}

void VhostQueue::settle() {
  if (completions_->held() > 0) let_go(completions_->due(ring_->is_listening()));
  publish();
  if (completions_->may_signal() && publishing_) {
    if (ring_->wants_signal() && call_ != nullptr) {
      ++counters_.calls;
      io_.signal(*call_);
    } else {
      ++counters_.calls_spared;
      completions_->not_signalled();
    }
  }
  if (!timed_ && completions_->deadline()) keep_time();
  if (in_flight_ == 0 && !drained_.empty()) io_.wake(drained_);
  if (memory_.broken()) owner_.memory_lost();
}

// A fiber that is there only while something is held.
void VhostQueue::keep_time() {
  timed_ = true;
  io_.spawn(*running_, [this] {
    while (const std::optional<Time> due = stopping_ ? std::nullopt : completions_->deadline()) {
      const Time now = io_.now();
      if (now < *due) io_.sleep(std::min(*due - now, kPaceLook));
      wake_up();
      io_.yield();  // The leader settles before the end of this turn.
    }
    timed_ = false;
  });
}

void VhostQueue::break_ring(std::string_view why) {
  if (broken_) return;
  broken_ = true;
  ++counters_.protocol_errors;
  if (error_ != nullptr) io_.signal(*error_);
  owner_.ring_broken(number_, why);
}

// --- polling

void VhostQueue::set_watched(bool watched) {
  if (watched == watched_) return;
  watched_ = watched;
  watched ? io_.watch(*this) : io_.unwatch(*this);
}

bool VhostQueue::look() {
  if (!may_take() || wakeup_.empty()) return false;
  if (completions_->waits_for_guest() && ring_->is_listening()) {
    io_.wake(wakeup_);
    return true;
  }
  if (!ring_->has_more()) return false;
  ++counters_.polls;
  io_.wake(wakeup_);
  return true;
}

bool VhostQueue::arm() {
  if (!may_take()) return false;  // Whoever changes that wakes the leader.
  if (!armed_) {
    armed_ = true;
    if (ring_->arm()) {
      armed_ = false;
      ring_->disarm();
      wake_up();
      return true;
    }
  }
  if (in_flight_ == 0 && ++idle_sleeps_ >= kIdleSleeps) set_watched(false);
  return false;
}

}  // namespace firn::serve
