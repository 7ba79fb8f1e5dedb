// SPDX-License-Identifier: Apache-2.0
// Locks on runs of grains: many readers or one writer, first come first served among those that
// overlap.
//
//  L1  A holder of an exclusive lock is alone with its grains; a shared holder only with other
//      shared ones.
//  L2  A waiter is not overtaken by a later request that overlaps it.
//
// The set of holders is the set of requests in flight, a few dozen; a scan beats a tree.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "io/io.h"

namespace firn::disk {

class RangeLocks {
 public:
  enum class Mode : uint8_t { shared, exclusive };

  class Hold {
   public:
    Hold(Io& io, RangeLocks& locks, uint64_t ticket) : io_(&io), locks_(&locks), ticket_(ticket) {}
    Hold(Hold&& other) noexcept
        : io_(other.io_), locks_(std::exchange(other.locks_, nullptr)), ticket_(other.ticket_) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold() {
      if (locks_ != nullptr) locks_->release(*io_, ticket_);
    }

   private:
    Io* io_;
    RangeLocks* locks_;
    uint64_t ticket_;
  };

  // Grains [first, first + count).
  Hold lock(Io& io, uint64_t first, uint64_t count, Mode mode) {
    const uint64_t ticket = next_ticket_++;
    entries_.push_back({ticket, first, first + count, mode});
    while (blocked(ticket)) {
      ++waiting_;
      io.park(released_);
      --waiting_;
    }
    return Hold(io, *this, ticket);
  }
  size_t in_flight() const { return entries_.size(); }

 private:
  struct Entry {
    uint64_t ticket;
    uint64_t begin;
    uint64_t end;
    Mode mode;
  };

  // Entries stand in order of arrival: only earlier ones block (L2).
  bool blocked(uint64_t ticket) const {
    const Entry* mine = nullptr;
    for (size_t i = entries_.size(); i-- > 0;) {
      if (entries_[i].ticket == ticket) {
        mine = &entries_[i];
        break;
      }
    }
    for (const Entry& other : entries_) {
      if (&other == mine) return false;
      if (other.begin < mine->end && mine->begin < other.end &&
          (other.mode == Mode::exclusive || mine->mode == Mode::exclusive)) {
        return true;
      }
    }
    return false;
  }
  void release(Io& io, uint64_t ticket) {
    for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
      if (entry->ticket != ticket) continue;
      entries_.erase(entry);
      break;
    }
    if (waiting_ > 0) io.wake(released_);
  }

  std::vector<Entry> entries_;
  uint64_t next_ticket_ = 1;
  size_t waiting_ = 0;
  WaitList released_;
};

}  // namespace firn::disk
