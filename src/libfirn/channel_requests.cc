// SPDX-License-Identifier: Apache-2.0
// The requests of a channel: into the rings, out of them, and what is between.
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "libfirn/channel.h"
#include "libfirn/clock.h"

namespace firn::libfirn {

namespace virtio = wire::virtio;

namespace {

// Of a request's head.
constexpr uint64_t kSegmentAt = 16;
constexpr uint64_t kStatusAt = 32;
constexpr unsigned kLooksOfClock = 32;  // So many looks at the rings for one at the clock.

virtio::BlkType type_of(uint16_t op) {
  constexpr std::array<virtio::BlkType, 5> kTypes{virtio::BlkType::in, virtio::BlkType::out,
                                                  virtio::BlkType::flush, virtio::BlkType::discard,
                                                  virtio::BlkType::zero};
  return kTypes[op];
}

int32_t result_of(std::byte status) {
  if (status == std::byte{0}) return 0;
  return status == std::byte{2} ? -EOPNOTSUPP : -EIO;
}

}  // namespace

std::byte* Channel::head_of(size_t queue, uint16_t slot) const {
  return base_ + heads_at_ + (queue * options_.depth + slot) * kHeadBytes;
}

uint64_t Channel::guest_head_of(size_t queue, uint16_t slot) const {
  return DriverRing::kGuestBase + static_cast<uint64_t>(head_of(queue, slot) - base_);
}

std::optional<uint64_t> Channel::guest_address(const void* buffer, uint64_t bytes) const {
  const auto* const at = static_cast<const std::byte*>(buffer);
  for (size_t i = 0; i < regions_.size(); ++i) {
    const Region& region = regions_[i];
    if (at < region.at || at >= region.at + region.bytes) continue;
    const auto within = static_cast<uint64_t>(at - region.at);
    if (bytes > region.bytes - within) return std::nullopt;
    return DriverRing::kGuestBase + i * kRegionStride + within;
  }
  return std::nullopt;
}

uint64_t Channel::transfer_max() const {
  const bool tables = (features_ & virtio::kIndirect) != 0;
  return tables ? (DriverRing::kTableParts - 2) * kPartBytes : kPartBytes;
}

// Header, data or segment, status: how many parts.
Result<size_t> Channel::parts_of(const ::firn_request& request, uint16_t slot,
                                 std::span<DriverRing::Part> parts) {
  const uint64_t head = guest_head_of(request.queue, slot);
  size_t count = 0;
  parts[count++] = {head, 16, false};
  if (request.op == FIRN_READ || request.op == FIRN_WRITE) {
    const auto data = guest_address(request.buffer, request.length);
    if (!data)
      return fail_errno(EFAULT, "a buffer of {} bytes that the server does not see",
                        request.length);
    for (uint64_t at = 0; at < request.length; at += kPartBytes) {
      const auto part = static_cast<uint32_t>(std::min<uint64_t>(kPartBytes, request.length - at));
      parts[count++] = {*data + at, part, request.op == FIRN_READ};
    }
  } else if (request.op != FIRN_FLUSH) {
    const virtio::BlkSegment segment{request.offset / virtio::kSectorBytes,
                                     request.length / virtio::kSectorBytes,
                                     request.op == FIRN_ZERO ? virtio::kBlkUnmap : 0};
    std::memcpy(head_of(request.queue, slot) + kSegmentAt, &segment, sizeof(segment));
    parts[count++] = {head + kSegmentAt, sizeof(segment), false};
  }
  parts[count++] = {head + kStatusAt, 1, true};
  return count;
}

Result<bool> Channel::submit(const ::firn_request& request) {
  const bool moves = request.op == FIRN_READ || request.op == FIRN_WRITE;
  const uint64_t most = moves ? transfer_max() : kEffectMax;
  if (request.queue >= queues_.size() || request.op > FIRN_ZERO ||
      (request.op != FIRN_FLUSH &&
       (request.length == 0 || request.length > most ||
        (request.length | request.offset) % virtio::kSectorBytes != 0))) {
    return fail(Errc::invalid, "request {} of {} bytes at {} on queue {} cannot be", request.op,
                request.length, request.offset, request.queue);
  }
  if (dead_) return fail_errno(ECONNRESET, "the server of {} is gone", path_);
  Queue& queue = queues_[request.queue];
  if (queue.free >= queue.slots.size()) return false;
  const uint16_t number = queue.free;
  Slot& slot = queue.slots[number];
  std::array<DriverRing::Part, DriverRing::kTableParts> parts;
  const size_t count = TRY(parts_of(request, number, parts));
  const virtio::BlkHeader header{
      static_cast<uint32_t>(type_of(request.op)), 0,
      request.op == FIRN_FLUSH || !moves ? 0 : request.offset / virtio::kSectorBytes};
  std::byte* const head = head_of(request.queue, number);
  std::memcpy(head, &header, sizeof(header));
  head[kStatusAt] = std::byte{0xff};
  if (!queue.ring->add(std::span(parts).first(count), number)) return false;
  slot.cookie = request.cookie;
  slot.op = request.op;
  queue.free = slot.next;
  queue.added = true;
  ++queue.in_flight;
  ++in_flight_;
  return true;
}

void Channel::commit() {
  for (Queue& queue : queues_) {
    if (!queue.added) continue;
    queue.added = false;
    if (!queue.ring->publish()) continue;
    ++statistics_.kicks;
    (void)::eventfd_write(queue.kick.get(), 1);
  }
}

size_t Channel::poll(std::span<::firn_completion> into) {
  size_t count = 0;
  while (count < into.size() && !lost_.empty()) {
    into[count++] = lost_.back();
    lost_.pop_back();
    --in_flight_;
  }
  for (size_t q = 0; q < queues_.size() && count < into.size(); ++q) {
    Queue& queue = queues_[q];
    while (count < into.size() && queue.in_flight > 0) {
      const auto done = queue.ring->take();
      if (!done) break;
      Slot& slot = queue.slots[done->token];
      const std::byte status = copy_once<std::byte>(head_of(q, done->token) + kStatusAt);
      into[count++] = {slot.cookie, result_of(status), slot.op, static_cast<uint16_t>(q)};
      slot.next = std::exchange(queue.free, done->token);
      --queue.in_flight;
      --in_flight_;
    }
  }
  return count;
}

// --- waiting

bool Channel::ask_for_signals() {
  bool there = !lost_.empty();
  for (Queue& queue : queues_) there |= queue.in_flight > 0 && queue.ring->arm();
  return there;
}

// Looks for a while, if waits have been short of late. True: something is there.
bool Channel::spin(uint64_t begun_ns) {
  if (options_.spin_us == FIRN_NO_SPIN) return false;
  const uint64_t limit = uint64_t{options_.spin_us} * 1000;
  if (expected_wait_ns_ > limit) return false;
  for (unsigned looks = 1;; ++looks) {
    for (const Queue& queue : queues_) {
      if (queue.in_flight > 0 && queue.ring->has_done()) return true;
    }
    __builtin_ia32_pause();
    if (looks % kLooksOfClock == 0 && now_ns() - begun_ns > limit) return false;
  }
}

Result<void> Channel::rest(int timeout_ms) {
  ++statistics_.sleeps;
  ::pollfd wait{epoll_.get(), POLLIN, 0};
  if (::poll(&wait, 1, timeout_ms) < 0 && errno != EINTR) return fail_errno(errno, "poll");
  for (Queue& queue : queues_) {
    ::eventfd_t count = 0;
    if (::eventfd_read(queue.call.get(), &count) == 0) statistics_.calls += count;
    queue.ring->disarm();
  }
  return ok;
}

Result<size_t> Channel::wait(std::span<::firn_completion> into, int timeout_ms) {
  commit();
  size_t count = poll(into);
  if (count > 0 || in_flight_ == 0) return count;
  const uint64_t begun = now_ns();
  const uint64_t limit =
      timeout_ms < 0 ? UINT64_MAX : uint64_t{1'000'000} * static_cast<unsigned>(timeout_ms);
  for (;;) {
    if (!spin(now_ns()) && !ask_for_signals()) {
      const uint64_t passed = now_ns() - begun;
      if (passed >= limit) return size_t{0};
      const uint64_t left = (limit - passed + 999'999) / 1'000'000;
      TRY(rest(timeout_ms < 0 ? -1 : static_cast<int>(left)));
    }
    count = poll(into);
    if (count > 0) break;
    const Result<void> alive = check();
    if (alive) continue;
    count = poll(into);
    return count > 0 ? Result<size_t>(count) : Result<size_t>(alive.error());
  }
  // One long wait is soon forgotten.
  const auto lasted = std::min<uint64_t>(now_ns() - begun, 2'000'000);
  expected_wait_ns_ += (lasted >> 3) - (expected_wait_ns_ >> 3);
  return count;
}

Result<bool> Channel::arm() {
  commit();
  TRY(check());
  for (Queue& queue : queues_) {
    ::eventfd_t count = 0;
    if (::eventfd_read(queue.call.get(), &count) == 0) statistics_.calls += count;
  }
  return ask_for_signals();
}

}  // namespace firn::libfirn
