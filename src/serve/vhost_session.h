// SPDX-License-Identifier: Apache-2.0
// VhostSession: one front end, from its connection to its end: features, memory, rings.
//
// Contract:
//  S1  What the front end says is decoded by wire/ and judged here before anything is done. Who
//      breaks the protocol is dropped, with one log line that names the message; what cannot be
//      done is refused, where the message asks for an answer.
//  S2  The table of memory may change while rings run: they stop, finish what they hold, find
//      their places again and go on.
//  S3  When run() returns nothing is in flight and no memory of the guest is mapped.
//  S4  With memory for the requests in flight (GET_INFLIGHT_FD) our successor gives the guest every
//      answer that we did not, whenever we die. That memory also keeps what the guest has set.
//  S5  Descriptors that came with a message are used, or closed.
//
// Knows no kind of device: see vhost_device.h.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/shared_map.h"
#include "serve/guest_memory.h"
#include "serve/log.h"
#include "serve/vhost_queue.h"
#include "wire/vhost_user.h"

namespace firn::serve {

class VhostSession final : private VhostQueue::Owner {
 public:
  // `name` is for the log. Device and counters outlive the session.
  VhostSession(Io& io, Log& log, VhostDevice& device, VhostCounters& counters, std::string name,
               std::unique_ptr<Socket> socket);
  ~VhostSession();
  VhostSession(const VhostSession&) = delete;
  VhostSession& operator=(const VhostSession&) = delete;

  void run();
  // Takes nothing new, answers what is in flight, then hangs up: the front end will come back to
  // our successor. Does not wait.
  void begin_drain();
  // Hangs up now. What was given to the device still runs to its end.
  void abort() { io_.shutdown(*socket_); }
  // Its front end has left; what it left behind is being finished.
  bool is_ending() const { return ending_; }
  const std::string& name() const { return name_; }
  // The device's configuration may have changed: tells the guest if so. Does not wait.
  void look_at_config();

 private:
  using Request = wire::vhost::Request;
  using Header = wire::vhost::Header;

  // A message, and what came beside it.
  struct Message {
    Header header;
    View payload;
    std::vector<Fd> fds;
    Request request() const { return header.request; }
  };

  // --- messages
  Result<bool> receive(Message& message);
  Result<bool> receive_exactly(Bytes into, std::vector<Fd>& fds);
  Result<void> obey(Message& message);
  Result<void> reply(const Message& message, View payload, std::span<const int> fds = {});
  Result<void> reply_number(const Message& message, uint64_t number);
  struct Rule;
  static const Rule* rule_of(Request request);
  static Result<void> check_descriptors(const Rule& rule, const Message& message);

  // --- what they want
  Result<void> get_features(Message& message);
  Result<void> set_features(Message& message);
  Result<void> get_protocol_features(Message& message);
  Result<void> set_protocol_features(Message& message);
  Result<void> get_queue_count(Message& message);
  Result<void> get_memory_slots(Message& message);
  Result<void> set_owner(Message& message);
  Result<void> reset(Message& message);
  Result<void> set_memory(Message& message);
  Result<void> add_region(Message& message);
  Result<void> remove_region(Message& message);
  Result<void> set_size(Message& message);
  Result<void> set_base(Message& message);
  Result<void> get_base(Message& message);
  Result<void> set_address(Message& message);
  Result<void> set_descriptor(Message& message);
  Result<void> set_enable(Message& message);
  Result<void> get_config(Message& message);
  Result<void> set_config(Message& message);
  Result<void> give_inflight(Message& message);
  Result<void> take_inflight(Message& message);
  Result<void> set_backend_socket(Message& message);

  // --- what that takes
  Result<VhostQueue*> queue(uint32_t index, bool stopped);
  void enable(VhostQueue& queue, bool enabled);
  Result<void> start_if_ready(uint32_t index);
  void stop_all(VhostQueue::Stop how);
  void pause_all();
  void resume_all();
  Result<Bytes> log_of(uint32_t index, uint32_t size) const;
  void keep();
  size_t log_bytes(uint16_t queue_size) const;

  void ring_broken(uint16_t number, std::string_view why) override;
  void memory_lost() override;
  void tell_config_changed();
  bool packed() const;

  Io& io_;
  Log& log_;
  VhostDevice& device_;
  VhostCounters& counters_;
  std::string name_;
  std::unique_ptr<Socket> socket_;
  std::unique_ptr<Socket> backend_;  // On which we ask the front end.
  std::array<std::byte, wire::vhost::kPayloadMax> room_;
  uint64_t features_ = 0;
  uint64_t protocol_features_ = 0;
  GuestMemory memory_;
  std::unique_ptr<SharedMap> inflight_;
  wire::vhost::Inflight inflight_shape_;
  bool recalled_ = false;  // The device knows what the guest has set.
  std::vector<std::unique_ptr<VhostQueue>> queues_;
  uint64_t config_seen_ = 0;
  bool telling_ = false;
  bool draining_ = false;
  bool ending_ = false;
  bool lost_ = false;
  Group group_;  // Last: its fibers use everything above.
};

}  // namespace firn::serve
