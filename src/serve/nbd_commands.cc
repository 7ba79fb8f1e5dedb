// SPDX-License-Identifier: Apache-2.0
// The commands of NbdTransmission: what a request's own fiber does.
#include <algorithm>
#include <cstring>

#include "serve/nbd_transmission.h"

namespace firn::serve {

using wire::nbd::Chunk;
using wire::nbd::Command;
using wire::nbd::Form;

namespace {

// Below this a hole costs the client more than the bytes cost us.
constexpr size_t kHoleBytesMin = 32 * kKiB;

class Nowhere final : public ExtentSink {
 public:
  bool add(ExtentRun) override { return true; }
};

// Lays runs into a reply, neighbours of one kind as one; stops when the room or the range is full.
class StatusWriter final : public StatusSink {
 public:
  StatusWriter(Bytes room, bool wide, uint64_t bytes, bool only_one)
      : room_(room), wide_(wide), left_(bytes), only_one_(only_one) {}

  bool add(uint64_t length, uint32_t flags) override {
    length = std::min(length, left_);
    if (length == 0) return left_ > 0;
    if (run_ > 0 && flags != flags_) {
      if (only_one_) return false;
      put();
      if (used_ + run_bytes() > room_.size()) return false;
      run_ = 0;
    }
    run_ += length;
    flags_ = flags;
    left_ -= length;
    return left_ > 0;
  }
  // Bytes written, runs included that were still open.
  size_t finish() {
    if (run_ > 0 && used_ + run_bytes() <= room_.size()) put();
    return used_;
  }

 private:
  size_t run_bytes() const {
    return wide_ ? sizeof(wire::nbd::StatusRunExt) : sizeof(wire::nbd::StatusRun);
  }
  template <class T>
  void lay(const T& object) {
    std::memcpy(room_.data() + used_, &object, sizeof(T));
    used_ += sizeof(T);
  }
  void put() {
    if (wide_) {
      lay(wire::nbd::StatusRunExt{.length = run_, .flags = uint64_t{flags_}});
    } else {
      lay(wire::nbd::StatusRun{.length = static_cast<uint32_t>(run_), .flags = flags_});
    }
    run_ = 0;
  }

