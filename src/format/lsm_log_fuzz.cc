// SPDX-License-Identifier: Apache-2.0
// First byte 0: a segment, its head and the records behind it; 1: a batch, as it is and as a sealed
// record. What is accepted is bounded.
#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "format/lsm_log.h"

namespace {

using namespace firn;
using namespace firn::format;

void batch(View bytes) {
  const auto link = decode_lsm_link(bytes);
  LsmBatchReader reader(bytes);
  while (true) {
    const auto more = reader.next();
    if (!more || !*more) return;
    CHECK(!link, "a link is no batch");
    const LsmEntry entry = reader.entry();
    CHECK(!entry.key.empty() && entry.key.size() <= kLsmKeyMax);
    CHECK(entry.value.size() <= kLsmValueMax && (!entry.removal || entry.value.empty()));
  }
}

void segment(View bytes) {
  const auto head = decode_lsm_log_head(bytes);
  if (!head) return;
  uint64_t at = sizeof(LsmLogHead);
  for (uint64_t number = 1;; ++number) {
    const View found = decode_lsm_record(bytes.subspan(at), *head, at, number);
    if (found.empty()) return;
    batch(found);
    at += sizeof(LsmLogRecordHead) + found.size();
    CHECK(at <= bytes.size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data + 1, size - 1));
  if (data[0] % 2 == 1) {
    batch(input);
    if (input.empty() || input.size() > kLsmLogRecordMax) return 0;
    LsmLogHead head;
    head.segment = 1;
    std::vector<std::byte> record;
    append_lsm_record(record, head, 80, 1, input);
    CHECK(std::ranges::equal(decode_lsm_record(record, head, 80, 1), input));
    CHECK(decode_lsm_record(record, head, 81, 1).empty(), "elsewhere it is none");
    return 0;
  }
  segment(input);
  return 0;
}
