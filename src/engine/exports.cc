// SPDX-License-Identifier: Apache-2.0
#include "engine/exports.h"

#include "disk/changes.h"
#include "engine/answer.h"
#include "engine/engine.h"
#include "engine/instant.h"
#include "engine/settings.h"
#include "wire/text.h"

namespace firn::engine {
namespace {

// "qemu:dirty-bitmap:APP": 1 where blocks changed for the application, 0 elsewhere.
class ChangesContext final : public serve::MetaContext {
 public:
  ChangesContext(const disk::Tracking::NamedView& view)
      : MetaContext("qemu:dirty-bitmap:" + view.application), view_(view.view) {}

  Result<void> status(Io& io, Range range, serve::StatusSink& sink) override {
    class Both final : public disk::ChangeSink {  // The runs between the dirty ones, too.
     public:
      Both(serve::StatusSink& to, uint64_t at) : to_(to), at_(at) {}
      bool add(Range dirty) override {
        const bool more = clean_until(dirty.at) && to_.add(dirty.length, 1);
        at_ = dirty.end();
        enough_ = !more;
        return more;
      }
      bool clean_until(uint64_t end) {
        return enough_ ? false : end == at_ || to_.add(end - at_, 0);
      }

     private:
      serve::StatusSink& to_;
      uint64_t at_;
      bool enough_ = false;
    };
    Both both(sink, range.at);
    TRY(view_->changed(io, range, both));
    both.clean_until(range.end());
    return ok;
  }

 private:
  std::shared_ptr<disk::ChangeView> view_;
};

// `name`: the disk or one of its snapshots, `info` the disk's.
Result<serve::Export> attach(Io& io, disk::Disks& disks, DiskPaths* paths, std::string_view name,
                             const disk::DiskInfo& info) {
  if (paths == nullptr) TRY(refuse_arriving(disks, name, "be read without the daemon"));
  serve::Export made;
  made.name = name;
  made.description = text_setting(info.settings, "description");
  made.device = TRY(paths != nullptr ? paths->attach(io, name) : disks.attach(io, name));
  if (paths != nullptr) made.completion = paths->completion(name);
  made.read_only = flag_setting(info.settings, "read-only") || made.device->geometry().read_only;
  for (const auto& view : TRY(disks.tracking().views(io, name))) {
    made.contexts.push_back(std::make_shared<ChangesContext>(view));
  }
  return made;
}

bool is_offered(const disk::DiskInfo& info) {
  return flag_setting(info.settings, "serve") && !is_import(info.name);
}

serve::ExportEntry entry_of(const disk::DiskInfo& info) {
  return {info.name, text_setting(info.settings, "description")};
}

Error no_such_export(std::string_view name) {
  return fail(Errc::not_found, "there is no export \"{}\"", wire::printable(name));
}

}  // namespace

Result<void> find_any(const disk::Disks& disks, std::string_view name) {
  const wire::NameParts parts = wire::split_name(name);
  TRY(disks.info(parts.disk));
  if (!parts.snapshot.empty()) TRY(disks.snapshot_info(parts.disk, parts.snapshot));
  return ok;
}

// By the disk's settings, a snapshot too.
Result<serve::Export> DiskExports::find(Io& io, std::string_view name) {
  const disk::DiskInfo info = TRY(disks_.info(wire::split_name(name).disk));
  if (!is_offered(info)) return no_such_export(name);
  return attach(io, disks_, paths_, name, info);
}

std::vector<serve::ExportEntry> DiskExports::list(Io&) {
  std::vector<serve::ExportEntry> entries;
  for (const disk::DiskInfo& info : disks_.list()) {
    if (!is_offered(info)) continue;
    entries.push_back(entry_of(info));
    if (info.snapshots == 0) continue;
    const Result<std::vector<disk::SnapshotInfo>> snapshots = disks_.snapshots(info.name);
    if (!snapshots) continue;  // The disk was there a line ago, and nothing waited.
    for (const disk::SnapshotInfo& each : *snapshots) {
      entries.push_back({info.name + "@" + each.name, text_of_time(each.created_ns), true});
    }
  }
  return entries;
}

Result<serve::Export> LoneExports::find(Io& io, std::string_view name) {
  if (name != name_) return no_such_export(name);
  const disk::DiskInfo info = TRY(disks_.info(wire::split_name(name).disk));
  return attach(io, disks_, paths_, name, info);
}

std::vector<serve::ExportEntry> LoneExports::list(Io&) {
  const Result<disk::DiskInfo> info = disks_.info(wire::split_name(name_).disk);
  if (!info) return {};
  return {{name_, text_setting(info->settings, "description")}};
}

}  // namespace firn::engine
