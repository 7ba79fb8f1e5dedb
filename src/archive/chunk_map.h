// SPDX-License-Identifier: Apache-2.0
// The chunk map: where each chunk lies, and how often the logical maps refer to it. Contiguous
// chunks in consecutive slots of one segment with the same number of references are one row.
// Source: US 11385817 (merged tuples).
//
//  T1  Every chunk with references is in exactly one row; one without is in none.
//  T2  No two neighbouring rows could be one: changes merge what they touch.
//
// All changes are staged in the Meta.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "archive/meta.h"
#include "format/archive_rows.h"

namespace firn::archive {

// Chunks that lie side by side.
struct ChunkRun {
  uint64_t first = 0;
  uint64_t count = 0;
  uint32_t disk = 0;
  uint64_t segment = 0;
  uint16_t slot = 0;
  uint32_t references = 0;
  uint64_t end() const { return first + count; }
  bool operator==(const ChunkRun&) const = default;
};

class ChunkMap {
 public:
  explicit ChunkMap(Meta& meta) : meta_(meta) {}
  ChunkMap(const ChunkMap&) = delete;
  ChunkMap& operator=(const ChunkMap&) = delete;

  // The run that holds `chunk`, cut so that it begins there; nothing when it is dead.
  Result<std::optional<ChunkRun>> find(Io& io, uint64_t chunk);
  // Chunks that are new, or that have moved.
  Result<void> insert(Io& io, ChunkRun run);
  // One reference more to each of [first, first + count). Errc::not_found when one of them is dead.
  Result<void> hold(Io& io, uint64_t first, uint64_t count);
  // One reference less; `dead` gets what nobody refers to any more.
  Result<void> drop(Io& io, uint64_t first, uint64_t count,
                    const std::function<Result<void>(const ChunkRun&)>& dead);
  // The same chunks at another place, with the references that they have; dead ones are left out.
  Result<void> move(Io& io, ChunkRun to);
  // Forgets what it has read: another writer may have been here.
  void forget() { last_.reset(); }

 private:
  void put(const ChunkRun& run);
  // Takes [first, first + count) out, in pieces of one row each; the rest of the rows stays.
  Result<std::vector<ChunkRun>> take(Io& io, uint64_t first, uint64_t count);

  Meta& meta_;
  std::optional<ChunkRun> last_;  // The row that find() read last.
};

}  // namespace firn::archive
