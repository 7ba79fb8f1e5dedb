// SPDX-License-Identifier: Apache-2.0
// Snapshots, clones and reverts: names for layers, and layers on layers. Each is one atom.
//
// Notes on the design
//
// What may wait is done before the disk is fenced: records are set aside and their pages pinned. So
// the fence lasts as long as the writes that are under way, and no longer. It is opened before the
// commit that makes the change durable: writers go on into the new layer, and if the commit never
// comes about, what they wrote is as lost as the snapshot is.
#include <algorithm>
#include <set>

#include "disk/diff.h"
#include "disk/disks_impl.h"
#include "disk/names.h"

namespace firn::disk {

using format::LayerRecord;
using format::LayerState;
using format::Named;
using format::RecordKind;

// --- looking

std::string DisksImpl::full_name(const Named& named) const {
  if (named.kind == RecordKind::disk) return named.name;
  for (const auto& [name, seen] : catalog_.names()) {
    if (seen.named.uuid == named.disk) return name + "@" + named.name;
  }
  return "@" + named.name;
}

Result<const Catalog::NameSeen*> DisksImpl::find_snapshot(const Named& disk,
                                                          std::string_view name) const {
  const Names& all = catalog_.snapshots(disk.uuid);
  const auto found = all.find(name);
  if (found != all.end()) return &found->second;
  return fail(Errc::not_found, "disk '{}' has no snapshot '{}'", disk.name, name);
}

SnapshotInfo DisksImpl::describe_snapshot(const Named& disk, const Catalog::NameSeen& seen) const {
  const LayerRecord& layer = catalog_.layers().at(seen.named.layer).layer;
  SnapshotInfo info;
  info.disk = disk.name;
  info.name = seen.named.name;
  info.uuid = format::uuid_text(seen.named.uuid);
  info.bytes = layer.bytes;
  const Owned owned = owned_by(layer);
  info.mapped_bytes = owned.grains * kGrainBytes;
  info.metadata_bytes = owned.pages * kPageBytes;
  info.created_ns = static_cast<int64_t>(seen.named.created_ns);
  info.attached = attached(seen.named.uuid);
  info.layer = seen.named.layer;
  const std::vector<uint32_t>& children = catalog_.children(seen.named.layer);
  info.shared = children.size() > 1;
  for (const uint32_t child : children) {
    const std::string clone = disk_of_live_layer(child);
    if (!clone.empty() && clone != disk.name) info.clones.push_back(clone);
  }
  return info;
}

bool DisksImpl::rests_on(uint32_t layer, uint32_t below) const {
  while (layer > below) layer = catalog_.layers().at(layer).layer.parent;  // C2: ids descend.
  return layer == below;
}

Result<std::vector<SnapshotInfo>> DisksImpl::snapshots(std::string_view disk) const {
  const Named& named = TRY(find(disk))->second.named;
  std::set<uint32_t> chain;
  for (uint32_t at = named.layer; at != 0; at = catalog_.layers().at(at).layer.parent) {
    chain.insert(chain.begin(), at);
  }
  std::vector<SnapshotInfo> infos;
  for (const auto& [name, seen] : catalog_.snapshots(named.uuid)) {
    infos.push_back(describe_snapshot(named, seen));
    infos.back().current = chain.contains(seen.named.layer);
  }
  std::ranges::sort(infos, {}, &SnapshotInfo::layer);
  return infos;
}

Result<SnapshotInfo> DisksImpl::snapshot_info(std::string_view disk, std::string_view name) const {
  const Named& named = TRY(find(disk))->second.named;
  SnapshotInfo info = describe_snapshot(named, *TRY(find_snapshot(named, name)));
  info.current = rests_on(named.layer, info.layer);
  return info;
}

// --- making

LayerRecord DisksImpl::child_of(Io& io, const LayerRecord& parent, uint32_t id) const {
  LayerRecord child;
  child.state = static_cast<std::byte>(LayerState::live);
  child.root_level = parent.root_level;
  child.layer = id;
  child.family = parent.family;
  child.parent = parent.layer;
  child.bytes = parent.bytes;
#ifdef FIRN_MUTANT_child_owns_root
  child.root = parent.root;
#else
  child.root = format::encode(format::IndexEntry{parent.root & format::kPageNoMax, false});
#endif
  child.created_ns = static_cast<uint64_t>(io.wall_clock_ns());
  return child;
}

Result<void> DisksImpl::snapshot(Io& io, std::string_view disk, std::string_view name) {
  TRY(pool_.writable());
  TRY(check_name(name));
  const auto only = changing_.lock(io);
  Catalog::NameSeen& seen = TRY(find(disk))->second;
  if (catalog_.snapshot(seen.named.uuid, name) != nullptr) {
    return fail(Errc::exists, "disk '{}' has a snapshot '{}' already", disk, name);
  }
  TRY(open_disk(io, seen));
  TrackingImpl::Event event = TRY(tracking_.event_of(io, seen.named));
  TRY(freeze(io, seen, name, event));
  TRY(pool_.flush(io));
  event.settle(io);
  return ok;
}

// The live layer becomes the snapshot's, and the disk goes on in a new one.
Result<void> DisksImpl::freeze(Io& io, Catalog::NameSeen& disk, std::string_view name,
                               TrackingImpl::Event& event) {
  const auto thin = TRY(open_disk(io, disk));
  Slots slots(catalog_);
  Catalog::Slot* layer_slot = nullptr;
  Catalog::Slot* name_slot = nullptr;
  Catalog::Slot disk_slot;
  {
    const auto pass = gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    layer_slot = TRY(slots.take(io));
    name_slot = TRY(slots.take(io));
    disk_slot = TRY(catalog_.pin(io, disk.record));
  }
  Named named;
  named.kind = RecordKind::snapshot;
  named.name = name;
  named.uuid = fresh_uuid(io);
  named.layer = disk.named.layer;
  named.created_ns = static_cast<uint64_t>(io.wall_clock_ns());
  named.disk = disk.named.uuid;
  TRY(event.prepare(io));

#ifndef FIRN_MUTANT_snapshot_without_fence
  const auto fenced = thin->fence().close(io);
#endif
  const auto pass = gate_.enter(io);
  const auto admission = TRY(pool_.pages().admit(io));
  const NoWait atom;
  const auto [family, id] = TRY(catalog_.take_ids(thin->layer()->family()));
  Layer& frozen = *thin->layer();
  LayerRecord next = child_of(io, frozen.record(), id);
  next.open_block = frozen.record().open_block;
  frozen.set_open_block(0);
  frozen.set_state(LayerState::frozen);
  disk.named.layer = id;
  named.event = event.take(catalog_);
  catalog_.put(*layer_slot, next);
  catalog_.put(*name_slot, TRY(format::encode(named)));
  catalog_.put(disk_slot, TRY(format::encode(disk.named)));
  catalog_.add_layer(layer_slot->record, next);
  catalog_.set_name_of(named.layer, &catalog_.add_snapshot(name_slot->record, named));
  catalog_.set_name_of(id, &disk);
  const auto live = std::make_shared<Layer>(pool_.pages(), layer_slot->page.again(), layer_slot->at,
                                            catalog_.layer(id).layer);
  layers_[id] = live;
  thin->switch_layer(live);
  slots.used();
  return ok;
}

Result<void> DisksImpl::clone(Io& io, std::string_view disk, std::string_view name,
                              std::string_view to) {
  TRY(pool_.writable());
  TRY(check_name(to));
  const auto only = changing_.lock(io);
  const Named of = TRY(find_snapshot(TRY(find(disk))->second.named, name))->named;
  if (catalog_.names().contains(to)) {
    return fail(Errc::exists, "disk '{}' exists already in pool '{}'", to, pool_.directory());
  }
  {
    const auto pass = gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    Slots slots(catalog_);
    const Catalog::Slot* const layer_slot = TRY(slots.take(io));
    const Catalog::Slot* const name_slot = TRY(slots.take(io));
    const NoWait atom;
    const LayerRecord& base = catalog_.layer(of.layer).layer;
    const auto [family, id] = TRY(catalog_.take_ids(base.family));
    const LayerRecord live = child_of(io, base, id);
    Named named;
    named.name = to;
    named.uuid = fresh_uuid(io);
    named.layer = id;
    named.created_ns = live.created_ns;
    catalog_.put(*layer_slot, live);
    catalog_.put(*name_slot, TRY(format::encode(named)));
    catalog_.add_layer(layer_slot->record, live);
    Catalog::NameSeen& seen = catalog_.names()[named.name];
    seen = {name_slot->record, named};
    catalog_.set_name_of(id, &seen);
    slots.used();
  }
  return pool_.flush(io);
}

// --- unmaking

Result<void> DisksImpl::remove_snapshot(Io& io, std::string_view disk, std::string_view name) {
  TRY(pool_.writable());
  {
    const auto only = changing_.lock(io);
    const Catalog::NameSeen* const seen = TRY(find_snapshot(TRY(find(disk))->second.named, name));
    TRY(refuse_attached(*seen, "delete"));
    TRY(unname(io, *seen));
#ifndef FIRN_MUTANT_delete_not_durable
    TRY(pool_.flush(io));
#endif
  }
  wake_sweeper(io);
  return ok;
}

Result<void> DisksImpl::revert(Io& io, std::string_view disk, std::string_view name, bool force) {
  TRY(pool_.writable());
  {
    const auto only = changing_.lock(io);
    Catalog::NameSeen& seen = TRY(find(disk))->second;
    const Named to = TRY(find_snapshot(seen.named, name))->named;
    TRY(swap_to(io, seen, to, force));
    TRY(pool_.flush(io));
  }
  wake_sweeper(io);
  return ok;
}

// The disk goes on in a new layer on `to`; the one it had is dropped.
Result<void> DisksImpl::swap_to(Io& io, Catalog::NameSeen& disk, const Named& to, bool force) {
  const auto thin = TRY(open_disk(io, disk));
  Slots slots(catalog_);
  Catalog::Slot* layer_slot = nullptr;
  Catalog::Slot disk_slot;
  {
    const auto pass = gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    layer_slot = TRY(slots.take(io));
    disk_slot = TRY(catalog_.pin(io, disk.record));
  }
  const auto fenced = thin->fence().close(io);
  if (!force) TRY(refuse_attached(disk, "revert"));
  const auto pass = gate_.enter(io);
  const auto alone = thin->lock_all(io);  // Readers of what is dropped are through (T6).
  const auto admission = TRY(pool_.pages().admit(io));
  const NoWait atom;
  const auto [family, id] = TRY(catalog_.take_ids(thin->layer()->family()));
  Layer& old = *thin->layer();
  LayerRecord next = child_of(io, catalog_.layer(to.layer).layer, id);
  next.open_block = old.record().open_block;
  old.set_open_block(0);
  old.set_state(LayerState::dropping);
  const auto tracker = tracking_.find(disk.named.uuid);
#ifndef FIRN_MUTANT_revert_keeps_branch
  if (tracker != nullptr) tracker->invalidate();  // Another content: another branch.
#endif
  if (tracker != nullptr && tracker->bytes() != next.bytes) tracker->resize(next.bytes);
  catalog_.set_name_of(disk.named.layer, nullptr);
  disk.named.layer = id;
  catalog_.put(*layer_slot, next);
  catalog_.put(disk_slot, TRY(format::encode(disk.named)));
  catalog_.add_layer(layer_slot->record, next);
  catalog_.set_name_of(id, &disk);
  const auto live = std::make_shared<Layer>(pool_.pages(), layer_slot->page.again(), layer_slot->at,
                                            catalog_.layer(id).layer);
  layers_[id] = live;
  thin->switch_layer(live);
  slots.used();
  return ok;
}

// --- comparing

Result<void> DisksImpl::diff(Io& io, std::string_view a, std::string_view b, Range range,
                             DiffSink& sink) {
  // Attached meanwhile: nobody deletes what is being compared. A forced revert may exchange it;
  // then this goes on in the layer that was, which is not dropped while it is held.
  const auto hold_a = TRY(attach(io, a));
  const auto hold_b = TRY(attach(io, b));
  const auto layer_a = open_.at(TRY(find_any(a))->named.uuid).disk->layer();
  const auto layer_b = open_.at(TRY(find_any(b))->named.uuid).disk->layer();
  if (range.at >= layer_b->bytes()) return ok;
  range.length = std::min(range.length, layer_b->bytes() - range.at);
  Diff diff(*layer_a, *layer_b, range, sink);
  return diff.run(io);
}

}  // namespace firn::disk
