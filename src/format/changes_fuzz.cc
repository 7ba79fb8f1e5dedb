// SPDX-License-Identifier: Apache-2.0
// First byte 0: records of change tracking; 1: a change id's text; 2 and 3: pages of the log and of
// the intent map. What is accepted is possible, and a change id has one text.
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "format/changes.h"
#include "format/inspect.h"

namespace {

using namespace firn;
using namespace firn::format;

void record(View bytes) {
  std::array<std::byte, kRecordBytes> whole{};
  std::ranges::copy(bytes.first(std::min(bytes.size(), whole.size())), whole.begin());
  if (const auto changes = decode_changes(whole)) {
    CHECK(changes->event_counter <= kEventMax && changes->valid_from <= changes->event_counter);
    CHECK(static_cast<uint32_t>(changes->block_shift) <= kChangeBlockShiftMax);
    CHECK(changes->bytes <= kDiskBytesMax && changes->tail_bytes <= changes->tail.size());
    ChangesRecord grown = *changes;
    add_growth(grown, grown.bytes >> static_cast<uint32_t>(grown.block_shift),
               grown.event_counter + 1);
    CHECK(decode_changes(view_of(grown)), "a growth makes a good record a bad one");
    for (const Growth& one : changes->growths) {
      if (one.counter == 0 || one.first_block >= grown.bytes >> kChangeBlockShift) continue;
      CHECK(grown_counter(grown, one.first_block) >= one.counter, "nothing is forgotten");
    }
    cut_growths(grown, 0);
    CHECK(decode_changes(view_of(grown)) && grown_counter(grown, UINT64_MAX) == 0);
  }
  if (const auto application = decode_application(whole)) {
    CHECK(name_is_valid(name_of(*application)) && application->counter <= kEventMax);
  }
}

void change_id(View bytes) {
  std::string text(bytes.size(), '\0');
  std::ranges::copy(bytes, std::as_writable_bytes(std::span(text)).begin());
  const auto id = parse_change_id(text);
  if (id) CHECK(text_of(*id) == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data + 1, size - 1));
  switch (data[0] % 4) {
    case 0:
      record(input);
      CHECK(!inspect(Artifact::catalog_page, input).empty());
      break;
    case 1:
      change_id(input);
      break;
    case 2:
      CHECK(!inspect(Artifact::change_log_page, input).empty());
      break;
    default:
      CHECK(!inspect(Artifact::intent_page, input).empty());
      break;
  }
  return 0;
}
