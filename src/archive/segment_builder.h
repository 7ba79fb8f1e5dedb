// SPDX-License-Identifier: Apache-2.0
// SegmentBuilder: one segment in the making, in memory. Blocks go in, in the order of their slots;
// groups are packed by fibers that offload, some at a time, while more blocks come.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "archive/packer.h"
#include "archive/secrets.h"
#include "format/segment.h"
#include "io/io.h"

namespace firn::archive {

// What all segments of one archive have in common.
struct SegmentForge {
  format::ArchiveLabel label;
  Secrets secrets;
  PackerPool* packers = nullptr;
};

class SegmentBuilder {
 public:
  // `header` says kind, disk, segment, generation, part, ...; the rest is filled in here.
  SegmentBuilder(Io& io, const SegmentForge& forge, format::SegmentHeader header);
  ~SegmentBuilder();
  SegmentBuilder(const SegmentBuilder&) = delete;
  SegmentBuilder& operator=(const SegmentBuilder&) = delete;

  void add(const format::SegmentBlock& block, View content);
  void add(const format::ManifestExtent& extent);
  // Waits while much is not packed yet: memory is bounded.
  void settle();
  // About how large the payload will be.
  uint64_t stored_bytes() const;
  uint32_t items() const { return items_; }
  // Waits until everything is packed, and makes the object; nothing may be added then. `index`
  // is a manifest's; a data segment makes its own. `slots` 0: as many as there are blocks.
  void finish(std::string_view index, uint32_t slots = 0);
  // Of a manifest: this is the last of so many parts.
  void end_of_parts(uint32_t parts) { header_.parts = parts; }

  const format::SegmentHeader& header() const { return header_; }
  const std::vector<format::SegmentBlock>& blocks() const { return blocks_; }
  uint32_t head_bytes() const { return static_cast<uint32_t>(head_.size()); }
  uint64_t bytes() const { return head_.size() + header_.payload_bytes; }
  // The object, in pieces that live as long as this.
  std::vector<::iovec> object() const;

 private:
  // Half a MiB of plain groups, and what becomes of them: pieces of rooms_.
  struct Batch {
    uint32_t first_group = 0;
    std::vector<std::byte> plain;
    std::vector<View> packed;
    std::vector<format::GroupEntry> groups;
  };
  static constexpr uint32_t kBatchGroups = 8;
  static_assert(uint64_t{kBatchGroups} * format::kGroupBytes <= PackerPool::kRoomBytes);
  static constexpr uint64_t kPendingMax = 2 * kMiB;

  void add_bytes(View bytes);
  void pack_batch();
  void keep(Batch& batch, View packed);
  void make_head(std::string_view index);

  Io& io_;
  const SegmentForge& forge_;
  format::SegmentHeader header_;
  Seal seal_;
  std::vector<format::SegmentBlock> blocks_;
  std::vector<std::unique_ptr<Batch>> batches_;
  std::unique_ptr<Batch> open_;
  std::vector<std::vector<std::byte>> rooms_;  // What is packed, in the order in which it came.
  std::vector<std::byte> head_;
  uint64_t plain_packed_ = 0;
  uint64_t stored_ = 0;
  uint64_t plain_pending_ = 0;
  uint32_t items_ = 0;
  WaitList packed_;
  Group group_;
};

}  // namespace firn::archive
