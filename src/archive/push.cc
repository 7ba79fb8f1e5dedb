// SPDX-License-Identifier: Apache-2.0
// Notes on the design. Lanes read and hash windows of a MiB, each on its own; then they take turns,
// in the order of the disk, to decide what is new and to put it into the open segment:
//   read -> hash (off the shard) -> [turn: look up, number, add] -> pack (off the shard) -> put
// So chunk ids ascend with the disk (P2) while reads, hashes, compression and puts overlap.
#include "archive/push.h"

#include <algorithm>
#include <deque>

#include "archive/identity_cache.h"
#include "archive/push_commit.h"
#include "archive/remove.h"
#include "base/aligned.h"
#include "base/check.h"

namespace firn::archive {
namespace {

using format::Identity;
using format::kRegionGrains;
using format::SegmentBlock;

constexpr uint64_t kWindowGrains = 256;
// Packed, of the open segment and of those on their way; the open one may always become whole.
constexpr uint64_t kPackedBytesMax = 20 * kMiB;

// Touched grains of at most a MiB, of one region.
struct Window {
  uint32_t region = 0;
  uint64_t grains = 0;
  std::vector<TouchedRun> runs;
};

class Windows {
 public:
  explicit Windows(std::span<const TouchedRun> runs) : runs_(runs) {}
  bool next(Window& window) {
    window.runs.clear();
    window.grains = 0;
    while (run_ < runs_.size()) {
      const TouchedRun& run = runs_[run_];
      const uint64_t at = run.grain + done_;
      const auto region = static_cast<uint32_t>(at / kRegionGrains);
      if (window.runs.empty()) window.region = region;
      if (window.region != region || window.grains == kWindowGrains) return true;
      uint64_t count = std::min(run.count - done_, uint64_t{region + 1} * kRegionGrains - at);
      if (!run.zero) count = std::min(count, kWindowGrains - window.grains);
      window.runs.push_back({at, count, run.zero});
      if (!run.zero) window.grains += count;
      done_ += count;
      if (done_ == run.count) {
        done_ = 0;
        ++run_;
      }
    }
    return !window.runs.empty();
  }

 private:
  std::span<const TouchedRun> runs_;
  size_t run_ = 0;
  uint64_t done_ = 0;
};

class Pusher {
 public:
  Pusher(Io& io, Archive& archive, const PushRequest& request, PushSource& source, Begun& begun,
         const PushProgress& progress)
      : io_(io),
        archive_(archive),
        request_(request),
        source_(source),
        begun_(begun),
        progress_(progress),
        windows_(request.touched),
        next_chunk_(begun.row.chunk_first),
        next_segment_(begun.row.segment_first),
        puts_(io) {
    for (const TouchedRun& run : request.touched) total_ += run.count;
  }

  Result<void> upload();
  Result<void> write_manifest();
  Result<void> commit();
  Result<void> write_hints();
  const PushReport& report() const { return report_; }
  // Whether what the push has left is nobody else's, and may be undone.
  bool is_ours() const { return ours_; }

 private:
  enum class Own : uint8_t { uploading, complete, lost };
  struct Lane {
    explicit Lane(const Key& secret) : identifier(secret) {}
    Identifier identifier;
    AlignedBuffer room{kWindowGrains * kGrainBytes};
    std::vector<Identity> identities = std::vector<Identity>(kWindowGrains);
    std::vector<char> zero = std::vector<char>(kWindowGrains);
  };

  Result<void> run_lane(unsigned number);
  Result<void> read_window(unsigned number, Lane& lane, const Window& window);
  Result<void> decide_window(Lane& lane, const Window& window);
  Result<void> prefetch(const Lane& lane, const Window& window);
  Result<void> load_parents(const RegionView& parent, const Window& window);
  Result<void> load_index_of(uint64_t chunk);
  Result<uint64_t> decide(const Lane& lane, size_t i, uint64_t grain);
  Result<uint64_t> add_new(const Identity& identity, uint64_t grain, View content);
  Result<void> close_segment();
  Result<Own> look_at_own();
  void put_segment(std::shared_ptr<SegmentBuilder> builder, uint64_t bytes);
  void stop(Error error) {
    if (outcome_) outcome_ = error;
    io_.wake(turns_);
    io_.wake(room_);
  }
  uint64_t packed_bytes() const {
    return put_bytes_ + (open_ != nullptr ? open_->stored_bytes() : 0);
  }
  bool sampled(const Identity& identity) const {
    const auto shift = static_cast<unsigned>(archive_.label().sample);
    return (static_cast<unsigned>(identity[31]) & ((1U << shift) - 1)) == 0;
  }

