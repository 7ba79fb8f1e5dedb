// SPDX-License-Identifier: Apache-2.0
#include "format/archive_rows.h"

#include <algorithm>

#include "base/check.h"

namespace firn::format {
namespace {

template <class T>
void append(std::string& to, const T& object) {
  const View bytes = view_of(object);
  to.append(static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size());
}
View view_of_text(std::string_view text) { return std::as_bytes(std::span(text)); }

// A fixed head, then what is left.
template <class Head>
Result<Head> take_head(std::string_view& bytes, const char* what) {
  if (bytes.size() < sizeof(Head)) {
    return fail(Errc::corrupt, "{} row: {} bytes, at least {} expected", what, bytes.size(),
                sizeof(Head));
  }
  const auto head = load<Head>(view_of_text(bytes));
  bytes.remove_prefix(sizeof(Head));
  return head;
}
Error impossible(const char* what) { return fail(Errc::corrupt, "{} row: cannot be", what); }
Error too_new(const char* what, unsigned version) {
  return fail(Errc::too_new, "{} row: form {} is unknown to this version", what, version);
}

constexpr std::byte kForm{1};

struct ArchiveHead {
  std::byte form = kForm;
  std::array<std::byte, 3> reserved{};
  le32 next_disk;
  le64 next_chunk;
};
struct DiskHead {
  std::byte form = kForm;
  std::byte reserved{};
  le16 name_bytes;
  le32 next_seq;
  le64 next_segment;
  Uuid uuid{};
};
struct SnapshotHead {
  std::byte form = kForm;
  std::byte state{};
  std::byte disk_bytes{};
  std::byte name_bytes{};
  std::byte holder_bytes{};
  std::array<std::byte, 3> reserved{};
  le32 seq;
  Uuid uuid{};
  le32 revision;
  le32 manifest_parts;
  le64 manifest_segment;
  le64 bytes;
  le64 created_ns;
  le64 pushed_ns;
  le64 segment_first;
  le64 segment_end;
  le64 chunk_first;
  le64 chunk_end;
  le64 extents;
  le64 grains;
  le64 new_grains;
  le64 stored_bytes;
};
struct RegionHead {
  std::byte form = kForm;
  std::byte has_flat{};
  le16 own;
  le16 flat;
};
struct RegionItem {
  le16 start;
  le16 count;
  le64 chunk;
};
struct ChunkHead {
  le32 count;
  le32 disk;
  le64 segment;
  le16 slot;
  le32 references;
};
struct SegmentHead {
  std::byte form = kForm;
  std::byte usage{};
  std::byte tier{};
  std::byte doomed{};
  le32 slots;
  le32 live;
  le32 head_bytes;
  le32 generation;
  le32 present;
  le64 bytes;
  le64 created_ns;
  le64 release_ns;
};
static_assert(kWire<ArchiveHead> && kWire<DiskHead> && kWire<SnapshotHead> && kWire<RegionHead> &&
              kWire<RegionItem> && kWire<ChunkHead> && kWire<SegmentHead>);

void append_extents(std::string& to, const std::vector<RegionExtent>& extents) {
  for (const RegionExtent& each : extents) {
    append(to, RegionItem{each.start, each.count, each.chunk});
  }
}

Result<std::vector<RegionExtent>> take_extents(std::string_view& bytes, uint32_t count) {
  if (bytes.size() < count * sizeof(RegionItem)) return impossible("region");
  std::vector<RegionExtent> extents;
  extents.reserve(count);
  uint32_t next = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const RegionItem item = TRY(take_head<RegionItem>(bytes, "region"));
    const uint32_t end = uint32_t{item.start} + item.count;
    if (item.start < next || item.count == 0 || end > kRegionGrains || item.chunk > kChunkIdMax) {
      return fail(Errc::corrupt, "region row: {} grains at {} as chunk {} cannot be",
                  item.count.get(), item.start.get(), item.chunk.get());
    }
    next = end;
    extents.push_back({item.start, item.count, item.chunk});
  }
  return extents;
}

std::string_view text_after(std::string_view& bytes, size_t count) {
  const std::string_view text = bytes.substr(0, count);
  bytes.remove_prefix(count);
  return text;
}

Result<std::optional<std::vector<uint16_t>>> take_live(std::string_view bytes,
                                                       const SegmentHead& head) {
  std::vector<uint16_t> live;
  const auto usage = static_cast<UsageForm>(head.usage);
  if (usage == UsageForm::full) {
    if (!bytes.empty() || head.live != head.slots) return impossible("segment");
    return std::optional<std::vector<uint16_t>>();
  }
  if (usage == UsageForm::list) {
    if (bytes.size() != uint64_t{head.live} * sizeof(le16)) return impossible("segment");
    while (!bytes.empty()) live.push_back(TRY(take_head<le16>(bytes, "segment")));
  } else if (usage == UsageForm::bitmap) {
    if (bytes.size() != (uint64_t{head.slots} + 7) / 8) return impossible("segment");
    for (uint32_t slot = 0; slot < bytes.size() * 8; ++slot) {
      const auto byte = static_cast<uint8_t>(bytes[slot / 8]);
      if ((byte >> (slot % 8) & 1) != 0) live.push_back(static_cast<uint16_t>(slot));
    }
  } else {
    return too_new("segment", static_cast<unsigned>(usage));
  }
  const bool ascends = std::ranges::adjacent_find(live, std::greater_equal<>()) == live.end();
  if (live.size() != head.live || !ascends || (!live.empty() && live.back() >= head.slots)) {
    return impossible("segment");
  }
  return std::optional<std::vector<uint16_t>>(std::move(live));
}

template <class U>
void append_big(std::string& key, U value) {
  for (int shift = static_cast<int>(sizeof(U) * 8) - 8; shift >= 0; shift -= 8) {
    key.push_back(static_cast<char>(value >> shift & 0xff));
  }
}
template <class U>
U take_big(std::string_view& key) {
  U value = 0;
  for (size_t i = 0; i < sizeof(U); ++i) {
    value = static_cast<U>(value << 8 | static_cast<uint8_t>(key[i]));
  }
  key.remove_prefix(sizeof(U));
  return value;
}
Result<std::string_view> behind(std::string_view key, char kind, size_t bytes) {
  if (key.size() == bytes + 1 && key[0] == kind) return key.substr(1);
  return fail(Errc::corrupt, "metadata: a key of {} bytes where one of kind '{}' was expected",
              key.size(), kind);
}

}  // namespace

