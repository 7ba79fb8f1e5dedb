// SPDX-License-Identifier: Apache-2.0
// Virtqueue: the device's side of one ring in guest memory, split or packed.
//
// Contract:
//  Q1  Everything in the ring is hostile: each value is copied once and then judged; loops are
//      bounded by the ring's size; what a chain points to is checked against GuestMemory. Who
//      breaks the rules gets Took::broken and a sentence (why()), and nothing of that chain is
//      handed out.
//  Q2  A chain that was taken and not given back cannot be taken again: a guest that offers it
//      twice breaks the ring.
//  Q3  What was given back becomes visible to the guest with publish(), all of it at once.
//  Q4  No wake-up is lost: after arm() has returned false the guest signals what it adds.
//  Q5  With a log (memory that outlives us, in the front end's keeping) a successor's take() first
//      gives what was in flight when this one died, in the order in which it was taken; what was
//      published is not given again. The log's layout is the protocol's.
//
// Waits for nothing and signals nobody: who owns it does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "serve/guest_memory.h"

namespace firn::serve {

// One request: what the device may read, then what it must fill. Its vectors keep their capacity.
struct Chain {
  uint16_t id = 0;     // Split: the head's index. Packed: the buffer's id.
  uint16_t slots = 0;  // Packed: places in the ring.
  uint16_t entry = 0;  // Packed: the head's place in the log.
  std::vector<::iovec> readable;
  std::vector<::iovec> writable;
};

struct QueueShape {
  uint32_t size = 0;         // A power of two when split.
  uint64_t descriptors = 0;  // The front end's addresses.
  uint64_t available = 0;    // Packed: where the driver says when it wants signals.
  uint64_t used = 0;         // Packed: where the device does.
  uint32_t base = 0;         // Where to go on, as SET_VRING_BASE says it.
  bool packed = false;
  bool event_index = false;
  bool indirect = false;
  Bytes log;  // Of this queue; empty: none.
};

enum class Took : uint8_t { nothing, chain, broken };

class Virtqueue {
 public:
  static constexpr size_t kChainMax = 1024;  // Descriptors, whatever the ring's size.

  // Errc::invalid when the shape makes no sense or is not within the memory.
  static Result<std::unique_ptr<Virtqueue>> make(const GuestMemory& memory,
                                                 const QueueShape& shape);
  virtual ~Virtqueue() = default;
  Virtqueue(const Virtqueue&) = delete;
  Virtqueue& operator=(const Virtqueue&) = delete;

  virtual Took take(Chain& into) = 0;
  // `written`: how many bytes of the writable part, counted from its beginning.
  virtual void give_back(const Chain& chain, uint32_t written) = 0;
  virtual void publish() = 0;
  // Asked after publish(): whether the guest wants to be signalled for it.
  virtual bool wants_signal() = 0;
  // Whether the guest waits for a signal, having seen all that was published.
  virtual bool is_listening() const = 0;
  // Whether take() has something. One load from guest memory.
  virtual bool has_more() = 0;
  // Asks the guest to signal what it adds; true when something is there already.
  virtual bool arm() = 0;
  virtual void disarm() = 0;
  // Where a successor would go on when nothing is in flight.
  virtual uint32_t base() const = 0;
  // The guest's side has been told the base: the log has nothing to say to a successor.
  virtual void end_log() = 0;
  // The table of memory has changed: finds its places again. Nothing may be in flight.
  virtual Result<void> locate() = 0;
  // How many chains a predecessor left in flight.
  size_t recovered() const { return recovered_; }
  const std::string& why() const { return why_; }

  static size_t log_bytes(bool packed, uint16_t size);

 protected:
  Virtqueue(const GuestMemory& memory, const QueueShape& shape) : memory_(memory), shape_(shape) {}
  Took broken(std::string why) {
    why_ = std::move(why);
    return Took::broken;
  }
  // Adds the buffer of one descriptor. False (and why()) when it cannot be.
  bool add_buffer(Chain& into, uint64_t address, uint32_t length, bool writable);
  const std::byte* find_table(uint64_t address, uint32_t length, bool alone, size_t so_far);
  bool take_busy(uint16_t id);
  void put_busy(uint16_t id) { busy_[id] = false; }

  const GuestMemory& memory_;
  QueueShape shape_;
  std::string why_;
  size_t recovered_ = 0;
  std::vector<bool> busy_ = std::vector<bool>(shape_.size);
};

// The two of them; for make() alone.
std::unique_ptr<Virtqueue> make_split_queue(const GuestMemory& memory, const QueueShape& shape);
std::unique_ptr<Virtqueue> make_packed_queue(const GuestMemory& memory, const QueueShape& shape);

}  // namespace firn::serve
