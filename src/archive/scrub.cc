// SPDX-License-Identifier: Apache-2.0
// Notes on the design. Objects are read by a few fibers at a time, group by group, and compared
// with the checksums of what is stored. Only where something is wrong the maps are asked whom it
// hurts: with the key, to the block; without, by the whole segment.
#include <algorithm>
#include <deque>
#include <set>

#include "archive/audit.h"

namespace firn::archive {
namespace {

using format::SegmentBlock;
using format::SnapshotRow;
using format::SnapshotState;

constexpr unsigned kFibers = 8;
constexpr uint32_t kGroupsAtOnce = 32;
constexpr size_t kRangesMax = 100;

struct Target {
  SegmentName name;
  uint32_t disk = 0;
  uint32_t head_bytes = 0;
  uint64_t bytes = 0;
  bool manifest = false;
};

class Scrubber {
 public:
  Scrubber(Io& io, Archive& archive, const ScrubProgress& progress)
      : io_(io), archive_(archive), progress_(progress) {}
  Result<ScrubReport> run();

 private:
  struct Bad {
    Target target;
    std::string why;
    std::vector<uint32_t> groups;  // Empty: the whole object.
  };
  Result<void> find_targets();
  Result<void> scrub_targets();
  Result<void> look_again();
  Result<void> scrub_one(const Target& target);
  Result<ScrubDamage> describe(const Bad& bad);
  Result<std::vector<ChunkRun>> chunks_of(const Bad& bad);
  Result<void> find_hurt(const std::vector<ChunkRun>& chunks, ScrubDamage& damage);

