// SPDX-License-Identifier: Apache-2.0
// Notes on the design. One fiber reads messages and does what they say, so that their order is
// kept; it waits for requests in flight where a message changes what they use (vhost_requests.cc).
#include "serve/vhost_session.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"

namespace firn::serve {

namespace vhost = wire::vhost;

VhostSession::VhostSession(Io& io, Log& log, VhostDevice& device, VhostCounters& counters,
                           std::string name, std::unique_ptr<Socket> socket)
    : io_(io),
      log_(log),
      device_(device),
      counters_(counters),
      name_(std::move(name)),
      socket_(std::move(socket)),
      config_seen_(device.config_mark()),
      group_(io) {
  VhostQueue::Owner& owner = *this;
  for (uint16_t i = 0; i < device.queues_max(); ++i) {
    queues_.push_back(std::make_unique<VhostQueue>(io, device, memory_, counters, owner, i));
  }
}

VhostSession::~VhostSession() = default;

void VhostSession::run() {
  ++counters_.connections;
  ++counters_.connections_total;
  log_.line(Severity::info, "front end connected", name_, socket_->peer());
  std::string_view why = "it hung up";
  for (;;) {
    Message message;
    const Result<bool> there = receive(message);
    Result<void> obeyed;
    if (there && *there && !draining_) obeyed = obey(message);
    if (there && *there && obeyed) continue;
    if (draining_) {
      why = "this server is ending";
    } else if (lost_) {
      why = "its memory was taken away";
    } else if (!there || !obeyed) {
      why = "it was dropped";
      ++counters_.protocol_errors;
      log_.line(Severity::warning, "front end dropped", name_,
                text_of(there ? obeyed.error() : there.error()));
    }
    break;
  }
  ending_ = true;
  io_.shutdown(*socket_);
  if (backend_ != nullptr) io_.shutdown(*backend_);
  // Without a log, a front end that lives on will say everything again from the used index that it
  // saw: what ends from now on must not move that.
  const bool may_publish = draining_ || inflight_ != nullptr;
  stop_all(may_publish ? VhostQueue::Stop::logged : VhostQueue::Stop::abandoned);
  group_.wait();
  memory_.clear();
  inflight_.reset();
  --counters_.connections;
  log_.line(Severity::info, "front end left", name_, why);
}

void VhostSession::begin_drain() {
  if (draining_) return;
  draining_ = true;
  io_.spawn(group_, [this] {
    pause_all();
    io_.shutdown(*socket_);
  });
}

void VhostSession::ring_broken(uint16_t number, std::string_view why) {
  log_.line(Severity::warning, "ring broken", name_, fmt::format("ring {}: {}", number, why));
}

void VhostSession::memory_lost() {
  if (std::exchange(lost_, true)) return;
  log_.line(Severity::error, "front end dropped", name_,
            "guest memory was taken away while it was in use");
  io_.shutdown(*socket_);
}

// --- messages

Result<bool> VhostSession::receive_exactly(Bytes into, std::vector<Fd>& fds) {
  while (!into.empty()) {
    const size_t got = TRY(io_.receive(*socket_, into, fds));
    if (got == 0) return false;
    into = into.subspan(got);
    if (fds.size() > Io::kDescriptorsMax) {
      return fail(Errc::invalid, "a message with {} descriptors", fds.size());
    }
  }
  return true;
}

// False: there is no more.
Result<bool> VhostSession::receive(Message& message) {
  const Bytes head = Bytes(room_).first(vhost::kHeaderBytes);
  const bool begun = TRY(receive_exactly(head, message.fds));
  if (!begun) return false;
  message.header = TRY(vhost::decode_header(head));
  const Bytes payload = Bytes(room_).first(message.header.payload_bytes);
  const bool whole = TRY(receive_exactly(payload, message.fds));
  if (!whole) return fail(Errc::invalid, "it left in the middle of a message");
  message.payload = payload;
  if (message.header.is_reply()) return fail(Errc::invalid, "a reply to nothing we asked");
  return true;
}

// What there is to know about a message before it is obeyed.
struct VhostSession::Rule {
  enum class Fds : uint8_t { none, one, maybe, by_number, by_table };
  Request request;
  bool replies;  // With what it asked for; others only say how it went.
  Fds fds;
  Result<void> (VhostSession::*obey)(Message&);
};

const VhostSession::Rule* VhostSession::rule_of(Request request) {
  using enum Rule::Fds;
  using Self = VhostSession;
  static constexpr Rule kRules[] = {
      {Request::get_features, true, none, &Self::get_features},
      {Request::set_features, false, none, &Self::set_features},
      {Request::set_owner, false, none, &Self::set_owner},
      {Request::reset_owner, false, none, &Self::reset},
      {Request::set_memory_table, false, by_table, &Self::set_memory},
      {Request::set_vring_size, false, none, &Self::set_size},
      {Request::set_vring_address, false, none, &Self::set_address},
      {Request::set_vring_base, false, none, &Self::set_base},
      {Request::get_vring_base, true, none, &Self::get_base},
      {Request::set_vring_kick, false, by_number, &Self::set_descriptor},
      {Request::set_vring_call, false, by_number, &Self::set_descriptor},
      {Request::set_vring_error, false, by_number, &Self::set_descriptor},
      {Request::get_protocol_features, true, none, &Self::get_protocol_features},
      {Request::set_protocol_features, false, none, &Self::set_protocol_features},
      {Request::get_queue_count, true, none, &Self::get_queue_count},
      {Request::set_vring_enable, false, none, &Self::set_enable},
      {Request::set_backend_socket, false, one, &Self::set_backend_socket},
      {Request::get_config, true, none, &Self::get_config},
      {Request::set_config, false, none, &Self::set_config},
      {Request::get_inflight, true, none, &Self::give_inflight},
      {Request::set_inflight, false, one, &Self::take_inflight},
      {Request::reset_device, false, none, &Self::reset},
      {Request::get_memory_slots, true, none, &Self::get_memory_slots},
      {Request::add_memory_region, false, one, &Self::add_region},
      // Some front ends send a descriptor along, and nobody needs it.
      {Request::remove_memory_region, false, maybe, &Self::remove_region},
  };
  for (const Rule& rule : kRules) {
    if (rule.request == request) return &rule;
  }
  return nullptr;
}

Result<void> VhostSession::check_descriptors(const Rule& rule, const Message& message) {
  size_t wanted = 0;
  switch (rule.fds) {
    case Rule::Fds::none:
      break;
    case Rule::Fds::one:
      wanted = 1;
      break;
    case Rule::Fds::maybe:
      wanted = std::min<size_t>(message.fds.size(), 1);
      break;
    case Rule::Fds::by_number:
      wanted = TRY(vhost::decode_descriptor(message.payload)).has_descriptor ? 1 : 0;
      break;
    case Rule::Fds::by_table:
      wanted = TRY(vhost::decode_memory_table(message.payload)).count;
      break;
  }
  if (message.fds.size() == wanted) return ok;
  return fail(Errc::invalid, "{} with {} descriptors, not {}", vhost::name_of(rule.request),
              message.fds.size(), wanted);
}

// An error is an answer where one was asked for, and the end where not.
Result<void> VhostSession::obey(Message& message) {
  const Rule* const rule = rule_of(message.request());
  const bool asked = message.header.needs_reply() && (rule == nullptr || !rule->replies) &&
                     (protocol_features_ & vhost::kProtocolReplyAck) != 0;
  Result<void> done;
  if (rule == nullptr) {
    done = fail(Errc::unsupported, "message {} ({}) is not known here",
                static_cast<uint32_t>(message.request()), vhost::name_of(message.request()));
  } else {
    done = check_descriptors(*rule, message);
    if (done) done = (this->*rule->obey)(message);
  }
  if (!asked) return done;
  if (!done) {
    log_.line(Severity::warning, "request refused", name_,
              fmt::format("{}: {}", vhost::name_of(message.request()), text_of(done.error())));
  }
  return reply_number(message, done ? 0 : 1);
}

Result<void> VhostSession::reply(const Message& message, View payload, std::span<const int> fds) {
  const auto head = vhost::encode(Header{message.request(), vhost::kVersion | vhost::kReply,
                                         static_cast<uint32_t>(payload.size())});
  const std::array<::iovec, 2> slices{slice_of(View(head)), slice_of(payload)};
  return io_.send(*socket_, slices, fds);
}

Result<void> VhostSession::reply_number(const Message& message, uint64_t number) {
  return reply(message, vhost::encode_number(number));
}

}  // namespace firn::serve
