// SPDX-License-Identifier: Apache-2.0
#include "format/micro_journal.h"

#include "base/check.h"

namespace firn::format {

void seal(const Uuid& uuid, SlotHeader& header, View payload) {
  CHECK(header.commit_id != 0 && header.part < header.parts && header.parts <= kSlotPartsMax);
  CHECK(header.oldest_needed != 0 && header.oldest_needed <= header.commit_id);
  CHECK(!payload.empty());  // A part without bytes could not be told from a missing one.
  header.magic = kSlotMagic;
  header.version = 1;
  header.payload_bytes = static_cast<uint32_t>(payload.size());
  header.payload_crc = crc32c(payload, crc32c(uuid));
  header.header_crc = crc32c(view_of(header).first(offsetof(SlotHeader, header_crc)), crc32c(uuid));
}

SlotState read_slot(const Uuid& uuid, uint64_t epoch, View slot, SlotHeader& header) {
  if (slot.size() < sizeof(SlotHeader)) return SlotState::nothing;
  header = load<SlotHeader>(slot);
  const uint32_t seed = crc32c(uuid);
  if (header.magic != kSlotMagic || header.epoch != epoch ||
      header.header_crc != crc32c(view_of(header).first(offsetof(SlotHeader, header_crc)), seed)) {
    return SlotState::nothing;
  }
  if (header.version != 1 || (header.flags & ~kSlotDense) != 0 || header.reserved0 != 0 ||
      header.reserved1 != 0 || header.reserved2 != 0) {
    return SlotState::too_new;
  }
  if (header.commit_id == 0 || header.part >= header.parts || header.parts > kSlotPartsMax ||
      header.oldest_needed == 0 || header.oldest_needed > header.commit_id ||
      header.payload_bytes == 0 || header.payload_bytes > slot.size() - sizeof(SlotHeader)) {
    return SlotState::nothing;
  }
  const View payload = slot.subspan(sizeof(SlotHeader), header.payload_bytes);
  return header.payload_crc == crc32c(payload, seed) ? SlotState::valid : SlotState::nothing;
}

Result<void> walk_records(View payload, RecordSink& sink) {
  while (!payload.empty()) {
    if (payload.size() < sizeof(PageRecord)) {
      return fail(Errc::corrupt, "journal: {} bytes left where a page record begins",
                  payload.size());
    }
    const auto record = load<PageRecord>(payload);
    payload = payload.subspan(sizeof(PageRecord));
    if (const uint64_t type = record.page >> kRecordTypeShift; type != 0) {
      return fail(Errc::too_new, "journal: a record of type {}, unknown to this version", type);
    }
    if (record.page > kPageNoMax) {
      return fail(Errc::corrupt, "journal: a record of page {}, which cannot be",
                  record.page.get());
    }
    if ((record.flags & ~kRecordFresh) != 0) {
      return fail(Errc::too_new,
                  "journal: the record of page {} has flags {:#x}, unknown to this "
                  "version",
                  record.page.get(), record.flags.get());
    }
    TRY(sink.page(record.page, record.crc, (record.flags & kRecordFresh) != 0));
    for (unsigned i = 0; i < record.runs; ++i) {
      if (payload.size() < sizeof(WordRun)) {
        return fail(Errc::corrupt, "journal: page {}: the payload ends in a run",
                    record.page.get());
      }
      const auto run = load<WordRun>(payload);
      payload = payload.subspan(sizeof(WordRun));
      const size_t bytes = size_t{run.words} * 8;
      if (run.words == 0 || run.reserved != 0 || size_t{run.first} + run.words > kPageWords ||
          bytes > payload.size()) {
        return fail(Errc::corrupt, "journal: page {}: a run of {} words at {} cannot be",
                    record.page.get(), run.words.get(), run.first.get());
      }
      TRY(sink.words(run.first, payload.first(bytes)));
      payload = payload.subspan(bytes);
    }
  }
  return ok;
}

}  // namespace firn::format
