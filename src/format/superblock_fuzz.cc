// SPDX-License-Identifier: Apache-2.0
// Any 512 bytes as a superblock, as they are and under a right checksum. What is accepted can be
// written and is read back.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/check.h"
#include "format/inspect.h"
#include "format/superblock.h"

namespace {

using namespace firn;
using namespace firn::format;

void decode(View bytes, uint16_t copy) {
  const Result<Superblock> superblock = decode_superblock(bytes, copy);
  if (!superblock) {
    CHECK(!text_of(superblock.error()).empty());
    return;
  }
  CHECK(superblock->magic == kSuperblockMagic && superblock->version == kPoolVersion);
  CHECK(superblock->slot == copy && (superblock->incompat & ~kKnownIncompat) == 0);
  CHECK(superblock->journal_slot_bytes >= 512 && superblock->journal_slots >= 2);
  CHECK(superblock->journal_slot_bytes <= UINT64_MAX / superblock->journal_slots, "no wrap");
  const auto written = encode(*superblock, static_cast<uint16_t>(1 - copy));
  const Result<Superblock> again = decode_superblock(written, static_cast<uint16_t>(1 - copy));
  CHECK(again && again->compat == superblock->compat && again->reserved == superblock->reserved);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const View input = std::as_bytes(std::span(data, size));
  decode(input, 0);
  std::array<std::byte, 512> bytes{};
  std::ranges::copy(input.first(std::min(size, bytes.size())), bytes.begin());
  std::ranges::copy(view_of(kSuperblockMagic), bytes.begin());
  const le32 crc(crc32c(View(bytes).subspan(12)));
  std::ranges::copy(view_of(crc), bytes.begin() + 8);
  for (const uint16_t copy : {uint16_t{0}, uint16_t{1}}) {
    decode(bytes, copy);
    CHECK(!inspect(Artifact::superblock, bytes, {.place = copy}).empty());
  }
  return 0;
}
