// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/check.h"
#include "engine/extents.h"
#include "engine/settings.h"
#include "wire/text.h"

namespace firn::engine {

namespace {

constexpr Duration kRetry = std::chrono::milliseconds(10);
constexpr Duration kPatience = std::chrono::seconds(10);

// "HOST PID", as the holder wrote it into DIR/lock.
Result<std::string> holder_of(Io& io, const std::string& directory) {
  const std::unique_ptr<File> file = TRY(io.open(directory + "/lock", {.writable = false}));
  std::string text(std::min<uint64_t>(TRY(io.size(*file)), 300), '\0');
  TRY(io.read(*file, 0, std::as_writable_bytes(std::span(text))));
  return text;
}

// Whether the lock belongs to a process of this host that is gone. The kernel ends a killed
// process's ring, and with it the lock, only when the writes under way are over: until then nobody
// else may write.
bool is_fading(Io& io, const std::string& directory) {
  const Result<std::string> holder = holder_of(io, directory);
  if (!holder) return false;
  const std::string self = io.identity();
  const size_t space = holder->rfind(' ');
  if (space == std::string::npos || self.substr(0, self.rfind(' ')) != holder->substr(0, space)) {
    return false;
  }
  const int pid = std::atoi(holder->c_str() + space + 1);
  return pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH;
}

}  // namespace

using wire::ControlRequest;
using wire::ControlVerb;

Engine::Engine(std::unique_ptr<store::Pool> pool, std::unique_ptr<disk::Disks> disks)
    : pool_(std::move(pool)),
      disks_(std::move(disks)),
      instant_(*pool_, *disks_),
      paths_(*disks_, &instant_) {}

Engine::~Engine() {
  disks_.reset();  // Before what it rests on.
  pool_.reset();
}

Result<std::unique_ptr<Engine>> Engine::open(Io& io, const std::string& directory,
                                             const store::PoolSettings& settings) {
  Result<std::unique_ptr<store::Pool>> opened = store::Pool::open(io, directory, settings);
  const Time until = io.now() + kPatience;
  while (!opened && opened.error().code == Errc::busy && io.now() < until &&
         is_fading(io, directory)) {
    io.sleep(kRetry);
    opened = store::Pool::open(io, directory, settings);
  }
  if (!opened) return opened.error();
  std::unique_ptr<store::Pool> pool = opened.take();
  Result<std::unique_ptr<disk::Disks>> disks = disk::Disks::open(io, *pool);
  if (!disks) {
    // The catalog's error is the one to tell.
    if (!pool->close(io)) return disks.error();
    return disks.error();
  }
  return std::unique_ptr<Engine>(new Engine(std::move(pool), disks.take()));
}

Result<void> Engine::close(Io& io) {
  const Result<void> rested = disks_->close(io);
  disks_.reset();
  const std::unique_ptr<store::Pool> pool = std::move(pool_);
  const Result<void> closed = pool->close(io);
  if (!closed) return closed.error();  // It knows why.
  return rested.has_value() ? Result<void>() : Result<void>(rested.error());
}

Result<std::string> Engine::disk(Io& io, std::string_view name) {
  const disk::TrackingInfo tracking = TRY(disks_->tracking().info(io, name));
  std::vector<disk::ApplicationInfo> applications;
  if (tracking.applications > 0) applications = TRY(disks_->tracking().applications(io, name));
  const disk::DiskInfo info = TRY(disks_->info(name));
  return answer_disk(info, tracking, applications, instant_.progress(info.uuid));
}

// Everything else shows what the disk is, or comes to the disk itself: renames, settings, shrinks.
Result<void> Engine::check_arrived(const ControlRequest& request) const {
  const ControlVerb verb = request.verb;
  std::string_view what;
  if (verb == ControlVerb::snapshot_create) what = "have snapshots";
  if (verb == ControlVerb::changes_begin) what = "be tracked";
  if (verb == ControlVerb::disk_resize) what = "be resized";
  if (verb == ControlVerb::extents) what = "list its extents";
  if (what.empty()) return ok;
  if (!request.base.empty()) TRY(refuse_arriving(*disks_, request.base, "be compared with"));
  return refuse_arriving(*disks_, request.name, what);
}

Result<std::string> Engine::create(Io& io, const ControlRequest& request) {
  // Everything is checked before anything is made.
  std::vector<std::pair<std::string, std::string>> settings;
  for (const auto& [key, value] : request.settings) {
    settings.emplace_back(key, TRY(check_setting(key, value)));
  }
  TRY(disks_->create(io, request.name, request.bytes));
  for (const auto& [key, value] : settings) {
    if (!value.empty()) TRY(disks_->set(io, request.name, key, value));
  }
  return disk(io, request.name);
}

Result<std::string> Engine::set(Io& io, const ControlRequest& request) {
  std::vector<std::pair<std::string, std::string>> settings;
  for (const auto& [key, value] : request.settings) {
    settings.emplace_back(key, TRY(check_setting(key, value)));
  }
  TRY(disks_->info(request.name));
  for (const auto& [key, value] : settings) {
    TRY(disks_->set(io, request.name, key, value));
    paths_.apply(io, request.name);
  }
  return disk(io, request.name);
}

Result<std::string> Engine::change(Io& io, const ControlRequest& request) {
  if (request.verb == ControlVerb::disk_resize) {
    TRY(disks_->resize(io, request.name, request.bytes));
    return disk(io, request.name);
  }
  if (request.verb == ControlVerb::disk_rename) {
    TRY(disks_->rename(io, request.name, request.to));
    return disk(io, request.to);
  }
  if (request.verb == ControlVerb::disk_flush) {
    const std::shared_ptr<BlockDevice> device = TRY(disks_->attach(io, request.name));
    TRY(device->flush(io));
    return answer_nothing();
  }
  CHECK(request.verb == ControlVerb::snapshot_clone);
  const wire::NameParts of = wire::split_name(request.name);
  TRY(disks_->clone(io, of.disk, of.snapshot, request.to));
  return disk(io, request.to);
}

Result<std::string> Engine::look(Io& io, const ControlRequest& request) {
  const wire::NameParts of = wire::split_name(request.name);
  if (request.verb == ControlVerb::snapshot_info) {
    const disk::SnapshotInfo info = TRY(disks_->snapshot_info(of.disk, of.snapshot));
    return answer_snapshot(info);
  }
  if (request.verb == ControlVerb::snapshot_list) {
    const std::vector<disk::SnapshotInfo> infos = TRY(disks_->snapshots(request.name));
    return answer_snapshots(infos);
  }
  CHECK(request.verb == ControlVerb::extents);
  const ExtentPage page =
      TRY(page_of_extents(io, *disks_, request.name, request.base, request.offset,
                          std::min(request.limit.value_or(kExtentsPerPage), wire::kExtentsMax)));
  return answer_extents(request.name, request.base, request.offset, page);
}

Result<std::string> Engine::changes(Io& io, const ControlRequest& request) {
  disk::Tracking& tracking = disks_->tracking();
  if (request.verb == ControlVerb::changes_begin) {
    const disk::BegunInfo begun =
        TRY(tracking.begin(io, request.name, request.app, request.snapshot));
    if (!request.snapshot.empty()) keep_after_snapshot(io, request.name);
    return answer_begun(begun);
  }
  if (request.verb == ControlVerb::changes_list) {
    const uint64_t asked = request.limit.value_or(0);
    const uint64_t limit = asked == 0 ? disk::kChangeExtentsMax : asked;
    return answer_changes(
        TRY(tracking.list(io, request.name, request.since, request.offset, limit)));
  }
  if (request.verb == ControlVerb::changes_apps) {
    return answer_applications(TRY(tracking.applications(io, request.name)));
  }
  if (request.verb == ControlVerb::changes_end) {
    TRY(tracking.end(io, request.name, request.app));
    return answer_nothing();
  }
  CHECK(request.verb == ControlVerb::changes_off);
  TRY(tracking.off(io, request.name));
  return answer_nothing();
}

Result<std::string> Engine::answer(Io& io, const ControlRequest& request, const Service& service) {
  TRY(check_arrived(request));
  switch (request.verb) {
    case ControlVerb::pool_info:
      return answer_pool(pool_->info(), service);
    case ControlVerb::pool_grow:
      TRY(pool_->grow(io, request.bytes));
      return answer_pool(pool_->info(), service);
    case ControlVerb::pool_check: {
      const disk::CheckReport report = TRY(disks_->check(io, request.repair));
      return answer_check(report);
    }
    case ControlVerb::disk_list:
      return answer_disks(disks_->list());
    case ControlVerb::disk_info:
      return disk(io, request.name);
    case ControlVerb::disk_create:
      return create(io, request);
    case ControlVerb::disk_set:
      return set(io, request);
    case ControlVerb::disk_restore:
      TRY(instant_.make(io, request.name, {request.settings.begin(), request.settings.end()}));
      return disk(io, request.name);
    case ControlVerb::disk_resize:
    case ControlVerb::disk_rename:
    case ControlVerb::disk_flush:
    case ControlVerb::snapshot_clone:
      return change(io, request);
    case ControlVerb::changes_begin:
    case ControlVerb::changes_list:
    case ControlVerb::changes_apps:
    case ControlVerb::changes_end:
    case ControlVerb::changes_off:
      return changes(io, request);
    case ControlVerb::snapshot_list:
    case ControlVerb::snapshot_info:
    case ControlVerb::extents:
      return look(io, request);
    case ControlVerb::snapshot_create:
      return make_snapshot(io, request);
    case ControlVerb::disk_delete:
    case ControlVerb::snapshot_delete:
    case ControlVerb::snapshot_revert:
      return unmake(io, request);
    case ControlVerb::disk_consolidate:
      return consolidate(io, request);
    case ControlVerb::disk_shrink: {
      const disk::ShrinkInfo info = TRY(disks_->shrink(io, request.name));
      return answer_shrunk(info);
    }
    case ControlVerb::job_list:
      return answer_jobs(disks_->jobs());
    case ControlVerb::disk_socket:
      break;
  }
  return fail(Errc::unsupported, "disk {}: a socket needs a daemon; start `firn serve {}`",
              request.name, pool_->directory());
}

}  // namespace firn::engine
