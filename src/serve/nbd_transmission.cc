// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// Fibers of a connection: the reader (the session's own), the sender (NbdReplies::run), one for
// each request, one for each piece of a large write. A slot is taken by the reader when it
// accepts a request and comes back when the last reply has been sent, so a client that does not
// read its replies runs out of slots or of budget, and then we stop reading from it.
//
//  I1  in_flight_ counts slots between take_slot() and release().
//  I2  A slot is pushed as a reply at most once, and not touched by its request's fiber
//      afterwards.
//  I3  Only the reader touches the inbox, so the next header is always where the last payload
//      ended.
//  I4  Nobody waits for the budget while holding the sender's turn.
#include "serve/nbd_transmission.h"

#include <algorithm>
#include <cstring>

namespace firn::serve {

using wire::nbd::Chunk;
using wire::nbd::Command;
using wire::nbd::Errno;
using wire::nbd::Form;
using wire::nbd::Request;

NbdTransmission::NbdTransmission(NbdWorld& world, Io& io, Stream& stream, Inbox& inbox,
                                 NbdAgreement agreement)
    : world_(world),
      io_(io),
      stream_(stream),
      inbox_(inbox),
      agreed_(std::move(agreement)),
      device_(*agreed_.exported.device),
      counters_(world.counters_of(agreed_.exported.name)),
      budget_(io, world.limits.payload_bytes),
      replies_(io, stream, *this, world.counters, agreed_.exported.completion.get(),
               world.limits.requests),
      slots_(std::make_unique<Slot[]>(world.limits.requests)),
      group_(io) {
  CHECK(inbox.capacity() >= kSmallBytes + wire::nbd::kExtendedRequestBytes);
  for (uint32_t i = 0; i < world.limits.requests; ++i) {
    slots_[i].next_free = free_;
    free_ = &slots_[i];
  }
  ++counters_.connections;
}

NbdTransmission::~NbdTransmission() { --counters_.connections; }

void NbdTransmission::read_requests() {
  io_.spawn(group_, [this] { replies_.run(); });
  while (read_request()) {
  }
}

void NbdTransmission::finish() {
  while (in_flight_ > 0) io_.park(idle_waiters_);
  replies_.finish();
  group_.wait();
}

void NbdTransmission::begin_drain() {
  draining_ = true;
  replies_.nudge();
}

// --- the reader

bool NbdTransmission::read_request() {
  const size_t bytes = wire::nbd::request_bytes(agreed_.form);
  if (inbox_.pending().size() < bytes) ++world_.counters.receives;
  const Result<bool> there = inbox_.gather(io_, stream_, bytes);
  if (draining_) {
    discard_all();
    return false;
  }
  if (!there || !*there) {
    if (!inbox_.pending().empty()) drop("it left in the middle of a request");
    return false;
  }
  const Result<Request> request =
      wire::nbd::decode_request(inbox_.pending().first(bytes), agreed_.form);
  if (!request) {
    drop(text_of(request.error()));
    return false;
  }
  inbox_.consume(bytes);
  if (request->command == Command::disconnect) return false;
  return take_request(*request);
}

bool NbdTransmission::take_request(const Request& request) {
  ++counters_.requests[NbdExportCounters::index_of(request.command)];
  if (!wire::nbd::has_payload(request, agreed_.form)) {
    Slot& slot = take_slot();
    slot.request = request;
    slot.range = {request.offset, request.length};
    const NbdVerdict verdict = judge(request, terms());
    if (!verdict.good()) {
      refuse(slot, {verdict.error, verdict.why, std::nullopt});
    } else if (request.length == 0 && request.command != Command::flush) {
      succeed(slot);  // Of nothing: unspecified by the protocol, harmless.
    } else {
      io_.spawn(group_, [this, &slot] { serve(slot); });
    }
    return true;
  }
  if (!payload_is_believable(request, agreed_.form)) {
    drop(fmt::format("a {} of {} bytes is more than {} bytes", wire::nbd::name_of(request.command),
                     request.length, wire::nbd::kPayloadMax));
    return false;
  }
  Slot& slot = take_slot();
  slot.request = request;
  slot.range = {request.offset, request.length};
  const NbdVerdict verdict = judge(request, terms());
  if (!verdict.good()) {
    const bool in_step = discard(request.length);
    refuse(slot, {verdict.error, verdict.why, std::nullopt});
    return in_step;
  }
  if (request.command == Command::block_status) return take_filter(slot);
  return request.length <= kSmallBytes ? take_small_write(slot) : take_large_write(slot);
}

bool NbdTransmission::take_small_write(Slot& slot) {
  const auto length = static_cast<size_t>(slot.request.length);
  if (length == 0) {
    succeed(slot);
    return true;
  }
  if (inbox_.pending().size() < length) ++world_.counters.receives;
  const Result<bool> there = inbox_.gather(io_, stream_, length);
  if (!there || !*there) {
    drop("it left in the middle of a write");
    abandon(slot);
    return false;
  }
  slot.data = Payload(budget_, length);
  std::memcpy(slot.data.bytes().data(), inbox_.pending().data(), length);
  inbox_.consume(length);
  io_.spawn(group_, [this, &slot] { serve(slot); });
  return true;
}

bool NbdTransmission::take_large_write(Slot& slot) {
  bool in_step = true;
  for (uint64_t at = slot.range.at; in_step && at < slot.range.end();) {
    const Range range{at, piece_at(at, slot.range.end())};
    at = range.end();
    if (!slot.result) {  // Failed already: the rest is only taken off the stream.
      in_step = discard(range.length);
      continue;
    }
    Payload data(budget_, static_cast<size_t>(range.length));
    in_step = receive_exactly(data.bytes());
    if (!in_step) break;
    ++slot.pieces;
    io_.spawn(group_,
              [this, &slot, range, held = std::move(data)] { write_piece(slot, range, held); });
  }
  if (!in_step) {
    drop("it left in the middle of a write");
    slot.result = fail(Errc::cancelled, "the payload was cut off");
  }
  io_.spawn(group_, [this, &slot] { finish_large_write(slot); });
  return in_step;
}

bool NbdTransmission::take_filter(Slot& slot) {
  const uint64_t length = slot.request.length;
  std::array<std::byte, 8 + 4 * kFilterIds> room;
  if (length > room.size()) {
    const bool in_step = discard(length);
    refuse(slot, {Errno::invalid, "the filter names too many contexts", std::nullopt});
    return in_step;
  }
  const Bytes payload = Bytes(room).first(static_cast<size_t>(length));
  if (!receive_exactly(payload)) {
    drop("it left in the middle of a block status");
    abandon(slot);
    return false;
  }
  const auto filter = wire::nbd::decode_status_filter(payload);
  const char* wrong = filter ? nullptr : "the filter is not 8 + 4 n bytes";
  for (size_t i = 0; filter && i < filter->count; ++i) {
    const uint32_t id = wire::nbd::filter_id(payload, i);
    if (id == 0 || id > agreed_.contexts.size()) wrong = "the filter names an unknown context";
    if (std::count(slot.filter.begin(), slot.filter.end(), id) > 0)
      wrong = "the filter repeats a context";
    slot.filter.push_back(id);
  }
  if (filter) {
    slot.range = {slot.request.offset, filter->length};
    if (filter->length == 0 || !slot.range.within(device_.geometry().bytes)) {
      wrong = "the filter's length is not within the export";
    }
  }
  if (wrong != nullptr) {
    refuse(slot, {Errno::invalid, wrong, std::nullopt});
  } else {
    io_.spawn(group_, [this, &slot] { serve(slot); });
  }
  return true;
}

bool NbdTransmission::receive_exactly(Bytes into) {
  const size_t ready = std::min(into.size(), inbox_.pending().size());
  std::memcpy(into.data(), inbox_.pending().data(), ready);
  inbox_.consume(ready);
  for (size_t done = ready; done < into.size();) {
    ++world_.counters.receives;
    const Result<size_t> got = stream_.receive(io_, into.subspan(done));
    if (!got || *got == 0) return false;
    done += *got;
  }
  return true;
}

bool NbdTransmission::discard(uint64_t bytes) {
  while (bytes > 0) {
    const Result<bool> there = inbox_.gather(io_, stream_, 1);
    if (!there || !*there) {
      drop("it left in the middle of a payload");
      return false;
    }
    const auto step = std::min<uint64_t>(bytes, inbox_.pending().size());
    inbox_.consume(static_cast<size_t>(step));
    bytes -= step;
  }
  return true;
}

// While draining: requests that nobody accepted stay unanswered, so that a client which connects
// again sends them again instead of giving its guest an error.
void NbdTransmission::discard_all() {
  for (;;) {
    inbox_.consume(inbox_.pending().size());
    const Result<bool> there = inbox_.gather(io_, stream_, 1);
    if (!there || !*there) return;
  }
}

void NbdTransmission::drop(std::string_view why) {
  ++world_.counters.protocol_errors;
  world_.log.line(Severity::warning, "client dropped", stream_.peer(), why);
}

NbdTerms NbdTransmission::terms() const {
  return {.form = agreed_.form,
          .flags = agreed_.flags,
          .bytes = device_.geometry().bytes,
          .has_contexts = !agreed_.contexts.empty()};
}

// --- the answers

NbdTransmission::Slot& NbdTransmission::take_slot() {
  while (free_ == nullptr) io_.park(slot_waiters_);
  Slot& slot = *free_;
  free_ = slot.next_free;
  ++in_flight_;
  ++counters_.in_flight;
  slot.body = {};
  slot.last = true;
  slot.result = ok;
  slot.filter.clear();
  replies_.expect();
  return slot;
}

void NbdTransmission::abandon(Slot& slot) {
  replies_.forget();
  release(slot);
}

void NbdTransmission::release(Slot& slot) {
  slot.data.reset();
  slot.next_free = free_;
  free_ = &slot;
  --in_flight_;
  --counters_.in_flight;
  if (!slot_waiters_.empty()) io_.wake(slot_waiters_);
  if (in_flight_ > 0) return;
  if (!idle_waiters_.empty()) io_.wake(idle_waiters_);
  if (draining_) replies_.nudge();
}

void NbdTransmission::sent(Reply& reply) {
  if (reply.last) {
    release(static_cast<Slot&>(reply));
    return;
  }
  reply.next = spare_;
  spare_ = &reply;
}

void NbdTransmission::all_sent() {
  if (!draining_ || ended_ || in_flight_ > 0) return;
  ended_ = true;
  stream_.close(io_);  // The reader, which discards, learns it as the end.
}

// Chunks in flight carry a piece of the budget each, so their number is bounded by it.
Reply& NbdTransmission::fresh_reply() {
  if (spare_ == nullptr) {
    chunks_.push_back(std::make_unique<Reply>());
    return *chunks_.back();
  }
  Reply& reply = *spare_;
  spare_ = reply.next;
  reply.body = {};
  return reply;
}

void NbdTransmission::head(Reply& reply, const Slot& slot, Chunk type, bool last,
                           uint64_t payload_bytes) {
  reply.head_bytes =
      encode(wire::nbd::ReplyChunk{.flags = last ? wire::nbd::kReplyDone : uint16_t{0},
                                   .type = type,
                                   .cookie = slot.request.cookie,
                                   .offset = slot.request.offset,
                                   .length = payload_bytes},
             agreed_.form, reply.head);
}

void NbdTransmission::answer(Slot& slot, const Result<void>& result) {
  slot.data.reset();
  if (result) {
    succeed(slot);
  } else {
    device_failed(slot, result.error(), slot.range.at);
  }
}

void NbdTransmission::succeed(Slot& slot) {
  // Structured clients take the shorter simple reply for everything but reads.
  const bool simple = agreed_.form == Form::simple ||
                      (agreed_.form == Form::structured && slot.request.command != Command::read);
  if (simple) {
    wire::nbd::SimpleReply reply;
    reply.cookie = slot.request.cookie;
    slot.head_bytes = 0;
    append_head(slot, reply);
  } else {
    head(slot, slot, Chunk::none, true, 0);
  }
  const bool urgent =
      slot.request.command == Command::flush || (slot.request.flags & wire::nbd::kFlagFua) != 0;
  replies_.push(slot, urgent);
}

void NbdTransmission::refuse(Slot& slot, const Failure& failure) {
  ++counters_.errors[NbdExportCounters::index_of(slot.request.command)];
  slot.data.reset();
  const auto error = static_cast<uint32_t>(failure.error);
  if (agreed_.form == Form::simple) {
    wire::nbd::SimpleReply reply;
    reply.error = error;
    reply.cookie = slot.request.cookie;
    slot.head_bytes = 0;
    append_head(slot, reply);
    replies_.push(slot, true);
    return;
  }
  const size_t length = std::min(failure.text.size(), kTextBytes - sizeof(be64));
  std::memcpy(slot.text.data(), failure.text.data(), length);
  size_t body = length;
  if (failure.at) {
    const be64 at = *failure.at;
    std::memcpy(slot.text.data() + body, &at, sizeof(at));
    body += sizeof(at);
  }
  wire::nbd::ErrorText text;
  text.error = error;
  text.text_length = static_cast<uint16_t>(length);
  head(slot, slot, failure.at ? Chunk::error_offset : Chunk::error, true, sizeof(text) + body);
  append_head(slot, text);
  slot.body = View(slot.text).first(body);
  replies_.push(slot, true);
}

// The client learns the kind; the sentence, which may name what is none of its business, goes to
// the log: the first, second, fourth, eighth ... of a connection.
void NbdTransmission::device_failed(Slot& slot, Error error, uint64_t at) {
  ++device_errors_;
  if ((device_errors_ & (device_errors_ - 1)) == 0) {
    world_.log.line(Severity::error, "request failed", printable(agreed_.exported.name),
                    fmt::format("{} of {} bytes at {} for {} (error {} of this connection): {}",
                                wire::nbd::name_of(slot.request.command), slot.range.length,
                                slot.range.at, stream_.peer(), device_errors_, text_of(error)));
  }
  Failure failure{errno_for(error.code), name_of(error.code), std::nullopt};
  if (slot.request.command == Command::read) failure.at = at;
  refuse(slot, failure);
}

}  // namespace firn::serve
