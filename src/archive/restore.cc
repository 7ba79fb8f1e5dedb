// SPDX-License-Identifier: Apache-2.0
// Notes on the design. A planner walks the logical map, 256 MiB of the disk at a time, finds where
// the chunks lie and sorts them by segment; a job is what is wanted of 256 neighbouring slots.
// Sixteen fetchers take jobs from a short queue, so that a slow range holds nobody up. What they do
// not find is noted by region; when all are through, the metadata is looked at again, and what was
// missed is planned anew (R4).
#include "archive/restore.h"

#include <algorithm>
#include <bitset>
#include <deque>
#include <map>

#include "base/check.h"

namespace firn::archive {
namespace {

constexpr uint32_t kPlanRegions = 64;
constexpr uint32_t kJobSlots = 256;
constexpr uint32_t kGapGroups = 1;  // Cheaper to read than to ask again.
constexpr uint32_t kRangeGroups = 16;
constexpr size_t kQueueMax = 64;
constexpr size_t kDamagedMax = 1000;
constexpr size_t kMissedRegionsMax = 50'000;  // 10 MB of notes.

using JobKey = std::tuple<uint32_t, uint64_t, uint32_t>;  // Disk, segment, slots / 256.

void add_piece(std::map<JobKey, FetchJob>& jobs, const ChunkRun& run, uint64_t grain) {
  uint64_t done = 0;
  while (done < run.count) {
    const uint32_t slot = run.slot + static_cast<uint32_t>(done);
    const uint64_t count = std::min<uint64_t>(run.count - done, kJobSlots - slot % kJobSlots);
    FetchJob& job = jobs[{run.disk, run.segment, slot / kJobSlots}];
    job.disk = run.disk;
    job.segment = run.segment;
    job.pieces.push_back({grain + done, static_cast<uint32_t>(count), static_cast<uint16_t>(slot)});
    done += count;
  }
}

// A block of a segment, and where it goes.
struct Wanted {
  uint32_t ordinal = 0;
  uint64_t grain = 0;
};

Result<std::vector<Wanted>> wanted_of(const SegmentHead& head, const FetchJob& job) {
  std::vector<Wanted> wanted;
  for (const FetchPiece& piece : job.pieces) {
    for (uint32_t i = 0; i < piece.count; ++i) {
      const auto slot = static_cast<uint16_t>(piece.slot + i);
      const std::optional<uint32_t> ordinal = head.ordinal_of(slot);
      if (!ordinal.has_value()) {
        return fail(Errc::corrupt, "object {}: slot {} is not in it", head.key, slot);
      }
      wanted.push_back({*ordinal, piece.grain + i});
    }
  }
  std::ranges::sort(wanted, {}, &Wanted::ordinal);
  return wanted;
}

// Gives runs of grains that lie side by side, both here and there, to the sink.
Result<void> give(const std::vector<std::byte>& plain, uint32_t first_ordinal,
                  std::span<const Wanted> wanted, const FetchSink& sink) {
  for (size_t i = 0; i < wanted.size();) {
    size_t n = 1;
    while (i + n < wanted.size() && wanted[i + n].ordinal == wanted[i].ordinal + n &&
           wanted[i + n].grain == wanted[i].grain + n) {
      ++n;
    }
    const uint64_t at = (wanted[i].ordinal - first_ordinal) * kGrainBytes;
    TRY(sink(wanted[i].grain, View(plain).subspan(at, n * kGrainBytes)));
    i += n;
  }
  return ok;
}

Result<uint64_t> fetch_from(Io& io, Archive& archive, const SegmentHead& head, const FetchJob& job,
                            const FetchSink& sink) {
  const std::vector<Wanted> wanted = TRY(wanted_of(head, job));
  uint64_t ranges = 0;
  std::vector<std::byte> plain;
  for (size_t i = 0; i < wanted.size();) {
    const uint32_t first = wanted[i].ordinal / format::kGroupBlocks;
    uint32_t last = first;
    size_t end = i;
    for (; end < wanted.size(); ++end) {
      const uint32_t group = wanted[end].ordinal / format::kGroupBlocks;
      if (group > last + 1 + kGapGroups || group - first >= kRangeGroups) break;
      last = group;
    }
    TRY(archive.reader().groups(io, head, first, last + 1, plain));
    ++ranges;
    TRY(give(plain, first * format::kGroupBlocks, std::span(wanted).subspan(i, end - i), sink));
    i = end;
  }
  return ranges;
}

}  // namespace

Result<uint64_t> fetch(Io& io, Archive& archive, const FetchJob& job, const FetchSink& sink) {
  SegmentName name = TRY(archive.place_of(io, job.disk, job.segment));
  const std::optional<format::SegmentRow> row = TRY(read_row(
      io, archive.meta(), format::usage_key(job.disk, job.segment), format::decode_segment_row));
  const uint32_t head_bytes = row.has_value() ? row->head_bytes : 0;
  name.tier = row.has_value() ? row->tier : 0;
  const auto run = [&]() -> Result<uint64_t> {
    const std::shared_ptr<const SegmentHead> head =
        TRY(archive.reader().head(io, name, head_bytes));
    return fetch_from(io, archive, *head, job, sink);
  };
  Result<uint64_t> done = run();
  if (done || done.error().code != Errc::corrupt) return done;
  // Perhaps it was rewritten while we read it.
  archive.reader().forget(segment_key(name.disk, name.segment, name.tier));
  return run();
}

Result<std::vector<FetchJob>> plan(Io& io, Archive& archive, uint32_t disk, uint32_t seq,
                                   uint32_t first_region, uint32_t end_region) {
  std::map<JobKey, FetchJob> jobs;
  const std::unique_ptr<SnapshotWalk> walk =
      TRY(SnapshotWalk::begin(io, archive.meta(), disk, seq, first_region, end_region));
  SnapshotWalk::Region region;
  while (TRY(walk->next(io, region))) {
    for (const format::RegionExtent& each : region.extents) {
      uint64_t grain = uint64_t{region.region} * format::kRegionGrains + each.start;
      uint64_t chunk = each.chunk;
      uint64_t left = each.count;
      while (left > 0) {
        std::optional<ChunkRun> run = TRY(archive.chunks().find(io, chunk));
        if (!run.has_value()) {
          return fail(Errc::corrupt, "archive {}: chunk {} of grain {} is in no segment",
                      archive.store().name(), chunk, grain);
        }
        run->count = std::min(run->count, left);
        add_piece(jobs, *run, grain);
        grain += run->count;
        chunk += run->count;
        left -= run->count;
      }
    }
  }
  std::vector<FetchJob> list;
  for (auto& [key, job] : jobs) {
    std::ranges::sort(job.pieces, {}, &FetchPiece::slot);
    list.push_back(std::move(job));
  }
  return list;
}

FetchJob narrowed(const FetchJob& job, const std::function<bool(uint64_t grain)>& wanted) {
  FetchJob part{job.disk, job.segment, {}};
  for (const FetchPiece& piece : job.pieces) {
    bool goes_on = false;
    for (uint32_t i = 0; i < piece.count; ++i) {
      const uint64_t grain = piece.grain + i;
      const bool takes = wanted(grain);
      if (takes && goes_on) {
        ++part.pieces.back().count;
      } else if (takes) {
        part.pieces.push_back({grain, 1, static_cast<uint16_t>(piece.slot + i)});
      }
      goes_on = takes;
    }
  }
  return part;
}

namespace {

bool may_be_old(Error error) {
  return error.code == Errc::corrupt || error.code == Errc::not_found;
}

class Restorer {
 public:
  Restorer(Io& io, Archive& archive, const Archive::Found& snapshot, RestoreTarget& target,
           const RestoreProgress& progress)
      : io_(io),
        archive_(archive),
        snapshot_(snapshot),
        target_(target),
        progress_(progress),
        grains_((snapshot.snapshot.bytes + kGrainBytes - 1) / kGrainBytes),
        regions_(
            static_cast<uint32_t>((grains_ + format::kRegionGrains - 1) / format::kRegionGrains)) {
    for (unsigned i = 0; i < target.lanes(); ++i) free_lanes_.push_back(i);
  }
  Result<RestoreReport> run();

