// SPDX-License-Identifier: Apache-2.0
// NbdTransmission: the second phase of a connection. One fiber reads, one sends, one more for
// each request.
//
// Contract, beside the session's:
//  M1  The reader spawns whatever one receive brought before anybody of it runs: a batch stays a
//      batch.
//  M2  Payloads up to 64 KiB travel through the inbox and one copy; larger writes are received
//      straight into pieces, which are written while the next one arrives. Reads go out piece by
//      piece.
//  M3  The steady state allocates nothing: requests live in slots, buffers come from the shard's
//      pool.
//  M4  Large effects (trim, zeroes, cache) run in steps of 1 GiB, so that no range is held for
//      long.
//  M5  A FUA request of one piece carries the flag to the device. One of many pieces, and a
//      trim, which has no such flag, are followed by one flush instead: the same promise, one
//      wait.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "io/io.h"
#include "serve/inbox.h"
#include "serve/nbd_reply.h"
#include "serve/nbd_rules.h"
#include "serve/nbd_session.h"
#include "serve/payload.h"
#include "serve/stream.h"

namespace firn::serve {

// What the handshake agreed on.
struct NbdAgreement {
  Export exported;
  wire::nbd::Form form = wire::nbd::Form::simple;
  uint16_t flags = 0;                                  // Transmission flags.
  std::vector<std::shared_ptr<MetaContext>> contexts;  // Selected; the id is the index plus 1.
};

class NbdTransmission final : private NbdReplies::Owner {
 public:
  NbdTransmission(NbdWorld& world, Io& io, Stream& stream, Inbox& inbox, NbdAgreement agreement);
  ~NbdTransmission() override;

  // Reads until the client says farewell, leaves or errs. Requests may still be in flight.
  void read_requests();
  // Waits until everything is answered.
  void finish();
  void begin_drain();

 private:
  static constexpr size_t kSmallBytes = 64 * kKiB;
  static constexpr size_t kStatusBytes = 16 * kKiB;
  static constexpr size_t kTextBytes = 128;
  static constexpr uint64_t kStepBytes = 1 * kGiB;
  static constexpr size_t kFilterIds = 64;

  // A request in flight, and its last reply.
  struct Slot : Reply {
    wire::nbd::Request request;
    Payload data;              // A small write's.
    Range range;               // Of the effect.
    uint32_t pieces = 0;       // Of a large write, in flight.
    Result<void> result = ok;  // The first error of its pieces.
    WaitList pieces_done;
    std::array<std::byte, kTextBytes> text;
    std::vector<uint32_t> filter;  // Context ids; empty means all.
    Slot* next_free = nullptr;
  };
  struct Failure {
    wire::nbd::Errno error;
    std::string_view text;
    std::optional<uint64_t> at;
  };

  // --- the reader
  bool read_request();
  bool take_request(const wire::nbd::Request& request);
  bool take_small_write(Slot& slot);
  bool take_large_write(Slot& slot);
  bool take_filter(Slot& slot);
  bool receive_exactly(Bytes into);
  bool discard(uint64_t bytes);
  void discard_all();
  void drop(std::string_view why);
  NbdTerms terms() const;

  // --- the requests
  void serve(Slot& slot);
  void execute(Slot& slot);
  void serve_read(Slot& slot);
  void read_in_chunks(Slot& slot);
  void read_in_one_stream(Slot& slot);
  void write_piece(Slot& slot, Range range, const Payload& data);
  void finish_large_write(Slot& slot);
  void serve_block_status(Slot& slot);
  Result<size_t> status_into(Slot& slot, uint32_t id, Bytes room);
  Result<void> effect(const Slot& slot);
  size_t piece_at(uint64_t at, uint64_t end) const;
  static uint64_t piece_of_effect(uint64_t at, uint64_t end);

  // --- the answers
  Slot& take_slot();
  void answer(Slot& slot, const Result<void>& result);
  void succeed(Slot& slot);
  void refuse(Slot& slot, const Failure& failure);
  void device_failed(Slot& slot, Error error, uint64_t at);
  Reply& fresh_reply();
  void head(Reply& reply, const Slot& slot, wire::nbd::Chunk type, bool last,
            uint64_t payload_bytes);
  template <class T>
  static void append_head(Reply& reply, const T& object) {
    CHECK(reply.head_bytes + sizeof(T) <= Reply::kHeadBytes);
    std::memcpy(reply.head.data() + reply.head_bytes, &object, sizeof(T));
    reply.head_bytes += sizeof(T);
  }
  void data_chunk(Reply& reply, const Slot& slot, uint64_t at, Payload data, bool last);
  void sent(Reply& reply) override;
  void all_sent() override;
  // Nothing will be answered.
  void abandon(Slot& slot);
  void release(Slot& slot);

  NbdWorld& world_;
  Io& io_;
  Stream& stream_;
  Inbox& inbox_;
  NbdAgreement agreed_;
  BlockDevice& device_;
  NbdExportCounters& counters_;
  Budget budget_;
  NbdReplies replies_;
  std::unique_ptr<Slot[]> slots_;
  Slot* free_ = nullptr;
  WaitList slot_waiters_;
  WaitList idle_waiters_;
  Reply* spare_ = nullptr;  // Chunks that are not a request's last.
  std::vector<std::unique_ptr<Reply>> chunks_;
  uint32_t in_flight_ = 0;
  uint64_t device_errors_ = 0;
  bool draining_ = false;
  bool ended_ = false;
  Group group_;  // Last: its fibers use everything above.
};

}  // namespace firn::serve
