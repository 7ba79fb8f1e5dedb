// SPDX-License-Identifier: Apache-2.0
#include "store/journal.h"

#include <algorithm>
#include <map>

namespace firn::store {

using format::SlotHeader;

Journal::Journal(Region& region, JournalShape shape, const format::Uuid& uuid, uint64_t epoch,
                 CommitIds& ids)
    : region_(region),
      shape_(shape),
      uuid_(uuid),
      epoch_(epoch),
      ids_(ids),
      free_slots_(shape.slots) {
  CHECK(shape.slot_bytes > sizeof(SlotHeader) && shape.slots >= 2);
  CHECK(shape.first_byte + shape.slot_bytes * shape.slots <= region.size());
}

uint64_t Journal::slots_for(uint64_t payload_bytes) const {
  return (payload_bytes + payload_bytes_per_slot() - 1) / payload_bytes_per_slot();
}

uint64_t Journal::in_flight_slots() const {
  uint64_t slots = 0;
  for (const Transaction& one : queue_) {
    if (one.id > applied_) break;
    slots += one.slots;
  }
  return slots;
}

Result<uint64_t> Journal::write(Io& io, View payload, uint64_t home_durable) {
  const uint64_t parts = slots_for(payload.size());
  CHECK(parts > 0 && parts <= free_slots_, "{} slots needed, {} free", parts, free_slots_);
  CHECK(parts <= format::kSlotPartsMax && home_durable <= applied_);
  const uint64_t id = ids_.take();
  given_up_ = std::max(given_up_, home_durable);
  const auto needed = std::find_if(queue_.begin(), queue_.end(),
                                   [this](const Transaction& one) { return one.id > given_up_; });
  const uint64_t oldest_needed = needed == queue_.end() ? id : needed->id;
  AlignedBuffer image(parts * shape_.slot_bytes);
  for (uint64_t part = 0; part < parts; ++part) {
    const View piece =
        payload.subspan(part * payload_bytes_per_slot(),
                        std::min<uint64_t>(payload_bytes_per_slot(),
                                           payload.size() - part * payload_bytes_per_slot()));
    const Bytes slot = image.bytes().subspan(part * shape_.slot_bytes, shape_.slot_bytes);
    SlotHeader header;
    header.part = static_cast<uint16_t>(part);
    header.parts = static_cast<uint16_t>(parts);
    header.commit_id = id;
    header.epoch = epoch_;
    header.flags = shape_.dense ? format::kSlotDense : uint16_t{0};
    header.oldest_needed = oldest_needed;
    format::seal(uuid_, header, piece);
    std::memcpy(slot.data(), &header, sizeof header);
    std::memcpy(slot.data() + sizeof header, piece.data(), piece.size());
    const size_t end = sizeof header + piece.size();
    std::memset(slot.data() + end, 0, slot.size() - end);
  }
  // TAKEN: the slots are ours whatever happens to the write; a failure fences the caller.
  const uint64_t first = next_slot_;
  const uint64_t before_wrap = std::min(parts, shape_.slots - first);
  next_slot_ = (first + parts) % shape_.slots;
  free_slots_ -= parts;
  queue_.push_back({id, parts});
  ++transactions_;
  bytes_written_ += image.size();
  const uint64_t split = before_wrap * shape_.slot_bytes;
  TRY(region_.write(io, shape_.first_byte + first * shape_.slot_bytes, image.bytes().first(split)));
  if (before_wrap < parts) {
    TRY(region_.write(io, shape_.first_byte, image.bytes().subspan(split)));
  }
  return id;
}

Result<void> Journal::commit(Io& io) {
  const uint64_t given_up = given_up_;
#ifdef FIRN_MUTANT_no_journal_flush
  io.yield();
#else
  TRY(region_.commit(io));
#endif
  ++commits_;
  while (!queue_.empty() && queue_.front().id <= given_up) {
    free_slots_ += queue_.front().slots;
    queue_.pop_front();
  }
  return ok;
}

void Journal::applied(uint64_t id) {
  CHECK(id < ids_.peek());
  applied_ = std::max(applied_, id);
}

namespace {

struct Chain {
  uint16_t parts = 0;
  uint16_t flags = 0;
  uint64_t oldest_needed = 0;
  bool broken = false;
  std::map<uint16_t, std::vector<std::byte>> pieces;  // By part: no more than there are slots.
  bool whole() const { return !broken && pieces.size() == parts; }
};

void collect(const SlotHeader& header, View slot, std::map<uint64_t, Chain>& chains) {
  Chain& chain = chains[header.commit_id];
  if (chain.parts == 0) {
    chain.parts = header.parts;
    chain.flags = header.flags;
    chain.oldest_needed = header.oldest_needed;
  }
  // Two chains never share an id (J3); should the medium say otherwise, neither is believed.
  if (chain.parts != header.parts || chain.flags != header.flags ||
      chain.oldest_needed != header.oldest_needed) {
    chain.broken = true;
    return;
  }
  const View payload = slot.subspan(sizeof(SlotHeader), header.payload_bytes);
  std::vector<std::byte>& piece = chain.pieces[header.part];
  if (!piece.empty()) {  // A misdirected write may leave the same part twice.
    if (!std::ranges::equal(piece, payload)) chain.broken = true;
    return;
  }
  piece.assign(payload.begin(), payload.end());
}

// In a dense ring transaction N is written only when N-1 is committed, and only over slots that a
// committed transaction has given up (J5). So whatever part of N is there, all from its oldest
// needed one up to N-1 must be there, whole; only N itself may be torn.
//
// What lies before the oldest needed one is forgotten. It is durable at home, and may be there in
// part only: a torn N of several slots leaves an older one of two that it was to overwrite, and
// replaying that would bring back what the other had changed.
Result<void> keep_needed(std::map<uint64_t, Chain>& chains) {
  if (chains.empty()) return ok;
  const uint64_t newest = chains.rbegin()->first;
  const Chain& last = chains.rbegin()->second;
  if ((last.flags & format::kSlotDense) == 0) return ok;
  uint64_t wanted = last.oldest_needed;
  chains.erase(chains.begin(), chains.lower_bound(wanted));
  for (auto at = chains.begin(); wanted < newest; ++at, ++wanted) {
    if (at->first == wanted && at->second.whole()) continue;
    return fail(Errc::corrupt, "the journal lost transaction {} although {} is there", wanted,
                newest);
  }
  return ok;
}

}  // namespace

Result<std::vector<Replayed>> find_transactions(Io& io, Region& region, JournalShape shape,
                                                const format::Uuid& uuid, uint64_t epoch) {
  std::map<uint64_t, Chain> chains;
  const uint64_t slots_at_once = std::max<uint64_t>(1, kMiB / shape.slot_bytes);
  AlignedBuffer window(slots_at_once * shape.slot_bytes);
  for (uint64_t slot = 0; slot < shape.slots; slot += slots_at_once) {
    const uint64_t count = std::min(slots_at_once, shape.slots - slot);
    const Bytes bytes = window.bytes().first(count * shape.slot_bytes);
    TRY(region.read(io, shape.first_byte + slot * shape.slot_bytes, bytes));
    for (uint64_t i = 0; i < count; ++i) {
      const View one = bytes.subspan(i * shape.slot_bytes, shape.slot_bytes);
      SlotHeader header;
      switch (format::read_slot(uuid, epoch, one, header)) {
        case format::SlotState::nothing:
          break;
        case format::SlotState::valid:
          if (header.parts <= shape.slots) collect(header, one, chains);  // Else it cannot be.
          break;
        case format::SlotState::too_new:
          return fail(Errc::too_new,
                      "journal slot {} (version {}, flags {:#x}) is unknown to this program",
                      slot + i, header.version.get(), header.flags.get());
      }
    }
  }
  TRY(keep_needed(chains));
  std::vector<Replayed> transactions;
  for (auto& [id, chain] : chains) {
    if (!chain.whole()) continue;  // Torn: it never happened.
    Replayed& whole = transactions.emplace_back();
    whole.id = id;
    for (auto& [part, piece] : chain.pieces) {
      whole.payload.insert(whole.payload.end(), piece.begin(), piece.end());
      piece = {};
    }
  }
  return transactions;
}

}  // namespace firn::store
