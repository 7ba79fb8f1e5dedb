// SPDX-License-Identifier: Apache-2.0
// Channel: what a firn_channel is: a vhost-user-blk front end of our own over a memfd.
//
// Contract:
//  F1  The socket carries what is said once; requests and completions go through the rings alone. A
//      request costs no system call while both sides are busy, and no allocation ever.
//  F2  No wake-up is lost: before it sleeps a wait asks the server to signal, and looks once more.
//  F3  Each request that was taken has one completion, also when the server died meanwhile: the log
//      of requests in flight (the server's, in memory that we keep) lets its successor do them
//      again. Without such a log they end with -ECONNRESET.
//  F4  What the server writes is believed for data and status alone: a ring that says what cannot
//      be ends the channel.
//
// One thread at a time.
#pragma once

#include <firn.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "libfirn/driver_ring.h"
#include "libfirn/messenger.h"

namespace firn::libfirn {

class Channel {
 public:
  static Result<std::unique_ptr<Channel>> open(std::string path, const ::firn_options& options);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  Result<::firn_geometry> geometry();
  void* allocate(size_t bytes);
  Result<void> show(int fd, uint64_t offset, void* at, size_t bytes);

  // False: as many as fit are in flight.
  Result<bool> submit(const ::firn_request& request);
  void commit();
  size_t poll(std::span<::firn_completion> into);
  Result<size_t> wait(std::span<::firn_completion> into, int timeout_ms);
  // True: something is there already.
  Result<bool> arm();
  int event_fd() const { return epoll_.get(); }
  const ::firn_statistics& statistics() const { return statistics_; }

 private:
  static constexpr uint64_t kHeadBytes = 64;
  static constexpr uint64_t kPartBytes = 1 << 20;  // The most that one descriptor has.
  static constexpr uint32_t kEffectMax = 1 << 30;
  static constexpr uint64_t kRegionStride = uint64_t{1} << 40;
  struct Slot {
    uint64_t cookie = 0;
    uint16_t op = 0;
    uint16_t next = 0;  // Of those that are free.
  };
  struct Queue {
    std::unique_ptr<DriverRing> ring;
    Handle kick;
    Handle call;
    std::vector<Slot> slots;
    uint16_t free = 0;
    uint16_t in_flight = 0;
    bool added = false;  // Since the last commit().
  };
  struct Region {
    int fd = -1;
    uint64_t offset = 0;
    std::byte* at = nullptr;
    uint64_t bytes = 0;
  };

  Channel(std::string path, const ::firn_options& options);
  Result<void> make_memory();
  Result<void> negotiate(Messenger& messenger);
  Result<void> tell_memory(Messenger& messenger);
  Result<void> set_up(Messenger& messenger);
  Result<void> start_queue(Messenger& messenger, size_t index);
  Result<void> keep_log(Messenger& messenger);
  Result<void> revive();
  Result<void> check();
  void lose_all();
  void watch_descriptors();
  uint64_t transfer_max() const;
  std::optional<uint64_t> guest_address(const void* buffer, uint64_t bytes) const;
  std::byte* head_of(size_t queue, uint16_t slot) const;
  uint64_t guest_head_of(size_t queue, uint16_t slot) const;
  Result<size_t> parts_of(const ::firn_request& request, uint16_t slot,
                          std::span<DriverRing::Part> parts);
  bool ask_for_signals();
  bool spin(uint64_t begun_ns);
  Result<void> rest(int timeout_ms);

  std::string path_;
  ::firn_options options_;
  uint64_t features_ = 0;
  uint64_t protocol_ = 0;
  std::optional<Messenger> messenger_;
  std::vector<Region> regions_;  // The first is our own.
  Handle memory_;
  std::byte* base_ = nullptr;
  uint64_t memory_bytes_ = 0;
  uint64_t heads_at_ = 0;
  uint64_t arena_at_ = 0;  // What firn_allocate() gives from.
  std::vector<Queue> queues_;
  uint64_t in_flight_ = 0;
  bool dead_ = false;                    // There is no server any more that could go on.
  std::vector<::firn_completion> lost_;  // Completions of what cannot be done again.
  Handle log_;
  wire::vhost::Inflight log_shape_;
  Handle epoll_;
  uint64_t expected_wait_ns_ = 0;
  ::firn_statistics statistics_{};
};

}  // namespace firn::libfirn