 private:
  void round(const std::function<Result<void>()>& planner);
  Result<void> plan_from(uint32_t region);
  Result<void> plan_missed();
  bool give(FetchJob job);
  void fetch_all();
  bool note_missed(const FetchJob& job);
  Result<void> look_again();
  Result<void> write(uint64_t grain, View content);
  void note_damage(const FetchJob& job, Error why);
  void stop(Error error) {
    if (outcome_) outcome_ = error;
    io_.wake(room_);
    io_.wake(work_);
  }

  Io& io_;
  Archive& archive_;
  const Archive::Found& snapshot_;
  RestoreTarget& target_;
  const RestoreProgress& progress_;
  uint64_t grains_;
  const uint32_t regions_;
  std::deque<FetchJob> queue_;
  bool planned_ = false;
  bool last_ = false;       // What is not found now is damage.
  uint32_t unplanned_ = 0;  // From here on nothing was planned yet.
  std::map<uint32_t, std::bitset<format::kRegionGrains>> missed_;
  WaitList room_;
  WaitList work_;
  std::vector<unsigned> free_lanes_;
  WaitList lanes_;
  Result<void> outcome_;
  Error write_error_{};
  bool write_failed_ = false;
  RestoreReport report_;
};

// False: nobody takes jobs any more.
bool Restorer::give(FetchJob job) {
  while (queue_.size() >= kQueueMax && outcome_) io_.park(room_);
  queue_.push_back(std::move(job));
  io_.wake(work_, 1);
  return outcome_.has_value();
}

Result<void> Restorer::plan_from(uint32_t region) {
  for (unplanned_ = region; unplanned_ < regions_ && outcome_;) {
    const uint32_t end = std::min(regions_, unplanned_ + kPlanRegions);
    for (FetchJob& job :
         TRY(plan(io_, archive_, snapshot_.disk.number, snapshot_.snapshot.seq, unplanned_, end))) {
      if (!give(std::move(job))) break;
    }
    unplanned_ = end;
    if (progress_) progress_(uint64_t{end} * format::kRegionGrains, grains_);
  }
  return ok;
}

Result<void> Restorer::plan_missed() {
  const auto missed = std::exchange(missed_, {});
  for (const auto& [region, grains] : missed) {
    const auto is_missed = [&of = grains](uint64_t grain) {
      return of[grain % format::kRegionGrains];
    };
    for (const FetchJob& job : TRY(plan(io_, archive_, snapshot_.disk.number,
                                        snapshot_.snapshot.seq, region, region + 1))) {
      FetchJob part = narrowed(job, is_missed);
      if (!part.pieces.empty() && !give(std::move(part))) return ok;
    }
  }
  return plan_from(unplanned_);
}

Result<void> Restorer::write(uint64_t grain, View content) {
  const uint64_t at = grain * kGrainBytes;
  if (at >= snapshot_.snapshot.bytes) return ok;  // The disk was larger once.
  content = content.first(std::min<uint64_t>(content.size(), snapshot_.snapshot.bytes - at));
  while (free_lanes_.empty()) io_.park(lanes_);
  const unsigned lane = free_lanes_.back();
  free_lanes_.pop_back();
  const Result<void> written = target_.write(io_, lane, at, content);
  free_lanes_.push_back(lane);
  io_.wake(lanes_, 1);
  if (!written) {
    write_failed_ = true;
    write_error_ = written.error();
    return written;
  }
  report_.bytes += content.size();
  return ok;
}

void Restorer::note_damage(const FetchJob& job, Error why) {
  const Result<SegmentName> name = archive_.place_of(io_, job.disk, job.segment);
  const std::string object =
      name ? segment_key(name->disk, name->segment, name->tier) : std::string("?");
  for (const FetchPiece& piece : job.pieces) {
    report_.damaged_bytes += piece.count * kGrainBytes;
    const Range range{piece.grain * kGrainBytes, piece.count * kGrainBytes};
    if (!report_.damaged.empty() && report_.damaged.back().object == object &&
        report_.damaged.back().range.end() == range.at) {
      report_.damaged.back().range.length += range.length;
    } else if (report_.damaged.size() < kDamagedMax) {
      report_.damaged.push_back({range, object, std::string(text_of(why))});
    }
  }
}

// False: it is to be told apart now.
bool Restorer::note_missed(const FetchJob& job) {
  if (last_ || missed_.size() >= kMissedRegionsMax) return false;
  for (const FetchPiece& piece : job.pieces) {
    for (uint64_t grain = piece.grain; grain < piece.grain + piece.count; ++grain) {
      missed_[static_cast<uint32_t>(grain / format::kRegionGrains)].set(grain %
                                                                        format::kRegionGrains);
    }
  }
  return true;
}

// The job again, a group's worth at a time: what is around the damage is good.
std::vector<FetchJob> split(const FetchJob& job) {
  std::map<uint32_t, FetchJob> parts;
  for (const FetchPiece& piece : job.pieces) {
    for (uint32_t i = 0; i < piece.count; ++i) {
      const auto slot = static_cast<uint16_t>(piece.slot + i);
      FetchJob& part = parts[slot / format::kGroupBlocks];
      part.disk = job.disk;
      part.segment = job.segment;
      part.pieces.push_back({piece.grain + i, 1, slot});
    }
  }
  std::vector<FetchJob> list;
  for (auto& [number, part] : parts) list.push_back(std::move(part));
  return list;
}

void Restorer::fetch_all() {
  const FetchSink sink = [this](uint64_t grain, View content) { return write(grain, content); };
  while (true) {
    while (queue_.empty() && !planned_ && outcome_) io_.park(work_);
    if (!outcome_ || queue_.empty()) return;
    const FetchJob job = std::move(queue_.front());
    queue_.pop_front();
    io_.wake(room_, 1);
    const auto one = [&](const FetchJob& part) -> Result<void> {
      report_.ranges += TRY(fetch(io_, archive_, part, sink));
      return ok;
    };
    const Result<void> done = one(job);
    if (done) continue;
    if (write_failed_) return stop(write_error_);
    if (!may_be_old(done.error())) return stop(done.error());
    if (note_missed(job)) continue;
    for (const FetchJob& part : split(job)) {
      const Result<void> again = one(part);
      if (write_failed_) return stop(write_error_);
      if (!again) note_damage(part, again.error());
    }
  }
}

void Restorer::round(const std::function<Result<void>()>& planner) {
  Group fetchers(io_);
  planned_ = false;
  for (unsigned i = 0; i < kRangesInFlight; ++i) {
    io_.spawn(fetchers, [this] { fetch_all(); });
  }
  const Result<void> planned = planner();
  planned_ = true;
  if (!planned && (last_ || !may_be_old(planned.error()))) stop(planned.error());
  io_.wake(work_);
}

// Nobody else looks at the metadata now.
Result<void> Restorer::look_again() {
  const uint64_t before = archive_.meta().lsm().stats().version;
  if (TRY(archive_.meta().lsm().refresh(io_)) == before) return ok;
  archive_.forget();
  const std::string key = format::snapshot_key(snapshot_.disk.number, snapshot_.snapshot.seq);
  const std::optional<format::SnapshotRow> row =
      TRY(read_row(io_, archive_.meta(), key, format::decode_snapshot_row));
  if (row.has_value() && row->state == format::SnapshotState::complete &&
      row->uuid == snapshot_.snapshot.uuid) {
    return ok;
  }
  return fail(Errc::cancelled, "archive {}: {}@{} was deleted while it was restored",
              archive_.store().name(), snapshot_.snapshot.disk, snapshot_.snapshot.name);
}

Result<RestoreReport> Restorer::run() {
  round([this] { return plan_from(0); });
  if (outcome_ && (!missed_.empty() || unplanned_ < regions_)) {
    last_ = true;
    TRY(look_again());
    round([this] { return plan_missed(); });
  }
  if (!outcome_) return outcome_.error();
  std::ranges::sort(report_.damaged, {}, [](const DamagedRange& d) { return d.range.at; });
  return std::move(report_);
}

}  // namespace

Result<RestoreReport> restore(Io& io, Archive& archive, const Archive::Found& snapshot,
                              RestoreTarget& target, const RestoreProgress& progress) {
  return Restorer(io, archive, snapshot, target, progress).run();
}

}  // namespace firn::archive
