// SPDX-License-Identifier: Apache-2.0
// The catalog in memory: every name and every layer of a pool, and where their records are.
//
//  C1  Each verb's changes are one atom; what memory says is what the pages say.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "disk/layer.h"
#include "format/catalog.h"
#include "store/pool.h"
#include "store/tree.h"

namespace firn::disk {

using RecordNo = uint64_t;

class Catalog {
 public:
  explicit Catalog(store::Pool& pool);

  struct LayerSeen {
    RecordNo record = 0;
    format::LayerRecord layer;
  };
  // Reads every record. A bad record is an error: names must not be forgotten. So is a name or a
  // layer that is there twice.
  Result<void> load(Io& io);

  struct NameSeen {
    RecordNo record = 0;
    format::Named named;
  };
  std::map<std::string, NameSeen, std::less<>>& names() { return names_; }
  const std::map<std::string, NameSeen, std::less<>>& names() const { return names_; }
  std::map<uint32_t, LayerSeen>& layers() { return layers_; }
  const std::map<uint32_t, LayerSeen>& layers() const { return layers_; }

  // A record slot nobody uses, its page pinned. The caller holds an admission; put() makes it used.
  struct Slot {
    RecordNo record = 0;
    PageRef page;
    size_t at = 0;
  };
  Result<Slot> reserve(Io& io);
  void abandon(const Slot& slot);
  Result<Slot> pin(Io& io, RecordNo record);

  // --- none waits
  template <class Record>
  void put(const Slot& slot, const Record& record) {
    pool_.pages().set_bytes(slot.page, slot.at, view_of(record));
  }
  void clear(const Slot& slot);
  struct FreshIds {
    uint32_t family;
    uint32_t layer;
  };
  // Errc::no_space when all have been given out: ids are never used again.
  Result<FreshIds> take_ids();

  store::PageTree& tree() { return tree_; }

 private:
  Result<void> read_page(uint64_t index, const PageRef& page);
  Result<void> add_layer(RecordNo no, View record);
  Result<void> add_disk(RecordNo no, View record);
  format::PoolRoot load_root() const;

  store::Pool& pool_;
  PageRef root_;
  store::PageTree tree_;
  std::map<std::string, NameSeen, std::less<>> names_;
  std::map<uint32_t, LayerSeen> layers_;
  std::vector<RecordNo> free_;
  uint64_t records_ = 0;  // Slots known: used or once used.
};

}  // namespace firn::disk
