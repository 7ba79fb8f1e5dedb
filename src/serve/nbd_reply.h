// SPDX-License-Identifier: Apache-2.0
// NbdReplies: the sending half of a connection. Gathers the replies that are ready and sends
// them together.
//
// Contract:
//  R1  Replies go out in the order of push(). A reply that is alone is sent in the turn in which
//      it was pushed; those that become ready in one turn, or during a send, go down as one
//      vectored send. When a turn has brought kSendEvery of them, relieve() sends these at once:
//      the client works on them while the rest of the turn goes on.
//  R2  Whoever holds turn() sends by itself; no queued reply comes between its sends.
//      With the disk's rules (serve/completion.h) the last replies of requests may wait for more of
//      them, as long as the policy says.
//  R3  Every pushed reply is handed back exactly once, after it was sent or after sending became
//      impossible. Memory is the owner's and the payload's; the queue allocates nothing.
#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "io/mutex.h"
#include "serve/completion.h"
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

  // `rules` may be null; they stay while this does. `requests`: the most that are in flight.
  NbdReplies(Io& io, Stream& stream, Owner& owner, NbdServerCounters& counters,
             const CompletionRules* rules = nullptr, uint32_t requests = 128)
      : io_(io),
        stream_(stream),
        owner_(owner),
        counters_(counters),
        rules_(rules),
        requests_(requests),
        timer_(io) {}

  // A request was accepted: one last reply will be pushed for it.
  void expect();
  // There will be none.
  void forget();
  // `urgent`: the client waits for just this one.
  void push(Reply& reply, bool urgent = false);
  // For a request's fiber, which has nothing else to do any more. May wait.
  void relieve();
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
  static constexpr size_t kSendEvery = 8;
  using Gather = policy::CompletionCoalesce;
  Reply* send_batch();
  void send_now();
  void look_at_rules();
  bool is_held(bool urgent);
  void keep_time();

  Io& io_;
  Stream& stream_;
  Owner& owner_;
  NbdServerCounters& counters_;
  Reply* first_ = nullptr;
  Reply* last_ = nullptr;
  size_t queued_ = 0;
  std::array<::iovec, kSlices> slices_{};
  WaitList work_;
  Mutex turn_;
  bool finishing_ = false;
  bool broken_ = false;
  const CompletionRules* rules_;
  uint32_t requests_;
  uint32_t expected_ = 0;
  uint64_t version_ = 0;
  std::optional<Gather> gather_;
  bool timed_ = false;  // The fiber of keep_time() is there.
  Group timer_;         // Last: its fiber uses everything above.
};

}  // namespace firn::serve
