// SPDX-License-Identifier: Apache-2.0
#include "archive/segment_reader.h"

#include <algorithm>

#include "base/check.h"

namespace firn::archive {

using format::GroupEntry;
using format::kGroupRaw;
using format::SegmentHeader;

namespace {

constexpr uint32_t kFirstRead = 64 * kKiB;
constexpr uint64_t kHeadMax = 8 * kMiB;

Error about(const std::string& key, Error error) {
  const std::string why(text_of(error));
  return fail_text(error.code, 0, fmt::format("object {}: {}", key, why));
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// Reads until `bytes` of the object are there.
Result<void> fetch(Io& io, ObjectStore& store, const std::string& key, uint64_t bytes,
                   std::vector<std::byte>& into) {
  const size_t at = into.size();
  if (at >= bytes) return ok;
  into.resize(bytes);
  const size_t got = TRY(store.get(io, key, at, Bytes(into).subspan(at)));
  into.resize(at + got);
  if (into.size() == bytes) return ok;
  return fail(Errc::corrupt, "it ends after {} bytes, {} expected", into.size(), bytes);
}

}  // namespace

std::string segment_prefix(const format::Uuid& disk, uint8_t tier) {
  std::string text = tier == 0 ? "d/" : "c/";
  for (const std::byte byte : disk) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text + '/';
}
std::string segment_key(const format::Uuid& disk, uint64_t segment, uint8_t tier) {
  return segment_prefix(disk, tier) + fmt::format("{:016x}", segment);
}
std::optional<SegmentName> parse_segment_key(std::string_view key) {
  if (key.size() != 2 + 32 + 1 + 16 || (key[0] != 'd' && key[0] != 'c')) return std::nullopt;
  SegmentName name;
  name.tier = key[0] == 'd' ? 0 : 1;
  for (size_t i = 0; i < 16; ++i) {
    const int high = hex_digit(key[2 + 2 * i]);
    const int low = hex_digit(key[3 + 2 * i]);
    if (high < 0 || low < 0) return std::nullopt;
    name.disk[i] = static_cast<std::byte>(high << 4 | low);
  }
  for (size_t i = 35; i < key.size(); ++i) {
    if (hex_digit(key[i]) < 0) return std::nullopt;
    name.segment = name.segment << 4 | static_cast<unsigned>(hex_digit(key[i]));
  }
  if (segment_key(name.disk, name.segment, name.tier) != key) return std::nullopt;
  return name;
}

std::optional<uint32_t> SegmentHead::ordinal_of(uint16_t slot) const {
  if (slots.empty()) {
    return slot < header.present ? std::optional<uint32_t>(slot) : std::nullopt;
  }
  const auto found = std::ranges::lower_bound(slots, slot);
  if (found == slots.end() || *found != slot) return std::nullopt;
  return static_cast<uint32_t>(found - slots.begin());
}

void SegmentReader::forget(const std::string& key) { heads_.erase(key); }

Result<std::shared_ptr<SegmentHead>> SegmentReader::read_head(Io& io, const std::string& key,
                                                              uint32_t head_bytes) {
  auto head = std::make_shared<SegmentHead>();
  head->key = key;
  std::vector<std::byte> bytes(head_bytes != 0 ? head_bytes : kFirstRead);
  bytes.resize(TRY(store_.get(io, key, 0, bytes)));
  const auto decode = [&]() -> Result<void> {
    head->header = TRY(format::decode_segment_header(bytes));
    if (bytes.size() < format::kSegmentTableAt) return fail(Errc::corrupt, "it is cut short");
    const format::SegmentShape shape = format::shape_of(head->header);
    if (shape.payload_at > kHeadMax) return fail(Errc::corrupt, "its head is too long");
    TRY(fetch(io, store_, key, shape.payload_at, bytes));
    head->label =
        TRY(format::decode_archive_label(View(bytes).subspan(format::kSegmentHeaderBytes)));
    head->groups =
        TRY(format::decode_group_table(head->header, View(bytes).subspan(format::kSegmentTableAt)));
    const View index = View(bytes).subspan(shape.index_at, head->header.index_stored);
    if (!index.empty() && crc32c(index) != head->header.index_crc) {
      return fail(Errc::corrupt, "its index is damaged");
    }
    head->index.assign(index.begin(), index.end());
    uint64_t at = shape.payload_at;
    for (const GroupEntry& entry : head->groups) {
      head->offsets.push_back(at);
      at += entry.stored & ~kGroupRaw;
    }
    head->offsets.push_back(at);
    return ok;
  };
  const Result<void> decoded = decode();
  if (!decoded) return about(key, decoded.error());
  return head;
}

Result<std::shared_ptr<const SegmentHead>> SegmentReader::head(Io& io, const SegmentName& name,
                                                               uint32_t head_bytes) {
  const std::string key = segment_key(name.disk, name.segment, name.tier);
  while (true) {
    const auto known = heads_.find(key);
    if (known != heads_.end()) return known->second;
    if (!loading_.contains(key)) break;
    io.park(loaded_);  // Several want it: one asks.
  }
  loading_.insert(key);
  Result<std::shared_ptr<const SegmentHead>> head = load_head(io, name, key, head_bytes);
  loading_.erase(key);
  io.wake(loaded_);
  return head;
}

Result<std::shared_ptr<const SegmentHead>> SegmentReader::load_head(Io& io, const SegmentName& name,
                                                                    const std::string& key,
                                                                    uint32_t head_bytes) {
  const std::shared_ptr<SegmentHead> head = TRY(read_head(io, key, head_bytes));
  const SegmentHeader& header = head->header;
  if (header.archive != forge_.label.uuid || header.disk != name.disk ||
      header.segment_id != name.segment) {
    return fail(Errc::corrupt, "object {}: it is segment {:016x} of disk {}, of archive {}", key,
                header.segment_id.get(), format::uuid_text(header.disk),
                format::uuid_text(header.archive));
  }
  if (header.kind == std::byte{1} && header.present != header.slots) {
    for (const format::SegmentBlock& block : TRY(blocks(io, *head))) {
      head->slots.push_back(block.slot);
    }
  }
  std::vector<std::byte>().swap(head->index);  // The large part, and rarely wanted again.
  std::shared_ptr<const SegmentHead> kept = head;
  if (heads_.insert_or_assign(key, kept).second) order_.push_back(key);
  while (order_.size() > kHeadsMax) {
    heads_.erase(order_.front());
    order_.pop_front();
  }
  return kept;
}

Result<std::vector<std::byte>> SegmentReader::plain_index(Io& io, const SegmentHead& head) {
  const SegmentHeader& header = head.header;
  std::vector<std::byte> plain(header.index_bytes);
  if (plain.empty()) return plain;
  std::vector<std::byte> fetched;
  if (head.index.empty()) {
    fetched.resize(header.index_stored);
    const size_t got = TRY(store_.get(io, head.key, format::shape_of(header).index_at, fetched));
    fetched.resize(got);
  }
  const View stored = head.index.empty() ? View(fetched) : View(head.index);
  if (stored.size() != header.index_stored) {
    return fail(Errc::corrupt, "object {}: its index is cut short", head.key);
  }
  const Seal seal(forge_.secrets, header);
  const uint32_t plain_size = header.index_bytes + (seal.active() ? format::kSealBytes : 0);
  GroupEntry entry;
  entry.stored = header.index_stored | (header.index_stored == plain_size ? kGroupRaw : 0);
  entry.crc = header.index_crc;
  const PackerPool::Use packer = forge_.packers->take();
  Packer* const use = &*packer;
  // An error is born on the shard: sentences belong to threads.
  bool good = false;
  io.offload(
      [&, use] { good = use->unpack(seal, Seal::kIndex, entry, stored, plain).has_value(); });
  if (good) return plain;
  return about(head.key, use->unpack(seal, Seal::kIndex, entry, stored, plain).error());
}

Result<std::vector<format::SegmentBlock>> SegmentReader::blocks(Io& io, const SegmentHead& head) {
  const std::vector<std::byte> plain = TRY(plain_index(io, head));
  Result<std::vector<format::SegmentBlock>> blocks = format::decode_block_index(head.header, plain);
  if (!blocks) return about(head.key, blocks.error());
  return blocks;
}

Result<std::string> SegmentReader::record(Io& io, const SegmentHead& head) {
  const std::vector<std::byte> plain = TRY(plain_index(io, head));
  std::string text(plain.size(), '\0');
  if (!plain.empty()) std::memcpy(text.data(), plain.data(), plain.size());
  return text;
}

Result<void> SegmentReader::groups(Io& io, const SegmentHead& head, uint32_t first, uint32_t end,
                                   std::vector<std::byte>& into) {
  CHECK(first < end && end <= head.groups.size());
  std::vector<std::byte> stored(head.offsets[end] - head.offsets[first]);
  const size_t got = TRY(store_.get(io, head.key, head.offsets[first], stored));
  if (got != stored.size()) {
    return fail(Errc::corrupt, "object {}: it ends inside of group {}", head.key, first);
  }
  uint64_t plain = 0;
  for (uint32_t i = first; i < end; ++i) plain += format::group_bytes(head.header, i);
  into.resize(plain);
  const Seal seal(forge_.secrets, head.header);
  const PackerPool::Use packer = forge_.packers->take();
  Packer* const use = &*packer;
  const auto unpack = [&](uint32_t until) -> Result<void> {
    uint64_t at = 0;
    for (uint32_t i = first; i < until; ++i) {
      const uint32_t bytes = format::group_bytes(head.header, i);
      const View from = View(stored).subspan(head.offsets[i] - head.offsets[first],
                                             head.offsets[i + 1] - head.offsets[i]);
      TRY(use->unpack(seal, i, head.groups[i], from, Bytes(into).subspan(at, bytes)));
      at += bytes;
    }
    return ok;
  };
  bool good = false;
  io.offload([&] { good = unpack(end).has_value(); });
  if (good) return ok;
  return about(head.key, unpack(end).error());
}

Result<std::vector<uint32_t>> SegmentReader::verify(Io& io, const SegmentHead& head, uint32_t first,
                                                    uint32_t end) {
  std::vector<std::byte> stored(head.offsets[end] - head.offsets[first]);
  stored.resize(TRY(store_.get(io, head.key, head.offsets[first], stored)));
  std::vector<uint32_t> bad;
  io.offload([&] {
    for (uint32_t i = first; i < end; ++i) {
      const uint64_t at = head.offsets[i] - head.offsets[first];
      const uint64_t bytes = head.offsets[i + 1] - head.offsets[i];
      const bool there = at + bytes <= stored.size();
      if (!there || crc32c(View(stored).subspan(at, bytes)) != head.groups[i].crc) bad.push_back(i);
    }
  });
  return bad;
}

}  // namespace firn::archive
