// SPDX-License-Identifier: Apache-2.0
#include "serve/nbd_reply.h"

namespace firn::serve {

void NbdReplies::look_at_rules() {
  if (rules_ == nullptr || rules_->version == version_) return;
  version_ = rules_->version;
  if (rules_->gathers == gather_.has_value()) return;
  if (rules_->gathers) {
    gather_.emplace(Gather::Limits{.queue_size = requests_}, io_.now());
    gather_->restart(io_.now(), expected_);
  } else {
    gather_.reset();
    io_.wake(work_);
  }
}

void NbdReplies::expect() {
  look_at_rules();
  ++expected_;
  if (gather_ && gather_->submit(io_.now()) == Gather::Verdict::deliver) io_.wake(work_);
}

void NbdReplies::forget() {
  if (gather_ && gather_->complete(io_.now(), {.urgent = true}) == Gather::Verdict::deliver) {
    io_.wake(work_);
  }
  --expected_;
}

bool NbdReplies::is_held(bool urgent) {
  if (!gather_) return false;
  if (gather_->complete(io_.now(), {.urgent = urgent}) == Gather::Verdict::deliver) return false;
  ++counters_.replies_held;
  if (!timed_) keep_time();
  return true;
}

void NbdReplies::push(Reply& reply, bool urgent) {
  reply.next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = &reply;
  last_ = &reply;
  ++queued_;
  if (reply.last) {
    look_at_rules();
    const bool held = is_held(urgent);
    --expected_;
    if (held) return;
  }
  // The sender runs after everybody who is runnable now: what they push goes with this one.
  if (!work_.empty()) io_.wake(work_);
}

// A fiber that is there only while something is held.
void NbdReplies::keep_time() {
  timed_ = true;
  io_.spawn(timer_, [this] {
    while (const auto due = gather_ && !finishing_ ? gather_->deadline() : std::nullopt) {
      const Time now = io_.now();
      if (now < *due) {
        io_.sleep(*due - now);
      } else if (gather_->tick(now) == Gather::Verdict::deliver) {
        ++counters_.sends_late;
        io_.wake(work_);
      }
    }
    timed_ = false;
  });
}

void NbdReplies::run() {
  for (;;) {
    if (first_ == nullptr) {
      owner_.all_sent();
      if (first_ != nullptr) continue;
      if (finishing_) {
        timer_.wait();
        return;
      }
      io_.park(work_);
      continue;
    }
    send_now();
  }
}

void NbdReplies::relieve() {
  if (queued_ >= kSendEvery && !gather_ && !turn_.is_held()) send_now();
}

// A whole batch is out of the queue before anybody is told, so that owners may push at once.
void NbdReplies::send_now() {
  const Mutex::Hold hold = turn();
  for (Reply* reply = send_batch(); reply != nullptr;) {
    Reply* next = reply->next;
    reply->payload.reset();
    owner_.sent(*reply);
    reply = next;
  }
}

void NbdReplies::finish() {
  finishing_ = true;
  io_.wake(work_);
}

// Sends what fits into one call; gives the list of what was taken from the queue.
Reply* NbdReplies::send_batch() {
  Reply* batch = first_;
  Reply* end = nullptr;
  size_t slices = 0;
  size_t bytes = 0;
  while (first_ != nullptr && slices + 2 <= kSlices && bytes < kBatchBytes) {
    Reply& reply = *first_;
    slices_[slices++] = {reply.head.data(), reply.head_bytes};
    if (!reply.body.empty()) slices_[slices++] = slice_of(reply.body);
    bytes += reply.head_bytes + reply.body.size();
    end = &reply;
    first_ = reply.next;
    --queued_;
    ++counters_.replies;
  }
  if (batch == nullptr)
    return nullptr;  // Somebody held the turn, and the queue was emptied meanwhile.
  if (first_ == nullptr) last_ = nullptr;
  end->next = nullptr;
  (void)send(Iovec(slices_.data(), slices));
  return batch;
}

bool NbdReplies::send(Iovec slices) {
  if (broken_) return false;
  ++counters_.sends;
  if (!stream_.send(io_, slices)) {
    broken_ = true;
    stream_.abort(io_);  // The reader learns it as the end.
  }
  return !broken_;
}

}  // namespace firn::serve
