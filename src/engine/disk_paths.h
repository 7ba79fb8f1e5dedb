// SPDX-License-Identifier: Apache-2.0
// DiskPaths: what stands between front ends and a disk, as its settings say: limits, coalescing,
// and what fetches a disk that is still elsewhere.
//
// Contract:
//  P1  All who attach a disk get the same device while anybody has it (serve::ExportSource X1), so
//      they share its limits, and what they send is gathered together. A renamed disk stays the
//      same.
//  P2  apply() holds at once, for those who have the disk already, too: within the time that
//      LimitedDevice promises to those who wait.
//  P3  What is off is not in the path.
//  P4  lift(): no limits any more, whatever is set from then on: who ends the daemon waits for no
//      quota.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "disk/coalesce.h"
#include "disk/disks.h"
#include "disk/limits.h"
#include "engine/settings.h"
#include "serve/completion.h"

namespace firn::engine {

class DiskPath;
class Instant;

class DiskPaths {
 public:
  // `instant`: has the disks of which parts are still elsewhere; nullptr: there are none.
  explicit DiskPaths(disk::Disks& disks, Instant* instant = nullptr)
      : disks_(disks), instant_(instant) {}

  // `disk` as disk::Disks::attach() understands it; a snapshot comes as it is.
  Result<std::shared_ptr<BlockDevice>> attach(Io& io, std::string_view disk);
  // How its users hear of what has ended; null for a snapshot.
  std::shared_ptr<const serve::CompletionRules> completion(std::string_view disk) const;
  // The settings of `disk` have changed.
  void apply(Io& io, std::string_view disk);
  void lift(Io& io);

  // Of those that somebody has; nullptr while nothing stands in the path.
  struct Parts {
    const disk::LimitedDevice* limits = nullptr;
    const disk::CoalescedDevice* coalesce = nullptr;
  };
  // By name; ends with the last who has it.
  std::map<std::string, Parts> parts() const;

 private:
  disk::Disks& disks_;
  Instant* const instant_;
  std::map<std::string, std::weak_ptr<DiskPath>> paths_;  // By the disk's uuid.
  bool lifted_ = false;
};

// What the settings completion and pace mean.
serve::CompletionRules completion_of(const Settings& settings);
// What the settings iops, bandwidth and burst mean; nothing where there is no limit.
std::optional<disk::LimitedDevice::Limits> limits_of(const Settings& settings);

}  // namespace firn::engine
