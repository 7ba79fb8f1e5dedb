// SPDX-License-Identifier: Apache-2.0
// Which disks and snapshots front ends offer, and how: by the disks' settings, or one alone.
#pragma once

#include <string>

#include "disk/disks.h"
#include "engine/disk_paths.h"
#include "serve/exports.h"

namespace firn::engine {

// Every disk whose setting `serve` is on, except what is being imported; and its snapshots, as
// DISK@SNAP, read-only.
class DiskExports final : public serve::ExportSource {
 public:
  // `paths` as the disks' settings want them; nullptr: the disks bare.
  explicit DiskExports(disk::Disks& disks, DiskPaths* paths = nullptr)
      : disks_(disks), paths_(paths) {}
  Result<serve::Export> find(Io& io, std::string_view name) override;
  std::vector<serve::ExportEntry> list(Io& io) override;

 private:
  disk::Disks& disks_;
  DiskPaths* paths_;
};

// One disk or snapshot, whatever the setting `serve` says: for sockets that this program's own
// commands use.
class LoneExports final : public serve::ExportSource {
 public:
  LoneExports(disk::Disks& disks, std::string name, DiskPaths* paths = nullptr)
      : disks_(disks), paths_(paths), name_(std::move(name)) {}
  Result<serve::Export> find(Io& io, std::string_view name) override;
  std::vector<serve::ExportEntry> list(Io& io) override;

 private:
  disk::Disks& disks_;
  DiskPaths* paths_;
  std::string name_;
};

// Errc::not_found when there is no such disk or snapshot.
Result<void> find_any(const disk::Disks& disks, std::string_view name);

}  // namespace firn::engine
