// SPDX-License-Identifier: Apache-2.0
#include "archive/segment_builder.h"

#include <algorithm>

#include "base/check.h"

namespace firn::archive {

using format::GroupEntry;
using format::kGroupRaw;
using format::SegmentHeader;

namespace {

SegmentHeader prepared(SegmentHeader header, const SegmentForge& forge) {
  header.archive = forge.label.uuid;
  header.sealed = forge.secrets.encrypted ? std::byte{1} : std::byte{};
  random_bytes(header.salt);
  return header;
}

}  // namespace

SegmentBuilder::SegmentBuilder(Io& io, const SegmentForge& forge, SegmentHeader header)
    : io_(io),
      forge_(forge),
      header_(prepared(header, forge)),
      seal_(forge.secrets, header_),
      group_(io) {}

SegmentBuilder::~SegmentBuilder() {
  group_.wait();
  for (std::vector<std::byte>& room : rooms_) forge_.packers->give_room(std::move(room));
}

void SegmentBuilder::add(const format::SegmentBlock& block, View content) {
  CHECK(content.size() == kGrainBytes && blocks_.size() < format::kSegmentSlotsMax);
  blocks_.push_back(block);
  add_bytes(content);
}

void SegmentBuilder::add(const format::ManifestExtent& extent) { add_bytes(view_of(extent)); }

void SegmentBuilder::add_bytes(View bytes) {
  const uint32_t per_group = format::items_per_group(header_);
  if (open_ == nullptr) {
    open_ = std::make_unique<Batch>();
    open_->first_group = items_ / per_group;
    open_->plain = forge_.packers->take_room();
  }
  open_->plain.insert(open_->plain.end(), bytes.begin(), bytes.end());
  plain_pending_ += bytes.size();
  ++items_;
  if (items_ % (uint64_t{per_group} * kBatchGroups) == 0) pack_batch();
}

void SegmentBuilder::pack_batch() {
  batches_.push_back(std::move(open_));
  Batch* const batch = batches_.back().get();
  io_.spawn(group_, [this, batch] {
    const uint64_t plain = batch->plain.size();
    {
      const PackerPool::Use packer = forge_.packers->take();
      Packer* const use = &*packer;
      io_.offload([this, batch, use] {
        const size_t per =
            uint64_t{format::items_per_group(header_)} *
            (header_.kind == std::byte{1} ? kGrainBytes : sizeof(format::ManifestExtent));
        uint32_t number = batch->first_group;
        std::vector<std::byte>& packed = use->scratch();
        packed.clear();
        for (size_t at = 0; at < batch->plain.size(); at += per) {
          const View group =
              View(batch->plain).subspan(at, std::min(per, batch->plain.size() - at));
          batch->groups.push_back(use->pack(seal_, number++, group, packed));
        }
      });
      keep(*batch, use->scratch());
    }
    forge_.packers->give_room(std::move(batch->plain));
    plain_packed_ += plain;
    plain_pending_ -= plain;
    io_.wake(packed_);
  });
}

void SegmentBuilder::keep(Batch& batch, View packed) {
  stored_ += packed.size();
  while (!packed.empty()) {
    if (rooms_.empty() || rooms_.back().size() == PackerPool::kRoomBytes) {
      rooms_.push_back(forge_.packers->take_room());
    }
    std::vector<std::byte>& room = rooms_.back();
    const size_t at = room.size();
    const View piece = packed.first(std::min(packed.size(), PackerPool::kRoomBytes - at));
    room.insert(room.end(), piece.begin(), piece.end());  // It never moves: it has its capacity.
    batch.packed.push_back(View(room).subspan(at));
    packed = packed.subspan(piece.size());
  }
}

void SegmentBuilder::settle() {
  while (plain_pending_ > kPendingMax) io_.park(packed_);
}

uint64_t SegmentBuilder::stored_bytes() const {
  if (plain_packed_ == 0) return stored_ + plain_pending_ / 2;
  const double ratio = static_cast<double>(stored_) / static_cast<double>(plain_packed_);
  return stored_ + static_cast<uint64_t>(static_cast<double>(plain_pending_) * ratio);
}

void SegmentBuilder::make_head(std::string_view index) {
  std::vector<std::byte> table;
  for (const auto& batch : batches_) {
    for (const GroupEntry& entry : batch->groups) {
      const View bytes = view_of(entry);
      table.insert(table.end(), bytes.begin(), bytes.end());
    }
  }
  std::vector<std::byte> plain;
  if (header_.kind == std::byte{1}) {
    plain = format::encode_block_index(blocks_);
  } else {
    const View bytes = std::as_bytes(std::span(index));
    plain.assign(bytes.begin(), bytes.end());
  }
  std::vector<std::byte> stored;
  header_.index_bytes = static_cast<uint32_t>(plain.size());
  if (!plain.empty()) {
    const PackerPool::Use packer = forge_.packers->take();
    Packer* const use = &*packer;
    GroupEntry entry;
    io_.offload([&, use] { entry = use->pack(seal_, Seal::kIndex, plain, stored); });
    header_.index_crc = entry.crc;
  }
  header_.index_stored = static_cast<uint32_t>(stored.size());
  header_.table_crc = crc32c(table);
  const auto header = format::encode(header_);
  const auto label = format::encode(forge_.label);
  head_.reserve(header.size() + label.size() + table.size() + stored.size());
  for (const View part : {View(header), View(label), View(table), View(stored)}) {
    head_.insert(head_.end(), part.begin(), part.end());
  }
}

void SegmentBuilder::finish(std::string_view index, uint32_t slots) {
  if (open_ != nullptr) pack_batch();
  group_.wait();
  uint32_t groups = 0;
  for (const auto& batch : batches_) groups += static_cast<uint32_t>(batch->groups.size());
  header_.groups = groups;
  header_.present = items_;
  header_.payload_bytes = stored_;
  if (header_.kind == std::byte{1}) {
    header_.slots = slots != 0 ? slots : items_;
    header_.seq_min = blocks_.empty() ? 0 : UINT32_MAX;
    for (const format::SegmentBlock& block : blocks_) {
      header_.seq_min = std::min<uint32_t>(header_.seq_min, block.seq);
      header_.seq_max = std::max<uint32_t>(header_.seq_max, block.seq);
    }
  }
  make_head(index);
}

std::vector<::iovec> SegmentBuilder::object() const {
  std::vector<::iovec> pieces{slice_of(View(head_))};
  for (const auto& batch : batches_) {
    for (const View piece : batch->packed) pieces.push_back(slice_of(piece));
  }
  return pieces;
}

}  // namespace firn::archive
