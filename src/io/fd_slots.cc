// SPDX-License-Identifier: Apache-2.0
#include "io/fd_slots.h"

#include <liburing.h>

namespace firn {

FdSlots::FdSlots(::io_uring* ring, uint32_t count) : ring_(ring) {
  if (ring == nullptr) return;
  free_.reserve(count);
  for (uint32_t i = count; i > 0; --i) free_.push_back(static_cast<int>(i - 1));
}

int FdSlots::take(int fd) {
  if (ring_ == nullptr || free_.empty()) return -1;
  const int slot = free_.back();
  if (::io_uring_register_files_update(ring_, static_cast<unsigned>(slot), &fd, 1) != 1) return -1;
  free_.pop_back();
  ++in_use_;
  return slot;
}

void FdSlots::give_back(int slot) {
  --in_use_;
  if (ring_ == nullptr) return;
  int nobody = -1;
  // The table holds a reference to the open file: without this a close would not be one.
  (void)::io_uring_register_files_update(ring_, static_cast<unsigned>(slot), &nobody, 1);
  free_.push_back(slot);
}

}  // namespace firn
