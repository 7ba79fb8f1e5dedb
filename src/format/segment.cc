// SPDX-License-Identifier: Apache-2.0
#include "format/segment.h"

#include <algorithm>

#include "base/check.h"

namespace firn::format {
namespace {

constexpr size_t kCovered = 12;

bool is_data(const SegmentHeader& header) {
  return header.kind == std::byte{static_cast<uint8_t>(SegmentKind::data)};
}
bool is_sealed(const SegmentHeader& header) { return header.sealed != std::byte{}; }

Error impossible(const SegmentHeader& header, std::string_view what) {
  return fail(Errc::corrupt, "segment {:016x}: {} cannot be", header.segment_id.get(), what);
}

Result<void> check_counts(const SegmentHeader& header) {
  if (is_data(header)) {
    if (header.slots == 0 || header.slots > kSegmentSlotsMax || header.present > header.slots) {
      return impossible(
          header, fmt::format("{} blocks in {} slots", header.present.get(), header.slots.get()));
    }
    if (header.index_bytes != header.present * kBlockIndexBytes || header.part != 0 ||
        header.parts != 0 || header.revision != 0) {
      return impossible(header, "its index");
    }
  } else if (header.slots != 0 || header.present > (1U << 24) || header.index_bytes > 4096 ||
             header.generation != 0) {
    return impossible(header, "a manifest of this size");
  }
  const uint64_t groups =
      (uint64_t{header.present} + items_per_group(header) - 1) / items_per_group(header);
  if (header.groups != groups) return impossible(header, "its number of groups");
  const uint32_t seal = is_sealed(header) ? kSealBytes : 0;
  if (header.index_stored > header.index_bytes + seal ||
      header.payload_bytes > groups * (kGroupBytes + seal) || header.seq_min > header.seq_max) {
    return impossible(header, "its lengths");
  }
  return ok;
}

// A column of differences: of a run that ascends by one, zeroes.
template <class Wire, class Field>
void put_column(std::span<const SegmentBlock> blocks, std::byte*& to, uint64_t step, Field&& of) {
  uint64_t expected = 0;
  for (const SegmentBlock& block : blocks) {
    const uint64_t value = of(block);
    const Wire difference(static_cast<decltype(Wire{}.get())>(value - expected));
    std::memcpy(to, &difference, sizeof difference);
    to += sizeof difference;
    expected = value + step;
  }
}

template <class Wire, class Field>
void take_column(std::span<SegmentBlock> blocks, View& from, uint64_t step, Field&& to) {
  uint64_t expected = 0;
  for (SegmentBlock& block : blocks) {
    using Value = decltype(Wire{}.get());
    const auto value =
        static_cast<Value>(static_cast<Value>(load<Wire>(from)) + static_cast<Value>(expected));
    to(block, value);
    from = from.subspan(sizeof(Wire));
    expected = value + step;
  }
}

}  // namespace

SegmentShape shape_of(const SegmentHeader& header) {
  SegmentShape shape;
  shape.index_at = kSegmentTableAt + uint64_t{header.groups} * sizeof(GroupEntry);
  shape.payload_at = shape.index_at + header.index_stored;
  shape.bytes = shape.payload_at + header.payload_bytes;
  return shape;
}

uint32_t group_bytes(const SegmentHeader& header, uint32_t group) {
  const uint32_t per = items_per_group(header);
  const auto item = static_cast<uint32_t>(is_data(header) ? kGrainBytes : sizeof(ManifestExtent));
  return std::min(per, header.present - group * per) * item;
}

std::array<std::byte, kSegmentHeaderBytes> encode(SegmentHeader header) {
  header.crc = crc32c(view_of(header).subspan(kCovered));
  std::array<std::byte, kSegmentHeaderBytes> bytes;
  std::memcpy(bytes.data(), &header, sizeof header);
  const Result<SegmentHeader> again = decode_segment_header(bytes);
  CHECK(again, "a header that we could not read back: {}", text_of(again.error()));
  return bytes;
}

Result<SegmentHeader> decode_segment_header(View bytes) {
  if (bytes.size() < sizeof(SegmentHeader)) {
    return fail(Errc::corrupt, "segment: {} bytes where a header was expected", bytes.size());
  }
  const auto header = load<SegmentHeader>(bytes);
  if (header.magic != kSegmentMagic) return fail(Errc::not_found, "segment: no magic");
  const uint32_t expected = crc32c(view_of(header).subspan(kCovered));
  if (header.crc != expected) {
    return fail(Errc::corrupt, "segment: header crc {:08x}, expected {:08x}", header.crc.get(),
                expected);
  }
  if (header.version > kSegmentVersion || (header.incompat & ~kSegmentKnownIncompat) != 0) {
    return fail(Errc::too_new, "segment {:016x}: version {}, features {:#x}: too new",
                header.segment_id.get(), header.version.get(), header.incompat.get());
  }
  const auto kind = static_cast<uint8_t>(header.kind);
  if (kind > static_cast<uint8_t>(SegmentKind::manifest)) {
    return fail(Errc::too_new, "segment {:016x}: kind {} is unknown to this version",
                header.segment_id.get(), kind);
  }
  if (header.version == 0 || kind == 0 || static_cast<uint8_t>(header.sealed) > 1 ||
      !all_zero(header.reserved)) {
    return impossible(header, "version, kind or reserved bytes");
  }
  TRY(check_counts(header));
  return header;
}

Result<std::vector<GroupEntry>> decode_group_table(const SegmentHeader& header, View bytes) {
  if (bytes.size() < header.groups * sizeof(GroupEntry)) {
    return impossible(header, "a table cut short");
  }
  bytes = bytes.first(header.groups * sizeof(GroupEntry));
  if (crc32c(bytes) != header.table_crc) {
    return fail(Errc::corrupt, "segment {:016x}: its table of groups is damaged",
                header.segment_id.get());
  }
  const uint32_t seal = is_sealed(header) ? kSealBytes : 0;
  std::vector<GroupEntry> groups(header.groups);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < header.groups; ++i) {
    groups[i] = load<GroupEntry>(bytes.subspan(i * sizeof(GroupEntry)));
    const uint32_t stored = groups[i].stored & ~kGroupRaw;
    const uint32_t plain = group_bytes(header, i);
    const bool raw = (groups[i].stored & kGroupRaw) != 0;
    if (stored <= seal || (raw ? stored != plain + seal : stored >= plain + seal)) {
      return impossible(header, fmt::format("group {} of {} bytes", i, stored));
    }
    sum += stored;
  }
  if (sum != header.payload_bytes) return impossible(header, "the sum of its groups");
  return groups;
}

