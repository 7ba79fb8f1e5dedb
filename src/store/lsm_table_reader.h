// SPDX-License-Identifier: Apache-2.0
// Reads tables of a tree from the object store: a key by at most one ranged get for the tail, which
// is kept, and one for a block; a run in order with large gets. Knows no cache but that of tails.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "format/lsm_catalog.h"
#include "format/lsm_table.h"
#include "io/io.h"
#include "io/mutex.h"
#include "io/object_store.h"
#include "store/lsm_merge.h"

namespace firn::store {

std::string lsm_table_key(const std::string& prefix, const format::LsmTableId& id);
// Of a key as the store lists it; false when it is none of a table.
bool parse_lsm_table_key(const std::string& prefix, const std::string& key, format::LsmTableId& id);

class LsmTables {
 public:
  using Tail = std::shared_ptr<const format::LsmTail>;
  LsmTables(ObjectStore& store, std::string prefix, uint64_t cache_bytes)
      : store_(store), prefix_(std::move(prefix)), cache_bytes_(cache_bytes) {}

  void set_tree(const format::Uuid& tree) { tree_ = tree; }
  Result<Tail> tail(Io& io, const format::LsmTable& table);
  // The entries of blocks [first, first + count), unpacked, by one get.
  Result<std::vector<std::vector<std::byte>>> blocks(Io& io, const format::LsmTable& table,
                                                     const format::LsmTail& tail, size_t first,
                                                     size_t count);
  struct Found {
    bool there = false;
    bool removal = false;
    std::string value;
  };
  Result<Found> get(Io& io, const format::LsmTable& table, std::string_view key, uint64_t hash);
  void forget(const format::LsmTableId& id);
  uint64_t filtered() const { return filtered_; }
  ObjectStore& store() { return store_; }

 private:
  struct Kept {
    Tail tail;
    Mutex loading;
    std::list<format::LsmTableId>::iterator used;
  };
  Result<Tail> load(Io& io, const format::LsmTable& table);
  void make_room();

  ObjectStore& store_;
  std::string prefix_;
  uint64_t cache_bytes_;
  format::Uuid tree_{};
  std::map<format::LsmTableId, std::shared_ptr<Kept>> kept_;
  std::list<format::LsmTableId> used_;  // The latest first.
  uint64_t kept_bytes_ = 0;
  uint64_t filtered_ = 0;
};

// The tables of one run, in order.
class LsmRunSource final : public LsmSource {
 public:
  // `tables` are one run, by key. Begins with the first entry that is not less than `from`. Reads
  // `ahead` bytes at a time.
  LsmRunSource(LsmTables& tables, std::vector<format::LsmTable> run, std::string from,
               uint64_t ahead);
  Result<bool> next(Io& io) override;
  format::LsmEntry entry() const override { return reader_.entry(); }

 private:
  Result<bool> next_block(Io& io);
  Result<void> open_table(Io& io);

  LsmTables& tables_;
  std::vector<format::LsmTable> run_;
  std::string from_;  // Until the first entry was found.
  uint64_t ahead_;
  size_t table_ = 0;
  LsmTables::Tail tail_;
  size_t block_ = 0;  // The next one to read.
  std::vector<std::vector<std::byte>> loaded_;
  size_t loaded_at_ = 0;  // The one that reader_ walks.
  format::LsmBlockReader reader_{View{}};
};

}  // namespace firn::store
