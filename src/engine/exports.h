// SPDX-License-Identifier: Apache-2.0
// Which disks front ends offer, and how: the pool's disks by their settings, or one disk alone.
#pragma once

#include <string>

#include "disk/disks.h"
#include "serve/exports.h"

namespace firn::engine {

// Every disk whose setting `serve` is on, except what is being imported.
class DiskExports final : public serve::ExportSource {
 public:
  explicit DiskExports(disk::Disks& disks) : disks_(disks) {}
  Result<serve::Export> find(Io& io, std::string_view name) override;
  std::vector<serve::ExportEntry> list(Io& io) override;

 private:
  disk::Disks& disks_;
};

// One disk, whatever its setting `serve` says: for sockets that this program's own commands use.
class LoneExports final : public serve::ExportSource {
 public:
  LoneExports(disk::Disks& disks, std::string name) : disks_(disks), name_(std::move(name)) {}
  Result<serve::Export> find(Io& io, std::string_view name) override;
  std::vector<serve::ExportEntry> list(Io& io) override;

 private:
  disk::Disks& disks_;
  std::string name_;
};

}  // namespace firn::engine
