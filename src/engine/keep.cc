// SPDX-License-Identifier: Apache-2.0
#include "engine/keep.h"

namespace firn::engine {
namespace {

using disk::SnapshotInfo;

// Whether it is gone now by our doing. Errc::busy, not_found: somebody was faster.
Result<bool> remove(Io& io, disk::Disks& disks, const SnapshotInfo& snapshot) {
  const Result<void> removed = disks.remove_snapshot(io, snapshot.disk, snapshot.name);
  if (removed) return true;
  const Errc code = removed.error().code;
  if (code == Errc::busy || code == Errc::not_found) return false;
  return removed.error();
}

Result<Kept> remove_all(Io& io, disk::Disks& disks, const std::vector<SnapshotInfo>& snapshots,
                        const std::vector<size_t>& doomed) {
  Kept kept;
  for (const size_t index : doomed) {
    const SnapshotInfo& snapshot = snapshots[index];
    if (TRY(remove(io, disks, snapshot))) kept.deleted.push_back(snapshot.name);
  }
  return kept;
}

}  // namespace

policy::KeepRule keep_rule(const Settings& settings) {
  return {count_setting(settings, "keep"), count_setting(settings, "chain")};
}

Result<Kept> apply_keep(Io& io, disk::Disks& disks, std::string_view disk, policy::KeepRule rule) {
  if (rule.keep == 0 && rule.chain_max == 0) return Kept();
  const std::vector<SnapshotInfo> snapshots = TRY(disks.snapshots(disk));
  std::vector<policy::KeepSnapshot> seen;
  seen.reserve(snapshots.size());
  for (const SnapshotInfo& each : snapshots) {
    seen.push_back({.name = each.name,
                    .order = each.layer,
                    .created_ns = static_cast<uint64_t>(each.created_ns),
                    .in_use = each.attached > 0,
                    .in_chain = each.current,
                    .shared = each.shared});
  }
  const disk::DiskInfo info = TRY(disks.info(disk));
  const uint64_t layers = info.layers - info.layers_going;
  return remove_all(io, disks, snapshots, choose_doomed(rule, seen, layers).doomed);
}

Result<Kept> keep_newest(Io& io, disk::Disks& disks, std::string_view disk, uint64_t keep) {
  const std::vector<SnapshotInfo> snapshots = TRY(disks.snapshots(disk));  // Oldest first.
  std::vector<size_t> doomed;
  for (size_t i = 0; i + keep < snapshots.size(); ++i) doomed.push_back(i);
  Kept kept = TRY(remove_all(io, disks, snapshots, doomed));
  for (const size_t index : doomed) {
    const Result<SnapshotInfo> there = disks.snapshot_info(disk, snapshots[index].name);
    if (there) kept.in_use.push_back(*there);
  }
  return kept;
}

}  // namespace firn::engine
