// SPDX-License-Identifier: Apache-2.0
#include "archive/usage.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace firn::archive {
namespace {

std::vector<uint16_t>& list_of(format::SegmentRow& row) {
  if (!row.live.has_value()) {
    row.live.emplace(row.slots);
    std::iota(row.live->begin(), row.live->end(), uint16_t{0});
  }
  return *row.live;
}

}  // namespace

void Usage::add(uint32_t disk, uint64_t segment, format::SegmentRow row) {
  rows_[{disk, segment}] = {std::move(row), true};
  ++changed_;
}

Result<Usage::Held*> Usage::held(Io& io, uint32_t disk, uint64_t segment) {
  const auto found = rows_.find({disk, segment});
  if (found != rows_.end()) return &found->second;
  const std::string key = format::usage_key(disk, segment);
  std::optional<format::SegmentRow> row = TRY(read_row(io, meta_, key, format::decode_segment_row));
  if (!row.has_value()) {
    return fail(Errc::corrupt, "segment {:016x} of disk {} has no row of usage", segment, disk);
  }
  return &(rows_[{disk, segment}] = {std::move(*row), false});
}

Result<format::SegmentRow*> Usage::row(Io& io, uint32_t disk, uint64_t segment) {
  Held* const one = TRY(held(io, disk, segment));
  if (!one->changed) ++changed_;
  one->changed = true;
  return &one->row;
}

Result<void> Usage::kill(Io& io, uint32_t disk, uint64_t segment, uint16_t slot, uint64_t count) {
  format::SegmentRow* const row = TRY(this->row(io, disk, segment));
  std::vector<uint16_t>& live = list_of(*row);
  const auto first = std::ranges::lower_bound(live, slot);
  const auto last = std::ranges::lower_bound(live, slot + count);
  if (static_cast<uint64_t>(last - first) != count) {
    return fail(Errc::corrupt, "segment {:016x}: of {} slots at {} that die {} were live", segment,
                count, slot, last - first);
  }
  live.erase(first, last);
  row->live_count = static_cast<uint32_t>(live.size());
  return ok;
}

Result<void> Usage::revive(Io& io, uint32_t disk, uint64_t segment, uint16_t slot, uint64_t count) {
  format::SegmentRow* const row = TRY(this->row(io, disk, segment));
  std::vector<uint16_t>& live = list_of(*row);
  const auto at = std::ranges::lower_bound(live, slot);
  if (uint64_t{slot} + count > row->slots || (at != live.end() && *at < slot + count)) {
    return fail(Errc::corrupt, "segment {:016x}: slots at {} are live already", segment, slot);
  }
  std::vector<uint16_t> added(count);
  std::iota(added.begin(), added.end(), slot);
  live.insert(at, added.begin(), added.end());
  row->live_count = static_cast<uint32_t>(live.size());
  return ok;
}

void Usage::stage(int64_t now_ns, int64_t grace_ns) {
  for (auto& [address, held] : rows_) {
    if (!held.changed) continue;
    format::SegmentRow& row = held.row;
    if (row.live_count == row.slots) row.live.reset();
    if (row.live_count == 0 && !row.doomed) {
      row.doomed = true;
      row.release_ns = std::max(row.release_ns, now_ns + grace_ns);
    }
    meta_.put(format::usage_key(address.first, address.second), format::encode(row));
    held.changed = false;
  }
  changed_ = 0;
  if (rows_.size() > 1024) rows_.clear();
}

}  // namespace firn::archive