// --- keys

std::string archive_key() { return "a"; }
std::string disk_key(uint32_t disk) {
  std::string key = "d";
  append_big(key, disk);
  return key;
}
std::string snapshot_key(uint32_t disk, uint32_t seq) {
  std::string key = "s";
  append_big(key, disk);
  append_big(key, seq);
  return key;
}
std::string region_key(uint32_t disk, uint32_t region, uint32_t seq) {
  std::string key = "l";
  append_big(key, disk);
  append_big(key, region);
  append_big(key, ~seq);
  return key;
}
std::string chunk_key(uint64_t last) {
  std::string key = "c";
  append_big(key, last);
  return key;
}
std::string usage_key(uint32_t disk, uint64_t segment) {
  std::string key = "u";
  append_big(key, disk);
  append_big(key, segment);
  return key;
}
std::string hint_key(const Identity& identity) {
  std::string key = "h";
  for (size_t i = 0; i < 8; ++i) key.push_back(static_cast<char>(identity[i]));
  return key;
}
std::string end_of(std::string prefix) {
  while (!prefix.empty() && static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

Result<RegionAddress> decode_region_key(std::string_view key) {
  std::string_view left = TRY(behind(key, 'l', 12));
  RegionAddress address;
  address.disk = take_big<uint32_t>(left);
  address.region = take_big<uint32_t>(left);
  address.seq = ~take_big<uint32_t>(left);
  if (address.region >= kRegionsMax) {
    return fail(Errc::corrupt, "metadata: region {} cannot be", address.region);
  }
  return address;
}
Result<uint64_t> decode_chunk_key(std::string_view key) {
  std::string_view left = TRY(behind(key, 'c', 8));
  const auto last = take_big<uint64_t>(left);
  if (last == 0 || last > kChunkIdMax) {
    return fail(Errc::corrupt, "metadata: chunk {} cannot be", last);
  }
  return last;
}
Result<uint32_t> decode_disk_key(std::string_view key) {
  std::string_view left = TRY(behind(key, 'd', 4));
  return take_big<uint32_t>(left);
}
Result<UsageAddress> decode_usage_key(std::string_view key) {
  std::string_view left = TRY(behind(key, 'u', 12));
  UsageAddress address;
  address.disk = take_big<uint32_t>(left);
  address.segment = take_big<uint64_t>(left);
  return address;
}

// --- values

std::string encode(const ArchiveRow& row) {
  std::string bytes;
  ArchiveHead head;
  head.next_disk = row.next_disk;
  head.next_chunk = row.next_chunk;
  append(bytes, head);
  return bytes;
}
Result<ArchiveRow> decode_archive_row(std::string_view bytes) {
  const ArchiveHead head = TRY(take_head<ArchiveHead>(bytes, "archive"));
  if (head.form != kForm) return too_new("archive", static_cast<unsigned>(head.form));
  if (!bytes.empty() || !all_zero(head.reserved) || head.next_chunk == 0 || head.next_disk == 0 ||
      head.next_chunk > kChunkIdMax) {
    return impossible("archive");
  }
  return ArchiveRow{head.next_chunk, head.next_disk};
}

std::string encode(const DiskRow& row) {
  CHECK(row.name.size() <= kArchiveNameMax);
  std::string bytes;
  DiskHead head;
  head.name_bytes = static_cast<uint16_t>(row.name.size());
  head.next_seq = row.next_seq;
  head.next_segment = row.next_segment;
  head.uuid = row.uuid;
  append(bytes, head);
  return bytes + row.name;
}
Result<DiskRow> decode_disk_row(std::string_view bytes) {
  const DiskHead head = TRY(take_head<DiskHead>(bytes, "disk"));
  if (head.form != kForm) return too_new("disk", static_cast<unsigned>(head.form));
  if (head.name_bytes != bytes.size() || bytes.size() > kArchiveNameMax ||
      head.reserved != std::byte{} || head.next_seq == 0 || head.next_segment == 0) {
    return impossible("disk");
  }
  return DiskRow{head.uuid, head.next_seq, head.next_segment, std::string(bytes)};
}

std::string_view name_of(SnapshotState state) {
  switch (state) {
    case SnapshotState::uploading:
      return "uploading";
    case SnapshotState::complete:
      return "complete";
    case SnapshotState::deleting:
      return "deleting";
    case SnapshotState::aborted:
      break;
  }
  return "aborted";
}

std::string encode(const SnapshotRow& row) {
  CHECK(row.disk.size() <= kArchiveNameMax && row.name.size() <= kArchiveNameMax &&
        row.holder.size() <= kArchiveNameMax);
  SnapshotHead head;
  head.state = static_cast<std::byte>(row.state);
  head.disk_bytes = static_cast<std::byte>(row.disk.size());
  head.name_bytes = static_cast<std::byte>(row.name.size());
  head.holder_bytes = static_cast<std::byte>(row.holder.size());
  head.seq = row.seq;
  head.uuid = row.uuid;
  head.revision = row.revision;
  head.manifest_parts = row.manifest_parts;
  head.manifest_segment = row.manifest_segment;
  head.bytes = row.bytes;
  head.created_ns = static_cast<uint64_t>(row.created_ns);
  head.pushed_ns = static_cast<uint64_t>(row.pushed_ns);
  head.segment_first = row.segment_first;
  head.segment_end = row.segment_end;
  head.chunk_first = row.chunk_first;
  head.chunk_end = row.chunk_end;
  head.extents = row.extents;
  head.grains = row.grains;
  head.new_grains = row.new_grains;
  head.stored_bytes = row.stored_bytes;
  std::string bytes;
  append(bytes, head);
  return bytes + row.disk + row.name + row.holder;
}

Result<SnapshotRow> decode_snapshot_row(std::string_view bytes) {
  const SnapshotHead head = TRY(take_head<SnapshotHead>(bytes, "snapshot"));
  if (head.form != kForm) return too_new("snapshot", static_cast<unsigned>(head.form));
  const auto state = static_cast<SnapshotState>(head.state);
  const auto disk_bytes = static_cast<size_t>(head.disk_bytes);
  const auto name_bytes = static_cast<size_t>(head.name_bytes);
  if (bytes.size() != disk_bytes + name_bytes + static_cast<size_t>(head.holder_bytes) ||
      !all_zero(head.reserved) || state < SnapshotState::uploading ||
      state > SnapshotState::aborted || head.seq == 0 || head.bytes > kDiskBytesMax ||
      head.manifest_parts > (1U << 20) || head.segment_first > head.segment_end ||
      head.chunk_first > head.chunk_end) {
    return impossible("snapshot");
  }
  SnapshotRow row;
  row.uuid = head.uuid;
  row.state = state;
  row.seq = head.seq;
  row.revision = head.revision;
  row.manifest_parts = head.manifest_parts;
  row.manifest_segment = head.manifest_segment;
  row.bytes = head.bytes;
  row.created_ns = static_cast<int64_t>(head.created_ns.get());
  row.pushed_ns = static_cast<int64_t>(head.pushed_ns.get());
  row.segment_first = head.segment_first;
  row.segment_end = head.segment_end;
  row.chunk_first = head.chunk_first;
  row.chunk_end = head.chunk_end;
  row.extents = head.extents;
  row.grains = head.grains;
  row.new_grains = head.new_grains;
  row.stored_bytes = head.stored_bytes;
  row.disk = std::string(text_after(bytes, disk_bytes));
  row.name = std::string(text_after(bytes, name_bytes));
  row.holder = std::string(bytes);
  return row;
}

std::string encode(const RegionRow& row) {
  RegionHead head;
  head.own = static_cast<uint16_t>(row.own.size());
  head.has_flat = row.flat.has_value() ? std::byte{1} : std::byte{};
  head.flat = static_cast<uint16_t>(row.flat.has_value() ? row.flat->size() : 0);
  std::string bytes;
  append(bytes, head);
  append_extents(bytes, row.own);
  if (row.flat.has_value()) append_extents(bytes, *row.flat);
  return bytes;
}
Result<RegionRow> decode_region_row(std::string_view bytes) {
  const RegionHead head = TRY(take_head<RegionHead>(bytes, "region"));
  if (head.form != kForm) return too_new("region", static_cast<unsigned>(head.form));
  if (static_cast<uint8_t>(head.has_flat) > 1) return impossible("region");
  RegionRow row;
  row.own = TRY(take_extents(bytes, head.own));
  const bool has_flat = head.has_flat != std::byte{};
  if (has_flat) row.flat = TRY(take_extents(bytes, head.flat));
  if (!bytes.empty() || (!has_flat && head.flat != 0)) return impossible("region");
  return row;
}

std::string encode(const ChunkRow& row) {
  std::string bytes;
  append(bytes, ChunkHead{row.count, row.disk, row.segment, row.slot, row.references});
  return bytes;
}
Result<ChunkRow> decode_chunk_row(std::string_view key, std::string_view bytes) {
  const uint64_t last = TRY(decode_chunk_key(key));
  const ChunkHead head = TRY(take_head<ChunkHead>(bytes, "chunk"));
  if (!bytes.empty() || head.count == 0 || head.count > last || head.references == 0 ||
      uint64_t{head.slot} + head.count > kSegmentSlotsMax) {
    return fail(Errc::corrupt, "chunk row {}: {} chunks at slot {} cannot be", last,
                head.count.get(), head.slot.get());
  }
  return ChunkRow{head.count, head.disk, head.segment, head.slot, head.references};
}

UsageForm form_of(const SegmentRow& row) {
  if (!row.live.has_value()) return UsageForm::full;
  const size_t bitmap = (row.slots + 7) / 8;
  return row.live->size() * sizeof(le16) < bitmap ? UsageForm::list : UsageForm::bitmap;
}

std::string encode(const SegmentRow& row) {
  const UsageForm form = form_of(row);
  SegmentHead head;
  head.usage = static_cast<std::byte>(form);
  head.tier = static_cast<std::byte>(row.tier);
  head.doomed = row.doomed ? std::byte{1} : std::byte{};
  head.slots = row.slots;
  head.live = row.live_count;
  head.head_bytes = row.head_bytes;
  head.generation = row.generation;
  head.present = row.present;
  head.bytes = row.bytes;
  head.created_ns = static_cast<uint64_t>(row.created_ns);
  head.release_ns = static_cast<uint64_t>(row.release_ns);
  std::string bytes;
  append(bytes, head);
  if (form == UsageForm::list) {
    for (const uint16_t slot : *row.live) append(bytes, le16(slot));
  } else if (form == UsageForm::bitmap) {
    std::string bits((row.slots + 7) / 8, '\0');
    for (const uint16_t slot : *row.live) {
      bits[slot / 8] = static_cast<char>(static_cast<uint8_t>(bits[slot / 8]) | 1U << (slot % 8));
    }
    bytes += bits;
  }
  return bytes;
}

Result<SegmentRow> decode_segment_row(std::string_view bytes) {
  const SegmentHead head = TRY(take_head<SegmentHead>(bytes, "segment"));
  if (head.form != kForm) return too_new("segment", static_cast<unsigned>(head.form));
  if (head.slots > kSegmentSlotsMax || head.live > head.slots || head.present > head.slots ||
      head.bytes > kSegmentObjectMax || head.head_bytes > head.bytes ||
      static_cast<uint8_t>(head.doomed) > 1) {
    return impossible("segment");
  }
  SegmentRow row;
  row.slots = head.slots;
  row.live_count = head.live;
  row.bytes = head.bytes;
  row.head_bytes = head.head_bytes;
  row.generation = head.generation;
  row.present = head.present;
  row.tier = static_cast<uint8_t>(head.tier);
  row.doomed = head.doomed != std::byte{};
  row.created_ns = static_cast<int64_t>(head.created_ns.get());
  row.release_ns = static_cast<int64_t>(head.release_ns.get());
  row.live = TRY(take_live(bytes, head));
  return row;
}

std::string encode_hint(uint64_t chunk) {
  std::string bytes;
  append(bytes, le64(chunk));
  return bytes;
}
Result<uint64_t> decode_hint(std::string_view bytes) {
  const uint64_t chunk = TRY(take_head<le64>(bytes, "hint"));
  if (!bytes.empty() || chunk == 0 || chunk > kChunkIdMax) return impossible("hint");
  return chunk;
}

}  // namespace firn::format
