// SPDX-License-Identifier: Apache-2.0
#include "disk/disks.h"

#include "base/log.h"
#include "disk/disks_impl.h"

namespace firn::disk {

using format::LayerRecord;
using format::LayerState;
using format::Named;
using format::RecordKind;

namespace {

format::Uuid fresh_uuid(Io& io) {
  format::Uuid uuid;
  for (size_t i = 0; i < uuid.size(); i += 8) {
    const le64 word(io.random());
    std::memcpy(uuid.data() + i, &word, sizeof word);
  }
  return uuid;
}

Result<void> check_size(std::string_view name, uint64_t bytes) {
  if (bytes == 0 || bytes > kDiskBytesMax || !aligned(bytes, 512)) {
    return fail(Errc::invalid, "disk '{}': a size of {} bytes; give a multiple of 512 up to 64 TiB",
                name, bytes);
  }
  return ok;
}

Result<void> check_name(std::string_view name) {
  if (format::name_is_valid(name)) return ok;
  return fail(
      Errc::invalid,
      "'{}' is not a name: use 1 to 128 of A-Z a-z 0-9 . _ : - and begin with none of . and -",
      name);
}

}  // namespace

Result<std::unique_ptr<Disks>> Disks::open(Io& io, store::Pool& pool) {
  auto disks = std::make_unique<DisksImpl>(pool);
  TRY(disks->load(io));
  return std::unique_ptr<Disks>(std::move(disks));
}

DisksImpl::~DisksImpl() {
  for (const auto& [layer, open] : open_) {
    CHECK(*open.attached == 0, "layer {} is still attached", layer);
  }
}

Result<void> DisksImpl::load(Io& io) {
  TRY(catalog_.load(io));
  std::vector<uint32_t> dropping;
  for (const auto& [id, seen] : catalog_.layers()) {
    if (static_cast<LayerState>(seen.layer.state) == LayerState::dropping) dropping.push_back(id);
  }
  if (!pool_.writable()) return ok;  // Opened to look: what was begun goes on another time.
  for (const uint32_t layer : dropping) {
    log(LogLevel::info, "pool '{}': going on with the removal of layer {}", pool_.directory(),
        layer);
    const Result<void> dropped = drop_layer(io, layer);
    if (!dropped) {
      log(LogLevel::error, "pool '{}': layer {} stays: {}", pool_.directory(), layer,
          text_of(dropped.error()));
    }
  }
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

uint32_t DisksImpl::attached(uint32_t layer) const {
  const auto open = open_.find(layer);
  return open == open_.end() ? 0 : *open->second.attached;
}

DiskInfo DisksImpl::describe(const Catalog::NameSeen& seen) const {
  const auto open = open_.find(seen.named.layer);
  const LayerRecord& layer = open != open_.end() ? open->second.disk->layer().record()
                                                 : catalog_.layers().at(seen.named.layer).layer;
  DiskInfo info;
  info.name = seen.named.name;
  info.uuid = format::uuid_text(seen.named.uuid);
  info.bytes = layer.bytes;
  info.mapped_bytes = layer.own_grains * kGrainBytes;
  info.metadata_bytes = layer.own_pages * kPageBytes;
  info.created_ns = static_cast<int64_t>(seen.named.created_ns);
  info.attached = attached(seen.named.layer);
  info.settings = seen.named.settings;
  return info;
}

std::vector<DiskInfo> DisksImpl::list() const {
  std::vector<DiskInfo> infos;
  for (const auto& [name, seen] : catalog_.names()) {
    if (seen.named.kind == RecordKind::disk) infos.push_back(describe(seen));
  }
  return infos;
}

Result<DiskInfo> DisksImpl::info(std::string_view name) const {
  return describe(TRY(find(name))->second);
}

// --- changing

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
    const Catalog::Slot layer_slot = TRY(catalog_.reserve(io));
    const Result<Catalog::Slot> name_slot = catalog_.reserve(io);
    if (!name_slot) {
      catalog_.abandon(layer_slot);
      return name_slot.error();
    }
    const NoWait atom;
    const Result<Catalog::FreshIds> ids = catalog_.take_ids();
    if (!ids) {
      catalog_.abandon(layer_slot);
      catalog_.abandon(*name_slot);
      return ids.error();
    }
    const auto [family, id] = *ids;
    LayerRecord layer;
    layer.state = static_cast<std::byte>(LayerState::live);
    layer.layer = id;
    layer.family = family;
    layer.bytes = bytes;
    layer.created_ns = static_cast<uint64_t>(io.wall_clock_ns());
    Named named{RecordKind::disk, std::string(name), fresh_uuid(io), id, layer.created_ns, {}, {}};
    catalog_.put(layer_slot, layer);
    catalog_.put(*name_slot, *format::encode(named));
    catalog_.layers()[id] = {layer_slot.record, layer};
    catalog_.names()[named.name] = {name_slot->record, named};
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
  catalog_.names().erase(from);
  const auto open = open_.find(seen.named.layer);
  if (open != open_.end()) open->second.disk->set_name(std::string(to));
  catalog_.names()[seen.named.name] = std::move(seen);
  return ok;
}

Result<void> DisksImpl::set(Io& io, std::string_view name, std::string_view key,
                            std::string_view value) {
  TRY(pool_.writable());
  if (key.empty() || key.find('\0') != std::string_view::npos) {
    return fail(Errc::invalid, "disk '{}': '{}' is not a key", name, key);
  }
  const auto only = changing_.lock(io);
  const auto found = TRY(find(name));
  Catalog::NameSeen seen = found->second;
  if (value.empty()) {
    seen.named.settings.erase(std::string(key));
  } else {
    seen.named.settings[std::string(key)] = value;
  }
  TRY(put_name(io, seen));
  found->second = std::move(seen);
  return ok;
}

Result<void> DisksImpl::refuse_attached(const Catalog::NameSeen& seen,
                                        std::string_view verb) const {
  const uint32_t users = attached(seen.named.layer);
  if (users == 0) return ok;
  return fail(Errc::busy, "disk '{}' is in use by {} client(s); disconnect them before you {} it",
              seen.named.name, users, verb);
}

Result<void> DisksImpl::resize(Io& io, std::string_view name, uint64_t bytes) {
  TRY(pool_.writable());
  TRY(check_size(name, bytes));
  const auto only = changing_.lock(io);
  const Catalog::NameSeen& seen = TRY(find(name))->second;
  const auto disk = TRY(open_layer(io, seen.named.layer, seen.named.name));
  if (bytes < disk->layer().bytes()) TRY(refuse_attached(seen, "shrink"));
  return disk->resize(io, bytes);
}

Result<std::shared_ptr<ThinDisk>> DisksImpl::open_layer(Io& io, uint32_t layer,
                                                        const std::string& name) {
  const auto open = open_.find(layer);
  if (open != open_.end()) return open->second.disk;
  const Catalog::LayerSeen& seen = catalog_.layers().at(layer);
  Catalog::Slot slot = TRY(catalog_.pin(io, seen.record));
  const auto again = open_.find(layer);
  if (again != open_.end()) return again->second.disk;  // Somebody else opened it while we waited.
  auto disk = std::make_shared<ThinDisk>(
      pool_, gate_, name,
      std::make_unique<Layer>(pool_.pages(), std::move(slot.page), slot.at, seen.layer));
  open_[layer].disk = disk;
  return disk;
}

Result<std::shared_ptr<BlockDevice>> DisksImpl::attach(Io& io, std::string_view name) {
  const auto found = TRY(find(name));
  const uint32_t layer = found->second.named.layer;
  const auto disk = TRY(open_layer(io, layer, found->second.named.name));
  const std::shared_ptr<uint32_t> count = open_.at(layer).attached;
  ++*count;
  return std::shared_ptr<BlockDevice>(disk.get(), [disk, count](BlockDevice*) { --*count; });
}

// --- removing

Result<void> DisksImpl::remove(Io& io, std::string_view name) {
  TRY(pool_.writable());
  const auto only = changing_.lock(io);
  const auto found = TRY(find(name));
  TRY(refuse_attached(found->second, "delete"));
  const uint32_t layer = found->second.named.layer;
  {
    // The name goes and the layer is marked in one atom: from here on it can only go forward.
    const auto pass = gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    const auto disk = TRY(open_layer(io, layer, found->second.named.name));
    const Catalog::Slot slot = TRY(catalog_.pin(io, found->second.record));
    TRY(refuse_attached(found->second, "delete"));
    const NoWait atom;
    disk->layer().set_state(LayerState::dropping);
    catalog_.clear(slot);
    catalog_.names().erase(found);
  }
  TRY(pool_.flush(io));
  return drop_layer(io, layer);
}

Result<void> DisksImpl::drop_layer(Io& io, uint32_t layer) {
  const RecordNo record = catalog_.layers().at(layer).record;
  {
    const auto disk = TRY(open_layer(io, layer, fmt::format("layer {}", layer)));
    TRY(disk->drop_all(io));
  }
  open_.erase(layer);
  {
    const auto pass = gate_.enter(io);
    const auto admission = TRY(pool_.pages().admit(io));
    const Catalog::Slot slot = TRY(catalog_.pin(io, record));
    const NoWait atom;
    catalog_.clear(slot);
    catalog_.layers().erase(layer);
  }
  return pool_.flush(io);
}

}  // namespace firn::disk
