// SPDX-License-Identifier: Apache-2.0
// Reading segments: their heads, kept; their groups, by ranges.
//
//  E1  What comes from the bucket is checked before it is believed: it must be the segment that was
//      asked for, of this archive, and every checksum must hold.
//  E2  A segment that was rewritten smaller meanwhile has another head: who meets it reads the head
//      again, and finds every live block (format/segment.h G4).
#pragma once

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "archive/segment_builder.h"
#include "io/object_store.h"

namespace firn::archive {

// d/UUID/SEGMENT, or c/... in the cold tier.
std::string segment_key(const format::Uuid& disk, uint64_t segment, uint8_t tier);
std::string segment_prefix(const format::Uuid& disk, uint8_t tier);
struct SegmentName {
  format::Uuid disk{};
  uint64_t segment = 0;
  uint8_t tier = 0;
};
// Nothing: not the name of a segment.
std::optional<SegmentName> parse_segment_key(std::string_view key);

struct SegmentHead {
  std::string key;
  format::SegmentHeader header;
  format::ArchiveLabel label;
  std::vector<format::GroupEntry> groups;
  std::vector<uint64_t> offsets;  // Of each group in the object, and the end.
  std::vector<std::byte> index;   // As stored; heads that are kept have none.
  std::vector<uint16_t> slots;    // Of the blocks, ascending; empty: 0, 1, 2, ...
  // Where the block of a slot is, counted in blocks. Nothing: it is not there.
  std::optional<uint32_t> ordinal_of(uint16_t slot) const;
};

class SegmentReader {
 public:
  SegmentReader(ObjectStore& store, const SegmentForge& forge) : store_(store), forge_(forge) {}
  SegmentReader(const SegmentReader&) = delete;
  SegmentReader& operator=(const SegmentReader&) = delete;

  // `head_bytes`: how much it is, if known; saves a request.
  Result<std::shared_ptr<const SegmentHead>> head(Io& io, const SegmentName& name,
                                                  uint32_t head_bytes);
  // Past the cache, and whatever archive it belongs to.
  Result<std::shared_ptr<SegmentHead>> read_head(Io& io, const std::string& key,
                                                 uint32_t head_bytes);
  Result<std::vector<format::SegmentBlock>> blocks(Io& io, const SegmentHead& head);
  // The record of a manifest.
  Result<std::string> record(Io& io, const SegmentHead& head);
  // Groups [first, end), plain, one after the other.
  Result<void> groups(Io& io, const SegmentHead& head, uint32_t first, uint32_t end,
                      std::vector<std::byte>& into);
  // Checks what is stored of groups [first, end), without any key. The groups that are damaged.
  Result<std::vector<uint32_t>> verify(Io& io, const SegmentHead& head, uint32_t first,
                                       uint32_t end);
  void forget(const std::string& key);
  ObjectStore& store() { return store_; }
  const SegmentForge& forge() const { return forge_; }

 private:
  static constexpr size_t kHeadsMax = 512;

  Result<std::shared_ptr<const SegmentHead>> load_head(Io& io, const SegmentName& name,
                                                       const std::string& key, uint32_t head_bytes);
  Result<std::vector<std::byte>> plain_index(Io& io, const SegmentHead& head);

  ObjectStore& store_;
  const SegmentForge& forge_;
  std::map<std::string, std::shared_ptr<const SegmentHead>> heads_;
  std::list<std::string> order_;  // Of arrival: the oldest goes first.
  std::set<std::string> loading_;
  WaitList loaded_;
};

}  // namespace firn::archive
