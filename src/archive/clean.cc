// SPDX-License-Identifier: Apache-2.0
#include "archive/clean.h"

#include <algorithm>
#include <set>

#include "archive/push_commit.h"
#include "base/check.h"

namespace firn::archive {

using format::SegmentBlock;
using format::SegmentRow;
using format::SnapshotRow;
using format::SnapshotState;

namespace {

struct Known {
  uint32_t disk = 0;
  uint64_t segment = 0;
  SegmentRow row;
};

class Cleaner {
 public:
  Cleaner(Io& io, Archive& archive, const CleanHow& how) : io_(io), archive_(archive), how_(how) {}
  Result<CleanReport> run();

 private:
  Result<void> end_old_pushes();
  Result<void> read_usage();
  Result<void> remove(const Known& known);
  Result<void> shrink(const Known& known);
  Result<void> coalesce(const std::vector<size_t>& members);
  // The live blocks of a segment, in the order of their slots, into the builder.
  Result<void> copy_live(const Known& known, const SegmentHead& head,
                         const std::function<SegmentBlock(const SegmentBlock&)>& as,
                         SegmentBuilder& into);
  Result<std::shared_ptr<const SegmentHead>> head_of(const Known& known);
  Result<void> sweep_garbage();
  Result<void> sweep_disk(const DiskEntry& disk);

