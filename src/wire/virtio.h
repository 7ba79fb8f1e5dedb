// SPDX-License-Identifier: Apache-2.0
// virtio's bytes: rings in guest memory, and what a block device says through them (OASIS virtio
// 1.2, sections 2.7, 2.8 and 5.2; the numbers are theirs). Little-endian throughout.
//
// Layouts alone: who reads them from memory that a guest may change copies first (base/shared.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

namespace firn::wire::virtio {

// --- features of every device

inline constexpr uint64_t kIndirect = uint64_t{1} << 28;
inline constexpr uint64_t kEventIndex = uint64_t{1} << 29;
inline constexpr uint64_t kVersion1 = uint64_t{1} << 32;
inline constexpr uint64_t kPacked = uint64_t{1} << 34;

// --- rings

struct
    Descriptor {  // Split: in the table. Packed: in the ring, where `id` and `flags` change places.
  le64 address;
  le32 length;
  le16 flags;
  le16 next;
};
static_assert(OnDisk<Descriptor, 16>);
struct PackedDescriptor {
  le64 address;
  le32 length;
  le16 id;
  le16 flags;
};
static_assert(OnDisk<PackedDescriptor, 16>);

inline constexpr uint16_t kNext = 1 << 0;  // Descriptor flags.
inline constexpr uint16_t kWrite = 1 << 1;
inline constexpr uint16_t kIndirectTable = 1 << 2;
inline constexpr uint16_t kPackedAvailable = 1 << 7;
inline constexpr uint16_t kPackedUsed = 1 << 15;
inline constexpr uint16_t kWrapBit = 1 << 15;  // Of an index with a wrap counter.

// Split rings. Offsets into the available ring: flags, idx, ring[size], used_event; into the used
// ring: flags, idx, ring[size] of 8 bytes, avail_event.
inline constexpr uint16_t kNoInterrupt = 1;
inline constexpr uint16_t kNoNotify = 1;
inline constexpr size_t kRingFlags = 0;
inline constexpr size_t kRingIndex = 2;
inline constexpr size_t kRingEntries = 4;
inline constexpr size_t kDescriptorBytes = 16;
inline constexpr size_t kUsedBytes = 8;
constexpr size_t available_bytes(size_t size) { return kRingEntries + 2 * size + 2; }
constexpr size_t used_bytes(size_t size) { return kRingEntries + kUsedBytes * size + 2; }
constexpr size_t used_event_at(size_t size) { return kRingEntries + 2 * size; }
constexpr size_t available_event_at(size_t size) { return kRingEntries + kUsedBytes * size; }

// Packed rings: the event suppression areas.
inline constexpr size_t kEventAreaBytes = 4;
inline constexpr size_t kEventOffset = 0;
inline constexpr size_t kEventFlags = 2;
enum class EventFlags : uint16_t { enable = 0, disable = 1, at_index = 2 };

// Whether an index that went from `before` to `now` passed `event` on its way.
constexpr bool passed(uint16_t event, uint16_t now, uint16_t before) {
  return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

// --- block devices

inline constexpr uint64_t kBlkSizeMax = uint64_t{1} << 1;
inline constexpr uint64_t kBlkSegmentMax = uint64_t{1} << 2;
inline constexpr uint64_t kBlkReadOnly = uint64_t{1} << 5;
inline constexpr uint64_t kBlkBlockSize = uint64_t{1} << 6;
inline constexpr uint64_t kBlkFlush = uint64_t{1} << 9;
inline constexpr uint64_t kBlkTopology = uint64_t{1} << 10;
inline constexpr uint64_t kBlkConfigWriteCache = uint64_t{1} << 11;
inline constexpr uint64_t kBlkMultiqueue = uint64_t{1} << 12;
inline constexpr uint64_t kBlkDiscard = uint64_t{1} << 13;
inline constexpr uint64_t kBlkWriteZeroes = uint64_t{1} << 14;

inline constexpr uint32_t kSectorBytes = 512;  // Of all addresses, whatever the block size.
inline constexpr size_t kBlkIdBytes = 20;

enum class BlkType : uint32_t { in = 0, out = 1, flush = 4, get_id = 8, discard = 11, zero = 13 };
enum class BlkStatus : uint8_t { good = 0, io_error = 1, unsupported = 2 };

struct BlkHeader {
  le32 type;
  le32 priority;
  le64 sector;
};
static_assert(OnDisk<BlkHeader, 16>);

struct BlkSegment {  // Of DISCARD and WRITE_ZEROES.
  le64 sector;
  le32 sectors;
  le32 flags;
};
static_assert(OnDisk<BlkSegment, 16>);
inline constexpr uint32_t kBlkUnmap = 1 << 0;  // BlkSegment::flags.

struct BlkConfig {
  le64 capacity;  // In sectors.
  le32 size_max;
  le32 segment_max;
  le16 cylinders;
  std::byte heads{};
  std::byte sectors{};
  le32 block_size;
  std::byte physical_block_exponent{};
  std::byte alignment_offset{};
  le16 io_size_min;      // In blocks ...
  le32 io_size_optimal;  // ... likewise.
  std::byte writeback{};
  std::byte unused{};
  le16 queues;
  le32 discard_sectors_max;
  le32 discard_segments_max;
  le32 discard_alignment;
  le32 zero_sectors_max;
  le32 zero_segments_max;
  std::byte zero_may_unmap{};
  std::array<std::byte, 3> unused_too{};
};
static_assert(OnDisk<BlkConfig, 60>);
inline constexpr size_t kBlkWritebackAt = offsetof(BlkConfig, writeback);

}  // namespace firn::wire::virtio