std::vector<std::byte> encode_block_index(std::span<const SegmentBlock> blocks) {
  std::vector<std::byte> bytes(blocks.size() * kBlockIndexBytes);
  std::byte* to = bytes.data();
  put_column<le16>(blocks, to, 1, [](const SegmentBlock& b) { return uint64_t{b.slot}; });
  put_column<le64>(blocks, to, 1, [](const SegmentBlock& b) { return b.chunk; });
  put_column<le64>(blocks, to, 1, [](const SegmentBlock& b) { return b.grain; });
  put_column<le32>(blocks, to, 0, [](const SegmentBlock& b) { return uint64_t{b.seq}; });
  for (const SegmentBlock& block : blocks) {
    std::memcpy(to, block.identity.data(), block.identity.size());
    to += block.identity.size();
  }
  return bytes;
}

Result<std::vector<SegmentBlock>> decode_block_index(const SegmentHeader& header, View bytes) {
  if (!is_data(header) || bytes.size() != header.present * kBlockIndexBytes) {
    return impossible(header, fmt::format("an index of {} bytes", bytes.size()));
  }
  std::vector<SegmentBlock> blocks(header.present);
  take_column<le16>(blocks, bytes, 1, [](SegmentBlock& b, uint16_t v) { b.slot = v; });
  take_column<le64>(blocks, bytes, 1, [](SegmentBlock& b, uint64_t v) { b.chunk = v; });
  take_column<le64>(blocks, bytes, 1, [](SegmentBlock& b, uint64_t v) { b.grain = v; });
  take_column<le32>(blocks, bytes, 0, [](SegmentBlock& b, uint32_t v) { b.seq = v; });
  const SegmentBlock* previous = nullptr;
  for (SegmentBlock& block : blocks) {
    std::memcpy(block.identity.data(), bytes.data(), block.identity.size());
    bytes = bytes.subspan(block.identity.size());
    if (block.slot >= header.slots || (previous != nullptr && block.slot <= previous->slot) ||
        block.chunk == 0 || block.chunk > kChunkIdMax || block.grain >= kArchiveGrainsMax ||
        block.seq < header.seq_min || block.seq > header.seq_max) {
      return impossible(header, fmt::format("slot {}: chunk {}, grain {}, snapshot {}", block.slot,
                                            block.chunk, block.grain, block.seq));
    }
    previous = &block;
  }
  return blocks;
}

Result<void> check_extents(std::span<const ManifestExtent> extents) {
  uint64_t next = 0;
  for (const ManifestExtent& extent : extents) {
    const uint64_t grain = extent.grain;
    const uint64_t count = extent.count;
    if (grain < next || count == 0 || !Range{grain, count}.within(kArchiveGrainsMax) ||
        extent.chunk > kChunkIdMax || count > kChunkIdMax - extent.chunk) {
      return fail(Errc::corrupt, "manifest: {} grains at {} as chunk {} cannot be", count, grain,
                  extent.chunk.get());
    }
    next = grain + count;
  }
  return ok;
}

}  // namespace firn::format
