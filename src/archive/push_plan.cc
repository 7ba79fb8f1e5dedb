// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "archive/push.h"

namespace firn::archive {

using format::SnapshotRow;

Result<BaseInfo> bases_of(Io& io, Archive& archive, const format::Uuid& disk) {
  BaseInfo info;
  const std::optional<DiskEntry> found = TRY(archive.find_disk(io, disk));
  if (!found.has_value()) return info;
  info.disk = found->number;
  for (SnapshotRow& row : TRY(archive.snapshots(io, found->number))) {
    if (row.state == format::SnapshotState::complete) info.complete.push_back(std::move(row));
  }
  return info;
}

Result<std::vector<TouchedRun>> changed_since(Io& io, Archive& archive, uint32_t disk,
                                              uint32_t seq) {
  std::vector<TouchedRun> runs;
  const std::string prefix = format::region_prefix(disk);
  const std::unique_ptr<Meta::Cursor> cursor =
      TRY(archive.meta().scan(io, prefix, format::end_of(prefix)));
  std::vector<bool> grains;
  uint32_t region = 0;
  const auto flush = [&] {
    for (uint32_t i = 0; i < grains.size(); ++i) {
      if (!grains[i]) continue;
      const uint64_t grain = uint64_t{region} * format::kRegionGrains + i;
      if (!runs.empty() && runs.back().grain + runs.back().count == grain) {
        ++runs.back().count;
      } else {
        runs.push_back({grain, 1, false});
      }
    }
    grains.clear();
  };
  while (TRY(cursor->next(io))) {
    const format::RegionAddress address = TRY(format::decode_region_key(cursor->key()));
    if (address.region != region) flush();
    region = address.region;
    if (address.seq <= seq) continue;
    grains.resize(format::kRegionGrains);
    for (const format::RegionExtent& each : TRY(format::decode_region_row(cursor->value())).own) {
      for (uint32_t i = 0; i < each.count; ++i) grains[each.start + i] = true;
    }
  }
  flush();
  return runs;
}

std::vector<TouchedRun> merged(std::span<const TouchedRun> a, std::span<const TouchedRun> b) {
  std::vector<TouchedRun> runs;
  const auto add = [&](uint64_t grain, uint64_t end, bool zero) {
    if (grain >= end) return;
    if (!runs.empty() && runs.back().grain + runs.back().count == grain &&
        runs.back().zero == zero) {
      runs.back().count += end - grain;
    } else {
      runs.push_back({grain, end - grain, zero});
    }
  };
  size_t i = 0;
  uint64_t done = 0;  // Everything before it is decided.
  for (const TouchedRun& gap : b) {
    uint64_t at = std::max(gap.grain, done);
    const uint64_t end = gap.grain + gap.count;
    for (; i < a.size() && a[i].grain < end; ++i) {
      add(at, a[i].grain, gap.zero);
      add(a[i].grain, a[i].grain + a[i].count, a[i].zero);
      at = std::max(at, a[i].grain + a[i].count);
    }
    add(at, end, gap.zero);
    done = std::max(at, end);
  }
  for (; i < a.size(); ++i) add(a[i].grain, a[i].grain + a[i].count, a[i].zero);
  return runs;
}

}  // namespace firn::archive
