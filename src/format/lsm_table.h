// SPDX-License-Identifier: Apache-2.0
// A table of the tree in the bucket: one immutable object of sorted entries in blocks, and behind
// them its tail: an index of the blocks, a bloom filter of the keys, a footer.
// docs/format/lsm_table.md  Source: US 11093472 (payload and index); the layout is ours.
//
// Contract:
//  - Makers are given keys in strictly ascending order (CHECK); what they made is accepted.
//  - What decode and the block reader have accepted holds keys of 1 to kLsmKeyMax bytes in strictly
//    ascending order, values of at most kLsmValueMax; removals have none.
//  - A block's checksum has the table's name and the block's place folded in: it is kept in the
//    index, so an older or another table's block is seen.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "format/lsm_wire.h"
#include "format/page.h"

namespace firn::format {

inline constexpr std::array<char, 8> kLsmTableMagic{'F', 'I', 'R', 'N', 'L', 'S', 'M', 'T'};
inline constexpr uint16_t kLsmTableVersion = 1;
inline constexpr uint32_t kLsmTableKnownIncompat = 0;
inline constexpr uint64_t kLsmBlockTargetMax = kMiB;
inline constexpr uint64_t kLsmBlockMax = 4 * kMiB;  // Of entries, before compression.
inline constexpr uint64_t kLsmTailMax = 64 * kMiB;
inline constexpr uint64_t kLsmTableMax = 4 * kGiB;

enum class LsmCodec : uint8_t { raw = 1, zstd = 2 };

struct LsmFooter {
  std::array<char, 8> magic = kLsmTableMagic;
  le32 crc;  // crc32c of bytes [12, 128).
  le16 version = kLsmTableVersion;
  le16 footer_bytes = 128;
  le32 incompat;  // Unknown bit: refuse.
  le32 compat;    // Unknown bit: ignore.
  std::array<std::byte, 16> tree{};
  le64 epoch;
  le64 number;
  le64 entries;  // Removals included.
  le64 removals;
  le64 data_bytes;  // Of all blocks; the index begins there.
  le32 blocks;
  le32 index_bytes;
  le32 filter_bytes;
  le32 index_crc;
  le32 filter_crc;
  std::byte filter_probes{};
  std::array<std::byte, 27> reserved{};
};
static_assert(OnDisk<LsmFooter, 128>);

struct LsmEntry {
  std::string_view key;
  std::string_view value;
  bool removal = false;
};

// Entries with common prefixes written once.
class LsmBlockMaker {
 public:
  void add(const LsmEntry& entry);
  bool empty() const { return bytes_.empty(); }
  uint64_t bytes() const { return bytes_.size(); }
  const std::string& last_key() const { return last_key_; }
  std::vector<std::byte> take();  // And is empty again.

 private:
  std::vector<std::byte> bytes_;
  std::string last_key_;
};

// Walks a block's entries. `block` outlives it.
class LsmBlockReader {
 public:
  explicit LsmBlockReader(View block) : taker_(block) {}
  // False behind the last one; Errc::corrupt says what is wrong.
  Result<bool> next();
  // Until the next call.
  LsmEntry entry() const { return {key_, value_, removal_}; }

 private:
  LsmTaker taker_;
  std::string key_;
  std::string_view value_;
  bool removal_ = false;
};

// A block as the index knows it.
struct LsmBlock {
  std::string last_key;
  uint64_t at = 0;
  uint32_t stored_bytes = 0;
  uint32_t bytes = 0;
  LsmCodec codec = LsmCodec::raw;
  uint32_t crc = 0;  // Of what is stored.
};

// A stored block: compressed when that saves an eighth. `pack` waits for nothing but is CPU-heavy.
struct LsmPacked {
  std::vector<std::byte> stored;
  LsmCodec codec = LsmCodec::raw;
  uint32_t bytes = 0;
};
LsmPacked pack_lsm_block(std::vector<std::byte> block, bool compress);
uint32_t lsm_block_crc(View stored, const LsmTableId& id, uint64_t at);
// The entries of a stored block, or what is wrong with it.
Result<std::vector<std::byte>> unpack_lsm_block(View stored, const LsmBlock& block,
                                                const LsmTableId& id);

// A stable hash of a key, for filters: docs/format/lsm_table.md.
uint64_t lsm_hash(View key);

// What stands behind the blocks, decoded.
struct LsmTail {
  LsmFooter footer;
  std::vector<LsmBlock> blocks;  // Adjoining, from 0.
  std::vector<std::byte> filter;

  bool may_have(uint64_t hash) const;
  // The block that has the key if any has; blocks.size() when none.
  size_t block_of(std::string_view key) const;
  uint64_t memory() const;
};

class LsmTailMaker {
 public:
  void add_key(View key) { hashes_.push_back(lsm_hash(key)); }
  void add_block(LsmBlock block);
  uint64_t data_bytes() const { return at_; }
  // Index, filter, footer.
  std::vector<std::byte> finish(const Uuid& tree, const LsmTableId& id, uint64_t removals);

 private:
  std::vector<uint64_t> hashes_;
  std::vector<std::byte> index_;
  std::string last_key_;
  uint32_t blocks_ = 0;
  uint64_t at_ = 0;
};

// `tail` is the last bytes of the object that is said to be table `id` of `tree`, exactly index,
// filter and footer. Errc::corrupt, or too_new.
Result<LsmTail> decode_lsm_tail(View tail, const Uuid& tree, const LsmTableId& id);

}  // namespace firn::format
