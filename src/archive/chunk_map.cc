// SPDX-License-Identifier: Apache-2.0
#include "archive/chunk_map.h"

#include <algorithm>

#include "base/check.h"

namespace firn::archive {
namespace {

using format::ChunkRow;

Result<ChunkRun> run_of(const Meta::Row& row) {
  const uint64_t last = TRY(format::decode_chunk_key(row.key));
  const ChunkRow chunk = TRY(format::decode_chunk_row(row.key, row.value));
  return ChunkRun{last + 1 - chunk.count, chunk.count, chunk.disk,
                  chunk.segment,          chunk.slot,  chunk.references};
}

// The part of `run` from `first` on, at most to `end`.
ChunkRun part_of(const ChunkRun& run, uint64_t first, uint64_t end) {
  ChunkRun part = run;
  part.first = std::max(run.first, first);
  part.count = std::min(run.end(), end) - part.first;
  part.slot = static_cast<uint16_t>(run.slot + (part.first - run.first));
  return part;
}

bool joins(const ChunkRun& before, const ChunkRun& after) {
  return before.end() == after.first && before.disk == after.disk &&
         before.segment == after.segment && before.slot + before.count == after.slot &&
         before.references == after.references;
}

}  // namespace

void ChunkMap::put(const ChunkRun& run) {
  const ChunkRow row{static_cast<uint32_t>(run.count), run.disk, run.segment, run.slot,
                     run.references};
  meta_.put(format::chunk_key(run.end() - 1), format::encode(row));
}

Result<std::optional<ChunkRun>> ChunkMap::find(Io& io, uint64_t chunk) {
  if (!last_.has_value() || chunk < last_->first || chunk >= last_->end()) {
    const std::optional<Meta::Row> row =
        TRY(meta_.first(io, format::chunk_key(chunk), format::end_of("c")));
    if (!row.has_value()) return std::optional<ChunkRun>();
    const ChunkRun run = TRY(run_of(*row));
    if (run.first > chunk) return std::optional<ChunkRun>();
    last_ = run;
  }
  return std::optional<ChunkRun>(part_of(*last_, chunk, UINT64_MAX));
}

Result<void> ChunkMap::insert(Io& io, ChunkRun run) {
  CHECK(run.count > 0 && run.references > 0);
  last_.reset();
  const uint64_t before = run.first - 1;
  if (before > 0) {
    const std::optional<std::string> bytes = TRY(meta_.get(io, format::chunk_key(before)));
    if (bytes.has_value()) {
      const ChunkRun left = TRY(run_of({format::chunk_key(before), *bytes}));
      if (joins(left, run)) {
        meta_.remove(format::chunk_key(before));
        run.first = left.first;
        run.count += left.count;
        run.slot = left.slot;
      }
    }
  }
  const std::optional<Meta::Row> row =
      TRY(meta_.first(io, format::chunk_key(run.end()), format::end_of("c")));
  if (row.has_value()) {
    const ChunkRun right = TRY(run_of(*row));
    if (joins(run, right))
      run.count += right.count;  // Its key is the last chunk's: it is put over.
  }
  put(run);
  return ok;
}

Result<std::vector<ChunkRun>> ChunkMap::take(Io& io, uint64_t first, uint64_t count) {
  last_.reset();
  std::vector<ChunkRun> taken;
  const uint64_t end = first + count;
  uint64_t at = first;
  while (at < end) {
    const std::optional<Meta::Row> row =
        TRY(meta_.first(io, format::chunk_key(at), format::end_of("c")));
    if (!row.has_value()) break;
    const ChunkRun run = TRY(run_of(*row));
    if (run.first >= end) break;
    meta_.remove(row->key);
    if (run.first < at) put(part_of(run, run.first, at));
    if (run.end() > end) put(part_of(run, end, run.end()));
    taken.push_back(part_of(run, at, end));
    at = taken.back().end();
  }
  return taken;
}

Result<void> ChunkMap::hold(Io& io, uint64_t first, uint64_t count) {
  uint64_t next = first;
  for (ChunkRun& run : TRY(take(io, first, count))) {
    if (run.first != next) break;
    next = run.end();
    if (run.references == UINT32_MAX) {
      return fail(Errc::unsupported, "chunk {} has as many references as can be", run.first);
    }
    ++run.references;
    TRY(insert(io, run));
  }
  if (next == first + count) return ok;
  return fail(Errc::not_found, "chunk {} has gone meanwhile: its last snapshot was deleted", next);
}

Result<void> ChunkMap::drop(Io& io, uint64_t first, uint64_t count,
                            const std::function<Result<void>(const ChunkRun&)>& dead) {
  uint64_t next = first;
  for (ChunkRun& run : TRY(take(io, first, count))) {
    if (run.first != next) break;
    next = run.end();
    if (--run.references > 0) {
      TRY(insert(io, run));
    } else {
      TRY(dead(run));
    }
  }
  if (next == first + count) return ok;
  return fail(Errc::corrupt, "chunk {} is referred to, but is in no row of the chunk map", next);
}

Result<void> ChunkMap::move(Io& io, ChunkRun to) {
  for (const ChunkRun& run : TRY(take(io, to.first, to.count))) {
    ChunkRun moved = run;
    moved.disk = to.disk;
    moved.segment = to.segment;
    moved.slot = static_cast<uint16_t>(to.slot + (run.first - to.first));
    TRY(insert(io, moved));
  }
  return ok;
}

}  // namespace firn::archive
