// SPDX-License-Identifier: Apache-2.0
#include "wire/vhost_user.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

#include "wire/virtio.h"

namespace firn::wire::vhost {
namespace {

using Raw = std::vector<std::byte>;

Raw raw(View bytes) { return {bytes.begin(), bytes.end()}; }
Raw raw(std::initializer_list<int> bytes) {
  Raw out;
  for (const int byte : bytes) out.push_back(static_cast<std::byte>(byte));
  return out;
}

TEST(VhostUser, header_literal) {
  const Raw expected = raw({5, 0, 0, 0, 9, 0, 0, 0, 0x28, 0, 0, 0});
  const auto header = decode_header(expected);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->request, Request::set_memory_table);
  EXPECT_TRUE(header->needs_reply());
  EXPECT_FALSE(header->is_reply());
  EXPECT_EQ(header->payload_bytes, 40u);
  EXPECT_EQ(raw(encode(*header)), expected);
  EXPECT_EQ(name_of(header->request), "SET_MEM_TABLE");
  EXPECT_EQ(name_of(static_cast<Request>(777)), "unknown");
}

TEST(VhostUser, headers_that_cannot_be) {
  EXPECT_FALSE(decode_header(raw({1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0})));   // Version 2.
  EXPECT_FALSE(decode_header(raw({1, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0})));  // An unknown flag.
  EXPECT_FALSE(decode_header(raw({1, 0, 0, 0, 1, 0, 0, 0, 1, 16, 0, 0})));  // 4,097 bytes.
  EXPECT_FALSE(decode_header(raw({1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0})));      // Short.
  EXPECT_TRUE(decode_header(raw({99, 0, 0, 0, 1, 0, 0, 0, 0, 16, 0, 0})));  // The session's.
}

TEST(VhostUser, memory_table) {
  MemoryTable table;
  table.count = 2;
  table.regions[0] = {0, 0xa0000, 0x7f0000000000, 0};
  table.regions[1] = {0x100000, 0x10000000, 0x7f0000100000, 0x100000};
  std::array<std::byte, 512> room;
  const size_t bytes = encode(table, room);
  EXPECT_EQ(bytes, 72u);
  const auto again = decode_memory_table(View(room).first(bytes));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->count, 2u);
  EXPECT_EQ(again->regions[1], table.regions[1]);
  EXPECT_FALSE(decode_memory_table(View(room).first(bytes - 1)));
  EXPECT_FALSE(decode_memory_table(View(room).first(bytes + 32)));
  room[0] = std::byte{9};
  EXPECT_FALSE(decode_memory_table(View(room).first(8 + 9 * 32)));
}

TEST(VhostUser, regions_never_wrap) {
  const Region good{4096, 4096, 4096, 0};
  EXPECT_TRUE(decode_memory_slot(encode(good)));
  for (const Region& bad :
       {Region{4096, 0, 4096, 0}, Region{UINT64_MAX - 4094, 4096, 4096, 0},
        Region{4096, 4096, UINT64_MAX - 4094, 0}, Region{4096, 4096, 4096, INT64_MAX - 4094}}) {
    EXPECT_FALSE(decode_memory_slot(encode(bad)));
  }
}

TEST(VhostUser, ring_payloads) {
  const auto state = decode_state(encode(VringState{3, 128}));
  ASSERT_TRUE(state);
  EXPECT_EQ(state->index, 3u);
  EXPECT_EQ(state->number, 128u);
  const auto address = decode_address(encode(VringAddress{1, 0, 2, 3, 4, 5}));
  ASSERT_TRUE(address);
  EXPECT_EQ(address->used, 3u);
  EXPECT_EQ(address->available, 4u);
  const auto none = decode_descriptor(encode_number(0x105));
  ASSERT_TRUE(none);
  EXPECT_EQ(none->index, 5u);
  EXPECT_FALSE(none->has_descriptor);
  EXPECT_FALSE(decode_descriptor(encode_number(0x205)));
}

TEST(VhostUser, config_and_inflight) {
  std::array<std::byte, 300> room;
  const Raw bytes(60, std::byte{7});
  const size_t count = encode(Config{4, 1, bytes}, room);
  const auto config = decode_config(View(room).first(count));
  ASSERT_TRUE(config);
  EXPECT_EQ(config->offset, 4u);
  EXPECT_EQ(raw(config->bytes), bytes);
  EXPECT_FALSE(decode_config(View(room).first(count - 1)));
  EXPECT_FALSE(decode_config(View(room).first(4)));
  const size_t beyond = encode(Config{200, 0, bytes}, room);
  EXPECT_FALSE(decode_config(View(room).first(beyond)));
  const auto inflight = decode_inflight(encode(Inflight{8192, 0, 4, 128}));
  ASSERT_TRUE(inflight);
  EXPECT_EQ(inflight->queue_size, 128u);
  const auto padded = encode(Inflight{8192, 0, 4, 128});
  EXPECT_TRUE(decode_inflight(View(padded).first(kInflightBytes)));
  EXPECT_FALSE(decode_inflight(View(padded).first(kInflightBytes + 1)));
  EXPECT_FALSE(decode_inflight(encode(Inflight{UINT64_MAX, 1, 4, 128})));
  EXPECT_FALSE(decode_inflight(encode(Inflight{8192, 0, 4, 65535})));
}

TEST(Virtio, an_event_is_passed_once) {
  using virtio::passed;
  EXPECT_TRUE(passed(5, 6, 5));
  EXPECT_FALSE(passed(5, 7, 6));
  EXPECT_FALSE(passed(7, 7, 5));
  EXPECT_TRUE(passed(0xffff, 0, 0xffff));  // Across the wrap.
  EXPECT_TRUE(passed(0xfffe, 3, 0xfff0));
}

}  // namespace
}  // namespace firn::wire::vhost
