// SPDX-License-Identifier: Apache-2.0
// vhost-user's bytes: the messages by which a front end (QEMU) tells a back end where guest memory
// and its rings are.
//
// Contract:
//  V1  decode_* believes nothing: a payload has exactly the size that its message wants, counts are
//      within their limits, and no sum of what is returned wraps.
//  V2  encode(decode(x)) == x for every payload that is accepted.
//
// Knows no state: which message may follow which is serve's matter, as are the descriptors that
// travel with some. The protocol is QEMU's (docs/interop/vhost-user); the numbers are theirs.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"

namespace firn::wire::vhost {

// --- limits

inline constexpr size_t kHeaderBytes = 12;
inline constexpr size_t kRegionsMax = 8;     // In one SET_MEM_TABLE, by the protocol.
inline constexpr size_t kConfigMax = 256;    // Bytes of configuration in one message.
inline constexpr size_t kPayloadMax = 4096;  // More than any message has; beyond, nobody reads on.
inline constexpr uint16_t kQueueSizeMax = 32768;

// --- flags

inline constexpr uint32_t kVersion = 1;  // The low two bits of Header::flags.
inline constexpr uint32_t kReply = 1 << 2;
inline constexpr uint32_t kNeedReply = 1 << 3;

inline constexpr uint64_t kNoDescriptor = 1 << 8;  // In the number of KICK, CALL and ERR.
inline constexpr uint32_t kAddressLog = 1 << 0;    // VringAddress::flags.

// Feature bits that belong to the transport. The device's own are in wire/virtio.h.
inline constexpr uint64_t kFeatureProtocol = uint64_t{1} << 30;

// Protocol features.
inline constexpr uint64_t kProtocolMultiqueue = uint64_t{1} << 0;
inline constexpr uint64_t kProtocolReplyAck = uint64_t{1} << 3;
inline constexpr uint64_t kProtocolBackendRequests = uint64_t{1} << 5;
inline constexpr uint64_t kProtocolConfig = uint64_t{1} << 9;
inline constexpr uint64_t kProtocolInflight = uint64_t{1} << 12;
inline constexpr uint64_t kProtocolResetDevice = uint64_t{1} << 13;
inline constexpr uint64_t kProtocolMemorySlots = uint64_t{1} << 15;

// --- requests. Values come from the socket: an enum may hold a number that is not listed.

enum class Request : uint32_t {
  get_features = 1,
  set_features = 2,
  set_owner = 3,
  reset_owner = 4,
  set_memory_table = 5,
  set_log_base = 6,
  set_log_fd = 7,
  set_vring_size = 8,
  set_vring_address = 9,
  set_vring_base = 10,
  get_vring_base = 11,
  set_vring_kick = 12,
  set_vring_call = 13,
  set_vring_error = 14,
  get_protocol_features = 15,
  set_protocol_features = 16,
  get_queue_count = 17,
  set_vring_enable = 18,
  set_backend_socket = 21,
  get_config = 24,
  set_config = 25,
  get_inflight = 31,
  set_inflight = 32,
  reset_device = 34,
  get_memory_slots = 36,
  add_memory_region = 37,
  remove_memory_region = 38,
};
// "SET_MEM_TABLE", ..., as the protocol spells them; "unknown" for numbers that are not listed.
std::string_view name_of(Request request);

// What a back end may ask on a socket of its own.
enum class BackendRequest : uint32_t { config_changed = 2 };

struct Header {
  Request request = Request::get_features;
  uint32_t flags = kVersion;
  uint32_t payload_bytes = 0;
  bool needs_reply() const { return (flags & kNeedReply) != 0; }
  bool is_reply() const { return (flags & kReply) != 0; }
};
Result<Header> decode_header(View bytes);  // Exactly kHeaderBytes.
std::array<std::byte, kHeaderBytes> encode(const Header& header);

// --- payloads

struct Region {
  uint64_t guest = 0;   // Guest-physical address.
  uint64_t bytes = 0;   // Never 0.
  uint64_t user = 0;    // Where the front end has it: ring addresses are given in these.
  uint64_t offset = 0;  // In the descriptor's file.
  bool operator==(const Region&) const = default;
};
inline constexpr size_t kRegionBytes = 32;

struct MemoryTable {
  size_t count = 0;
  std::array<Region, kRegionsMax> regions;
};

struct VringState {  // Sizes, bases, enabling: a queue and a number.
  uint32_t index = 0;
  uint32_t number = 0;
};
struct VringAddress {
  uint32_t index = 0;
  uint32_t flags = 0;
  uint64_t descriptors = 0;
  uint64_t used = 0;
  uint64_t available = 0;
  uint64_t log = 0;
};
struct VringDescriptor {  // KICK, CALL, ERR.
  uint8_t index = 0;
  bool has_descriptor = true;
};
struct Config {
  uint32_t offset = 0;
  uint32_t flags = 0;
  View bytes;  // Points into what was decoded.
};
struct Inflight {
  uint64_t bytes = 0;
  uint64_t offset = 0;
  uint16_t queues = 0;
  uint16_t queue_size = 0;
};

inline constexpr size_t kNumberBytes = 8;
inline constexpr size_t kStateBytes = 8;
inline constexpr size_t kAddressBytes = 40;
inline constexpr size_t kConfigHeadBytes = 12;
inline constexpr size_t kInflightBytes = 20;   // By the protocol ...
inline constexpr size_t kInflightPadded = 24;  // ... and as QEMU has it, whose compiler pads it.
inline constexpr size_t kMemorySlotBytes = 8 + kRegionBytes;

Result<uint64_t> decode_number(View payload);
Result<VringState> decode_state(View payload);
Result<VringAddress> decode_address(View payload);
Result<VringDescriptor> decode_descriptor(View payload);
Result<MemoryTable> decode_memory_table(View payload);
Result<Region> decode_memory_slot(View payload);
Result<Config> decode_config(View payload);
Result<Inflight> decode_inflight(View payload);  // Either size; the answer must have the same.

std::array<std::byte, kNumberBytes> encode_number(uint64_t number);
std::array<std::byte, kStateBytes> encode(const VringState& state);
std::array<std::byte, kAddressBytes> encode(const VringAddress& address);
std::array<std::byte, kNumberBytes> encode(const VringDescriptor& descriptor);
std::array<std::byte, kMemorySlotBytes> encode(const Region& region);
std::array<std::byte, kInflightPadded> encode(const Inflight& inflight);  // Cut to kInflightBytes.
// Into `room`, which is large enough; how many bytes.
size_t encode(const MemoryTable& table, Bytes room);
size_t encode(const Config& config, Bytes room);

}  // namespace firn::wire::vhost
