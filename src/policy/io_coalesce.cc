// SPDX-License-Identifier: Apache-2.0
// Notes on the design.
//
// A queue per kind, sorted by offset, from which batches are cut in one walk. Sequential requests
// are inserted at its end; a random one walks, but random loads are not held.
//
// Sending is a state, not an action: events make it due, take() cuts batches until the queues are
// empty. So whoever receives a burst (one kick of a ring, one read of a socket) lets all of it
// arrive first, and what would have been a lone request and a held rest becomes one batch.
//
// C4. Queues of writes hold no two that overlap. A newcomer that overlaps one, or overlaps an
// earlier newcomer of that sort, goes to `later_`. When its queue has been sent, the last batch
// given out is noted in it; it comes back when that batch and all before it have ended. Nothing
// overlapping can then be held or in flight that arrived before it through this queue.
//
// The gate. Arrivals that continue a recent one are counted whether held or not, so a change of
// pattern is seen without holding anything. What comes shuffled but dense is seen only by holding:
// one burst in `probe_period` requests is held to look. The depth is a decaying peak, because right
// after a batch has ended the guest has nothing outstanding, however deep it drives.
#include "policy/io_coalesce.h"

#include <algorithm>

namespace firn::policy {

namespace {

constexpr size_t kUrgent = 0;
constexpr size_t kWrites = 3;  // And all after them: C4.

}  // namespace

CoalesceBatch::Extent CoalesceBatch::extent_at(CoalesceRequest* first) {
  Extent extent = {first->range, first, first->next};
  while (extent.end != nullptr && !extent.end->starts_extent) {
    extent.range.length += extent.end->range.length;
    extent.end = extent.end->next;
  }
  return extent;
}

size_t IoCoalesce::kind_of(const CoalesceRequest& request) const {
  if (request.urgent || limits_.mode == Mode::off) return kUrgent;
  return 1 + 2 * static_cast<size_t>(request.op) + (request.fua ? 1 : 0);
}

void IoCoalesce::set_mode(Mode mode) {
  limits_.mode = mode;
  drain();
}

// --- the queues

// Links the request in by its offset; false when C4 forbids it to be there.
bool IoCoalesce::insert(CoalesceRequest& request) {
  const size_t kind = kind_of(request);
  Queue& queue = queues_[kind];
  CoalesceRequest* before = queue.last;
  if (kind != kUrgent) {
    while (before != nullptr && before->range.at > request.range.at) before = before->previous;
  }
  CoalesceRequest* const after = before != nullptr ? before->next : queue.first;
  if (kind >= kWrites) {
    if (before != nullptr && before->range.overlaps(request.range)) return false;
    if (after != nullptr && after->range.overlaps(request.range)) return false;
  }
  request.previous = before;
  request.next = after;
  (before != nullptr ? before->next : queue.first) = &request;
  (after != nullptr ? after->previous : queue.last) = &request;
  ++queue.count;
  return true;
}

bool IoCoalesce::overlaps_later(const CoalesceRequest& request) const {
  for (const CoalesceRequest* other = later_.first; other != nullptr; other = other->next) {
    if (kind_of(*other) == kind_of(request) && other->range.overlaps(request.range)) return true;
  }
  return false;
}

void IoCoalesce::enqueue(CoalesceRequest& request) {
  const size_t kind = kind_of(request);
  const bool may_wait = kind >= kWrites;
  if (!(may_wait && overlaps_later(request)) && insert(request)) return;
  ++counters_.overlaps;
  request.after_batch = 0;
  request.previous = later_.last;
  request.next = nullptr;
  (later_.last != nullptr ? later_.last->next : later_.first) = &request;
  later_.last = &request;
  ++later_.count;
}

// Brings back what waited for batches that have all ended; in order of arrival.
void IoCoalesce::promote_later() {
  while (later_.first != nullptr) {
    CoalesceRequest& request = *later_.first;
    const uint64_t oldest = below_.empty() ? UINT64_MAX : below_.front()->id;
    if (request.after_batch == 0 || oldest <= request.after_batch) return;
    later_.first = request.next;
    (later_.first != nullptr ? later_.first->previous : later_.last) = nullptr;
    --later_.count;
    if (!insert(request)) {  // It overlaps one that came back just before it.
      request.after_batch = 0;
      request.previous = nullptr;
      request.next = later_.first;
      (later_.first != nullptr ? later_.first->previous : later_.last) = &request;
      later_.first = &request;
      ++later_.count;
      due_ = true;
      return;
    }
    due_ = true;
  }
}

// --- the gate

void IoCoalesce::observe(const CoalesceRequest& request) {
  const size_t kind = kind_of(request);
  Recent* slot = nullptr;
  for (Recent& recent : recent_) {
    if (recent.kind == kind && recent.end == request.range.at) slot = &recent;
  }
  adjacent_ += ((slot != nullptr ? kOne : 0) - adjacent_) / 64;
  if (slot == nullptr) slot = &recent_[recent_next_++ % recent_.size()];
  *slot = {kind, request.range.end()};
  depth_sixteenths_ = std::max(depth_sixteenths_, up_ * 16);
}

void IoCoalesce::adjust_gate() {
  const int32_t enter = static_cast<int32_t>(limits_.adjacent_permille) * (kOne / 1000);
  const int32_t gain = std::max({adjacent_, merged_, metadata_});
  worth_it_ = gain >= (worth_it_ ? enter / 2 : enter);
  if (worth_it_ || depth_sixteenths_ / 16 < limits_.depth_min) {
    until_probe_ = limits_.probe_period;
  } else if (until_probe_ == 0 || --until_probe_ == 0) {
    until_probe_ = limits_.probe_period;
    probing_ = true;
    ++counters_.probes;
  }
}

bool IoCoalesce::holding() const {
  if (limits_.mode != Mode::adaptive) return limits_.mode == Mode::always;
  return (worth_it_ || probing_) && depth_sixteenths_ / 16 >= limits_.depth_min;
}

// --- the events

bool IoCoalesce::arrive(Time now, CoalesceRequest& request) {
  ++up_;
  ++counters_.requests;
  observe(request);
  adjust_gate();
  if (held_++ == later_.count) held_since_ = now;
  enqueue(request);
  if (request.urgent || in_flight() < limits_.below_min || !holding()) {
    due_ = true;
  } else if (queues_[kind_of(request)].count + later_.count > limits_.capacity) {
    due_ = true;
    ++counters_.by_full;
  } else if (!due_) {
    ++counters_.held;
  }
  return due_;
}

bool IoCoalesce::pass(CoalesceRequest& request, CoalesceBatch& batch) {
  if (held_ > 0 || due_ || holding()) return false;
  CHECK(batch.requests == 0, "a batch is taken into an empty one");
  ++up_;
  ++counters_.requests;
  observe(request);
  adjust_gate();
  request.previous = request.next = nullptr;
  request.starts_extent = true;
  batch.first = &request;
  batch.requests = batch.extents = 1;
  batch.bytes = request.range.length;
  batch.id = ++batch_id_;
  below_.push_back(&batch);
  ++counters_.batches;
  ++counters_.extents;
  return true;
}

bool IoCoalesce::complete(CoalesceBatch& batch, bool metadata) {
  CHECK(up_ >= batch.requests);
  below_.remove(&batch);
  up_ -= batch.requests;
  metadata_ += ((metadata ? kOne : 0) - metadata_) / 64;
  depth_sixteenths_ -= depth_sixteenths_ / 64;
  promote_later();
  if (!due_ && held_ > 0 && in_flight() < limits_.below_min) {
    due_ = true;
    ++counters_.by_depth;
  }
  return due_;
}

std::optional<Time> IoCoalesce::deadline() const {
  if (held_ == later_.count) return std::nullopt;  // C4 has no deadline: it waits for an end.
  return held_since_ + limits_.hold_max;
}

bool IoCoalesce::tick(Time now) {
  const std::optional<Time> limit = deadline();
  if (!due_ && limit && now >= *limit) {
    due_ = true;
    ++counters_.by_deadline;
  }
  return due_;
}

bool IoCoalesce::drain() {
  if (!due_ && held_ > 0) {
    due_ = true;
    ++counters_.by_drain;
  }
  return due_;
}

// --- batches

// Cuts the longest batch off the front of a queue that C5 allows.
void IoCoalesce::cut(Queue& queue, CoalesceBatch& batch) {
  const bool alone = queue.first->urgent || limits_.mode == Mode::off;
  uint64_t extent_bytes = 0;
  uint32_t extent_segments = 0;
  CoalesceRequest* last = nullptr;
  for (CoalesceRequest* at = queue.first; at != nullptr; last = at, at = at->next) {
    const uint64_t bytes = at->range.length;
    const bool contiguous = last != nullptr && last->range.end() == at->range.at &&
                            extent_bytes + bytes <= limits_.extent_bytes_max &&
                            extent_segments + at->segments <= limits_.segments_max;
    const bool fits = batch.bytes + bytes <= limits_.batch_bytes_max &&
                      (contiguous || batch.extents < limits_.extents_max);
    if (last != nullptr && (alone || !fits)) break;
    at->starts_extent = !contiguous;
    extent_bytes = (contiguous ? extent_bytes : 0) + bytes;
    extent_segments = (contiguous ? extent_segments : 0) + at->segments;
    batch.extents += contiguous ? 0 : 1;
    batch.bytes += bytes;
    ++batch.requests;
  }
  batch.first = queue.first;
  queue.first = last->next;
  queue.count -= batch.requests;
  (queue.first != nullptr ? queue.first->previous : queue.last) = nullptr;
  last->next = nullptr;
}

bool IoCoalesce::give(CoalesceBatch& batch) {
  for (Queue& queue : queues_) {  // Reads before writes.
    if (queue.first == nullptr) continue;
    cut(queue, batch);
    batch.id = ++batch_id_;
    below_.push_back(&batch);
    held_ -= batch.requests;
    ++counters_.batches;
    counters_.extents += batch.extents;
    if (batch.requests > 1) {
      const auto joined = static_cast<int32_t>(batch.requests - batch.extents);
      merged_ += (joined * kOne / static_cast<int32_t>(batch.requests) - merged_) / 4;
    }
    return true;
  }
  return false;
}

bool IoCoalesce::take(CoalesceBatch& batch) {
  CHECK(batch.requests == 0, "a batch is taken into an empty one");
  while (due_) {
    if (give(batch)) return true;
    due_ = false;
    probing_ = false;
    for (CoalesceRequest* at = later_.first; at != nullptr; at = at->next) {
      if (at->after_batch == 0) at->after_batch = batch_id_;
    }
    promote_later();  // What they waited for may have ended between two calls.
  }
  return false;
}

}  // namespace firn::policy
