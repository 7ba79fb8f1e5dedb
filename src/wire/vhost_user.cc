// SPDX-License-Identifier: Apache-2.0
#include "wire/vhost_user.h"

#include <cstring>

#include "base/check.h"

namespace firn::wire::vhost {
namespace {

struct HeaderLayout {
  le32 request;
  le32 flags;
  le32 payload_bytes;
};
static_assert(OnDisk<HeaderLayout, kHeaderBytes>);

struct RegionLayout {
  le64 guest;
  le64 bytes;
  le64 user;
  le64 offset;
};
static_assert(OnDisk<RegionLayout, kRegionBytes>);

struct SlotLayout {
  le64 reserved;
  RegionLayout region;
};
static_assert(OnDisk<SlotLayout, kMemorySlotBytes>);

struct StateLayout {
  le32 index;
  le32 number;
};
static_assert(OnDisk<StateLayout, kStateBytes>);

struct AddressLayout {
  le32 index;
  le32 flags;
  le64 descriptors;
  le64 used;
  le64 available;
  le64 log;
};
static_assert(OnDisk<AddressLayout, kAddressBytes>);

struct ConfigLayout {
  le32 offset;
  le32 bytes;
  le32 flags;
};
static_assert(OnDisk<ConfigLayout, kConfigHeadBytes>);

struct InflightLayout {
  le64 bytes;
  le64 offset;
  le16 queues;
  le16 queue_size;
  le32 padding;
};
static_assert(OnDisk<InflightLayout, kInflightPadded>);

template <class Layout>
std::array<std::byte, sizeof(Layout)> bytes_in(const Layout& layout) {
  return std::bit_cast<std::array<std::byte, sizeof(Layout)>>(layout);
}

Result<void> want(View payload, size_t bytes, const char* what) {
  if (payload.size() == bytes) return ok;
  return fail(Errc::invalid, "a {} has {} bytes, not {}", what, payload.size(), bytes);
}

bool wraps(uint64_t at, uint64_t bytes) { return bytes > UINT64_MAX - at; }

Result<Region> region_of(const RegionLayout& layout) {
  const Region region{layout.guest, layout.bytes, layout.user, layout.offset};
  // A file offset has 63 bits.
  const bool wrong = region.bytes == 0 || wraps(region.guest, region.bytes) ||
                     wraps(region.user, region.bytes) ||
                     !Range{region.offset, region.bytes}.within(INT64_MAX);
  if (!wrong) return region;
  return fail(Errc::invalid,
              "a memory region of {:#x} bytes at guest {:#x}, user {:#x}, offset {:#x} cannot be",
              region.bytes, region.guest, region.user, region.offset);
}

RegionLayout layout_of(const Region& region) {
  return {region.guest, region.bytes, region.user, region.offset};
}

}  // namespace

std::string_view name_of(Request request) {
  switch (request) {
    case Request::get_features:
      return "GET_FEATURES";
    case Request::set_features:
      return "SET_FEATURES";
    case Request::set_owner:
      return "SET_OWNER";
    case Request::reset_owner:
      return "RESET_OWNER";
    case Request::set_memory_table:
      return "SET_MEM_TABLE";
    case Request::set_log_base:
      return "SET_LOG_BASE";
    case Request::set_log_fd:
      return "SET_LOG_FD";
    case Request::set_vring_size:
      return "SET_VRING_NUM";
    case Request::set_vring_address:
      return "SET_VRING_ADDR";
    case Request::set_vring_base:
      return "SET_VRING_BASE";
    case Request::get_vring_base:
      return "GET_VRING_BASE";
    case Request::set_vring_kick:
      return "SET_VRING_KICK";
    case Request::set_vring_call:
      return "SET_VRING_CALL";
    case Request::set_vring_error:
      return "SET_VRING_ERR";
    case Request::get_protocol_features:
      return "GET_PROTOCOL_FEATURES";
    case Request::set_protocol_features:
      return "SET_PROTOCOL_FEATURES";
    case Request::get_queue_count:
      return "GET_QUEUE_NUM";
    case Request::set_vring_enable:
      return "SET_VRING_ENABLE";
    case Request::set_backend_socket:
      return "SET_BACKEND_REQ_FD";
    case Request::get_config:
      return "GET_CONFIG";
    case Request::set_config:
      return "SET_CONFIG";
    case Request::get_inflight:
      return "GET_INFLIGHT_FD";
    case Request::set_inflight:
      return "SET_INFLIGHT_FD";
    case Request::reset_device:
      return "RESET_DEVICE";
    case Request::get_memory_slots:
      return "GET_MAX_MEM_SLOTS";
    case Request::add_memory_region:
      return "ADD_MEM_REG";
    case Request::remove_memory_region:
      return "REM_MEM_REG";
  }
  return "unknown";
}

Result<Header> decode_header(View bytes) {
  TRY(want(bytes, kHeaderBytes, "message header"));
  const auto layout = load<HeaderLayout>(bytes);
  const Header header{static_cast<Request>(layout.request.get()), layout.flags,
                      layout.payload_bytes};
  constexpr uint32_t kKnown = 3 | kReply | kNeedReply;
  if ((header.flags & 3) != kVersion || (header.flags & ~kKnown) != 0) {
    return fail(Errc::invalid, "message {} has flags {:#x}, which are not of version 1",
                layout.request.get(), header.flags);
  }
  if (header.payload_bytes > kPayloadMax) {
    return fail(Errc::invalid, "message {} has {} bytes of payload, more than {}",
                layout.request.get(), header.payload_bytes, kPayloadMax);
  }
  return header;
}

std::array<std::byte, kHeaderBytes> encode(const Header& header) {
  return bytes_in(
      HeaderLayout{static_cast<uint32_t>(header.request), header.flags, header.payload_bytes});
}

Result<uint64_t> decode_number(View payload) {
  TRY(want(payload, kNumberBytes, "number"));
  return uint64_t{load<le64>(payload)};
}

Result<VringState> decode_state(View payload) {
  TRY(want(payload, kStateBytes, "ring state"));
  const auto layout = load<StateLayout>(payload);
  return VringState{layout.index, layout.number};
}

Result<VringAddress> decode_address(View payload) {
  TRY(want(payload, kAddressBytes, "ring address"));
  const auto layout = load<AddressLayout>(payload);
  return VringAddress{layout.index, layout.flags,     layout.descriptors,
                      layout.used,  layout.available, layout.log};
}

Result<VringDescriptor> decode_descriptor(View payload) {
  const uint64_t number = TRY(decode_number(payload));
  if ((number & ~(kNoDescriptor | 0xff)) != 0) {
    return fail(Errc::invalid, "a ring's descriptor has unknown flags: {:#x}", number);
  }
  return VringDescriptor{static_cast<uint8_t>(number & 0xff), (number & kNoDescriptor) == 0};
}

Result<MemoryTable> decode_memory_table(View payload) {
  struct Head {
    le32 count;
    le32 reserved;
  };
  if (payload.size() < sizeof(Head)) return want(payload, sizeof(Head), "memory table").error();
  MemoryTable table;
  table.count = load<Head>(payload).count.get();
  if (table.count > kRegionsMax) {
    return fail(Errc::invalid, "a memory table has {} regions, more than {}", table.count,
                kRegionsMax);
  }
  TRY(want(payload, sizeof(Head) + table.count * kRegionBytes, "memory table"));
  for (size_t i = 0; i < table.count; ++i) {
    const View at = payload.subspan(sizeof(Head) + i * kRegionBytes);
    table.regions[i] = TRY(region_of(load<RegionLayout>(at)));
  }
  return table;
}

Result<Region> decode_memory_slot(View payload) {
  TRY(want(payload, kMemorySlotBytes, "memory region"));
  return region_of(load<SlotLayout>(payload).region);
}

Result<Config> decode_config(View payload) {
  if (payload.size() < kConfigHeadBytes) {
    return want(payload, kConfigHeadBytes, "configuration").error();
  }
  const auto layout = load<ConfigLayout>(payload);
  if (!Range{layout.offset, layout.bytes}.within(kConfigMax)) {
    return fail(Errc::invalid, "{} bytes of configuration at {} are not within {}",
                layout.bytes.get(), layout.offset.get(), kConfigMax);
  }
  TRY(want(payload, kConfigHeadBytes + layout.bytes, "configuration"));
  return Config{layout.offset, layout.flags, payload.subspan(kConfigHeadBytes)};
}

Result<Inflight> decode_inflight(View payload) {
  if (payload.size() != kInflightBytes) {
    TRY(want(payload, kInflightPadded, "description of memory for requests in flight"));
  }
  InflightLayout layout;
  std::memcpy(&layout, payload.data(), payload.size());
  const Inflight inflight{layout.bytes, layout.offset, layout.queues, layout.queue_size};
  if (!Range{inflight.offset, inflight.bytes}.within(INT64_MAX) ||
      inflight.queue_size > kQueueSizeMax) {
    return fail(Errc::invalid, "{} bytes at {} for {} queues of {} in flight cannot be",
                inflight.bytes, inflight.offset, inflight.queues, inflight.queue_size);
  }
  return inflight;
}

std::array<std::byte, kNumberBytes> encode_number(uint64_t number) {
  return bytes_in(le64(number));
}

std::array<std::byte, kStateBytes> encode(const VringState& state) {
  return bytes_in(StateLayout{state.index, state.number});
}

std::array<std::byte, kAddressBytes> encode(const VringAddress& address) {
  return bytes_in(AddressLayout{address.index, address.flags, address.descriptors, address.used,
                                address.available, address.log});
}

std::array<std::byte, kNumberBytes> encode(const VringDescriptor& descriptor) {
  return encode_number(descriptor.index | (descriptor.has_descriptor ? 0 : kNoDescriptor));
}

std::array<std::byte, kMemorySlotBytes> encode(const Region& region) {
  return bytes_in(SlotLayout{0, layout_of(region)});
}

std::array<std::byte, kInflightPadded> encode(const Inflight& inflight) {
  return bytes_in(
      InflightLayout{inflight.bytes, inflight.offset, inflight.queues, inflight.queue_size, 0});
}

size_t encode(const MemoryTable& table, Bytes room) {
  const size_t bytes = 8 + table.count * kRegionBytes;
  CHECK(table.count <= kRegionsMax && room.size() >= bytes);
  const StateLayout head{static_cast<uint32_t>(table.count), 0};
  std::memcpy(room.data(), &head, sizeof(head));
  for (size_t i = 0; i < table.count; ++i) {
    const RegionLayout layout = layout_of(table.regions[i]);
    std::memcpy(room.data() + 8 + i * kRegionBytes, &layout, sizeof(layout));
  }
  return bytes;
}

size_t encode(const Config& config, Bytes room) {
  const size_t bytes = kConfigHeadBytes + config.bytes.size();
  CHECK(room.size() >= bytes);
  const ConfigLayout head{config.offset, static_cast<uint32_t>(config.bytes.size()), config.flags};
  std::memcpy(room.data(), &head, sizeof(head));
  std::memcpy(room.data() + sizeof(head), config.bytes.data(), config.bytes.size());
  return bytes;
}

}  // namespace firn::wire::vhost
