// SPDX-License-Identifier: Apache-2.0
#include "engine/instant.h"

#include "archive/snapshot_backing.h"
#include "base/check.h"
#include "base/log.h"
#include "engine/engine.h"
#include "wire/text.h"

namespace firn::engine {
namespace {

constexpr std::string_view kSnapshotKey = "base.snapshot";
constexpr std::string_view kKeyFileKey = "base.key-file";
constexpr std::string_view kPassphraseFileKey = "base.passphrase-file";
constexpr Duration kRetry = std::chrono::seconds(2);
constexpr Duration kTick = std::chrono::milliseconds(50);

// A step is mostly waiting for the store, so what guests feel of it is less than its time says: the
// rest is never long.
constexpr policy::JobPace::Limits kPaceLimits{.rest_max = std::chrono::milliseconds(250)};

std::string value_of(const std::map<std::string, std::string>& of, std::string_view key) {
  const auto found = of.find(std::string(key));
  return found == of.end() ? "" : found->second;
}

archive::SnapshotPlace place_of(const Settings& settings) {
  archive::SnapshotPlace place;
  place.url = value_of(settings, disk::kBackedKey);
  const std::string snapshot = value_of(settings, kSnapshotKey);
  const size_t at = snapshot.find('@');
  place.disk = snapshot.substr(0, at);
  if (at != std::string::npos) place.snapshot = snapshot.substr(at + 1);
  place.key_file = value_of(settings, kKeyFileKey);
  place.passphrase_file = value_of(settings, kPassphraseFileKey);
  return place;
}

Result<void> check_from(const InstantFrom& from) {
  constexpr size_t kTextMax = 1024;
  for (const auto& [key, value] : from) {
    if (key != "url" && key != "snapshot" && key != "key-file" && key != "passphrase-file") {
      return fail(Errc::invalid, "restore: \"{}\" is not known here", wire::printable(key));
    }
    if (value.size() > kTextMax || wire::printable(value, kTextMax) != value) {
      return fail(Errc::invalid, "restore: {} is too long, or holds what cannot be printed", key);
    }
    const bool is_file = key.ends_with("-file") && !value.empty();
    if (is_file && !value.starts_with('/')) {
      return fail(Errc::invalid, "restore: {} \"{}\" is not an absolute path", key, value);
    }
  }
  if (value_of(from, "url").empty()) return fail(Errc::invalid, "restore: url is missing");
  const std::string snapshot = value_of(from, "snapshot");
  const size_t at = snapshot.find('@');
  if (at == std::string::npos || at == 0 || at + 1 == snapshot.size()) {
    return fail(Errc::invalid, "restore: \"{}\" is not DISK@SNAPSHOT", snapshot);
  }
  return ok;
}

}  // namespace

struct Instant::Arriving {
  Arriving(Io& io, std::string of) : uuid(std::move(of)), group(io) {}
  std::string uuid;
  std::shared_ptr<disk::BackedDisk> disk;
  bool stopping = false;
  std::string error;
  policy::JobPace pace{kPaceLimits};
  Group group;  // Last: its fiber uses everything above.
};

bool is_arriving(const Settings& settings) {
  return settings.contains(std::string(disk::kBackedKey));
}

Result<void> refuse_arriving(const disk::Disks& disks, std::string_view name,
                             std::string_view verb) {
  const Result<disk::DiskInfo> info = disks.info(wire::split_name(name).disk);
  if (!info || !is_arriving(info->settings)) return ok;
  return fail(Errc::busy,
              "disk '{}' is still being fetched from {}: it cannot {} before all of it is here; "
              "see firn disk info",
              info->name, value_of(info->settings, disk::kBackedKey), verb);
}

Instant::Instant(store::Pool& pool, disk::Disks& disks) : pool_(pool), disks_(disks) {}
Instant::~Instant() { CHECK(arriving_.empty(), "end() was not called"); }

// --- devices

std::shared_ptr<disk::BackedDisk> Instant::backed(const disk::DiskInfo& info,
                                                  const std::shared_ptr<BlockDevice>& disk) {
  std::shared_ptr<disk::BackedDisk> device = devices_[info.uuid].lock();
  if (device != nullptr) return device;
  device = std::make_shared<disk::BackedDisk>(
      disk, std::make_unique<archive::SnapshotBacking>(place_of(info.settings)), fetched_);
  devices_[info.uuid] = device;
  return device;
}

Result<std::shared_ptr<BlockDevice>> Instant::device(const disk::DiskInfo& info,
                                                     const std::shared_ptr<BlockDevice>& disk) {
  const auto known = devices_.find(info.uuid);
  // Who has it still has what has arrived meanwhile.
  if (!is_arriving(info.settings)) {
    if (known != devices_.end() && known->second.expired()) devices_.erase(known);
    return std::shared_ptr<BlockDevice>();
  }
  if (!running_) {
    return fail(Errc::unsupported,
                "disk '{}' is still being fetched from {}: only a daemon has "
                "it; start `firn serve`",
                info.name, value_of(info.settings, disk::kBackedKey));
  }
  return std::shared_ptr<BlockDevice>(backed(info, disk));
}

// --- fetching

void Instant::begin(Io& io) {
  running_ = true;
  for (const disk::DiskInfo& info : disks_.list()) {
    if (is_arriving(info.settings) && !is_import(info.name)) resume(io, info.name);
  }
}

void Instant::end(Io& io) {
  running_ = false;
  for (const auto& [uuid, arriving] : arriving_) arriving->stopping = true;  // All at once.
  while (!arriving_.empty()) pause(io, std::string(arriving_.begin()->first));
}

void Instant::pause(Io&, const std::string& uuid) {
  const auto found = arriving_.find(uuid);
  if (found == arriving_.end()) return;
  const std::unique_ptr<Arriving> arriving = std::move(found->second);
  arriving_.erase(found);
  arriving->stopping = true;
  arriving->group.wait();
}

void Instant::resume(Io& io, std::string_view name) {
  const Result<disk::DiskInfo> info = disks_.info(name);
  if (!running_ || !info || !is_arriving(info->settings) || arriving_.contains(info->uuid)) return;
  Result<std::shared_ptr<BlockDevice>> disk = disks_.attach(io, name);
  if (!disk) {
    log(LogLevel::error, "disk '{}' is not fetched: {}", name, text_of(disk.error()));
    return;
  }
  std::unique_ptr<Arriving>& arriving = arriving_[info->uuid];
  if (arriving != nullptr) return;  // Somebody else was quicker.
  arriving = std::make_unique<Arriving>(io, info->uuid);
  arriving->disk = backed(*info, *disk);
  io.spawn(arriving->group, [this, &io, one = arriving.get()] { run(io, *one); });
}

void Instant::rest(Io& io, const Arriving& arriving, Duration how_long) {
  const Time until = io.now() + how_long;
  while (!arriving.stopping && io.now() < until) io.sleep(std::min(kTick, until - io.now()));
}

std::string Instant::name_of(const std::string& uuid) const {
  for (const disk::DiskInfo& info : disks_.list()) {
    if (info.uuid == uuid) return info.name;
  }
  return uuid;
}

Result<bool> Instant::step(Io& io, Arriving& arriving) {
  if (!TRY(arriving.disk->hydrate(io))) return false;
  TRY(finish(io, arriving));
  return true;
}

void Instant::run(Io& io, Arriving& arriving) {
  while (!arriving.stopping) {
    const Time began = io.now();
    const Result<bool> all = step(io, arriving);
    if (all) {
      if (!arriving.error.empty()) {
        log(LogLevel::info, "disk '{}': fetched again", name_of(arriving.uuid));
      }
      arriving.error.clear();
      if (*all) break;
      const Duration took = io.now() - began;
      rest(io, arriving,
           arriving.pace.rest_after(took, pool_.guests_in_flight(), pool_.guest_requests()));
      continue;
    }
    const std::string why(text_of(all.error()));
    if (arriving.error.empty()) {
      log(LogLevel::warning, "disk '{}': cannot be fetched now, and is tried again: {}",
          name_of(arriving.uuid), why);
    }
    arriving.error = why;
    rest(io, arriving, kRetry);
  }
  arriving.disk.reset();
}

// T1.
Result<void> Instant::finish(Io& io, const Arriving& arriving) {
  TRY(arriving.disk->flush(io));
  TRY(disks_.arrived(io, arriving.uuid));
  log(LogLevel::info, "disk '{}': all of it is here", name_of(arriving.uuid));
  return ok;
}

std::optional<Instant::Progress> Instant::progress(const std::string& uuid) const {
  const auto found = arriving_.find(uuid);
  if (found == arriving_.end() || found->second->disk == nullptr) return std::nullopt;
  return Progress{found->second->disk->progress(), found->second->error};
}

std::map<std::string, Instant::Progress> Instant::all() const {
  std::map<std::string, Progress> found;
  for (const auto& [uuid, arriving] : arriving_) {
    if (const auto now = progress(uuid)) found.emplace(name_of(uuid), *now);
  }
  return found;
}

// --- the beginning

// One at a time for each name: two would take what is half made from each other.
Result<void> Instant::make(Io& io, const std::string& name, const InstantFrom& from) {
  TRY(check_from(from));
  if (!making_.insert(name).second) {
    return fail(Errc::busy, "disk {} is being restored already; see firn disk info", name);
  }
  const Result<void> made = make_named(io, name, from);
  making_.erase(name);
  return made;
}

Result<void> Instant::make_named(Io& io, const std::string& name, const InstantFrom& from) {
  if (!running_) {
    return fail(Errc::unsupported, "disk {}: an instant restore needs a daemon; start `firn serve`",
                name);
  }
  if (is_import(name)) {
    return fail(Errc::invalid, "disk name \"{}\": the suffix {} is for what is under way", name,
                kImportSuffix);
  }
  if (disks_.info(name)) {
    return fail(Errc::exists, "disk {} exists already; choose another name, or delete it first",
                name);
  }
  std::map<std::string, std::string> settings{
      {std::string(disk::kBackedKey), value_of(from, "url")},
      {std::string(kSnapshotKey), value_of(from, "snapshot")},
      {std::string(kKeyFileKey), value_of(from, "key-file")},
      {std::string(kPassphraseFileKey), value_of(from, "passphrase-file")}};
  archive::SnapshotBacking backing(place_of(settings));
  const archive::Archive::Found found = TRY(backing.look(io));
  // Of several snapshots with one name always this one.
  settings[std::string(kSnapshotKey)] = fmt::format("{}@{}", format::uuid_text(found.disk.row.uuid),
                                                    format::uuid_text(found.snapshot.uuid));
  // Nobody sees the disk before it says where its content is.
  const std::string staged = name + std::string(kImportSuffix);
  if (disks_.info(staged)) TRY(disks_.remove(io, staged));  // Left by a crash; busy: it is not.
  TRY(disks_.create(io, staged, found.snapshot.bytes));
  const auto complete = [&]() -> Result<void> {
    for (const auto& [key, value] : settings) {
      if (!value.empty()) TRY(disks_.set(io, staged, key, value));
    }
    return disks_.rename(io, staged, name);
  };
  const Result<void> completed = complete();
  if (!completed) {
    if (!disks_.remove(io, staged)) log(LogLevel::warning, "disk '{}' is left behind", staged);
    return completed;
  }
  resume(io, name);
  return ok;
}

}  // namespace firn::engine