  Io& io_;
  Archive& archive_;
  const ScrubProgress& progress_;
  std::deque<Target> targets_;
  uint64_t total_ = 0;
  std::vector<Bad> bad_;
  Result<void> outcome_;
  ScrubReport report_;
};

Result<void> Scrubber::find_targets() {
  const std::unique_ptr<Meta::Cursor> cursor =
      TRY(archive_.meta().scan(io_, "u", format::end_of("u")));
  while (TRY(cursor->next(io_))) {
    const format::UsageAddress address = TRY(format::decode_usage_key(cursor->key()));
    const format::SegmentRow row = TRY(format::decode_segment_row(cursor->value()));
    if (row.live_count == 0) continue;  // On its way out.
    Target target;
    target.name = TRY(archive_.place_of(io_, address.disk, address.segment));
    target.name.tier = row.tier;
    target.disk = address.disk;
    target.head_bytes = row.head_bytes;
    target.bytes = row.bytes;
    targets_.push_back(target);
  }
  for (const DiskEntry& disk : TRY(archive_.disks(io_))) {
    for (const SnapshotRow& row : TRY(archive_.snapshots(io_, disk.number))) {
      if (row.state != SnapshotState::complete) continue;
      for (uint32_t part = 0; part < row.manifest_parts; ++part) {
        Target target;
        target.name = {disk.row.uuid, row.manifest_segment + part, 0};
        target.disk = disk.number;
        target.manifest = true;
        targets_.push_back(target);
      }
    }
  }
  total_ = targets_.size();
  return ok;
}

Result<void> Scrubber::scrub_one(const Target& target) {
  const std::string key = segment_key(target.name.disk, target.name.segment, target.name.tier);
  ++report_.objects;
  Result<std::shared_ptr<SegmentHead>> head =
      archive_.reader().read_head(io_, key, target.head_bytes);
  if (!head) {
    const Errc code = head.error().code;
    if (code != Errc::corrupt && code != Errc::not_found) return head.error();
    bad_.push_back({target, std::string(text_of(head.error())), {}});
    return ok;
  }
  const format::SegmentHeader& header = (*head)->header;
  if (header.archive != archive_.label().uuid || header.segment_id != target.name.segment ||
      header.disk != target.name.disk) {
    bad_.push_back({target, "it is another segment", {}});
    return ok;
  }
  std::vector<uint32_t> groups;
  const auto count = static_cast<uint32_t>((*head)->groups.size());
  for (uint32_t first = 0; first < count; first += kGroupsAtOnce) {
    const uint32_t end = std::min(count, first + kGroupsAtOnce);
    const std::vector<uint32_t> found = TRY(archive_.reader().verify(io_, **head, first, end));
    groups.insert(groups.end(), found.begin(), found.end());
  }
  report_.groups += count;
  report_.bytes += format::shape_of(header).bytes;
  if (groups.empty()) return ok;
  bad_.push_back({target,
                  fmt::format("{} of {} groups are damaged, the first is {}", groups.size(), count,
                              groups.front()),
                  groups});
  return ok;
}

Result<std::vector<ChunkRun>> Scrubber::chunks_of(const Bad& bad) {
  // Which slots are in the damaged groups; everything when the head cannot be read.
  std::vector<bool> slots;
  if (!bad.groups.empty()) {
    const std::string key =
        segment_key(bad.target.name.disk, bad.target.name.segment, bad.target.name.tier);
    const std::shared_ptr<SegmentHead> head =
        TRY(archive_.reader().read_head(io_, key, bad.target.head_bytes));
    const Result<std::vector<SegmentBlock>> blocks = archive_.reader().blocks(io_, *head);
    if (blocks) {
      slots.resize(head->header.slots);
      for (const uint32_t group : bad.groups) {
        const size_t end = std::min<size_t>(blocks->size(), (group + 1) * format::kGroupBlocks);
        for (size_t i = group * format::kGroupBlocks; i < end; ++i) slots[(*blocks)[i].slot] = true;
      }
    }
  }
  std::vector<ChunkRun> runs;
  const std::unique_ptr<Meta::Cursor> cursor =
      TRY(archive_.meta().scan(io_, "c", format::end_of("c")));
  while (TRY(cursor->next(io_))) {
    const uint64_t last = TRY(format::decode_chunk_key(cursor->key()));
    const format::ChunkRow row = TRY(format::decode_chunk_row(cursor->key(), cursor->value()));
    if (row.disk != bad.target.disk || row.segment != bad.target.name.segment) continue;
    for (uint32_t i = 0; i < row.count; ++i) {
      // What the object does not even have is damaged too.
      const size_t slot = size_t{row.slot} + i;
      if (slot < slots.size() && !slots[slot]) continue;
      const uint64_t chunk = last + 1 - row.count + i;
      if (!runs.empty() && runs.back().end() == chunk) {
        ++runs.back().count;
      } else {
        runs.push_back({chunk, 1, row.disk, row.segment, 0, row.references});
      }
    }
  }
  return runs;
}

Result<void> Scrubber::find_hurt(const std::vector<ChunkRun>& chunks, ScrubDamage& damage) {
  if (chunks.empty()) return ok;
  const auto is_bad = [&](uint64_t chunk) {
    const auto behind = std::ranges::upper_bound(chunks, chunk, {}, &ChunkRun::first);
    return behind != chunks.begin() && chunk < (behind - 1)->end();
  };
  for (const DiskEntry& disk : TRY(archive_.disks(io_))) {
    for (const SnapshotRow& row : TRY(archive_.snapshots(io_, disk.number))) {
      if (row.state != SnapshotState::complete) continue;
      ScrubDamage::Hurt hurt{row.disk + "@" + row.name, {}};
      const std::unique_ptr<SnapshotWalk> walk =
          TRY(SnapshotWalk::begin(io_, archive_.meta(), disk.number, row.seq));
      SnapshotWalk::Region region;
      while (TRY(walk->next(io_, region))) {
        for (const format::RegionExtent& each : region.extents) {
          for (uint32_t i = 0; i < each.count; ++i) {
            if (!is_bad(each.chunk + i)) continue;
            const uint64_t at =
                (uint64_t{region.region} * format::kRegionGrains + each.start + i) * kGrainBytes;
            if (!hurt.ranges.empty() && hurt.ranges.back().end() == at) {
              hurt.ranges.back().length += kGrainBytes;
            } else if (hurt.ranges.size() < kRangesMax) {
              hurt.ranges.push_back({at, kGrainBytes});
            }
          }
        }
      }
      if (!hurt.ranges.empty()) damage.hurts.push_back(std::move(hurt));
    }
  }
  return ok;
}

Result<ScrubDamage> Scrubber::describe(const Bad& bad) {
  ScrubDamage damage;
  damage.object = segment_key(bad.target.name.disk, bad.target.name.segment, bad.target.name.tier);
  damage.why = bad.why;
  if (!bad.target.manifest) TRY(find_hurt(TRY(chunks_of(bad)), damage));
  return damage;
}

Result<void> Scrubber::scrub_targets() {
  {
    Group fibers(io_);
    for (unsigned i = 0; i < kFibers; ++i) {
      io_.spawn(fibers, [this] {
        while (outcome_ && !targets_.empty()) {
          const Target target = targets_.front();
          targets_.pop_front();
          const Result<void> done = scrub_one(target);
          if (!done && outcome_) outcome_ = done.error();
          if (progress_) progress_(total_ - targets_.size(), total_);
        }
      });
    }
  }
  return outcome_;
}

// Others clean meanwhile: what is not as it was when this began is read again, if it is still
// wanted, before it is called damaged.
Result<void> Scrubber::look_again() {
  const uint64_t before = archive_.meta().lsm().stats().version;
  if (TRY(archive_.meta().lsm().refresh(io_)) == before) return ok;
  archive_.forget();
  std::set<std::pair<format::Uuid, uint64_t>> doubtful;
  for (const Bad& bad : bad_) doubtful.emplace(bad.target.name.disk, bad.target.name.segment);
  bad_.clear();
  TRY(find_targets());
  std::erase_if(targets_, [&](const Target& target) {
    return !doubtful.contains({target.name.disk, target.name.segment});
  });
  total_ = targets_.size();
  return scrub_targets();
}

Result<ScrubReport> Scrubber::run() {
  TRY(find_targets());
  TRY(scrub_targets());
  if (!bad_.empty()) TRY(look_again());
  for (const Bad& bad : bad_) report_.damages.push_back(TRY(describe(bad)));
  return std::move(report_);
}

}  // namespace

Result<ScrubReport> scrub(Io& io, Archive& archive, const ScrubProgress& progress) {
  return Scrubber(io, archive, progress).run();
}

}  // namespace firn::archive
