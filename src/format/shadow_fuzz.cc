// SPDX-License-Identifier: Apache-2.0
// The first byte chooses: any 512 bytes as a header, as they are and under a right checksum; or a
// half, whose records are walked when its spans are whole, and once more with their checksums set
// right.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/check.h"
#include "format/micro_journal.h"
#include "format/shadow.h"

namespace {

using namespace firn;
using namespace firn::format;

class Nowhere final : public RecordSink {
 public:
  Result<void> page(PageNo page, uint32_t /*crc*/, bool /*fresh*/) override {
    CHECK(page <= kPageNoMax);
    return ok;
  }
  Result<void> words(size_t first, View words) override {
    CHECK(first * 8 + words.size() <= kPageBytes && !words.empty());
    return ok;
  }
};

void decode_header(View input) {
  std::array<std::byte, 512> bytes{};
  std::ranges::copy(input.first(std::min(input.size(), bytes.size())), bytes.begin());
  for (const bool sealed : {false, true}) {
    if (sealed) {
      std::ranges::copy(view_of(kShadowMagic), bytes.begin());
      const le32 crc(crc32c(View(bytes).first(480).subspan(12)));
      std::ranges::copy(view_of(crc), bytes.begin() + 8);
    }
    const Result<ShadowHeader> header = decode_shadow_header(bytes);
    if (header) CHECK(std::ranges::equal(encode(*header), bytes));
  }
}

void walk(View half) {
  const std::vector<std::byte> records = read_half(Uuid{}, 7, half);
  CHECK(records.size() <= half.size());
  Nowhere nowhere;
  (void)walk_records(records, nowhere);
}

void decode_half(View input) {
  walk(input);
  std::vector<std::byte> half(input.begin(), input.end());
  for (size_t at = sizeof(ShadowHalf); at + sizeof(ShadowSpan) <= half.size();) {
    auto span = load<ShadowSpan>(View(half).subspan(at));
    const size_t room = half.size() - at - sizeof span;
    if (span.bytes == 0 || span.bytes % 8 != 0 || span.bytes > room) break;
    span.crc = span_crc(Uuid{}, 7, at, View(half).subspan(at + sizeof span, span.bytes));
    std::ranges::copy(view_of(span), half.begin() + static_cast<std::ptrdiff_t>(at));
    at += sizeof span + span.bytes;
  }
  walk(half);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const View input = std::as_bytes(std::span(data, size));
  if (input.empty()) return 0;
  if (input[0] == std::byte{}) {
    decode_header(input.subspan(1));
  } else {
    decode_half(input.subspan(1));
  }
  return 0;
}
