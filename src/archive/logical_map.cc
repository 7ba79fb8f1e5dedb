// SPDX-License-Identifier: Apache-2.0
#include "archive/logical_map.h"

#include <algorithm>

#include "base/check.h"

namespace firn::archive {

using format::kRegionGrains;
using format::RegionExtent;
using format::RegionRow;

void append(std::vector<LogicalExtent>& to, LogicalExtent extent) {
  if (!to.empty() && to.back().end() == extent.grain) {
    LogicalExtent& last = to.back();
    const bool zero = last.chunk == 0 && extent.chunk == 0;
    if (zero || (last.chunk != 0 && last.chunk + last.count == extent.chunk)) {
      last.count += extent.count;
      return;
    }
  }
  to.push_back(extent);
}

void append(std::vector<RegionExtent>& to, RegionExtent extent) {
  if (!to.empty() && to.back().start + to.back().count == extent.start) {
    RegionExtent& last = to.back();
    const bool zero = last.chunk == 0 && extent.chunk == 0;
    if (zero || (last.chunk != 0 && last.chunk + last.count == extent.chunk)) {
      last.count = static_cast<uint16_t>(last.count + extent.count);
      return;
    }
  }
  to.push_back(extent);
}

RegionView::RegionView() : chunks_(kRegionGrains, kUnknown) {}

void RegionView::lay_under(std::span<const RegionExtent> extents) {
  for (const RegionExtent& each : extents) {
    for (uint32_t i = 0; i < each.count; ++i) {
      uint64_t& chunk = chunks_[each.start + i];
      if (chunk == kUnknown) chunk = each.chunk == 0 ? 0 : each.chunk + i;
    }
  }
}

void RegionView::lay_over(std::span<const RegionExtent> extents) {
  for (const RegionExtent& each : extents) {
    for (uint32_t i = 0; i < each.count; ++i) {
      chunks_[each.start + i] = each.chunk == 0 ? 0 : each.chunk + i;
    }
  }
}

std::vector<RegionExtent> RegionView::extents(bool content) const {
  std::vector<RegionExtent> extents;
  for (uint32_t i = 0; i < kRegionGrains; ++i) {
    if (chunks_[i] == kUnknown || (content && chunks_[i] == 0)) continue;
    append(extents, {static_cast<uint16_t>(i), 1, chunks_[i]});
  }
  return extents;
}

Result<RegionContent> read_region(Io& io, Meta& meta, uint32_t disk, uint32_t region,
                                  uint32_t seq) {
  RegionView view;
  RegionContent content;
  std::string from = format::region_key(disk, region, seq);
  const std::string end = format::end_of(from.substr(0, 9));
  while (const std::optional<Meta::Row> row = TRY(meta.first(io, from, end))) {
    const RegionRow decoded = TRY(format::decode_region_row(row->value));
    ++content.rows;
    view.lay_under(decoded.own);
    if (decoded.flat.has_value()) {
      view.lay_under(*decoded.flat);
      break;
    }
    from = row->key + '\0';
  }
  content.extents = view.extents(/*content=*/true);
  return content;
}

Result<std::unique_ptr<SnapshotWalk>> SnapshotWalk::begin(Io& io, Meta& meta, uint32_t disk,
                                                          uint32_t seq, uint32_t first,
                                                          uint32_t end) {
  const std::string from = format::region_key(disk, first, UINT32_MAX);
  const std::string to = end >= format::kRegionsMax ? format::end_of(format::region_prefix(disk))
                                                    : format::region_key(disk, end, UINT32_MAX);
  return std::unique_ptr<SnapshotWalk>(new SnapshotWalk(TRY(meta.scan(io, from, to)), seq));
}

Result<bool> SnapshotWalk::next(Io& io, Region& into) {
  if (!started_) has_ = TRY(cursor_->next(io));
  started_ = true;
  while (has_) {
    RegionView view;
    bool done = false;
    bool found = false;
    const uint32_t region = TRY(format::decode_region_key(cursor_->key())).region;
    while (has_) {
      const format::RegionAddress address = TRY(format::decode_region_key(cursor_->key()));
      if (address.region != region) break;
      if (address.seq <= seq_ && !done) {
        const RegionRow row = TRY(format::decode_region_row(cursor_->value()));
        view.lay_under(row.own);
        if (row.flat.has_value()) view.lay_under(*row.flat);
        done = row.flat.has_value();
        found = true;
      }
      has_ = TRY(cursor_->next(io));
    }
    if (!found) continue;
    into.region = region;
    into.extents = view.extents(/*content=*/true);
    if (!into.extents.empty()) return true;
  }
  return false;
}

Result<void> stage_region(Io& io, Meta& meta, uint32_t disk, uint32_t region, uint32_t seq,
                          std::vector<RegionExtent> own) {
  RegionRow row;
  row.own = std::move(own);
  const RegionContent before = TRY(read_region(io, meta, disk, region, seq - 1));
  if (before.rows + 1 >= kFlatEvery) {
    RegionView view;
    view.lay_under(row.own);
    view.lay_under(before.extents);
    row.flat = view.extents(/*content=*/true);
  }
  meta.put(format::region_key(disk, region, seq), format::encode(row));
  return ok;
}

}  // namespace firn::archive
