// SPDX-License-Identifier: Apache-2.0
// First byte 0: a tail; 1: a block's entries; 2: a compressed block; 3: a whole table: its tail
// and its blocks. What is accepted is in order, and every block that the index names is
// bounded.
#include <algorithm>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "format/lsm_golden_test.h"
#include "format/lsm_table.h"

namespace {

using namespace firn;
using namespace firn::format;

void walk_block(View block) {
  LsmBlockReader reader(block);
  std::string before;
  while (true) {
    const auto more = reader.next();
    if (!more || !*more) return;
    const LsmEntry entry = reader.entry();
    CHECK(!entry.key.empty() && entry.key.size() <= kLsmKeyMax && entry.key > before);
    CHECK(entry.value.size() <= kLsmValueMax && (!entry.removal || entry.value.empty()));
    before = entry.key;
  }
}

Result<LsmTail> tail_of(View tail) {
  auto decoded = decode_lsm_tail(tail, lsm_sample_uuid(0x10), kLsmSampleId);
  if (!decoded) return decoded;
  uint64_t at = 0;
  std::string before;
  for (const LsmBlock& block : decoded->blocks) {
    CHECK(block.at == at && block.bytes <= kLsmBlockMax && block.last_key > before);
    CHECK(decoded->block_of(block.last_key) < decoded->blocks.size());
    at += block.stored_bytes;
    before = block.last_key;
  }
  CHECK(at == decoded->footer.data_bytes);
  static_cast<void>(decoded->may_have(lsm_hash(view_of_text("apple"))));
  return decoded;
}

// Right checksums around whatever the bytes say, so that the fields behind them are reached.
std::vector<std::byte> sealed(View tail) {
  std::vector<std::byte> bytes(tail.begin(), tail.end());
  if (bytes.size() < sizeof(LsmFooter)) return bytes;
  const size_t at = bytes.size() - sizeof(LsmFooter);
  auto footer = load<LsmFooter>(View(bytes).subspan(at));
  footer.magic = kLsmTableMagic;
  footer.tree = lsm_sample_uuid(0x10);
  footer.epoch = kLsmSampleId.epoch;
  footer.number = kLsmSampleId.number;
  footer.index_bytes = static_cast<uint32_t>(std::min<size_t>(footer.index_bytes, at));
  footer.filter_bytes = static_cast<uint32_t>(at - footer.index_bytes);
  footer.index_crc = crc32c(View(bytes).first(footer.index_bytes));
  footer.filter_crc = crc32c(View(bytes).subspan(footer.index_bytes, footer.filter_bytes));
  footer.crc = crc32c(view_of(footer).subspan(12));
  std::ranges::copy(view_of(footer), bytes.begin() + static_cast<ptrdiff_t>(at));
  return bytes;
}

void compressed(View stored) {
  LsmBlock block;
  block.stored_bytes = static_cast<uint32_t>(stored.size());
  block.bytes = 4096;
  block.codec = LsmCodec::zstd;
  block.crc = lsm_block_crc(stored, kLsmSampleId, 0);
  const auto bytes = unpack_lsm_block(stored, block, kLsmSampleId);
  if (bytes) walk_block(*bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data + 1, size - 1));
  switch (data[0] % 4) {
    case 0:
      static_cast<void>(tail_of(input).has_value());
      static_cast<void>(tail_of(sealed(input)).has_value());
      break;
    case 1:
      walk_block(input);
      break;
    case 2:
      compressed(input);
      break;
    default:
      if (input.size() > kLsmSampleDataBytes) {
        const View tail = input.subspan(kLsmSampleDataBytes);
        static_cast<void>(tail_of(tail).has_value());
        static_cast<void>(tail_of(sealed(tail)).has_value());
        walk_block(input.first(kLsmSampleDataBytes));
      }
      break;
  }
  return 0;
}
