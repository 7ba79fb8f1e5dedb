// SPDX-License-Identifier: Apache-2.0
#include "archive/audit.h"

#include <algorithm>
#include <map>

namespace firn::archive {
namespace {

using format::RegionExtent;
using format::SnapshotRow;

constexpr size_t kFindingsMax = 1000;

// References counted as steps: +1 where a run of chunks begins, -1 behind it.
class Steps {
 public:
  void add(uint64_t first, uint64_t count, int64_t weight) {
    steps_.emplace_back(first, weight);
    steps_.emplace_back(first + count, -weight);
  }
  struct Run {
    uint64_t first = 0;
    uint64_t end = 0;
    int64_t weight = 0;
    bool operator==(const Run&) const = default;
  };
  // Maximal runs of one weight, those of none left out.
  std::vector<Run> runs() {
    std::ranges::sort(steps_);
    std::vector<Run> runs;
    int64_t weight = 0;
    for (size_t i = 0; i < steps_.size();) {
      const uint64_t at = steps_[i].first;
      int64_t next = weight;
      for (; i < steps_.size() && steps_[i].first == at; ++i) next += steps_[i].second;
      if (next == weight) continue;
      if (weight != 0) runs.back().end = at;
      if (next != 0) runs.push_back({at, 0, next});
      weight = next;
    }
    return runs;
  }

 private:
  std::vector<std::pair<uint64_t, int64_t>> steps_;
};

class Auditor {
 public:
  Auditor(Io& io, Archive& archive) : io_(io), archive_(archive) {}
  Result<AuditReport> run();

 private:
  template <class... Args>
  void find(fmt::format_string<Args...> form, Args&&... args) {
    if (report_.findings.size() < kFindingsMax) {
      report_.findings.push_back(fmt::format(form, std::forward<Args>(args)...));
    }
  }
  Result<void> count_logical(const DiskEntry& disk);
  Result<void> count_chunks();
  Result<void> count_usage();
  void compare();

  Io& io_;
  Archive& archive_;
  Steps logical_;
  Steps physical_;
  std::map<std::pair<uint32_t, uint64_t>, std::vector<std::pair<uint32_t, uint32_t>>> places_;
  AuditReport report_;
};

Result<void> Auditor::count_logical(const DiskEntry& disk) {
  ++report_.disks;
  std::map<uint32_t, SnapshotRow> snapshots;
  for (SnapshotRow& row : TRY(archive_.snapshots(io_, disk.number))) {
    if (row.state == format::SnapshotState::complete) ++report_.snapshots;
    const uint32_t seq = row.seq;
    if (seq >= disk.row.next_seq || row.segment_end > disk.row.next_segment) {
      find("disk {}: snapshot {} is beyond what was reserved", disk.row.name, seq);
    }
    snapshots[seq] = std::move(row);
  }
  const std::string prefix = format::region_prefix(disk.number);
  const std::unique_ptr<Meta::Cursor> cursor =
      TRY(archive_.meta().scan(io_, prefix, format::end_of(prefix)));
  while (TRY(cursor->next(io_))) {
    const format::RegionAddress address = TRY(format::decode_region_key(cursor->key()));
    const format::RegionRow row = TRY(format::decode_region_row(cursor->value()));
    ++report_.rows;
    if (!snapshots.contains(address.seq)) {
      find("disk {}: region {} has a row of snapshot {}, which is not there", disk.row.name,
           address.region, address.seq);
    }
    for (const RegionExtent& each : row.own) {
      if (each.chunk != 0) logical_.add(each.chunk, each.count, 1);
    }
    if (!row.flat.has_value()) continue;
    const RegionContent shown =
        TRY(read_region(io_, archive_.meta(), disk.number, address.region, address.seq));
    if (shown.extents.empty() && !row.flat->empty()) {
      find("disk {}: region {}: the flat row of snapshot {} differs", disk.row.name, address.region,
           address.seq);
    }
  }
  return ok;
}

Result<void> Auditor::count_chunks() {
  const std::unique_ptr<Meta::Cursor> cursor =
      TRY(archive_.meta().scan(io_, "c", format::end_of("c")));
  uint64_t next = 1;
  while (TRY(cursor->next(io_))) {
    const uint64_t last = TRY(format::decode_chunk_key(cursor->key()));
    const format::ChunkRow row = TRY(format::decode_chunk_row(cursor->key(), cursor->value()));
    const uint64_t first = last + 1 - row.count;
    if (first < next) find("chunk {} is in two rows of the chunk map", first);
    next = last + 1;
    report_.chunks += row.count;
    report_.references += uint64_t{row.count} * row.references;
    physical_.add(first, row.count, row.references);
    places_[{row.disk, row.segment}].emplace_back(row.slot, row.slot + row.count);
  }
  return ok;
}

Result<void> Auditor::count_usage() {
  const std::unique_ptr<Meta::Cursor> cursor =
      TRY(archive_.meta().scan(io_, "u", format::end_of("u")));
  while (TRY(cursor->next(io_))) {
    const format::UsageAddress address = TRY(format::decode_usage_key(cursor->key()));
    const format::SegmentRow row = TRY(format::decode_segment_row(cursor->value()));
    ++report_.segments;
    report_.live_blocks += row.live_count;
    report_.dead_blocks += row.present - std::min(row.present, row.live_count);
    report_.stored_bytes += row.bytes;
    std::vector<bool> live(row.slots, !row.live.has_value());
    if (row.live.has_value()) {
      for (const uint16_t slot : *row.live) live[slot] = true;
    }
    const auto places = places_.find({address.disk, address.segment});
    std::vector<bool> referred(row.slots, false);
    if (places != places_.end()) {
      for (const auto& [first, end] : places->second) {
        for (uint32_t slot = first; slot < end; ++slot) {
          if (slot >= row.slots || referred[slot]) {
            find("segment {:016x} of disk {}: two chunks in slot {}, or none such", address.segment,
                 address.disk, slot);
          } else {
            referred[slot] = true;
          }
        }
      }
      places_.erase(places);
    }
    if (live != referred) {
      find("segment {:016x} of disk {}: {} slots are live, {} are referred to", address.segment,
           address.disk, std::ranges::count(live, true), std::ranges::count(referred, true));
    }
  }
  for (const auto& [address, slots] : places_) {
    find("segment {:016x} of disk {} holds chunks, and has no row of usage", address.second,
         address.first);
  }
  return ok;
}

void Auditor::compare() {
  const std::vector<Steps::Run> logical = logical_.runs();
  const std::vector<Steps::Run> physical = physical_.runs();
  if (logical == physical) return;
  for (size_t i = 0; i < std::max(logical.size(), physical.size()); ++i) {
    const Steps::Run a = i < logical.size() ? logical[i] : Steps::Run();
    const Steps::Run b = i < physical.size() ? physical[i] : Steps::Run();
    if (a == b) continue;
    find("chunks [{}, {}) are referred to {} times; the chunk map says [{}, {}) {} times", a.first,
         a.end, a.weight, b.first, b.end, b.weight);
    return;  // What follows is shifted.
  }
}

Result<AuditReport> Auditor::run() {
  for (const DiskEntry& disk : TRY(archive_.disks(io_))) TRY(count_logical(disk));
  TRY(count_chunks());
  TRY(count_usage());
  compare();
  return std::move(report_);
}

}  // namespace

Result<AuditReport> audit(Io& io, Archive& archive) { return Auditor(io, archive).run(); }

}  // namespace firn::archive
