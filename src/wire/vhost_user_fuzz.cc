// SPDX-License-Identifier: Apache-2.0
// Any bytes as each of vhost-user's payloads; the first byte says which. What is accepted obeys V1
// and V2.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/check.h"
#include "wire/vhost_user.h"

namespace {

using namespace firn::wire::vhost;
using firn::View;

template <class Encoded>
void same(const Encoded& again, View input) {
  CHECK(std::equal(again.begin(), again.end(), input.begin(), input.end()), "V2");
}

void believe(const Region& region) {
  CHECK(region.bytes > 0 && region.guest + region.bytes >= region.guest);
  CHECK(region.user + region.bytes >= region.user);
  CHECK(region.offset <= INT64_MAX && region.bytes <= INT64_MAX - region.offset);
}

void tables(View input) {
  const auto table = decode_memory_table(input);
  if (!table) return;
  CHECK(table->count <= kRegionsMax && input.size() == 8 + table->count * kRegionBytes, "V1");
  for (size_t i = 0; i < table->count; ++i) believe(table->regions[i]);
  std::array<std::byte, 8 + kRegionsMax * kRegionBytes> room;
  const size_t bytes = encode(*table, room);
  // Reserved bytes of the head are not kept.
  CHECK(std::equal(room.begin() + 8, room.begin() + static_cast<ptrdiff_t>(bytes),
                   input.begin() + 8, input.end()),
        "V2");
}

void configs(View input) {
  const auto config = decode_config(input);
  if (!config) return;
  CHECK(config->offset + config->bytes.size() <= kConfigMax, "V1");
  std::array<std::byte, kConfigHeadBytes + kConfigMax> room;
  same(View(room).first(encode(*config, room)), input);
}

void rings(View input) {
  if (const auto state = decode_state(input)) same(encode(*state), input);
  if (const auto address = decode_address(input)) same(encode(*address), input);
  if (const auto descriptor = decode_descriptor(input)) same(encode(*descriptor), input);
  if (const auto number = decode_number(input)) same(encode_number(*number), input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const View input = std::as_bytes(std::span(data + 1, size - 1));
  switch (data[0] % 5) {
    case 0: {
      const auto header = decode_header(input);
      if (!header) break;
      CHECK(header->payload_bytes <= kPayloadMax, "V1");
      (void)name_of(header->request);
      same(encode(*header), input);
      break;
    }
    case 1:
      tables(input);
      break;
    case 2:
      configs(input);
      break;
    case 3:
      if (const auto region = decode_memory_slot(input)) believe(*region);
      if (const auto inflight = decode_inflight(input)) {
        same(View(encode(*inflight)).first(kInflightBytes), input.first(kInflightBytes));
      }
      break;
    default:
      rings(input);
      break;
  }
  return 0;
}
