// SPDX-License-Identifier: Apache-2.0
// VhostQueue: the fibers that serve one ring. One leads: takes, serves and gives back; one listens
// for kicks; one more for each request that waits for its device.
//
// Contract:
//  K1  Whatever is offered is begun before any of it is waited for; what ends in one turn is
//      published together, in parts when it is much, and signalled once, if the guest wants it.
//  K2  An idle queue costs nothing: it is armed, nobody looks at it, and the shard sleeps. A busy
//      one is looked at instead of being kicked.
//  K3  pause() and stop() return when nothing is in flight and everything that ended is published.
//  K4  A ring whose guest breaks the rules is left alone from then on: its owner is told once.
//      Other rings go on.
//  K5  What the disk's rules hold back (vhost_completions.h) is given back in time, and before
//      pause() and stop() return.
//  K6  The steady state allocates nothing: requests live in slots, as many as the ring has places.
#pragma once

#include <memory>
#include <string_view>

#include "io/io.h"
#include "serve/vhost_completions.h"
#include "serve/vhost_counters.h"
#include "serve/vhost_device.h"
#include "serve/virtqueue.h"

namespace firn::serve {

class VhostQueue final : private Poller {
 public:
  class Owner {
   public:
    virtual void ring_broken(uint16_t number, std::string_view why) = 0;
    virtual void memory_lost() = 0;

   protected:
    ~Owner() = default;
  };

  VhostQueue(Io& io, VhostDevice& device, const GuestMemory& memory, VhostCounters& counters,
             Owner& owner, uint16_t number);
  ~VhostQueue() override;

  // --- for the session's fiber
  QueueShape shape;      // Looked at by start().
  bool enabled = false;  // The session's note.

  bool has_kick() const { return kick_ != nullptr; }
  bool is_running() const { return ring_ != nullptr; }
  void set_kick(std::unique_ptr<Event> event);
  void set_call(std::unique_ptr<Event> event);
  void set_error(std::unique_ptr<Event> event) { error_ = std::move(event); }
  // Errc::invalid when the ring is nowhere: then nothing has begun.
  Result<void> start();
  void pause();
  // After the memory may have changed. A ring that cannot be found any more is broken.
  void resume();
  // Why a queue stops: the front end is told shape.base, and says it to whoever serves next; the
  // connection ends, and the log says it; it ends without a log, so that what is still in flight is
  // not given back: the front end will say it all again.
  enum class Stop : uint8_t { told, logged, abandoned };
  // Ends what runs, and forgets the kick.
  void stop(Stop how);

 private:
  struct Request : policy::PacedCompletion {
    Chain chain;
    Served served;
    Request* next = nullptr;
  };
  static constexpr uint32_t kIdleSleeps = 8;  // Of the shard, until nobody looks here any more.
  // How often a guest that sleeps is asked whether it can take what is held back for it.
  static constexpr Duration kPaceLook = std::chrono::milliseconds(2);
  // So many that ended without a wait are shown to the guest before the next are taken.
  static constexpr uint32_t kPublishEvery = 8;
  // So many that ended in one turn are published, and signalled, before the rest of the turn: the
  // guest works on them meanwhile.
  static constexpr uint32_t kSettleEvery = 4;

  bool look() override;
  bool arm() override;
  void lead();
  void follow();
  void listen();
  void serve(Request& request);
  Request* take();
  void push_done(Request& request);
  void let_go(std::span<policy::PacedCompletion* const> held);
  void publish();
  void settle();
  void keep_time();
  void wake_up();
  void set_watched(bool watched);
  void break_ring(std::string_view why);
  bool may_take() const { return !paused_ && !broken_ && free_ != nullptr; }

  Io& io_;
  VhostDevice& device_;
  const GuestMemory& memory_;
  VhostCounters& counters_;
  Owner& owner_;
  uint16_t number_;
  std::unique_ptr<Event> kick_;
  std::unique_ptr<Event> call_;
  std::unique_ptr<Event> error_;
  std::unique_ptr<Virtqueue> ring_;
  std::unique_ptr<VhostCompletions> completions_;  // While ring_ exists.
  std::unique_ptr<Request[]> slots_;
  Request* free_ = nullptr;
  Request* done_ = nullptr;
  Request* done_last_ = nullptr;
  uint32_t in_flight_ = 0;
  uint32_t done_count_ = 0;  // In done_.
  uint32_t idle_sleeps_ = 0;
  uint64_t leader_ = 0;    // Which fiber leads.
  bool serving_ = false;   // It is with a device ...
  bool followed_ = false;  // ... and somebody is there to lead if that waits.
  bool timed_ = false;     // The fiber of keep_time() is there.
  bool paused_ = false;
  bool broken_ = false;
  bool stopping_ = false;
  bool publishing_ = true;
  bool watched_ = false;  // Not armed implies watched, while the shard may sleep.
  bool armed_ = false;
  WaitList wakeup_;
  WaitList drained_;
  std::unique_ptr<Group> listening_;
  std::unique_ptr<Group> running_;
};

}  // namespace firn::serve
