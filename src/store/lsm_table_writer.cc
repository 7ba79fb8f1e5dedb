// SPDX-License-Identifier: Apache-2.0
#include "store/lsm_table_writer.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace firn::store {

LsmTableWriter::LsmTableWriter(const format::Uuid& tree, const format::LsmTableId& id,
                               const LsmTableShape& shape)
    : tree_(tree), shape_(shape) {
  made_.table.id = id;
}

void LsmTableWriter::add(Io& io, const format::LsmEntry& entry) {
  const uint64_t more = entry.key.size() + entry.value.size() + 16;
  if (!block_.empty() && block_.bytes() + more > shape_.block_bytes) end_block(io);
  if (empty()) made_.table.first_key = entry.key;
  made_.table.last_key = entry.key;
  ++made_.table.entries;
  made_.table.removals += entry.removal ? 1 : 0;
  block_.add(entry);
  tail_.add_key(format::view_of_text(entry.key));
}

void LsmTableWriter::append(View bytes) {
  constexpr size_t kPiece = 256 * kKiB;
  LsmBody& body = made_.body;
  if (body.empty() || body.back().size() + bytes.size() > body.back().capacity()) {
    body.emplace_back().reserve(std::max(kPiece, bytes.size()));
  }
  format::append_bytes(body.back(), bytes);
  made_.table.bytes += bytes.size();
}

void LsmTableWriter::end_block(Io& io) {
  format::LsmBlock block;
  block.last_key = block_.last_key();
  block.at = tail_.data_bytes();
  std::vector<std::byte> entries = block_.take();
  format::LsmPacked packed;
  io.offload([&] {
    packed = format::pack_lsm_block(std::move(entries), shape_.compress);
    block.crc = format::lsm_block_crc(packed.stored, made_.table.id, block.at);
  });
  block.bytes = packed.bytes;
  block.codec = packed.codec;
  block.stored_bytes = static_cast<uint32_t>(packed.stored.size());
  tail_.add_block(std::move(block));
  append(packed.stored);
}

LsmMadeTable LsmTableWriter::finish(Io& io) {
  CHECK(!empty());
  end_block(io);
  std::vector<std::byte> tail;
  io.offload([&] { tail = tail_.finish(tree_, made_.table.id, made_.table.removals); });
  made_.table.tail_bytes = static_cast<uint32_t>(tail.size());
  append(tail);
  return std::move(made_);
}

}  // namespace firn::store
