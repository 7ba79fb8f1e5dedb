// SPDX-License-Identifier: Apache-2.0
#include "disk/catalog.h"

#include <algorithm>

#include "base/log.h"

namespace firn::disk {

using format::kRecordBytes;
using format::kRecordsPerPage;
using format::PoolRoot;
using format::RecordKind;
using store::PageKind;

Catalog::Catalog(store::Pool& pool)
    : pool_(pool),
      root_(pool.root()),
      tree_(pool.pages(), pool.root(), offset_of(format::Tree::catalog), PageKind::catalog) {}

const Catalog::Names& Catalog::snapshots(const format::Uuid& disk) const {
  static const Names kNone;
  const auto found = snapshots_.find(disk);
  return found == snapshots_.end() ? kNone : found->second;
}

Catalog::NameSeen* Catalog::snapshot(const format::Uuid& disk, std::string_view name) {
  const auto of_disk = snapshots_.find(disk);
  if (of_disk == snapshots_.end()) return nullptr;
  const auto found = of_disk->second.find(name);
  return found == of_disk->second.end() ? nullptr : &found->second;
}

const Catalog::NameSeen& Catalog::add_snapshot(RecordNo record, format::Named named) {
  std::string name = named.name;
  return snapshots_[named.disk][std::move(name)] = {record, std::move(named)};
}

void Catalog::forget_snapshot(const format::Uuid& disk, std::string_view name) {
  const auto of_disk = snapshots_.find(disk);
  of_disk->second.erase(of_disk->second.find(name));
  if (of_disk->second.empty()) snapshots_.erase(of_disk);
}

const std::vector<uint32_t>& Catalog::children(uint32_t layer) const {
  static const std::vector<uint32_t> kNone;
  const auto found = children_.find(layer);
  return found == children_.end() ? kNone : found->second;
}

const Catalog::NameSeen* Catalog::name_of(uint32_t layer) const {
  const auto found = named_.find(layer);
  return found == named_.end() ? nullptr : found->second;
}

void Catalog::set_name_of(uint32_t layer, const NameSeen* name) {
  if (const NameSeen* const before = name_of(layer); before != nullptr) {
    uuids_.erase(before->named.uuid);
  }
  if (name == nullptr) {
    named_.erase(layer);
    nameless_.insert(layer);
    return;
  }
  nameless_.erase(layer);
  named_[layer] = name;
  uuids_.insert(name->named.uuid);
}

void Catalog::add_layer(RecordNo record, const format::LayerRecord& layer) {
  layers_[layer.layer] = {record, layer};
  nameless_.insert(layer.layer);
  if (layer.parent != 0) children_[layer.parent].push_back(layer.layer);
}

void Catalog::forget_layer(uint32_t id) {
  CHECK(children(id).empty());
  set_parent(id, 0);
  layers_.erase(id);
  nameless_.erase(id);
  CHECK(!named_.contains(id));
}

void Catalog::set_parent(uint32_t id, uint32_t parent) {
  le32& now = layers_.at(id).layer.parent;
  if (now != 0) {
    std::erase(children_.at(now), id);
    if (children_.at(now).empty()) children_.erase(now);
  }
  now = parent;
  if (parent == 0) return;
  std::vector<uint32_t>& siblings = children_[parent];
  siblings.insert(std::ranges::lower_bound(siblings, id), id);
}

// --- reading

Result<void> Catalog::load_layer(RecordNo no, View record) {
  const auto layer = TRY(format::decode_layer(record));
  const PoolRoot root = load_root();
  if (layer.layer >= root.next_layer || layer.family >= root.next_family) {
    return fail(Errc::corrupt, "catalog: layer {} of family {} has an id that was never given out",
                layer.layer.get(), layer.family.get());
  }
  if (layers_.contains(layer.layer)) {
    return fail(Errc::corrupt, "catalog: layer {} is there twice", layer.layer.get());
  }
  layers_[layer.layer] = {no, layer};
  return ok;
}

Result<void> Catalog::load_name(RecordNo no, View record) {
  auto named = TRY(format::decode_name(record));
  const std::string name = named.name;
  const bool is_disk = named.kind == RecordKind::disk;
  Names& names = is_disk ? names_ : snapshots_[named.disk];
  if (!names.emplace(name, NameSeen{no, std::move(named)}).second) {
    return fail(Errc::corrupt, "catalog: {} '{}' is there twice", is_disk ? "disk" : "snapshot",
                name);
  }
  return ok;
}

// Tracking is a help for backups: what is wrong with it must not keep a disk from opening. A record
// that cannot be is passed over; its disk counts as not tracked.
Result<void> Catalog::load_changes(RecordNo no, View record) {
  const auto changes = format::decode_changes(record);
  if (!changes && changes.error().code == Errc::too_new) return changes.error();
  if (!changes || !changes_.emplace(changes->disk, no).second) {
    log(LogLevel::error, "record {} is passed over, a disk's next backup is a full one: {}", no,
        changes ? "its disk has another one" : text_of(changes.error()));
  }
  return ok;
}

Result<void> Catalog::load_application(RecordNo no, View record) {
  const auto application = format::decode_application(record);
  if (!application && application.error().code == Errc::too_new) return application.error();
  if (!application ||
      !applications_[application->disk]
           .emplace(format::name_of(*application), ApplicationSeen{no, *application})
           .second) {
    log(LogLevel::error, "record {} is passed over, an application is forgotten: {}", no,
        application ? "it is there twice" : text_of(application.error()));
  }
  return ok;
}

const Catalog::Applications& Catalog::applications(const format::Uuid& disk) const {
  static const Applications kNone;
  const auto found = applications_.find(disk);
  return found == applications_.end() ? kNone : found->second;
}

// C2
Result<void> Catalog::check_layers() const {
  for (const auto& [id, seen] : layers_) {
    if (seen.layer.parent == 0) continue;
    const auto parent = layers_.find(seen.layer.parent);
    if (parent == layers_.end() || parent->first >= id ||
        parent->second.layer.family != seen.layer.family) {
      return fail(Errc::corrupt, "catalog: layer {} stands on layer {}, which cannot be", id,
                  seen.layer.parent.get());
    }
  }
  return ok;
}

// C3
Result<void> Catalog::check_name(const NameSeen& seen) {
  const format::Named& named = seen.named;
  const auto layer = layers_.find(named.layer);
  if (layer == layers_.end()) {
    return fail(Errc::corrupt, "catalog: '{}' has layer {}, which is not there", named.name,
                named.layer);
  }
  const auto wanted =
      named.kind == RecordKind::disk ? format::LayerState::live : format::LayerState::frozen;
  if (static_cast<format::LayerState>(layer->second.layer.state) != wanted) {
    return fail(Errc::corrupt, "catalog: '{}' has layer {}, which is in state {}", named.name,
                named.layer, static_cast<unsigned>(layer->second.layer.state));
  }
  const auto [other, alone] = named_.emplace(named.layer, &seen);
  nameless_.erase(named.layer);
  if (!alone) {
    return fail(Errc::corrupt, "catalog: '{}' and '{}' both have layer {}",
                other->second->named.name, named.name, named.layer);
  }
  if (!uuids_.insert(named.uuid).second) {
    return fail(Errc::corrupt, "catalog: the uuid of '{}' is there twice", named.name);
  }
  return ok;
}

Result<void> Catalog::read_page(uint64_t index, const PageRef& page) {
  for (uint64_t i = 0; i < kRecordsPerPage; ++i) {
    const RecordNo no = index * kRecordsPerPage + i;
    if (no >= records_) break;
    const View record = page.view().subspan(i * kRecordBytes, kRecordBytes);
    switch (TRY(format::kind_of_record(record))) {
      case RecordKind::free:
        free_.push_back(no);
        break;
      case RecordKind::layer:
        TRY(load_layer(no, record));
        break;
      case RecordKind::disk:
      case RecordKind::snapshot:
        TRY(load_name(no, record));
        break;
      case RecordKind::changes:
        TRY(load_changes(no, record));
        break;
      case RecordKind::application:
        TRY(load_application(no, record));
        break;
    }
  }
  return ok;
}

Result<void> Catalog::load(Io& io) {
  records_ = load_root().catalog_records;
  TRY(tree_.for_each(
      io, [this](Io&, uint64_t index, const PageRef& page) { return read_page(index, page); }));
  TRY(check_layers());
  for (const auto& [id, seen] : layers_) {
    nameless_.insert(id);
    if (seen.layer.parent != 0) children_[seen.layer.parent].push_back(id);
  }
  std::set<format::Uuid> disks;
  for (const auto& [name, seen] : names_) {
    TRY(check_name(seen));
    disks.insert(seen.named.uuid);
  }
  for (const auto& [disk, names] : snapshots_) {
    for (const auto& [name, seen] : names) {
      TRY(check_name(seen));
      if (disks.contains(disk)) continue;
      return fail(Errc::corrupt, "catalog: snapshot '{}' belongs to a disk that is not there",
                  name);
    }
  }
  return ok;
}

format::PoolRoot Catalog::load_root() const { return firn::load<PoolRoot>(root_.view()); }

Result<Catalog::Slot> Catalog::pin(Io& io, RecordNo record) {
  PageRef page = TRY(tree_.make_leaf(io, record / kRecordsPerPage));
  return Slot{record, std::move(page), record % kRecordsPerPage * kRecordBytes};
}

Result<Catalog::Slot> Catalog::reserve(Io& io) {
  RecordNo record = 0;
  if (free_.empty()) {
    record = records_++;
    pool_.pages().set_word(root_, offsetof(PoolRoot, catalog_records) / 8, records_);
  } else {
    record = free_.back();
    free_.pop_back();
  }
  Result<Slot> slot = pin(io, record);
  if (!slot) free_.push_back(record);
  return slot;
}

void Catalog::abandon(const Slot& slot) { free_.push_back(slot.record); }

void Catalog::clear(const Slot& slot) {
  static constexpr std::array<std::byte, kRecordBytes> kNothing{};
  pool_.pages().set_bytes(slot.page, slot.at, kNothing);
  free_.push_back(slot.record);
}

Result<Catalog::FreshIds> Catalog::take_ids(uint32_t family) {
  const PoolRoot root = load_root();
  if ((family == 0 && root.next_family >= format::kFamiliesReserved) ||
      root.next_layer == UINT32_MAX) {
    return fail(Errc::no_space, "pool '{}' has given out all its ids: {} families, {} layers",
                pool_.directory(), root.next_family - 1, root.next_layer - 1);
  }
  PoolRoot next = root;
  if (family == 0) next.next_family = root.next_family + 1;
  next.next_layer = root.next_layer + 1;
  const size_t at = offsetof(PoolRoot, next_family);
  pool_.pages().set_bytes(root_, at, view_of(next).subspan(at, 8));
  return FreshIds{family == 0 ? root.next_family.get() : family, root.next_layer};
}

}  // namespace firn::disk