  Io& io_;
  Archive& archive_;
  const PushRequest& request_;
  PushSource& source_;
  Begun& begun_;
  const PushProgress& progress_;
  Windows windows_;
  uint64_t windows_taken_ = 0;
  uint64_t turn_ = 0;
  WaitList turns_;
  WaitList room_;
  Result<void> outcome_;
  IdentityCache cache_;
  std::unique_ptr<RegionView> parent_;  // What the newest snapshot shows in this region.
  uint32_t parent_region_ = UINT32_MAX;
  uint64_t next_chunk_;
  uint64_t next_segment_;
  std::shared_ptr<SegmentBuilder> open_;
  std::vector<PlacedSegment> placed_;
  std::vector<LogicalExtent> extents_;
  std::vector<std::pair<Identity, uint64_t>> hints_;
  uint64_t put_bytes_ = 0;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
  bool ours_ = true;
  PushReport report_;
  Group puts_;  // Last: it waits for those who use the rest.
};

Result<void> Pusher::read_window(unsigned number, Lane& lane, const Window& window) {
  uint64_t at = 0;
  for (const TouchedRun& run : window.runs) {
    if (run.zero) continue;
    const Bytes room = lane.room.bytes().subspan(at * kGrainBytes, run.count * kGrainBytes);
    // The last grain of a disk may be half a grain.
    const uint64_t begin = run.grain * kGrainBytes;
    const uint64_t there = std::min<uint64_t>(room.size(), request_.bytes - begin);
    std::ranges::fill(room.subspan(there), std::byte{});
    TRY(source_.read(io_, number, begin, room.first(there)));
    at += run.count;
  }
  report_.read_bytes += at * kGrainBytes;
  io_.offload([&lane, at] {
    for (uint64_t i = 0; i < at; ++i) {
      const View block = View(lane.room.bytes()).subspan(i * kGrainBytes, kGrainBytes);
      lane.zero[i] = all_zero(block) ? 1 : 0;
      if (lane.zero[i] == 0) lane.identities[i] = lane.identifier.identify(block);
    }
  });
  return ok;
}

Result<void> Pusher::run_lane(unsigned number) {
  Lane lane(archive_.forge().secrets.identity);
  Window window;
  while (outcome_ && windows_.next(window)) {
    const uint64_t mine = windows_taken_++;
    const Result<void> read = read_window(number, lane, window);
    if (!read) return read.error();
    while (outcome_ && turn_ != mine) io_.park(turns_);
    if (!outcome_) return ok;
    TRY(decide_window(lane, window));
    ++turn_;
    io_.wake(turns_);
    for (const TouchedRun& run : window.runs) done_ += run.count;
    if (progress_) progress_(done_, total_);
  }
  return ok;
}

Result<void> Pusher::load_index_of(uint64_t chunk) {
  const std::optional<ChunkRun> run = TRY(archive_.chunks().find(io_, chunk));
  if (!run.has_value() || cache_.has(run->disk, run->segment)) return ok;
  SegmentName name = TRY(archive_.place_of(io_, run->disk, run->segment));
  const std::optional<format::SegmentRow> row =
      TRY(read_row(io_, archive_.meta(), format::usage_key(run->disk, run->segment),
                   format::decode_segment_row));
  // Never share with what is cold: the newest image would depend on it.
  if (!row.has_value() || row->tier != 0) return ok;
  const Result<std::shared_ptr<SegmentHead>> head = archive_.reader().read_head(
      io_, segment_key(name.disk, name.segment, row->tier), row->head_bytes);
  // What cannot be read is not shared; scrub names it.
  if (!head) return head.error().code == Errc::timed_out ? head.error() : Result<void>(ok);
  const Result<std::vector<SegmentBlock>> blocks = archive_.reader().blocks(io_, **head);
  if (!blocks) return ok;
  ++report_.indexes_read;
  cache_.add(run->disk, run->segment, *blocks);
  return ok;
}

// Meets the segments that the window's sampled blocks are in.
Result<void> Pusher::prefetch(const Lane& lane, const Window& window) {
  for (size_t i = 0; i < window.grains; ++i) {
    const Identity& identity = lane.identities[i];
    if (lane.zero[i] != 0 || !sampled(identity) || cache_.find(identity).has_value()) continue;
    ++report_.hint_lookups;
    const std::optional<uint64_t> chunk =
        TRY(read_row(io_, archive_.meta(), format::hint_key(identity), format::decode_hint));
    if (chunk.has_value()) TRY(load_index_of(*chunk));
  }
  return ok;
}

Result<void> Pusher::load_parents(const RegionView& parent, const Window& window) {
  for (const TouchedRun& run : window.runs) {
    if (run.zero) continue;
    for (uint64_t i = 0; i < run.count; ++i) {
      const uint64_t chunk =
          parent.chunk_of(static_cast<uint32_t>((run.grain + i) % kRegionGrains));
      if (chunk != 0) TRY(load_index_of(chunk));
    }
  }
  return ok;
}

Result<uint64_t> Pusher::add_new(const Identity& identity, uint64_t grain, View content) {
  if (open_ == nullptr) {
    format::SegmentHeader header;
    header.disk = begun_.disk.row.uuid;
    CHECK(next_segment_ < begun_.row.segment_end);
    header.segment_id = next_segment_++;
    header.created_ns = static_cast<uint64_t>(io_.wall_clock_ns());
    open_ = std::make_shared<SegmentBuilder>(io_, archive_.forge(), header);
    placed_.push_back({header.segment_id, next_chunk_, {}});
  }
  const uint64_t chunk = next_chunk_++;
  CHECK(chunk < begun_.row.chunk_end);
  open_->add({static_cast<uint16_t>(open_->items()), chunk, grain, begun_.row.seq, identity},
             content);
  cache_.add_one(identity, chunk);
  if (sampled(identity)) hints_.emplace_back(identity, chunk);
  ++report_.new_grains;
  if (open_->items() >= format::kSegmentSlotsMax ||
      open_->stored_bytes() >= archive_.label().segment_bytes) {
    TRY(close_segment());
  }
  return chunk;
}

Result<uint64_t> Pusher::decide(const Lane& lane, size_t i, uint64_t grain) {
  const Identity& identity = lane.identities[i];
  const std::optional<uint64_t> known = cache_.find(identity);
  if (known.has_value()) {
    // Ours, or alive: its segment's index says what it held, the chunk map whether it still does.
    if (*known >= begun_.row.chunk_first && *known < begun_.row.chunk_end) return *known;
    if (TRY(archive_.chunks().find(io_, *known)).has_value()) return *known;
  }
  const View content = View(lane.room.bytes()).subspan(i * kGrainBytes, kGrainBytes);
  return add_new(identity, grain, content);
}

Result<void> Pusher::decide_window(Lane& lane, const Window& window) {
  if (window.region != parent_region_) {
    parent_region_ = window.region;
    parent_ = std::make_unique<RegionView>();
    parent_->lay_under(TRY(read_region(io_, archive_.meta(), begun_.disk.number, window.region,
                                       begun_.row.seq - 1))
                           .extents);
  }
  if (request_.compare) TRY(load_parents(*parent_, window));
  TRY(prefetch(lane, window));
  if (open_ != nullptr) open_->settle();
  while (outcome_ && put_bytes_ > 0 && packed_bytes() > kPackedBytesMax) io_.park(room_);
  size_t i = 0;
  for (const TouchedRun& run : window.runs) {
    for (uint64_t k = 0; k < run.count; ++k) {
      const uint64_t grain = run.grain + k;
      const uint64_t before = parent_->chunk_of(static_cast<uint32_t>(grain % kRegionGrains));
      const bool zero = run.zero || lane.zero[i] != 0;
      const uint64_t made = report_.new_grains;
      const uint64_t chunk = zero ? 0 : TRY(decide(lane, i, grain));
      if (!run.zero) ++i;
      if (chunk == before) {
        ++report_.unchanged_grains;
        continue;
      }
      if (zero) {
        ++report_.zero_grains;
      } else if (made == report_.new_grains) {
        ++report_.duplicate_grains;
      }
      append(extents_, {grain, 1, chunk});
    }
  }
  return ok;
}

Result<void> Pusher::close_segment() {
  const uint64_t bytes = open_->stored_bytes();
  put_segment(std::move(open_), bytes);
  open_.reset();
  return ok;
}

void Pusher::put_segment(std::shared_ptr<SegmentBuilder> builder, uint64_t bytes) {
  put_bytes_ += bytes;
  const size_t index = placed_.size() - 1;
  io_.spawn(puts_, [this, builder, index, bytes] {
    builder->finish({});
    const std::vector<::iovec> body = builder->object();
    const std::string key = segment_key(begun_.disk.row.uuid, builder->header().segment_id, 0);
    const Result<void> put = archive_.store().put(io_, key, body, {});
    put_bytes_ -= bytes;
    io_.wake(room_);
    if (!put) return stop(put.error());
    format::SegmentRow& row = placed_[index].row;
    row.slots = builder->items();
    row.live_count = row.slots;
    row.present = row.slots;
    row.bytes = builder->bytes();
    row.head_bytes = builder->head_bytes();
    row.created_ns = static_cast<int64_t>(builder->header().created_ns.get());
    ++report_.segments;
    report_.stored_bytes += row.bytes;
  });
}

Result<void> Pusher::upload() {
  {
    Group lanes(io_);
    for (unsigned i = 0; i < source_.lanes(); ++i) {
      io_.spawn(lanes, [this, i] {
        const Result<void> done = run_lane(i);
        if (!done) stop(done.error());
      });
    }
  }
  if (outcome_ && open_ != nullptr) TRY(close_segment());
  puts_.wait();
  report_.extents = extents_.size();
  return outcome_;
}

Result<void> Pusher::write_manifest() {
  format::SnapshotRow& row = begun_.row;
  row.extents = extents_.size();
  row.new_grains = report_.new_grains;
  for (const LogicalExtent& each : extents_) row.grains += each.chunk != 0 ? each.count : 0;
  row.manifest_segment = next_segment_;
  ManifestWriter writer(io_, archive_, begun_.disk, row, next_segment_);
  for (const LogicalExtent& each : extents_) TRY(writer.add(each));
  const ManifestPut put = TRY(writer.finish());
  row.manifest_parts = put.parts;
  report_.stored_bytes += put.bytes;
  row.stored_bytes = report_.stored_bytes;
  return ok;
}

// What has become of our row while others wrote.
Result<Pusher::Own> Pusher::look_at_own() {
  const std::optional<format::SnapshotRow> row =
      TRY(read_row(io_, archive_.meta(), format::snapshot_key(begun_.disk.number, begun_.row.seq),
                   format::decode_snapshot_row));
  if (!row.has_value() || row->uuid != begun_.row.uuid || row->holder != begun_.row.holder) {
    return Own::lost;
  }
  if (row->state == format::SnapshotState::uploading) return Own::uploading;
  return row->state == format::SnapshotState::complete ? Own::complete : Own::lost;
}

Result<void> Pusher::commit() {
  constexpr int kTries = 8;
  for (int i = 0;; ++i) {
    const Result<void> done = commit_push(io_, archive_, begun_, extents_, placed_);
    if (done || done.error().code != Errc::fenced || i == kTries) return done;
    // Another writer was here. What it published stands; ours begins again.
    io_.sleep(std::chrono::milliseconds(1 + io_.random() % 50));
    // From here on others may stand on what we have published: undone is only what is ours alone.
    ours_ = false;
    TRY(archive_.reopen(io_));
    const Own own = TRY(look_at_own());
    if (own == Own::complete) return ok;  // It had been published before the other one came.
    if (own == Own::lost) {
      return fail(Errc::cancelled, "archive {}: somebody else has taken over pushing disk {}",
                  archive_.store().name(), begun_.row.disk);
    }
    ours_ = true;
    TRY(undo_rows(io_, archive_, begun_.disk, begun_.row));
  }
}

// What is lost of these is found by another way, or stored twice: no harm.
Result<void> Pusher::write_hints() {
  for (const auto& [identity, chunk] : hints_) {
    archive_.meta().put(format::hint_key(identity), format::encode_hint(chunk));
    if (archive_.full()) TRY(archive_.apply(io_));
  }
  return archive_.apply(io_);
}

Result<PushReport> push_once(Io& io, Archive& archive, const PushRequest& request,
                             PushSource& source, const PushProgress& progress) {
  Begun begun = TRY(begin_push(io, archive, request));
  Pusher pusher(io, archive, request, source, begun, progress);
  const auto run = [&]() -> Result<void> {
    TRY(pusher.upload());
    TRY(pusher.write_manifest());
    return pusher.commit();
  };
  const Result<void> done = run();
  if (!done) {
    const Error why = done.error();
    const std::string text(text_of(why));
    archive.forget();
    // Fenced, or without a store, this fails too: then the next writer does it (A2).
    if (pusher.is_ours()) {
      static_cast<void>(abort_push(io, archive, begun.disk, begun.row).has_value());
    }
    return fail_text(why.code, why.sys, text);
  }
  static_cast<void>(pusher.write_hints().has_value());
  PushReport report = pusher.report();
  report.seq = begun.row.seq;
  return report;
}

}  // namespace

Result<PushReport> push(Io& io, Archive& archive, const PushRequest& request, PushSource& source,
                        const PushProgress& progress) {
  CHECK(source.lanes() > 0);
  constexpr int kTries = 8;
  for (int i = 1;; ++i) {
    const auto once = [&]() -> Result<PushReport> {
      TRY(finish_deletions(io, archive));  // Their rows are not of the snapshot we stand on.
      return push_once(io, archive, request, source, progress);
    };
    Result<PushReport> report = once();
    if (report || i == kTries) return report;
    if (report.error().code == Errc::fenced) {  // Another host began something just now.
      io.sleep(std::chrono::milliseconds(1 + io.random() % 100));
      archive.forget();
      TRY(archive.reopen(io));
      continue;
    }
    // A block that it shared has gone meanwhile, with its last snapshot: the next look does not
    // meet it.
    if (report.error().code != Errc::not_found) return report;
    archive.forget();  // What was staged when it failed.
  }
}

}  // namespace firn::archive
