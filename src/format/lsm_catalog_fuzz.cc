// SPDX-License-Identifier: Apache-2.0
// First byte 0: a catalog, as it is and under a right checksum; 2: the hint; 3: the claim of an
// epoch. What is accepted is in order and is written as it was read.
#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "format/lsm_catalog.h"

namespace {

using namespace firn;
using namespace firn::format;

void catalog(View bytes) {
  const auto decoded = decode_lsm_catalog(bytes, 41);
  if (!decoded) {
    CHECK(!text_of(decoded.error()).empty());
    return;
  }
  const LsmTable* before = nullptr;
  for (const LsmTable& table : decoded->tables) {
    CHECK(table.first_key <= table.last_key && !table.first_key.empty());
    CHECK(table.tail_bytes < table.bytes && table.id.epoch <= decoded->epoch);
    if (before != nullptr && before->run == table.run) CHECK(before->last_key < table.first_key);
    before = &table;
  }
  CHECK(decoded->floor <= decoded->doomed && decoded->doomed <= 41);
  const auto again = decode_lsm_catalog(encode(*decoded), 41);
  CHECK(again && *again == *decoded, "written as it was read");
}

void sealed_catalog(View input) {
  std::vector<std::byte> bytes(input.begin(), input.end());
  if (bytes.size() < sizeof(LsmCatalogHead)) return;
  auto head = load<LsmCatalogHead>(bytes);
  head.body_bytes = static_cast<uint32_t>(bytes.size() - sizeof(head));
  std::ranges::copy(view_of(head), bytes.begin());
  const le32 crc(crc32c(View(bytes).subspan(12)));
  std::ranges::copy(view_of(crc), bytes.begin() + 8);
  catalog(bytes);
}

void pointer(View input, const std::array<char, 8>& magic) {
  static_cast<void>(decode_lsm_pointer(input, magic).has_value());
  LsmPointer changed;
  std::ranges::copy(input.first(std::min(input.size(), sizeof(changed))),
                    bytes_of(changed).begin());
  changed.magic = magic;
  const auto sealed = encode(changed);
  const auto decoded = decode_lsm_pointer(sealed, magic);
  if (!decoded) return;
  CHECK(decoded->epoch > 0 && std::ranges::equal(encode(*decoded), sealed));
  CHECK(magic != kLsmNewestMagic || decoded->version > 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data + 1, size - 1));
  switch (data[0] % 4) {
    case 2:
      pointer(input, kLsmNewestMagic);
      break;
    case 3:
      pointer(input, kLsmEpochMagic);
      break;
    default:
      catalog(input);
      sealed_catalog(input);
      break;
  }
  return 0;
}
