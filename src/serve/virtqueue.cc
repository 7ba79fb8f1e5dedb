// SPDX-License-Identifier: Apache-2.0
#include "serve/virtqueue.h"

#include <bit>

#include "serve/inflight_log.h"
#include "wire/virtio.h"

namespace firn::serve {

using wire::virtio::kDescriptorBytes;

Result<std::unique_ptr<Virtqueue>> Virtqueue::make(const GuestMemory& memory,
                                                   const QueueShape& shape) {
  if (shape.size == 0 || shape.size > wire::vhost::kQueueSizeMax ||
      (!shape.packed && !std::has_single_bit(shape.size))) {
    return fail(Errc::invalid, "a ring cannot have {} places", shape.size);
  }
  if (!shape.log.empty() &&
      shape.log.size() < log_bytes(shape.packed, static_cast<uint16_t>(shape.size))) {
    return fail(Errc::invalid, "the log of requests in flight is too small for {} places",
                shape.size);
  }
  std::unique_ptr<Virtqueue> made =
      shape.packed ? make_packed_queue(memory, shape) : make_split_queue(memory, shape);
  TRY(made->locate());
  return made;
}

size_t Virtqueue::log_bytes(bool packed, uint16_t size) {
  return packed ? PackedLog::bytes(size) : SplitLog::bytes(size);
}

bool Virtqueue::add_buffer(Chain& into, uint64_t address, uint32_t length, bool writable) {
  if (!writable && !into.writable.empty()) {
    why_ = "a chain has something to read behind something to write";
    return false;
  }
  if (memory_.find(address, length, writable ? into.writable : into.readable)) return true;
  why_ = fmt::format("a buffer of {} bytes at {:#x} is not in the guest's memory", length, address);
  return false;
}

const std::byte* Virtqueue::find_table(uint64_t address, uint32_t length, bool alone,
                                       size_t so_far) {
  const size_t count = length / kDescriptorBytes;
  const std::byte* const table = memory_.find_whole(address, length);
  if (!shape_.indirect || !alone || count == 0 || length % kDescriptorBytes != 0 ||
      so_far + count > kChainMax || table == nullptr) {
    why_ = fmt::format("an indirect table of {} bytes at {:#x} cannot be", length, address);
    return nullptr;
  }
  return table;
}

bool Virtqueue::take_busy(uint16_t id) {
  if (id >= shape_.size) {
    why_ = fmt::format("buffer {} in a ring of {} places", id, shape_.size);
    return false;
  }
  if (busy_[id]) {
    why_ = fmt::format("buffer {} is offered while it is in flight", id);
    return false;
  }
  busy_[id] = true;
  return true;
}

}  // namespace firn::serve
