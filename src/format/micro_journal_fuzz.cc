// SPDX-License-Identifier: Apache-2.0
// Any bytes as a journal slot (first byte even), as they are and under a right checksum, or as the
// records of a transaction (odd).
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "format/inspect.h"
#include "format/micro_journal.h"

namespace {

using namespace firn;
using namespace firn::format;

constexpr uint64_t kEpoch = 7;

Uuid pool_uuid() {
  Uuid uuid;
  for (size_t i = 0; i < uuid.size(); ++i) uuid[i] = static_cast<std::byte>(0x10 + i);
  return uuid;
}
const Uuid kUuid = pool_uuid();

// Checks that every record lies inside the payload and inside a page.
class Judge final : public RecordSink {
 public:
  explicit Judge(View payload) : payload_(payload) {}
  Result<void> page(PageNo page, uint32_t, bool) override {
    CHECK(page <= kPageNoMax);
    announced_ = true;
    return ok;
  }
  Result<void> words(size_t first, View words) override {
    CHECK(announced_ && !words.empty() && words.size() % 8 == 0);
    CHECK(first + words.size() / 8 <= kPageWords);
    CHECK(words.data() >= payload_.data());
    CHECK(words.data() + words.size() <= payload_.data() + payload_.size());
    return ok;
  }

 private:
  View payload_;
  bool announced_ = false;
};

void walk(View payload) {
  Judge judge(payload);
  const Result<void> walked = walk_records(payload, judge);
  CHECK(walked || !text_of(walked.error()).empty());
}

void read(View slot) {
  CHECK(!inspect(Artifact::journal_slot, slot, {.uuid = kUuid}).empty());
  SlotHeader header;
  if (read_slot(kUuid, kEpoch, slot, header) != SlotState::valid) return;
  CHECK(header.version == 1 && header.epoch == kEpoch && header.commit_id != 0);
  CHECK(header.oldest_needed >= 1 && header.oldest_needed <= header.commit_id);
  CHECK((header.flags & ~kSlotDense) == 0);
  CHECK(header.part < header.parts && header.parts <= kSlotPartsMax);
  CHECK(header.payload_bytes > 0 && header.payload_bytes <= slot.size() - sizeof header);
  walk(slot.subspan(sizeof header, header.payload_bytes));
  SlotHeader other;
  CHECK(read_slot(kUuid, kEpoch + 1, slot, other) == SlotState::nothing);
}

// The same slot with the checksums that its writer would have given it.
void read_sealed(std::vector<std::byte> slot) {
  if (slot.size() < sizeof(SlotHeader)) return;
  auto header = load<SlotHeader>(slot);
  header.magic = kSlotMagic;
  header.epoch = kEpoch;
  const View rest = View(slot).subspan(sizeof header);
  const uint32_t seed = crc32c(kUuid);
  header.payload_crc =
      crc32c(rest.first(std::min<size_t>(header.payload_bytes, rest.size())), seed);
  header.header_crc = crc32c(view_of(header).first(offsetof(SlotHeader, header_crc)), seed);
  std::ranges::copy(view_of(header), slot.begin());
  read(slot);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data, size)).subspan(1);
  if (data[0] % 2 != 0) {
    walk(input);
    return 0;
  }
  read(input);
  read_sealed({input.begin(), input.end()});
  return 0;
}
