// SPDX-License-Identifier: Apache-2.0
#include "engine/exports.h"

#include "engine/engine.h"
#include "engine/settings.h"
#include "wire/text.h"

namespace firn::engine {
namespace {

Result<serve::Export> attach(Io& io, disk::Disks& disks, const disk::DiskInfo& info) {
  serve::Export made;
  made.name = info.name;
  made.description = text_setting(info.settings, "description");
  made.device = TRY(disks.attach(io, info.name));
  made.read_only = flag_setting(info.settings, "read-only") || made.device->geometry().read_only;
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

Result<serve::Export> DiskExports::find(Io& io, std::string_view name) {
  const disk::DiskInfo info = TRY(disks_.info(name));
  if (!is_offered(info)) return no_such_export(name);
  return attach(io, disks_, info);
}

std::vector<serve::ExportEntry> DiskExports::list(Io&) {
  std::vector<serve::ExportEntry> entries;
  for (const disk::DiskInfo& info : disks_.list()) {
    if (is_offered(info)) entries.push_back(entry_of(info));
  }
  return entries;
}

Result<serve::Export> LoneExports::find(Io& io, std::string_view name) {
  if (name != name_) return no_such_export(name);
  const disk::DiskInfo info = TRY(disks_.info(name));
  return attach(io, disks_, info);
}

std::vector<serve::ExportEntry> LoneExports::list(Io&) {
  const Result<disk::DiskInfo> info = disks_.info(name_);
  if (!info) return {};
  return {entry_of(*info)};
}

}  // namespace firn::engine