  Bytes room_;
  bool wide_;
  uint64_t left_;
  bool only_one_;
  size_t used_ = 0;
  uint64_t run_ = 0;
  uint32_t flags_ = 0;
};

}  // namespace

// Pieces end on multiples of their size, so that no grain is cut but at the ends of the request.
size_t NbdTransmission::piece_at(uint64_t at, uint64_t end) const {
  const uint64_t piece = world_.limits.piece_bytes;
  return static_cast<size_t>(std::min(end, round_down(at, piece) + piece) - at);
}

// The slot is somebody else's once its last reply was pushed.
void NbdTransmission::serve(Slot& slot) {
  execute(slot);
  replies_.relieve();
}

void NbdTransmission::execute(Slot& slot) {
  switch (slot.request.command) {
    case Command::read:
      serve_read(slot);
      return;
    case Command::write: {
      const ::iovec slice = slice_of(slot.data.bytes());
      const bool fua = (slot.request.flags & wire::nbd::kFlagFua) != 0;
      const Result<void> done = device_.write(io_, slot.range, Iovec(&slice, 1), {.fua = fua});
      if (done) counters_.bytes_written += slot.range.length;
      answer(slot, done);
      return;
    }
    case Command::block_status:
      serve_block_status(slot);
      return;
    case Command::disconnect:
    case Command::flush:
    case Command::trim:
    case Command::cache:
    case Command::write_zeroes:
      answer(slot, effect(slot));
      return;
  }
}

// --- reads

void NbdTransmission::data_chunk(Reply& reply, const Slot& slot, uint64_t at, Payload data,
                                 bool last) {
  const Bytes bytes = data.bytes();
  const bool may_skip = (slot.request.flags & wire::nbd::kFlagDf) == 0;
  if (may_skip && bytes.size() >= kHoleBytesMin && all_zero(bytes)) {
    head(reply, slot, Chunk::offset_hole, last, sizeof(wire::nbd::OffsetHole));
    append_head(reply,
                wire::nbd::OffsetHole{.offset = at, .length = static_cast<uint32_t>(bytes.size())});
  } else {
    head(reply, slot, Chunk::offset_data, last, sizeof(wire::nbd::OffsetData) + bytes.size());
    append_head(reply, wire::nbd::OffsetData{.offset = at});
    reply.body = bytes;
    reply.payload = std::move(data);
  }
  replies_.push(reply);
}

void NbdTransmission::serve_read(Slot& slot) {
  const Range range = slot.range;
  if (range.length > world_.limits.piece_bytes) {
    const bool whole =
        agreed_.form == Form::simple || (slot.request.flags & wire::nbd::kFlagDf) != 0;
    return whole ? read_in_one_stream(slot) : read_in_chunks(slot);
  }
  Payload data(budget_, static_cast<size_t>(range.length));
  const ::iovec slice = slice_of(data.bytes());
  const Result<void> done = device_.read(io_, range, Iovec(&slice, 1));
  if (!done) return device_failed(slot, done.error(), range.at);
  counters_.bytes_read += range.length;
  if (agreed_.form != Form::simple) return data_chunk(slot, slot, range.at, std::move(data), true);
  wire::nbd::SimpleReply reply;
  reply.cookie = slot.request.cookie;
  slot.head_bytes = 0;
  append_head(slot, reply);
  slot.body = data.bytes();
  slot.payload = std::move(data);
  replies_.push(slot);
}

void NbdTransmission::read_in_chunks(Slot& slot) {
  const Range range = slot.range;
  for (uint64_t at = range.at; at < range.end();) {
    const Range piece{at, piece_at(at, range.end())};
    at = piece.end();
    Payload data(budget_, static_cast<size_t>(piece.length));  // Waits until earlier ones are sent.
    const ::iovec slice = slice_of(data.bytes());
    const Result<void> done = device_.read(io_, piece, Iovec(&slice, 1));
    if (!done) {
      data.reset();
      return device_failed(slot, done.error(), piece.at);
    }
    counters_.bytes_read += piece.length;
    const bool last = at == range.end();
    Reply& reply = last ? static_cast<Reply&>(slot) : fresh_reply();
    data_chunk(reply, slot, piece.at, std::move(data), last);
  }
}

// One header, then all the data, through one buffer: for clients that take no chunks. Nothing else
// may be sent meanwhile, and an error after the header can only be told by padding and an error
// chunk, or by the end of the connection.
void NbdTransmission::read_in_one_stream(Slot& slot) {
  const bool simple = agreed_.form == Form::simple;
  const Range range = slot.range;
  Payload room(budget_, world_.limits.piece_bytes);
  Result<void> result = ok;
  uint64_t failed_at = range.at;
  const auto read_piece = [&](Range piece) {
    const Bytes bytes = room.bytes().first(static_cast<size_t>(piece.length));
    const ::iovec slice = slice_of(bytes);
    if (result) result = device_.read(io_, piece, Iovec(&slice, 1));
    if (result) return;
    if (failed_at == range.at) failed_at = piece.at;
    std::memset(bytes.data(), 0, bytes.size());
  };
  Range piece{range.at, piece_at(range.at, range.end())};
  read_piece(piece);
  if (!result) {
    room.reset();
    return device_failed(slot, result.error(), range.at);
  }
  if (simple) {
    wire::nbd::SimpleReply reply;
    reply.cookie = slot.request.cookie;
    slot.head_bytes = 0;
    append_head(slot, reply);
  } else {
    head(slot, slot, Chunk::offset_data, false, sizeof(wire::nbd::OffsetData) + range.length);
    append_head(slot, wire::nbd::OffsetData{.offset = range.at});
  }
  {
    const auto hold = replies_.turn();
    const ::iovec first[] = {{slot.head.data(), slot.head_bytes},
                             {room.bytes().data(), static_cast<size_t>(piece.length)}};
    bool going = replies_.send(first);
    while (going && piece.end() < range.end()) {
      piece = {piece.end(), piece_at(piece.end(), range.end())};
      read_piece(piece);
      if (!result && simple) {
        stream_.abort(
            io_);  // The count was promised; there is no other way to say that it is wrong.
        break;
      }
      const ::iovec next = {room.bytes().data(), static_cast<size_t>(piece.length)};
      going = replies_.send(Iovec(&next, 1));
    }
  }
  room.reset();
  if (!result && !simple) return device_failed(slot, result.error(), failed_at);
  if (result) counters_.bytes_read += range.length;
  if (!simple) return succeed(slot);
  if (!result) {
    world_.log.line(Severity::error, "client dropped", stream_.peer(),
                    fmt::format("a read of {} failed after its header was sent: {}",
                                printable(agreed_.exported.name), text_of(result.error())));
  }
  abandon(slot);
}

// --- large writes

void NbdTransmission::write_piece(Slot& slot, Range range, const Payload& data) {
  const ::iovec slice = slice_of(data.bytes());
  Result<void> done = device_.write(io_, range, Iovec(&slice, 1), WriteFlags{});
  if (done) {
    counters_.bytes_written += range.length;
  } else if (slot.result) {
    slot.result = done;
  }
  if (--slot.pieces == 0) io_.wake(slot.pieces_done);
}

void NbdTransmission::finish_large_write(Slot& slot) {
  while (slot.pieces > 0) io_.park(slot.pieces_done);
  if (slot.result && (slot.request.flags & wire::nbd::kFlagFua) != 0) {
    slot.result = device_.flush(io_);
  }
  answer(slot, slot.result);
}

// --- effects without payload

Result<void> NbdTransmission::effect(const Slot& slot) {
  const bool fua = (slot.request.flags & wire::nbd::kFlagFua) != 0;
  const Command command = slot.request.command;
  if (command == Command::flush) return device_.flush(io_);
  const bool one_step = piece_of_effect(slot.range.at, slot.range.end()) == slot.range.length;
  for (uint64_t at = slot.range.at; at < slot.range.end();) {
    const Range step{at, piece_of_effect(at, slot.range.end())};
    at = step.end();
    if (command == Command::trim) {
      TRY(device_.discard(io_, step));
    } else if (command == Command::write_zeroes) {
      TRY(device_.zero(io_, step,
                       {.fua = fua && one_step,
                        .keep_space = (slot.request.flags & wire::nbd::kFlagNoHole) != 0,
                        .fast_only = (slot.request.flags & wire::nbd::kFlagFastZero) != 0}));
    } else {
      Nowhere nowhere;  // Cache: reading ahead means having the map in memory; data has no cache.
      TRY(device_.map(io_, step, nowhere));
    }
  }
  const bool durable = command == Command::cache || (command == Command::write_zeroes && one_step);
  if (fua && !durable) TRY(device_.flush(io_));
  return ok;
}

uint64_t NbdTransmission::piece_of_effect(uint64_t at, uint64_t end) {
  return std::min(end, round_down(at, kStepBytes) + kStepBytes) - at;
}

// --- block status

Result<size_t> NbdTransmission::status_into(Slot& slot, uint32_t id, Bytes room) {
  StatusWriter writer(room, agreed_.form == Form::extended, slot.range.length,
                      (slot.request.flags & wire::nbd::kFlagReqOne) != 0);
  MetaContext& context = *agreed_.contexts[id - 1];
  TRY(context.status(io_, slot.range, writer));
  const size_t used = writer.finish();
  if (used > 0) return used;
  return fail(Errc::io, "{} of {} says nothing about {} bytes at {}", context.name(),
              printable(agreed_.exported.name), slot.range.length, slot.range.at);
}

void NbdTransmission::serve_block_status(Slot& slot) {
  const size_t count = slot.filter.empty() ? agreed_.contexts.size() : slot.filter.size();
  for (size_t i = 0; i < count; ++i) {
    const uint32_t id = slot.filter.empty() ? static_cast<uint32_t>(i + 1) : slot.filter[i];
    Payload data(budget_, kStatusBytes);
    const Result<size_t> used = status_into(slot, id, data.bytes());
    if (!used) {
      data.reset();
      return device_failed(slot, used.error(), slot.range.at);
    }
    const bool last = i + 1 == count;
    Reply& reply = last ? static_cast<Reply&>(slot) : fresh_reply();
    if (agreed_.form == Form::extended) {
      const auto runs = static_cast<uint32_t>(*used / sizeof(wire::nbd::StatusRunExt));
      head(reply, slot, Chunk::block_status_ext, last, sizeof(wire::nbd::StatusHeadExt) + *used);
      append_head(reply, wire::nbd::StatusHeadExt{.context = id, .count = runs});
    } else {
      head(reply, slot, Chunk::block_status, last, sizeof(wire::nbd::StatusHead) + *used);
      append_head(reply, wire::nbd::StatusHead{.context = id});
    }
    reply.body = View(data.bytes()).first(*used);
    reply.payload = std::move(data);
    replies_.push(reply);
  }
}

}  // namespace firn::serve