  Io& io_;
  Archive& archive_;
  const CleanHow& how_;
  std::vector<Known> known_;
  CleanReport report_;
};

Result<void> Cleaner::end_old_pushes() {
  const int64_t now = io_.wall_clock_ns();
  for (const DiskEntry& disk : TRY(archive_.disks(io_))) {
    for (const SnapshotRow& row : TRY(archive_.snapshots(io_, disk.number))) {
      const bool over = row.state == SnapshotState::aborted ||
                        (row.state == SnapshotState::uploading && lease_is_over(row, now));
      if (over) TRY(abort_push(io_, archive_, disk, row));
    }
  }
  return ok;
}

Result<void> Cleaner::read_usage() {
  const std::unique_ptr<Meta::Cursor> cursor =
      TRY(archive_.meta().scan(io_, "u", format::end_of("u")));
  while (TRY(cursor->next(io_))) {
    const format::UsageAddress address = TRY(format::decode_usage_key(cursor->key()));
    known_.push_back(
        {address.disk, address.segment, TRY(format::decode_segment_row(cursor->value()))});
    known_.back().row.live.reset();  // Read again where it is wanted: there may be many.
    if (known_.back().row.live_count == 0) ++report_.waiting_segments;
  }
  return ok;
}

Result<std::shared_ptr<const SegmentHead>> Cleaner::head_of(const Known& known) {
  SegmentName name = TRY(archive_.place_of(io_, known.disk, known.segment));
  name.tier = known.row.tier;
  return std::shared_ptr<const SegmentHead>(TRY(archive_.reader().read_head(
      io_, segment_key(name.disk, name.segment, name.tier), known.row.head_bytes)));
}

Result<void> Cleaner::remove(const Known& known) {
  SegmentName name = TRY(archive_.place_of(io_, known.disk, known.segment));
  name.tier = known.row.tier;
  const std::string key = segment_key(name.disk, name.segment, name.tier);
  TRY(archive_.store().remove(io_, key));
  archive_.reader().forget(key);
  archive_.meta().remove(format::usage_key(known.disk, known.segment));
  ++report_.removed_segments;
  --report_.waiting_segments;
  report_.removed_bytes += known.row.bytes;
  return ok;
}

Result<void> Cleaner::copy_live(const Known& known, const SegmentHead& head,
                                const std::function<SegmentBlock(const SegmentBlock&)>& as,
                                SegmentBuilder& into) {
  const std::vector<SegmentBlock> blocks = TRY(archive_.reader().blocks(io_, head));
  const SegmentRow row = *TRY(archive_.usage().row(io_, known.disk, known.segment));
  const auto is_live = [&](uint16_t slot) {
    return !row.live.has_value() || std::ranges::binary_search(*row.live, slot);
  };
  std::vector<std::byte> plain;
  for (uint32_t group = 0; group < head.groups.size(); ++group) {
    const uint32_t first = group * format::kGroupBlocks;
    const uint32_t end =
        std::min<uint32_t>(first + format::kGroupBlocks, static_cast<uint32_t>(blocks.size()));
    bool read = false;
    for (uint32_t i = first; i < end; ++i) {
      if (!is_live(blocks[i].slot)) continue;
      if (!read) TRY(archive_.reader().groups(io_, head, group, group + 1, plain));
      read = true;
      into.settle();
      into.add(as(blocks[i]), View(plain).subspan((i - first) * kGrainBytes, kGrainBytes));
    }
  }
  return ok;
}

Result<void> Cleaner::shrink(const Known& known) {
  const std::shared_ptr<const SegmentHead> head = TRY(head_of(known));
  format::SegmentHeader header;
  header.disk = head->header.disk;
  header.segment_id = known.segment;
  header.created_ns = head->header.created_ns;
  header.generation = head->header.generation + 1;
  SegmentBuilder builder(io_, archive_.forge(), header);
  TRY(copy_live(
      known, *head, [](const SegmentBlock& block) { return block; }, builder));
  builder.finish({}, head->header.slots);
  const std::vector<::iovec> body = builder.object();
  TRY(archive_.store().put(io_, head->key, body, {}));
  archive_.reader().forget(head->key);
  SegmentRow* const row = TRY(archive_.usage().row(io_, known.disk, known.segment));
  report_.freed_bytes += row->bytes - std::min(row->bytes, builder.bytes());
  row->bytes = builder.bytes();
  row->head_bytes = builder.head_bytes();
  row->generation = header.generation;
  row->present = builder.items();
  ++report_.shrunk;
  return archive_.apply(io_);
}

Result<void> Cleaner::coalesce(const std::vector<size_t>& members) {
  const uint32_t disk = known_[members.front()].disk;
  const uint64_t id = TRY(archive_.reserve_segments(io_, disk, 1));
  TRY(archive_.publish(io_));  // The id is ours before the object is there.
  format::SegmentHeader header;
  header.disk = TRY(archive_.place_of(io_, disk, id)).disk;
  header.segment_id = id;
  header.created_ns = static_cast<uint64_t>(io_.wall_clock_ns());
  SegmentBuilder builder(io_, archive_.forge(), header);
  std::vector<std::pair<size_t, SegmentBlock>> moved;  // From where, and as what.
  for (const size_t i : members) {
    const std::shared_ptr<const SegmentHead> head = TRY(head_of(known_[i]));
    TRY(copy_live(
        known_[i], *head,
        [&](const SegmentBlock& block) {
          moved.emplace_back(i, block);
          SegmentBlock here = block;
          here.slot = static_cast<uint16_t>(builder.items());
          return here;
        },
        builder));
  }
  builder.finish({});
  const std::vector<::iovec> body = builder.object();
  const std::string key = segment_key(header.disk, id, 0);
  TRY(archive_.store().put(io_, key, body, {}));
  SegmentRow row;
  row.slots = builder.items();
  row.live_count = row.slots;
  row.present = row.slots;
  row.bytes = builder.bytes();
  row.head_bytes = builder.head_bytes();
  row.created_ns = static_cast<int64_t>(header.created_ns.get());
  archive_.usage().add(disk, id, row);
  for (size_t at = 0; at < moved.size();) {  // Runs of chunks that lie side by side.
    size_t n = 1;
    while (at + n < moved.size() && moved[at + n].first == moved[at].first &&
           moved[at + n].second.chunk == moved[at].second.chunk + n &&
           moved[at + n].second.slot == moved[at].second.slot + n) {
      ++n;
    }
    const auto& [from, block] = moved[at];
    TRY(archive_.chunks().move(io_, {block.chunk, n, disk, id, static_cast<uint16_t>(at), 1}));
    TRY(archive_.usage().kill(io_, disk, known_[from].segment, block.slot, n));
    at += n;
  }
  for (const size_t i : members) report_.freed_bytes += known_[i].row.bytes;
  report_.freed_bytes -= std::min(report_.freed_bytes, builder.bytes());
  report_.coalesced += members.size();
  ++report_.made;
  return archive_.publish(io_);
}

Result<void> Cleaner::sweep_disk(const DiskEntry& disk) {
  std::set<uint64_t> manifests;
  std::vector<SnapshotRow> pushes;
  for (SnapshotRow& row : TRY(archive_.snapshots(io_, disk.number))) {
    for (uint32_t i = 0; i < row.manifest_parts; ++i) manifests.insert(row.manifest_segment + i);
    if (row.state == SnapshotState::uploading) pushes.push_back(std::move(row));
  }
  const auto may_go = [&](const SegmentName& name) -> Result<bool> {
    if (name.segment >= disk.row.next_segment || manifests.contains(name.segment)) return false;
    for (const SnapshotRow& row : pushes) {
      if (name.segment >= row.segment_first && name.segment < row.segment_end) return false;
    }
    const std::string key = format::usage_key(disk.number, name.segment);
    return !TRY(archive_.meta().get(io_, key)).has_value();
  };
  const std::string prefix = segment_prefix(disk.row.uuid, 0);
  std::string after;
  while (true) {
    const std::vector<ObjectInfo> page = TRY(archive_.store().list(io_, prefix, after, 1000));
    for (const ObjectInfo& object : page) {
      const std::optional<SegmentName> name = parse_segment_key(object.key);
      if (!name.has_value() || !TRY(may_go(*name))) continue;
      TRY(archive_.store().remove(io_, object.key));
      ++report_.garbage_objects;
    }
    if (page.size() < 1000) return ok;
    after = page.back().key;
  }
}

Result<void> Cleaner::sweep_garbage() {
  for (const DiskEntry& disk : TRY(archive_.disks(io_))) TRY(sweep_disk(disk));
  return ok;
}

Result<CleanReport> Cleaner::run() {
  TRY(end_old_pushes());
  report_.removals = TRY(finish_deletions(io_, archive_));
  TRY(read_usage());
  std::vector<policy::CleanSegment> segments;
  for (const Known& each : known_) {
    const SegmentRow& row = each.row;
    segments.push_back({each.disk, row.bytes, row.present, row.live_count, row.doomed,
                        row.created_ns, row.release_ns});
  }
  policy::CleanRule rule = how_.rule;
  rule.segment_bytes = archive_.label().segment_bytes;
  rule.blocks_max = format::kSegmentSlotsMax;
  const policy::CleanPlan plan =
      policy::plan_clean(rule, how_.price, segments, io_.wall_clock_ns());
  for (const size_t i : plan.remove) {
    TRY(remove(known_[i]));
    if (archive_.full()) TRY(archive_.apply(io_));
  }
  for (const size_t i : plan.shrink) TRY(shrink(known_[i]));
  for (const std::vector<size_t>& members : plan.coalesce) TRY(coalesce(members));
  if (how_.garbage) TRY(sweep_garbage());
  TRY(archive_.publish(io_));
  return report_;
}

}  // namespace

Result<CleanReport> clean(Io& io, Archive& archive, const CleanHow& how) {
  return Cleaner(io, archive, how).run();
}

}  // namespace firn::archive
