// SPDX-License-Identifier: Apache-2.0
// Notes on the design.
//
// A held completion is in two queues, one by maturity for the device and one by arrival for its
// guest's queue, and leaves both in one step, so that whichever trigger comes second finds it gone
// (V4). With `ordered` a completion never matures before its predecessor in the queue, which then
// makes both orders the same for it.
#include "policy/completion_pace.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/units.h"

namespace firn::policy {

namespace {

using std::chrono::microseconds;

}  // namespace

std::optional<CompletionPace::Limits> CompletionPace::preset(std::string_view name) {
  const auto of = [](int64_t read, int64_t write, int64_t flush) {
    return Limits{.mode = Mode::stable,
                  .nominal = {microseconds(read), microseconds(write), microseconds(flush),
                              microseconds(write)}};
  };
  if (name == "none") return Limits{};
  if (name == "ssd-sata") return of(120, 60, 500);
  if (name == "hdd-7200") return of(8000, 8000, 12000);
  return std::nullopt;
}

Result<void> CompletionPace::validate(const Limits& limits) {
  if (limits.batch_max == 0) return fail(Errc::invalid, "a pace releases at least 1 at a time");
  if (limits.per_grain < Duration::zero() || limits.per_grain > std::chrono::milliseconds(1)) {
    return fail(Errc::invalid, "a nominal time of {} ns per 4 KiB is not between 0 and 1 ms",
                limits.per_grain.count());
  }
  for (const Duration nominal : limits.nominal) {
    if (nominal < Duration::zero() || nominal > kNominalMax) {
      return fail(Errc::invalid, "a nominal time of {} ns is not between 0 and 5 s",
                  nominal.count());
    }
  }
  return ok;
}

CompletionPace::CompletionPace(Limits limits, uint32_t queues)
    : limits_(limits),
      local_(std::make_unique<Local[]>(queues)),
      latest_(queues),
      queues_(queues) {}

void CompletionPace::set_limits(Time now, const Limits& limits) {
  limits_ = limits;
  if (limits.mode != Mode::off) return;
  for (PacedCompletion* held : heap_) held->matures = std::min(held->matures, now);
  std::sort(heap_.begin(), heap_.end(), [](const PacedCompletion* a, const PacedCompletion* b) {
    return std::tie(a->matures, a->sequence) < std::tie(b->matures, b->sequence);
  });  // A sorted heap is a heap.
  for (size_t i = 0; i < heap_.size(); ++i) heap_[i]->place = i;
}

Duration CompletionPace::nominal(Op op, uint64_t bytes) const {
  if (limits_.mode == Mode::off) return Duration::zero();
  Duration time = limits_.nominal[static_cast<size_t>(op)];
  if (op == Op::read || op == Op::write) {
    const uint64_t grains = std::min(bytes, kGiB) / kGrainBytes;
    time += limits_.per_grain * static_cast<int64_t>(grains);
  }
  return std::min(time, kNominalMax);
}

void CompletionPace::issue(Time now, PacedCompletion& completion, Op op, uint64_t bytes,
                           uint32_t queue) {
  CHECK(queue < queues_, "queue {} of {}", queue, queues_);
  completion.issued = now;
  completion.matures = now + nominal(op, bytes);
  completion.queue = queue;
}

bool CompletionPace::done(Time now, PacedCompletion& completion) {
  completion.done = now;
  Local& local = local_[completion.queue];
  if (limits_.ordered && !local.empty()) {
    completion.matures = std::max(completion.matures, latest_[completion.queue]);
  } else if (now >= completion.matures || limits_.mode == Mode::off) {
    return true;
  }
  latest_[completion.queue] = completion.matures;
  local.push_back(&completion);
  push(completion);
  return false;
}

size_t CompletionPace::safepoint(uint32_t queue, std::span<PacedCompletion*> out) {
  if (limits_.mode == Mode::floor) return 0;
  return release(queue, out, limits_.batch_max);
}

size_t CompletionPace::drain(uint32_t queue, std::span<PacedCompletion*> out) {
  return release(queue, out, out.size());
}

size_t CompletionPace::release(uint32_t queue, std::span<PacedCompletion*> out, size_t most) {
  CHECK(queue < queues_, "queue {} of {}", queue, queues_);
  size_t count = 0;
  while (count < std::min(out.size(), most) && !local_[queue].empty()) {
    out[count] = local_[queue].front();
    remove(*out[count++]);
  }
  return count;
}

size_t CompletionPace::matured(Time now, std::span<PacedCompletion*> out) {
  size_t count = 0;
  while (count < std::min<size_t>(out.size(), limits_.batch_max) && !heap_.empty() &&
         heap_.front()->matures <= now) {
    out[count] = heap_.front();
    remove(*out[count++]);
  }
  return count;
}

std::optional<Time> CompletionPace::deadline() const {
  if (heap_.empty()) return std::nullopt;
  return heap_.front()->matures;
}

// --- the heap

bool CompletionPace::sooner(size_t a, size_t b) const {
  const PacedCompletion &left = *heap_[a], &right = *heap_[b];
  return std::tie(left.matures, left.sequence) < std::tie(right.matures, right.sequence);
}

void CompletionPace::put(size_t place, PacedCompletion* completion) {
  heap_[place] = completion;
  completion->place = place;
}

// Moves the entry up or down to where it belongs.
void CompletionPace::sift(size_t place) {
  const auto swap = [&](size_t a, size_t b) {
    PacedCompletion* const held = heap_[a];
    put(a, heap_[b]);
    put(b, held);
  };
  while (place > 0 && sooner(place, (place - 1) / 2)) {
    swap(place, (place - 1) / 2);
    place = (place - 1) / 2;
  }
  for (size_t child = 2 * place + 1; child < heap_.size(); child = 2 * place + 1) {
    if (child + 1 < heap_.size() && sooner(child + 1, child)) ++child;
    if (!sooner(child, place)) return;
    swap(child, place);
    place = child;
  }
}

void CompletionPace::push(PacedCompletion& completion) {
  completion.sequence = ++sequence_;
  completion.place = heap_.size();
  heap_.push_back(&completion);
  sift(completion.place);
}

void CompletionPace::remove(PacedCompletion& completion) {
  local_[completion.queue].remove(&completion);
  const size_t place = completion.place;
  PacedCompletion* const last = heap_.back();
  heap_.pop_back();
  if (last == &completion) return;
  put(place, last);
  sift(place);
}

}  // namespace firn::policy
