// SPDX-License-Identifier: Apache-2.0
// The catalog in memory: every name and every layer of a pool, and where their records are.
//
//  C1  Each verb's changes are one atom; what memory says is what the pages say.
//  C2  A layer's parent is older than it and of its family: chains end.
//  C3  A live layer belongs to one disk, a snapshot's layer is frozen. A frozen layer without a
//      name is hidden: the sweeper takes it out as soon as fewer than two layers stand on it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "disk/layer.h"
#include "format/catalog.h"
#include "format/changes.h"
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
  using Names = std::map<std::string, NameSeen, std::less<>>;
  Names& names() { return names_; }  // Of disks.
  const Names& names() const { return names_; }
  // The snapshots of a disk, by name.
  const Names& snapshots(const format::Uuid& disk) const;
  NameSeen* snapshot(const format::Uuid& disk, std::string_view name);
  const NameSeen& add_snapshot(RecordNo record, format::Named named);
  void forget_snapshot(const format::Uuid& disk, std::string_view name);
  const std::map<format::Uuid, Names>& all_snapshots() const { return snapshots_; }

  const std::map<uint32_t, LayerSeen>& layers() const { return layers_; }
  LayerSeen& layer(uint32_t id) { return layers_.at(id); }
  // Layers that stand on this one; ascending.
  const std::vector<uint32_t>& children(uint32_t layer) const;
  // The disk or snapshot that has this layer; nullptr when nobody has.
  const NameSeen* name_of(uint32_t layer) const;
  void set_name_of(uint32_t layer, const NameSeen* name);
  const std::set<uint32_t>& nameless() const { return nameless_; }  // Layers that nobody has.
  bool is_used(const format::Uuid& uuid) const { return uuids_.contains(uuid); }
  void add_layer(RecordNo record, const format::LayerRecord& layer);
  void forget_layer(uint32_t id);
  void set_parent(uint32_t id, uint32_t parent);  // In memory; the record is the layer's to write.

  // The record of a disk's change tracking, by the disk's uuid; and its applications, by name.
  std::map<format::Uuid, RecordNo>& changes() { return changes_; }
  const std::map<format::Uuid, RecordNo>& changes() const { return changes_; }
  struct ApplicationSeen {
    RecordNo record = 0;
    format::ApplicationRecord application;
  };
  using Applications = std::map<std::string, ApplicationSeen, std::less<>>;
  Applications& applications(const format::Uuid& disk) { return applications_[disk]; }
  const Applications& applications(const format::Uuid& disk) const;
  const std::map<format::Uuid, Applications>& all_applications() const { return applications_; }

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
  // Errc::no_space when all have been given out: ids are never used again. Of family 0 a new one is
  // made, else the layer joins it.
  Result<FreshIds> take_ids(uint32_t family = 0);

  store::PageTree& tree() { return tree_; }

 private:
  Result<void> read_page(uint64_t index, const PageRef& page);
  Result<void> load_layer(RecordNo no, View record);
  Result<void> load_name(RecordNo no, View record);
  Result<void> load_changes(RecordNo no, View record);
  Result<void> load_application(RecordNo no, View record);
  Result<void> check_layers() const;
  Result<void> check_name(const NameSeen& seen);
  format::PoolRoot load_root() const;

  store::Pool& pool_;
  PageRef root_;
  store::PageTree tree_;
  Names names_;
  std::map<format::Uuid, Names> snapshots_;
  std::map<uint32_t, LayerSeen>
      layers_;  // Its nodes stay where they are: open layers refer to them.
  std::map<uint32_t, std::vector<uint32_t>> children_;
  std::map<uint32_t, const NameSeen*> named_;
  std::set<uint32_t> nameless_;
  std::set<format::Uuid> uuids_;  // Of everything named.
  std::map<format::Uuid, RecordNo> changes_;
  std::map<format::Uuid, Applications> applications_;
  std::vector<RecordNo> free_;
  uint64_t records_ = 0;  // Slots known: used or once used.
};

}  // namespace firn::disk
