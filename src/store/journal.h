// SPDX-License-Identifier: Apache-2.0
// The micro-journal ring: transactions go in under ascending commit ids, and their slots come back
// when their home pages are durable. Source: US 10445308, US 11204912, US 10528436.
//
// A transaction's slots go FREE -> TAKEN (written) -> APPLYING (committed; home pages not all
// written) -> IN FLIGHT (home pages written) -> FREE, all in-flight ones in one step with a later
// transaction.
//
//  J1  A slot holds entries of one transaction only.
//  J2  Slots are recycled first in, first out: while a transaction is valid, so is every later one.
//  (Last
//      in, first out replays an old transaction over a newer one.)
//  J3  Commit ids are unique and ascend in the order of commits; they never cross an epoch.
//  J4  A transaction is durable when commit() has returned; all of it or nothing is replayed.
//  J5  Slots of in-flight transactions are freed only by a later transaction that was written when
//      their home pages were durable (the caller's duty, see write()) and that is committed: it
//      says in its header which ones replay may still need. So every slot that is ever written
//      over was given up durably before, and in a dense ring a gap among the needed ones is never
//      a crash: it is rot, and is named (P3).
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/aligned.h"
#include "format/micro_journal.h"
#include "store/region.h"

namespace firn::store {

// The globally ascending identifier. Volatile: a new epoch begins at 1.
class CommitIds {
 public:
  uint64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }
  uint64_t peek() const { return next_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> next_{1};
};

struct JournalShape {
  uint64_t slot_bytes = 4096;
  uint64_t slots = 4096;
  uint64_t first_byte = 0;  // Where the ring begins in the region.
  // Nobody else takes ids from this ring's source, and a transaction is written only when the one
  // before is committed: ids have no gaps, and a lost one is noticed.
  bool dense = false;
};

class Journal {
 public:
  // `epoch` must be new for this region: nothing in it is replayed any more. Several journals may
  // share `ids` and a region, each with slots of its own; each belongs to one thread.
  Journal(Region& region, JournalShape shape, const format::Uuid& uuid, uint64_t epoch,
          CommitIds& ids);

  uint64_t slots_for(uint64_t payload_bytes) const;
  uint64_t free_slots() const { return free_slots_; }
  uint64_t slots() const { return shape_.slots; }
  uint64_t payload_bytes_per_slot() const { return shape_.slot_bytes - sizeof(format::SlotHeader); }

  // Writes a transaction into free slots; not yet durable. The payload must need no more than
  // free_slots() (CHECK) and is not empty. The caller vouches that the home pages of transactions
  // up to `home_durable` are durable by now (J5). 0: none. Returns its commit id.
  Result<uint64_t> write(Io& io, View payload, uint64_t home_durable);
  // Makes all written transactions durable, and frees those of which they said that they are not
  // needed.
  Result<void> commit(Io& io);
  // All home pages of transactions up to `id` are written (not necessarily durable): they are in
  // flight.
  void applied(uint64_t id);
  uint64_t applied() const { return applied_; }

  // Slots of transactions that wait only for a later one to free them.
  uint64_t in_flight_slots() const;
  bool empty() const { return queue_.empty(); }
  uint64_t commits() const { return commits_; }
  uint64_t transactions() const { return transactions_; }
  uint64_t bytes_written() const { return bytes_written_; }

 private:
  struct Transaction {
    uint64_t id;
    uint64_t slots;
  };
  Region& region_;
  JournalShape shape_;
  format::Uuid uuid_;
  uint64_t epoch_;
  CommitIds& ids_;
  uint64_t next_slot_ = 0;
  uint64_t free_slots_;
  uint64_t applied_ = 0;
  uint64_t given_up_ = 0;  // Transactions up to here are not needed, as the last one written says.
  std::deque<Transaction> queue_;  // Oldest first.
  uint64_t commits_ = 0;
  uint64_t transactions_ = 0;
  uint64_t bytes_written_ = 0;
};

// A complete transaction found in a region.
struct Replayed {
  uint64_t id = 0;
  std::vector<std::byte> payload;
};
// The valid, complete transactions of `epoch`, in ascending order of commit id. In a dense ring
// those that the newest one needs and no others, and none may be missing: Errc::corrupt names it.
// Elsewhere all; gaps do not end it: a slow writer may hold an old id while newer ones are
// recycled.
Result<std::vector<Replayed>> find_transactions(Io& io, Region& region, JournalShape shape,
                                                const format::Uuid& uuid, uint64_t epoch);

}  // namespace firn::store
