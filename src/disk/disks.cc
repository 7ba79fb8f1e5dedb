// SPDX-License-Identifier: Apache-2.0
#include "disk/disks.h"

#include <algorithm>
#include <ranges>

#include "base/log.h"
#include "disk/backed.h"
#include "disk/disks_impl.h"
#include "disk/names.h"

namespace firn::disk {

using format::LayerRecord;
using format::LayerState;
using format::Named;
using format::RecordKind;

namespace {

constexpr std::string_view kPlacement = "placement";

Result<void> check_size(std::string_view name, uint64_t bytes) {
  if (bytes == 0 || bytes > kDiskBytesMax || !aligned(bytes, 512)) {
    return fail(Errc::invalid, "disk '{}': a size of {} bytes; give a multiple of 512 up to 64 TiB",
                name, bytes);
  }
  return ok;
}

}  // namespace

Result<std::unique_ptr<Disks>> Disks::open(Io& io, store::Pool& pool) {
  auto disks = std::make_unique<DisksImpl>(io, pool);
  TRY(disks->load(io));
  return std::unique_ptr<Disks>(std::move(disks));
}

DisksImpl::~DisksImpl() {
  stopping_ = true;
  wake_sweeper(io_);
  io_.wake(failures_);
  sweeper_.wait();
  for (const auto& [uuid, open] : open_) {
    CHECK(*open.attached == 0, "'{}' is still attached", open.disk->name());
  }
}

Result<void> DisksImpl::load(Io& io) {
  TRY(catalog_.load(io));
  if (!pool_.writable()) return ok;  // Opened to look: what was begun goes on another time.
  TRY(tracking_.drop_orphans(io));
  tracking_.start_background();
  if (const uint32_t layer = next_due(); layer != 0) {
    log(LogLevel::info, "pool '{}': going on with what was begun, layer {} first",
        pool_.directory(), layer);
  }
  if (pool_.background()) {
    io.spawn(sweeper_, [this, &io] { run_sweeper(io); });
    io.spawn(sweeper_, [this, &io] { run_retries(io); });
    return ok;
  }
  const Result<void> swept = sweep(io);  // A job that cannot go on has said so in the log.
  static_cast<void>(swept);
  return ok;
}

// --- looking

Result<DisksImpl::Names::iterator> DisksImpl::find(std::string_view name) {
  const auto found = catalog_.names().find(name);
  if (found != catalog_.names().end()) return found;
  return fail(Errc::not_found, "no disk '{}' in pool '{}'", name, pool_.directory());
}

Result<DisksImpl::Names::const_iterator> DisksImpl::find(std::string_view name) const {
  const auto found = catalog_.names().find(name);
  if (found != catalog_.names().end()) return found;
  return fail(Errc::not_found, "no disk '{}' in pool '{}'", name, pool_.directory());
}

Result<const Catalog::NameSeen*> DisksImpl::find_any(std::string_view name) const {
  const size_t at = name.find('@');
  const Catalog::NameSeen& disk = TRY(find(name.substr(0, at)))->second;
  if (at == std::string_view::npos) return &disk;
  return find_snapshot(disk.named, name.substr(at + 1));
}

uint32_t DisksImpl::attached(const format::Uuid& name) const {
  const auto open = open_.find(name);
  return open == open_.end() ? 0 : *open->second.attached;
}

std::string DisksImpl::disk_of_live_layer(uint32_t layer) const {
  const Catalog::NameSeen* const name = catalog_.name_of(layer);
  return name != nullptr && name->named.kind == RecordKind::disk ? name->named.name : "";
}

// With what the layers under it hold that are on their way into it: what each of two layers holds
// is not known in the middle of their merge, the sum is (N6).
DisksImpl::Owned DisksImpl::owned_by(const LayerRecord& layer) const {
  Owned owned{layer.own_grains, layer.own_pages};
  for (uint32_t at = layer.parent; at != 0 && is_hidden(at) && catalog_.children(at).size() == 1;) {
    const LayerRecord& below = catalog_.layers().at(at).layer;
    owned.grains += below.own_grains;
    owned.pages += below.own_pages;
    at = below.parent;
  }
  return owned;
}

// Each layer is looked at once, however many disks stand on it: `known` remembers.
DisksImpl::Chain DisksImpl::chain_of(uint32_t layer, Chains& known) const {
  std::vector<uint32_t> path;
  Chain chain;
  for (uint32_t at = layer; at != 0; at = catalog_.layers().at(at).layer.parent) {
    const auto found = known.find(at);
    if (found != known.end()) {
      chain = found->second;
      break;
    }
    path.push_back(at);
  }
  for (const uint32_t at : std::views::reverse(path)) {
    ++chain.layers;
    if (is_hidden(at) && catalog_.children(at).size() < 2) ++chain.going;
    known[at] = chain;
  }
  return chain;
}

DiskInfo DisksImpl::describe(const Catalog::NameSeen& seen, Chains& chains) const {
  const LayerRecord& layer = catalog_.layers().at(seen.named.layer).layer;
  DiskInfo info;
  info.name = seen.named.name;
  info.uuid = format::uuid_text(seen.named.uuid);
  info.bytes = layer.bytes;
  const Owned owned = owned_by(layer);
  info.mapped_bytes = owned.grains * kGrainBytes;
  info.metadata_bytes = owned.pages * kPageBytes;
  info.created_ns = static_cast<int64_t>(seen.named.created_ns);
  info.attached = attached(seen.named.uuid);
  info.snapshots = static_cast<uint32_t>(catalog_.snapshots(seen.named.uuid).size());
  info.settings = seen.named.settings;
  const Chain chain = chain_of(seen.named.layer, chains);
  info.layers = chain.layers;
  info.layers_going = chain.going;
  for (uint32_t below = layer.parent; below != 0;) {
    const Catalog::NameSeen* const name = catalog_.name_of(below);
    if (name != nullptr && name->named.disk != seen.named.uuid) {
      info.origin = full_name(name->named);
      break;
    }
    below = catalog_.layers().at(below).layer.parent;
  }
  return info;
}

std::vector<DiskInfo> DisksImpl::list() const {
  std::vector<DiskInfo> infos;
  infos.reserve(catalog_.names().size());
  Chains chains;
  for (const auto& [name, seen] : catalog_.names()) infos.push_back(describe(seen, chains));
  return infos;
}

Result<DiskInfo> DisksImpl::info(std::string_view name) const {
  Chains chains;
  return describe(TRY(find(name))->second, chains);
}

// --- records set aside

DisksImpl::Slots::~Slots() {
  for (const auto& slot : slots) catalog.abandon(*slot);
}

Result<Catalog::Slot*> DisksImpl::Slots::take(Io& io) {
  slots.push_back(std::make_unique<Catalog::Slot>(TRY(catalog.reserve(io))));
  return slots.back().get();
}

// --- changing

format::Uuid DisksImpl::fresh_uuid(Io& io) const {
  format::Uuid uuid;
  do {
    for (size_t i = 0; i < uuid.size(); i += 8) {
      const le64 word(io.random());
      std::memcpy(uuid.data() + i, &word, sizeof word);
    }
  } while (catalog_.is_used(uuid));
  return uuid;
}

Result<void> DisksImpl::create(Io& io, std::string_view name, uint64_t bytes) {
  TRY(pool_.writable());
  TRY(check_name(name));
  TRY(check_size(name, bytes));
  const auto only = changing_.lock(io);
  if (catalog_.names().contains(name)) {
    return fail(Errc::exists, "disk '{}' exists already in pool '{}'", name, pool_.directory());
  }
  {
    const auto pass = gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    Slots slots(catalog_);
    const Catalog::Slot* const layer_slot = TRY(slots.take(io));
    const Catalog::Slot* const name_slot = TRY(slots.take(io));
    const NoWait atom;
    const auto [family, id] = TRY(catalog_.take_ids());
    LayerRecord layer;
    layer.state = static_cast<std::byte>(LayerState::live);
    layer.layer = id;
    layer.family = family;
    layer.bytes = bytes;
    layer.created_ns = static_cast<uint64_t>(io.wall_clock_ns());
    Named named;
    named.name = name;
    named.uuid = fresh_uuid(io);
    named.layer = id;
    named.created_ns = layer.created_ns;
    catalog_.put(*layer_slot, layer);
    catalog_.put(*name_slot, TRY(format::encode(named)));
    catalog_.add_layer(layer_slot->record, layer);
    Catalog::NameSeen& seen = catalog_.names()[named.name];
    seen = {name_slot->record, named};
    catalog_.set_name_of(id, &seen);
    slots.used();
  }
  return pool_.flush(io);
}

// Writes a changed name record and makes it durable.
Result<void> DisksImpl::put_name(Io& io, const Catalog::NameSeen& seen) {
  const auto record = TRY(format::encode(seen.named));
  {
    const auto pass = gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    const Catalog::Slot slot = TRY(catalog_.pin(io, seen.record));
    catalog_.put(slot, record);
  }
  return pool_.flush(io);
}

Result<void> DisksImpl::rename(Io& io, std::string_view name, std::string_view to) {
  TRY(pool_.writable());
  TRY(check_name(to));
  const auto only = changing_.lock(io);
  const auto from = TRY(find(name));
  if (catalog_.names().contains(to)) {
    return fail(Errc::exists, "disk '{}' exists already in pool '{}'", to, pool_.directory());
  }
  Catalog::NameSeen seen = from->second;
  seen.named.name = to;
  TRY(put_name(io, seen));
  const auto open = open_.find(seen.named.uuid);
  if (open != open_.end()) open->second.disk->set_name(std::string(to));
  tracking_.rename(seen.named.uuid, std::string(to));
  Catalog::NameSeen& placed = catalog_.names()[seen.named.name];
  placed = std::move(seen);
  catalog_.set_name_of(placed.named.layer, &placed);
  catalog_.names().erase(from);
  return ok;
}

Result<void> DisksImpl::set(Io& io, std::string_view name, std::string_view key,
                            std::string_view value) {
  TRY(pool_.writable());
  if (key.empty() || key.find('\0') != std::string_view::npos) {
    return fail(Errc::invalid, "disk '{}': '{}' is not a key", name, key);
  }
  if (key == kPlacement && !value.empty() && !policy::Placement::mode_of(value)) {
    return fail(Errc::invalid, "disk '{}': placement is in-place, append or adaptive, not '{}'",
                name, value);
  }
  const auto only = changing_.lock(io);
  Catalog::NameSeen& seen = TRY(find(name))->second;
  std::map<std::string, std::string> settings = seen.named.settings;
  if (value.empty()) {
    settings.erase(std::string(key));
  } else {
    settings[std::string(key)] = value;
  }
  return put_settings(io, seen, std::move(settings));
}

Result<void> DisksImpl::arrived(Io& io, std::string_view uuid) {
  TRY(pool_.writable());
  const auto only = changing_.lock(io);
  for (auto& [name, seen] : catalog_.names()) {
    if (format::uuid_text(seen.named.uuid) != uuid) continue;
    std::map<std::string, std::string> settings = seen.named.settings;
    std::erase_if(settings, [](const auto& one) { return one.first.starts_with(kBackedPrefix); });
    return put_settings(io, seen, std::move(settings));
  }
  return ok;
}

// The caller holds `changing_`.
Result<void> DisksImpl::put_settings(Io& io, Catalog::NameSeen& seen,
                                     std::map<std::string, std::string> settings) {
  Catalog::NameSeen changed = seen;
  changed.named.settings = std::move(settings);
  TRY(put_name(io, changed));
  seen = std::move(changed);
  const auto open = open_.find(seen.named.uuid);
  if (open != open_.end()) apply_settings(*open->second.disk, seen.named.settings);
  return ok;
}

void DisksImpl::apply_settings(ThinDisk& disk, const std::map<std::string, std::string>& settings) {
  const auto placement = settings.find(std::string(kPlacement));
  const auto mode =
      placement == settings.end() ? std::nullopt : policy::Placement::mode_of(placement->second);
  disk.set_placement(mode.value_or(policy::Placement::Mode::in_place));
  disk.set_explicit_zeroes(settings.contains(std::string(kBackedKey)));
}

Result<void> DisksImpl::refuse_attached(const Catalog::NameSeen& seen,
                                        std::string_view verb) const {
  const uint32_t users = attached(seen.named.uuid);
  if (users == 0) return ok;
  return fail(Errc::busy, "{} '{}' is in use by {} client(s); disconnect them before you {} it",
              seen.named.kind == RecordKind::disk ? "disk" : "snapshot", full_name(seen.named),
              users, verb);
}

Result<void> DisksImpl::resize(Io& io, std::string_view name, uint64_t bytes) {
  TRY(pool_.writable());
  TRY(check_size(name, bytes));
  const auto only = changing_.lock(io);
  const Catalog::NameSeen& seen = TRY(find(name))->second;
  const auto disk = TRY(open_disk(io, seen));
  if (bytes < disk->layer()->bytes()) TRY(refuse_attached(seen, "shrink"));
  for (const auto& [snapshot, of] : catalog_.snapshots(seen.named.uuid)) {
    if (catalog_.layers().at(of.named.layer).layer.bytes <= bytes) continue;
    return fail(Errc::invalid,
                "disk '{}' cannot shrink to {} bytes: its snapshot '{}' is larger; delete it first",
                name, bytes, snapshot);
  }
  return disk->resize(io, bytes);
}

// --- opening

Result<std::shared_ptr<Layer>> DisksImpl::open_layer(Io& io, uint32_t id) {
  if (auto open = layers_[id].lock()) return open;
  Catalog::LayerSeen& seen = catalog_.layer(id);
  Catalog::Slot slot = TRY(catalog_.pin(io, seen.record));
  if (!catalog_.layers().contains(id)) return fail(Errc::not_found, "layer {} has gone", id);
  if (auto again = layers_[id].lock()) return again;  // Somebody else opened it while we waited.
  auto layer = std::make_shared<Layer>(pool_.pages(), std::move(slot.page), slot.at, seen.layer);
  layers_[id] = layer;
  return layer;
}

Result<std::shared_ptr<ThinDisk>> DisksImpl::open_disk(Io& io, const Catalog::NameSeen& seen) {
  const Named named = seen.named;
  const auto open = open_.find(named.uuid);
  if (open != open_.end()) return open->second.disk;
  auto layer = TRY(open_layer(io, named.layer));
  ChangeTracker* const tracker =
      named.kind == RecordKind::disk ? TRY(tracking_.open(io, named)) : nullptr;
  const auto again = open_.find(named.uuid);
  if (again != open_.end()) return again->second.disk;
  if (!catalog_.is_used(named.uuid)) {  // Deleted while we waited.
    return fail(Errc::not_found, "'{}' is not there any more", named.name);
  }
  const auto use = named.kind == RecordKind::disk ? ThinDisk::Use::live : ThinDisk::Use::snapshot;
  auto disk = std::make_shared<ThinDisk>(pool_, gate_, full_name(named), std::move(layer), use);
  disk->set_tracker(tracker);
  apply_settings(*disk, named.settings);
  disk->on_shortage([this, family = disk->layer()->family()](bool appending) {
    if (appending) freed_in_.insert(family);
    if (!freed_in_.empty()) io_.wake(due_);
  });
  open_[named.uuid].disk = disk;
  ++openings_;
  return disk;
}

// A disk stays open once it was; a snapshot as long as somebody has it.
Result<std::shared_ptr<BlockDevice>> DisksImpl::attach(Io& io, std::string_view name) {
  const Catalog::NameSeen* const seen = TRY(find_any(name));
  const format::Uuid uuid = seen->named.uuid;
  const bool is_snapshot = seen->named.kind == RecordKind::snapshot;
  const auto disk = TRY(open_disk(io, *seen));
  const std::shared_ptr<uint32_t> count = open_.at(uuid).attached;
  ++*count;
  return std::shared_ptr<BlockDevice>(disk.get(),
                                      [this, disk, count, uuid, is_snapshot](BlockDevice*) {
                                        if (--*count == 0 && is_snapshot) open_.erase(uuid);
                                      });
}

// --- removing

Result<void> DisksImpl::remove(Io& io, std::string_view name, bool snapshots_too) {
  TRY(pool_.writable());
  {
    const auto only = changing_.lock(io);
    const auto found = TRY(find(name));
    const Names snapshots = catalog_.snapshots(found->second.named.uuid);
    TRY(refuse_attached(found->second, "delete"));
    if (!snapshots.empty() && !snapshots_too) {
      return fail(Errc::busy, "disk '{}' has {} snapshot(s); delete them first, or say --snapshots",
                  name, snapshots.size());
    }
    for (const auto& [snapshot, seen] : snapshots) TRY(refuse_attached(seen, "delete"));
    for (const auto& [snapshot, seen] : snapshots) TRY(unname(io, seen));
    const format::Uuid uuid = found->second.named.uuid;
    TRY(unname(io, found->second));
    TRY(tracking_.drop(io, uuid));
  }
  TRY(pool_.flush(io));
  wake_sweeper(io);
  return pool_.background() ? Result<void>() : sweep(io);
}

// The name goes, and a live layer is marked, in one atom: from here on it can only go forward.
Result<void> DisksImpl::unname(Io& io, const Catalog::NameSeen& seen) {
  const Named named = seen.named;
  const bool is_disk = named.kind == RecordKind::disk;
  {
    const auto layer = TRY(open_layer(io, named.layer));
    const auto pass = gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    const Catalog::Slot slot = TRY(catalog_.pin(io, seen.record));
    TRY(refuse_attached(seen, "delete"));
    const NoWait atom;
    if (is_disk) layer->set_state(LayerState::dropping);
    catalog_.clear(slot);
    catalog_.set_name_of(named.layer, nullptr);
    if (is_disk) {
      catalog_.names().erase(catalog_.names().find(named.name));
    } else {
      catalog_.forget_snapshot(named.disk, named.name);
    }
  }
  open_.erase(named.uuid);
  return ok;
}

}  // namespace firn::disk
