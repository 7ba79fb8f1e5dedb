// SPDX-License-Identifier: Apache-2.0
// Carries out what policy/keep.h decides about a disk's snapshots: after each new one, by the
// disk's settings `keep` and `chain`, and on `disk consolidate`.
//
// A snapshot that somebody opens or deletes in the meantime is passed over. Layers go in the
// background, as after any deletion.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "disk/disks.h"
#include "engine/settings.h"
#include "policy/keep.h"

namespace firn::engine {

struct Kept {
  std::vector<std::string> deleted;        // Oldest first.
  std::vector<disk::SnapshotInfo> in_use;  // Should have gone, and could not.
};

policy::KeepRule keep_rule(const Settings& settings);

Result<Kept> apply_keep(Io& io, disk::Disks& disks, std::string_view disk, policy::KeepRule rule);
// All but the newest `keep`, of which there may be none.
Result<Kept> keep_newest(Io& io, disk::Disks& disks, std::string_view disk, uint64_t keep);

}  // namespace firn::engine
