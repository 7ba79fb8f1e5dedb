// SPDX-License-Identifier: Apache-2.0
// SplitLog, PackedLog: which requests of one queue are in flight, in memory that outlives us.
//
// Contract:
//  L1  The steps and the layout are the protocol's ("Inflight I/O tracking"), so that another
//      program could take over.
//  L2  The memory is shared with the front end: what is read from it at a take-over is bounded and
//      judged; afterwards it is only written.
//  L3  Stores that a take-over relies on are in order: what is taken is logged before it is worked
//      on, and stays so until its used entry is visible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "wire/virtio.h"

namespace firn::serve {

class SplitLog {
 public:
  static size_t bytes(uint16_t size);
  // An empty `room`: every call does nothing.
  SplitLog(Bytes room, uint16_t size) : room_(room), size_(size) {}
  bool exists() const { return !room_.empty(); }
  // Whether a predecessor died over it: who stopped in order has ended it.
  bool is_begun() const;
  void end();

  // What a predecessor left, in order, given the used ring's index. Begins the log when it is new.
  std::vector<uint16_t> recover(uint16_t used_index);

  void took(uint16_t head);
  void will_give(uint16_t head);   // Before the used index moves ...
  void gave(uint16_t used_index);  // ... and after it has moved over all of them.

 private:
  std::byte* entry(size_t head) const;
  Bytes room_;
  uint16_t size_;
  uint64_t counter_ = 0;
  std::vector<uint16_t> batch_;
};

class PackedLog {
 public:
  using Descriptor = wire::virtio::PackedDescriptor;
  struct Place {  // In the ring.
    uint16_t index = 0;
    bool wrap = true;
    bool operator==(const Place&) const = default;
  };
  struct Left {
    uint16_t entry = 0;
    std::vector<Descriptor> descriptors;
  };

  static size_t bytes(uint16_t size);
  PackedLog(Bytes room, uint16_t size);
  bool exists() const { return !room_.empty(); }
  // Whether a predecessor died over it; if not, begin() starts it at `used`.
  bool is_begun() const;
  void end();
  void begin(Place used);
  // Whether the ring's entry at old_used() was published decides which state holds.
  Place old_used() const;
  std::vector<Left> recover(bool published);
  Place used() const { return used_; }

  // The log's entry for the chain.
  uint16_t took(std::span<const Descriptor> descriptors);
  void will_give(uint16_t entry, Place used_after);
  void gave();

 private:
  std::byte* entry(size_t index) const;
  void store_place(size_t at_index, size_t at_wrap, Place place);
  Bytes room_;
  uint16_t size_;
  uint64_t counter_ = 0;
  Place used_;
  // The free list, as we know it: never read back.
  std::vector<uint16_t> next_;
  std::vector<uint16_t> last_;
  uint16_t free_ = 0;
  std::vector<uint16_t> batch_;
};

}  // namespace firn::serve
