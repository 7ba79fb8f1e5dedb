// SPDX-License-Identifier: Apache-2.0
// NbdReplies: the sending half of a connection. Gathers the replies that are ready and sends
// them together.
//
// Contract:
//  R1  Replies go out in the order of push(). A reply that is alone is sent in the turn in which
//      it was pushed; those that become ready in one turn, or during a send, go down as one
//      vectored send.
//  R2  Whoever holds turn() sends by itself; no queued reply comes between its sends.
//  R3  Every pushed reply is handed back exactly once, after it was sent or after sending became
//      impossible. Memory is the owner's and the payload's; the queue allocates nothing.
#pragma once

#include <array>
#include <cstddef>

#include "io/mutex.h"
#include "serve/nbd_counters.h"
#include "serve/payload.h"
#include "serve/stream.h"

namespace firn::serve {

struct Reply {
  static constexpr size_t kHeadBytes = 48;  // The widest header, and a fixed payload after it.

  Reply* next = nullptr;
  std::array<std::byte, kHeadBytes> head;
  size_t head_bytes = 0;
  View body;          // In `payload`, or in memory that the owner keeps.
  Payload payload;    // Given back once sent.
  bool last = false;  // Of its request.
};

class NbdReplies {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // The reply may be used again.
    virtual void sent(Reply& reply) = 0;
    // Nothing is queued; called before waiting. May wait.
    virtual void all_sent() = 0;
  };

  NbdReplies(Io& io, Stream& stream, Owner& owner, NbdServerCounters& counters)
      : io_(io), stream_(stream), owner_(owner), counters_(counters) {}

  void push(Reply& reply);
  // The body of the sending fiber; returns after finish(), when everything is sent.
  void run();
  void finish();
  // Makes run() call all_sent() even though nothing was pushed.
  void nudge() { io_.wake(work_); }

  Mutex::Hold turn() { return turn_.lock(io_); }
  // Under turn() only. False when the connection is broken.
  bool send(Iovec slices);
  bool broken() const { return broken_; }

 private:
  static constexpr size_t kSlices = 128;
  static constexpr size_t kBatchBytes = 4 << 20;
  Reply* send_batch();

  Io& io_;
  Stream& stream_;
  Owner& owner_;
  NbdServerCounters& counters_;
  Reply* first_ = nullptr;
  Reply* last_ = nullptr;
  std::array<::iovec, kSlices> slices_{};
  WaitList work_;
  Mutex turn_;
  bool finishing_ = false;
  bool broken_ = false;
};

}  // namespace firn::serve
