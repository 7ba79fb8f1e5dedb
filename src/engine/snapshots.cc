// SPDX-License-Identifier: Apache-2.0
// The verbs that make and unmake snapshots. What goes leaves work behind, which goes on in the
// background; the answer names its layers, so that who asked can follow it in the list of jobs.
#include <set>

#include "base/log.h"
#include "engine/engine.h"
#include "engine/extents.h"
#include "engine/keep.h"
#include "wire/text.h"

namespace firn::engine {

using wire::ControlRequest;
using wire::ControlVerb;

namespace {

// The jobs that were not there before. Somebody else's may be among them: waiting for these too
// does no harm.
class Begun {
 public:
  explicit Begun(const disk::Disks& disks) : disks_(disks) {
    for (const disk::JobInfo& job : disks.jobs()) before_.insert(job.layer);
  }
  std::vector<uint32_t> layers() const {
    std::vector<uint32_t> layers;
    for (const disk::JobInfo& job : disks_.jobs()) {
      if (job.kind == disk::JobKind::shrink || before_.contains(job.layer)) continue;
      layers.push_back(job.layer);
    }
    return layers;
  }

 private:
  const disk::Disks& disks_;
  std::set<uint32_t> before_;
};

}  // namespace

Result<std::string> Engine::make_snapshot(Io& io, const ControlRequest& request) {
  const wire::NameParts of = wire::split_name(request.name);
  if (is_import(of.disk)) {
    return fail(Errc::busy, "disk '{}' is being imported; take a snapshot when it is there",
                of.disk);
  }
  const Begun begun(*disks_);
  TRY(disks_->snapshot(io, of.disk, of.snapshot));
  const disk::SnapshotInfo made = TRY(disks_->snapshot_info(of.disk, of.snapshot));
  const Kept kept = keep_after_snapshot(io, of.disk);
  return answer_made(made, kept, begun.layers());
}

// The new snapshot is there, whatever comes of the others.
Kept Engine::keep_after_snapshot(Io& io, std::string_view disk) {
  const auto keep = [&]() -> Result<Kept> {
    const disk::DiskInfo info = TRY(disks_->info(disk));
    return apply_keep(io, *disks_, disk, keep_rule(info.settings));
  };
  Result<Kept> kept = keep();
  if (kept) return kept.take();
  log(LogLevel::warning, "disk '{}': its older snapshots stay for now: {}", disk,
      text_of(kept.error()));
  return Kept();
}

// A disk that is on its way is in use by what fetches it.
Result<void> Engine::remove_disk(Io& io, std::string_view name, bool snapshots_too) {
  const disk::DiskInfo info = TRY(disks_->info(name));
  instant_.pause(io, info.uuid);
  const Result<void> removed = disks_->remove(io, name, snapshots_too);
  if (!removed) instant_.resume(io, name);
  return removed;
}

Result<std::string> Engine::unmake(Io& io, const ControlRequest& request) {
  const wire::NameParts of = wire::split_name(request.name);
  const Begun begun(*disks_);
  if (request.verb == ControlVerb::disk_delete) {
    TRY(remove_disk(io, of.disk, request.snapshots));
  } else if (request.verb == ControlVerb::snapshot_revert) {
    TRY(disks_->revert(io, of.disk, of.snapshot, request.force));
  } else {
    TRY(disks_->remove_snapshot(io, of.disk, of.snapshot));
  }
  return answer_layers(begun.layers());
}

Result<std::string> Engine::consolidate(Io& io, const ControlRequest& request) {
  const disk::DiskInfo info = TRY(disks_->info(request.name));
  const Kept kept = TRY(request.keep.has_value()
                            ? keep_newest(io, *disks_, request.name, *request.keep)
                            : apply_keep(io, *disks_, request.name, keep_rule(info.settings)));
  std::vector<uint32_t> layers;  // Whatever was begun before, too.
  for (const disk::JobInfo& job : disks_->jobs()) {
    if (job.kind == disk::JobKind::shrink || job.state == disk::JobState::failed) continue;
    layers.push_back(job.layer);
  }
  return answer_kept(kept, layers);
}

}  // namespace firn::engine
