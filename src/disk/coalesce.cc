// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// Every request has a fiber already, so nobody is needed to send batches: the first request of each
// leads it. Whoever makes something due (an arrival, an end, the timer, a flush) hands the batches
// out and wakes their leaders; they send in the same turn, so that all of it is one submission.
//
// A burst (what one receive or one kick brought) arrives within one turn. The first of it to find
// something due yields once, so that the rest comes with it; but only while the policy holds at
// all, so that otherwise nothing is between a request and the device.
//
// At the end of a batch what is due is handed out before its own requests are woken: the device
// gets its next work first.
#include "disk/coalesce.h"

#include <utility>

#include "disk/slices.h"

namespace firn::disk {

using policy::CoalesceRequest;

CoalescedDevice::~CoalescedDevice() { CHECK(policy_.idle(), "a request is under way"); }

void CoalescedDevice::set_mode(Io& io, Mode mode) {
  policy_.set_mode(mode);
  send_due(io, nullptr);
}

Result<void> CoalescedDevice::read(Io& io, Range range, Iovec into) {
  Request request;
  request.op = CoalesceRequest::Op::read;
  request.range = range;
  request.slices = into;
  return transfer(io, request);
}

Result<void> CoalescedDevice::write(Io& io, Range range, Iovec from, WriteFlags flags) {
  Request request;
  request.op = CoalesceRequest::Op::write;
  request.fua = flags.fua;
  request.range = range;
  request.slices = from;
  return transfer(io, request);
}

Result<void> CoalescedDevice::flush(Io& io) {
  if (policy_.drain()) send_due(io, nullptr);
  return below_.flush(io);
}

Result<void> CoalescedDevice::transfer(Io& io, Request& request) {
  request.segments = static_cast<uint32_t>(request.slices.size());
  if (request.range.empty()) return send_down(io, request, request.range, request.slices);
  if (Batch alone; !gathering_ && policy_.pass(request, alone)) {
    Result<void> result = send_down(io, request, request.range, request.slices);
    if (policy_.complete(alone)) send_due(io, nullptr);
    return result;
  }
  const bool due = policy_.arrive(io.now(), request);
  if (due && !gathering_) {
    if (policy_.holding()) {
      gathering_ = true;
      io.yield();
      gathering_ = false;
    }
    send_due(io, &request);
  } else if (!due) {
    keep_time(io);
  }
  while (!request.done) {
    if (request.leads != nullptr) {
      lead(io, request);
    } else {
      io.park(request.waits);
    }
  }
  return std::move(request.result);
}

std::unique_ptr<CoalescedDevice::Batch> CoalescedDevice::fresh_batch() {
  if (spare_.empty()) return std::make_unique<Batch>();
  std::unique_ptr<Batch> batch = std::move(spare_.back());
  spare_.pop_back();
  return batch;
}

// Gives each batch that is due to its leader; `self` is awake and needs no waking.
void CoalescedDevice::send_due(Io& io, const Request* self) {
  std::unique_ptr<Batch> batch = fresh_batch();
  while (policy_.take(*batch)) {
    auto& leader = static_cast<Request&>(*batch->first);
    leader.leads = std::exchange(batch, fresh_batch());
    if (&leader != self) io.wake(leader.waits);
  }
  spare_.push_back(std::move(batch));
}

void CoalescedDevice::lead(Io& io, Request& leader) {
  std::unique_ptr<Batch> batch = std::move(leader.leads);
  {
    Group others(io);
    for (const Request* at = &leader; at != nullptr;) {
      const Extent extent = Batch::extent_at(const_cast<Request*>(at));
      at = static_cast<const Request*>(extent.end);
      if (at == nullptr) {  // The last one needs no fiber of its own.
        send_extent(io, extent);
      } else {
        io.spawn(others, [this, &io, extent] { send_extent(io, extent); });
      }
    }
  }
  CoalesceRequest* const first = batch->first;
  if (policy_.complete(*batch)) send_due(io, nullptr);
  *batch = Batch();
  spare_.push_back(std::move(batch));
  for (CoalesceRequest* at = first; at != nullptr;) {
    auto& request = static_cast<Request&>(*at);
    at = at->next;
    request.done = true;
    if (&request != &leader) io.wake(request.waits);
  }
}

Result<void> CoalescedDevice::send_down(Io& io, const Request& first, Range range, Iovec slices) {
  if (!range.within(below_.geometry().bytes)) {
    // A revert made it smaller while this was held.
    return fail(Errc::invalid, "the device became smaller under a request at {}", range.at);
  }
  return first.op == CoalesceRequest::Op::read
             ? below_.read(io, range, slices)
             : below_.write(io, range, slices, {.fua = first.fua});
}

void CoalescedDevice::send_extent(Io& io, const Extent& extent) {
  auto& first = static_cast<Request&>(*extent.first);
  if (first.next == extent.end) {
    first.result = send_down(io, first, first.range, first.slices);
    return;
  }
  Slices slices;
  for (CoalesceRequest* at = extent.first; at != extent.end; at = at->next) {
    slices.append(static_cast<Request*>(at)->slices);
  }
  if (send_down(io, first, extent.range, slices)) return;
  for (CoalesceRequest* at = extent.first; at != extent.end; at = at->next) {  // K3
    auto& request = static_cast<Request&>(*at);
    ++counters_.retried;
    request.result = send_down(io, request, request.range, request.slices);
  }
}

// The policy's deadline: a fiber that is there only while something is held.
void CoalescedDevice::keep_time(Io& io) {
  if (timed_ || !policy_.deadline()) return;
  timed_ = true;
  io.spawn(timer_, [this, &io] {
    while (const std::optional<Time> due = policy_.deadline()) {
      const Time now = io.now();
      if (now < *due) {
        io.sleep(*due - now);
      } else if (policy_.tick(now)) {
        send_due(io, nullptr);
      }
    }
    timed_ = false;
  });
}

}  // namespace firn::disk
