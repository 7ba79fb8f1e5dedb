// SPDX-License-Identifier: Apache-2.0
#include "store/lsm_table_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

namespace firn::store {

using format::LsmTable;
using format::LsmTableId;
using format::LsmTail;

std::string lsm_table_key(const std::string& prefix, const LsmTableId& id) {
  return fmt::format("{}table/{:016x}/{:016x}", prefix, id.epoch, id.number);
}

bool parse_lsm_table_key(const std::string& prefix, const std::string& key, LsmTableId& id) {
  const size_t at = prefix.size() + 6;
  if (key.size() != at + 33) return false;
  const char* const text = key.data() + at;
  const auto a = std::from_chars(text, text + 16, id.epoch, 16);
  const auto b = std::from_chars(text + 17, text + 33, id.number, 16);
  return a.ec == std::errc() && b.ec == std::errc() && lsm_table_key(prefix, id) == key;
}

// --- LsmTables

static Result<std::vector<std::byte>> read_part(Io& io, ObjectStore& store, const std::string& key,
                                                uint64_t at, uint64_t bytes) {
  std::vector<std::byte> part(bytes);
  const size_t got = TRY(store.get(io, key, at, part));
  if (got != bytes) {
    return fail(Errc::corrupt, "{}: ends at byte {}, {} bytes are missing", key, at + got,
                bytes - got);
  }
  return part;
}

Result<LsmTables::Tail> LsmTables::load(Io& io, const LsmTable& table) {
  const auto bytes = TRY(read_part(io, store_, lsm_table_key(prefix_, table.id),
                                   table.bytes - table.tail_bytes, table.tail_bytes));
  LsmTail tail = TRY(format::decode_lsm_tail(bytes, tree_, table.id));
  if (tail.footer.data_bytes != table.bytes - table.tail_bytes ||
      tail.footer.entries != table.entries) {
    return fail(Errc::corrupt, "table {:x}-{:x}: is not as the catalog says", table.id.epoch,
                table.id.number);
  }
  return Tail(std::make_shared<const LsmTail>(std::move(tail)));
}

void LsmTables::make_room() {
  while (kept_bytes_ > cache_bytes_ && used_.size() > 1) {
    const auto last = kept_.find(used_.back());
    kept_bytes_ -= last->second->tail->memory();
    kept_.erase(last);
    used_.pop_back();
  }
}

Result<LsmTables::Tail> LsmTables::tail(Io& io, const LsmTable& table) {
  auto& place = kept_[table.id];
  if (!place) place = std::make_shared<Kept>();
  const std::shared_ptr<Kept> kept = place;  // Stays while somebody waits in it.
  const auto hold = kept->loading.lock(io);
  if (kept->tail) {
    if (kept_.contains(table.id) && kept_[table.id] == kept) {
      used_.splice(used_.begin(), used_, kept->used);
    }
    return kept->tail;
  }
  auto loaded = load(io, table);
  const auto again = kept_.find(table.id);
  const bool still = again != kept_.end() && again->second == kept;
  if (!loaded) {
    if (still) kept_.erase(again);
    return loaded.error();
  }
  kept->tail = *loaded;
  if (still) {
    used_.push_front(table.id);
    kept->used = used_.begin();
    kept_bytes_ += kept->tail->memory();
    make_room();
  }
  return kept->tail;
}

void LsmTables::forget(const LsmTableId& id) {
  const auto found = kept_.find(id);
  if (found == kept_.end()) return;
  if (found->second->tail) {
    kept_bytes_ -= found->second->tail->memory();
    used_.erase(found->second->used);
  }
  kept_.erase(found);
}

Result<std::vector<std::vector<std::byte>>> LsmTables::blocks(Io& io, const LsmTable& table,
                                                              const LsmTail& tail, size_t first,
                                                              size_t count) {
  const uint64_t begin = tail.blocks[first].at;
  const format::LsmBlock& last = tail.blocks[first + count - 1];
  const auto bytes = TRY(read_part(io, store_, lsm_table_key(prefix_, table.id), begin,
                                   last.at + last.stored_bytes - begin));
  std::vector<std::vector<std::byte>> unpacked;
  Result<void> result;
  io.offload([&] {
    for (size_t i = first; i < first + count && result; ++i) {
      const format::LsmBlock& block = tail.blocks[i];
      const View stored = View(bytes).subspan(block.at - begin, block.stored_bytes);
      auto entries = format::unpack_lsm_block(stored, block, table.id);
      if (entries) unpacked.push_back(entries.take());
      // The sentence of an error belongs to the thread where it is born: told again below.
      if (!entries) result = entries.error();
    }
  });
  if (!result) {
    return fail(Errc::corrupt, "table {:x}-{:x}: a bad block among those from {} on",
                table.id.epoch, table.id.number, begin);
  }
  return unpacked;
}

Result<LsmTables::Found> LsmTables::get(Io& io, const LsmTable& table, std::string_view key,
                                        uint64_t hash) {
  const Tail tail = TRY(this->tail(io, table));
  if (!tail->may_have(hash)) {
    ++filtered_;
    return Found{};
  }
  const size_t at = tail->block_of(key);
  if (at == tail->blocks.size()) return Found{};
  const auto loaded = TRY(blocks(io, table, *tail, at, 1));
  format::LsmBlockReader reader(loaded[0]);
  while (TRY(reader.next())) {
    const format::LsmEntry entry = reader.entry();
    if (entry.key == key) return Found{true, entry.removal, std::string(entry.value)};
    if (entry.key > key) break;
  }
  return Found{};
}

// --- LsmRunSource

LsmRunSource::LsmRunSource(LsmTables& tables, std::vector<LsmTable> run, std::string from,
                           uint64_t ahead)
    : tables_(tables), run_(std::move(run)), from_(std::move(from)), ahead_(ahead) {
  while (table_ < run_.size() && run_[table_].last_key < from_) ++table_;
}

Result<void> LsmRunSource::open_table(Io& io) {
  tail_ = TRY(tables_.tail(io, run_[table_]));
  block_ = from_.empty() ? 0 : tail_->block_of(from_);
  return ok;
}

// Makes reader_ walk the next block; false when there is none in any table.
Result<bool> LsmRunSource::next_block(Io& io) {
  if (loaded_at_ + 1 < loaded_.size()) {
    reader_ = format::LsmBlockReader(loaded_[++loaded_at_]);
    return true;
  }
  while (table_ < run_.size()) {
    if (!tail_) TRY(open_table(io));
    const size_t blocks = tail_->blocks.size();
    if (block_ >= blocks) {
      tail_.reset();
      ++table_;
      continue;
    }
    size_t count = 1;
    uint64_t bytes = tail_->blocks[block_].stored_bytes;
    while (block_ + count < blocks &&
           bytes + tail_->blocks[block_ + count].stored_bytes <= ahead_) {
      bytes += tail_->blocks[block_ + count++].stored_bytes;
    }
    loaded_ = TRY(tables_.blocks(io, run_[table_], *tail_, block_, count));
    loaded_at_ = 0;
    block_ += count;
    reader_ = format::LsmBlockReader(loaded_[0]);
    return true;
  }
  return false;
}

Result<bool> LsmRunSource::next(Io& io) {
  while (true) {
    if (!TRY(reader_.next())) {
      if (!TRY(next_block(io))) return false;
      continue;
    }
    if (from_.empty()) return true;
    if (reader_.entry().key < from_) continue;
    from_.clear();
    return true;
  }
}

}  // namespace firn::store
