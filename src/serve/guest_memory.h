// SPDX-License-Identifier: Apache-2.0
// GuestMemory: what a front end lets us see of its guest's memory, and where an address of the
// guest is here.
//
// Contract:
//  G1  Nothing outside of the regions that the front end gave is ever handed out; a range that
//      wraps or is not covered altogether is refused.
//  G2  Regions do not overlap, in guest addresses or in the front end's.
//  G3  Pointers hold until the region is removed: who changes the table has stopped who uses them.
//  G4  Memory that its owner takes away reads as zeroes, and makes broken() true (io/shared_map.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "io/shared_map.h"
#include "wire/vhost_user.h"

namespace firn::serve {

class GuestMemory {
 public:
  static constexpr size_t kSlotsMax = 256;

  Result<void> add(const wire::vhost::Region& region, const Fd& fd);
  // By guest address, user address and size. Errc::not_found when there is none like it.
  Result<void> remove(const wire::vhost::Region& region);
  void clear() { slots_.clear(); }
  size_t count() const { return slots_.size(); }

  // Appends where [guest, guest + bytes) is; several slices when it crosses regions. False, and
  // nothing appended, when not all of it is there.
  bool find(uint64_t guest, uint64_t bytes, std::vector<::iovec>& into) const;
  // The same in one piece; null when it is not there, or not in one region.
  std::byte* find_whole(uint64_t guest, uint64_t bytes) const;
  // By the front end's own address, as ring addresses are given.
  std::byte* find_user(uint64_t user, uint64_t bytes) const;
  bool broken() const;

 private:
  struct Slot {
    wire::vhost::Region region;
    std::unique_ptr<SharedMap> map;
  };
  const Slot* slot_of(uint64_t guest) const;
  std::vector<Slot> slots_;  // By guest address.
};

}  // namespace firn::serve
