// SPDX-License-Identifier: Apache-2.0
#include "format/lsm_table.h"

#include <zstd.h>

#include <algorithm>

#include "base/check.h"

namespace firn::format {

namespace {

constexpr unsigned kFilterBitsPerKey = 10;
constexpr unsigned kFilterProbes = 7;
constexpr unsigned kFilterProbesMax = 30;
constexpr int kZstdLevel = 1;

// What a block's checksum begins with, so that it is the checksum of a place, too.
uint32_t place_crc(const LsmTableId& id, uint64_t at) {
  struct Place {
    le64 epoch, number, at;
  };
  const Place place{id.epoch, id.number, at};
  return crc32c(view_of(place));
}

size_t shared_prefix(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

// A key as the difference from the one before. Empty when it is none, or not behind that one.
bool take_key(LsmTaker& taker, std::string& key) {
  const uint64_t shared = taker.varint(kLsmKeyMax);
  const uint64_t rest = taker.varint(kLsmKeyMax);
  const View suffix = taker.bytes(rest);
  if (!taker.good() || shared > key.size() || shared + rest > kLsmKeyMax || rest == 0) return false;
  // The first byte that differs must be larger; where the old key ended any byte is.
  const bool behind = shared == key.size() || static_cast<unsigned char>(key[shared]) <
                                                  static_cast<unsigned char>(suffix[0]);
  if (!behind) return false;
  key.resize(shared);
  key.append(text_view(suffix));
  return true;
}

void append_key(std::vector<std::byte>& to, std::string_view before, std::string_view key) {
  const size_t shared = shared_prefix(before, key);
  append_varint(to, shared);
  append_varint(to, key.size() - shared);
  append_bytes(to, view_of_text(key.substr(shared)));
}

}  // namespace

void LsmBlockMaker::add(const LsmEntry& entry) {
  CHECK(!entry.key.empty() && entry.key.size() <= kLsmKeyMax, "key of {} bytes", entry.key.size());
  CHECK(entry.value.size() <= kLsmValueMax && (!entry.removal || entry.value.empty()));
  CHECK(empty() || entry.key > last_key_, "keys of a table ascend");
  append_key(bytes_, last_key_, entry.key);
  append_varint(bytes_, entry.value.size() * 2 + (entry.removal ? 1 : 0));
  append_bytes(bytes_, view_of_text(entry.value));
  last_key_ = entry.key;
  CHECK(bytes_.size() <= kLsmBlockMax);
}

std::vector<std::byte> LsmBlockMaker::take() {
  last_key_.clear();
  return std::exchange(bytes_, {});
}

Result<bool> LsmBlockReader::next() {
  if (taker_.at_end()) return false;
  if (!take_key(taker_, key_)) return fail(Errc::corrupt, "table: a block with a bad key");
  const uint64_t tag = taker_.varint(kLsmValueMax * 2 + 1);
  removal_ = tag % 2 != 0;
  if (removal_ && tag != 1) return fail(Errc::corrupt, "table: a removal with a value");
  value_ = text_view(taker_.bytes(tag / 2));
  if (!taker_.good()) return fail(Errc::corrupt, "table: a block that ends in an entry");
  return true;
}

LsmPacked pack_lsm_block(std::vector<std::byte> block, bool compress) {
  LsmPacked packed;
  packed.bytes = static_cast<uint32_t>(block.size());
  if (compress) {
    std::vector<std::byte> small(ZSTD_compressBound(block.size()));
    const size_t bytes =
        ZSTD_compress(small.data(), small.size(), block.data(), block.size(), kZstdLevel);
    if (ZSTD_isError(bytes) == 0 && bytes < block.size() - block.size() / 8) {
      small.resize(bytes);
      small.shrink_to_fit();
      packed.stored = std::move(small);
      packed.codec = LsmCodec::zstd;
      return packed;
    }
  }
  packed.stored = std::move(block);
  return packed;
}

uint32_t lsm_block_crc(View stored, const LsmTableId& id, uint64_t at) {
  return crc32c(stored, place_crc(id, at));
}

Result<std::vector<std::byte>> unpack_lsm_block(View stored, const LsmBlock& block,
                                                const LsmTableId& id) {
  if (stored.size() != block.stored_bytes || lsm_block_crc(stored, id, block.at) != block.crc) {
    return fail(Errc::corrupt, "table {:x}-{:x}: checksum of the block at {}", id.epoch, id.number,
                block.at);
  }
  if (block.codec == LsmCodec::raw) return std::vector<std::byte>(stored.begin(), stored.end());
  std::vector<std::byte> bytes(block.bytes);
  const size_t got = ZSTD_decompress(bytes.data(), bytes.size(), stored.data(), stored.size());
  if (ZSTD_isError(got) != 0 || got != bytes.size()) {
    return fail(Errc::corrupt, "table {:x}-{:x}: the block at {} does not unpack", id.epoch,
                id.number, block.at);
  }
  return bytes;
}

uint64_t lsm_hash(View key) {
  uint64_t state = key.size() * 0x9e3779b97f4a7c15ULL;
  const auto mix = [&](uint64_t word) {
    state = (state ^ word) * 0xbf58476d1ce4e5b9ULL;
    state ^= state >> 29;
  };
  for (; key.size() >= 8; key = key.subspan(8)) mix(load<le64>(key));
  uint64_t last = 0;
  for (size_t i = 0; i < key.size(); ++i) last |= static_cast<uint64_t>(key[i]) << (8 * i);
  mix(last);
  state *= 0x94d049bb133111ebULL;
  return state ^ (state >> 32);
}

// The k-th bit of a key: a walk whose step is odd, from the two halves of its hash.
static uint64_t filter_bit(uint64_t hash, unsigned k, uint64_t bits) {
  return (hash + k * ((hash >> 32) | 1)) % bits;
}

bool LsmTail::may_have(uint64_t hash) const {
  const uint64_t bits = filter.size() * 8;
  for (unsigned k = 0; k < static_cast<unsigned>(footer.filter_probes); ++k) {
    const uint64_t bit = filter_bit(hash, k, bits);
    if ((filter[bit / 8] & std::byte{1} << (bit % 8)) == std::byte{}) return false;
  }
  return true;
}

size_t LsmTail::block_of(std::string_view key) const {
  const auto found = std::ranges::lower_bound(
      blocks, key, {}, [](const LsmBlock& block) { return std::string_view(block.last_key); });
  return static_cast<size_t>(found - blocks.begin());
}

uint64_t LsmTail::memory() const {
  uint64_t bytes = sizeof(*this) + filter.size() + blocks.size() * sizeof(LsmBlock);
  for (const LsmBlock& block : blocks) bytes += block.last_key.size();
  return bytes;
}

void LsmTailMaker::add_block(LsmBlock block) {
  CHECK(block.at == at_ && block.last_key > last_key_);
  append_key(index_, last_key_, block.last_key);
  append_varint(index_, block.stored_bytes);
  append_varint(index_, block.bytes);
  index_.push_back(static_cast<std::byte>(block.codec));
  append_object(index_, le32(block.crc));
  at_ += block.stored_bytes;
  ++blocks_;
  last_key_ = std::move(block.last_key);
}

std::vector<std::byte> LsmTailMaker::finish(const Uuid& tree, const LsmTableId& id,
                                            uint64_t removals) {
  CHECK(blocks_ > 0 && !hashes_.empty() && removals <= hashes_.size());
  std::vector<std::byte> filter(std::max<size_t>(8, (hashes_.size() * kFilterBitsPerKey + 7) / 8));
  for (const uint64_t hash : hashes_) {
    for (unsigned k = 0; k < kFilterProbes; ++k) {
      const uint64_t bit = filter_bit(hash, k, filter.size() * 8);
      filter[bit / 8] |= std::byte{1} << (bit % 8);
    }
  }
  LsmFooter footer;
  footer.tree = tree;
  footer.epoch = id.epoch;
  footer.number = id.number;
  footer.entries = hashes_.size();
  footer.removals = removals;
  footer.data_bytes = at_;
  footer.blocks = blocks_;
  footer.index_bytes = static_cast<uint32_t>(index_.size());
  footer.filter_bytes = static_cast<uint32_t>(filter.size());
  footer.index_crc = crc32c(index_);
  footer.filter_crc = crc32c(filter);
  footer.filter_probes = static_cast<std::byte>(kFilterProbes);
  footer.crc = crc32c(view_of(footer).subspan(12));
  std::vector<std::byte> tail = std::move(index_);
  append_bytes(tail, filter);
  append_object(tail, footer);
  return tail;
}

namespace {

Result<LsmFooter> decode_footer(View bytes, const Uuid& tree, const LsmTableId& id) {
  const auto footer = load<LsmFooter>(bytes);
  const auto bad = [&](const char* what) {
    return fail(Errc::corrupt, "table {:x}-{:x}: {}", id.epoch, id.number, what);
  };
  if (footer.magic != kLsmTableMagic) return bad("no footer at its end");
  if (footer.crc != crc32c(view_of(footer).subspan(12))) return bad("checksum of the footer");
  if (footer.version != kLsmTableVersion || (footer.incompat & ~kLsmTableKnownIncompat) != 0) {
    return fail(Errc::too_new, "table {:x}-{:x}: version {}, features {:#x}", id.epoch, id.number,
                footer.version.get(), footer.incompat.get());
  }
  if (footer.tree != tree) return bad("belongs to another tree");
  if (footer.epoch != id.epoch || footer.number != id.number) return bad("is another table");
  if (footer.footer_bytes != sizeof(LsmFooter) || !all_zero(footer.reserved)) {
    return bad("reserved bytes are not zero");
  }
  const auto probes = static_cast<unsigned>(footer.filter_probes);
  if (footer.blocks == 0 || footer.entries < footer.blocks || footer.removals > footer.entries ||
      footer.data_bytes > kLsmTableMax || footer.filter_bytes < 8 || probes == 0 ||
      probes > kFilterProbesMax) {
    return bad("impossible counts");
  }
  return footer;
}

Result<std::vector<LsmBlock>> decode_index(View index, const LsmFooter& footer) {
  const auto bad = [&](const char* what) {
    return fail(Errc::corrupt, "table {:x}-{:x}: index: {}", footer.epoch.get(),
                footer.number.get(), what);
  };
  std::vector<LsmBlock> blocks;
  blocks.reserve(std::min<uint64_t>(footer.blocks, index.size() / 9));
  LsmTaker taker(index);
  LsmBlock block;
  while (!taker.at_end()) {
    if (!take_key(taker, block.last_key)) return bad("a bad key");
    block.stored_bytes = static_cast<uint32_t>(taker.varint(kLsmBlockMax));
    block.bytes = static_cast<uint32_t>(taker.varint(kLsmBlockMax));
    block.codec = LsmCodec{static_cast<uint8_t>(taker.object<std::byte>())};
    block.crc = taker.object<le32>();
    if (!taker.good()) return bad("ends in an entry");
    if (block.codec != LsmCodec::raw && block.codec != LsmCodec::zstd) {
      return fail(Errc::too_new, "table {:x}-{:x}: block codec {}", footer.epoch.get(),
                  footer.number.get(), static_cast<unsigned>(block.codec));
    }
    if (block.stored_bytes == 0 || block.bytes == 0 ||
        (block.codec == LsmCodec::raw && block.stored_bytes != block.bytes)) {
      return bad("a block of an impossible length");
    }
    blocks.push_back(block);
    block.at += block.stored_bytes;
  }
  if (blocks.size() != footer.blocks || block.at != footer.data_bytes) return bad("is incomplete");
  return blocks;
}

}  // namespace

Result<LsmTail> decode_lsm_tail(View tail, const Uuid& tree, const LsmTableId& id) {
  if (tail.size() < sizeof(LsmFooter) || tail.size() > kLsmTailMax) {
    return fail(Errc::corrupt, "table {:x}-{:x}: a tail of {} bytes", id.epoch, id.number,
                tail.size());
  }
  LsmTail decoded;
  const View last = tail.last(sizeof(LsmFooter));
  decoded.footer = TRY(decode_footer(last, tree, id));
  const LsmFooter& footer = decoded.footer;
  if (uint64_t{footer.index_bytes} + footer.filter_bytes + sizeof(LsmFooter) != tail.size()) {
    return fail(Errc::corrupt, "table {:x}-{:x}: wrong length of tail", id.epoch, id.number);
  }
  const View index = tail.first(footer.index_bytes);
  const View filter = tail.subspan(footer.index_bytes, footer.filter_bytes);
  if (crc32c(index) != footer.index_crc || crc32c(filter) != footer.filter_crc) {
    return fail(Errc::corrupt, "table {:x}-{:x}: checksum of the index or filter", id.epoch,
                id.number);
  }
  decoded.blocks = TRY(decode_index(index, footer));
  decoded.filter.assign(filter.begin(), filter.end());
  return decoded;
}

}  // namespace firn::format
