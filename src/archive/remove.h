// SPDX-License-Identifier: Apache-2.0
// Deleting snapshots, in any order, without holding anybody up.
//
//  N1  delete_snapshot() decides: one published row. The rest is finish_deletions(), by this writer
//      or the next one; killed anywhere, it goes on where it stopped.
//  N2  Between two neighbours the content of every other snapshot stays as it is: what the deleted
//      one changed and its successor did not becomes the successor's.
//  N3  Memory is bounded: one region at a time, batches of at most 10,000 rows.
//  N4  The successor's new manifest is in the store before the old ones go: the segments alone tell
//      the truth at every moment.
#pragma once

#include "archive/archive.h"

namespace firn::archive {

// Errc::busy: a push stands on it.
Result<void> delete_snapshot(Io& io, Archive& archive, const Archive::Found& snapshot);
struct RemovalReport {
  uint64_t snapshots = 0;
  uint64_t regions = 0;
  uint64_t freed_chunks = 0;
};
Result<RemovalReport> finish_deletions(Io& io, Archive& archive);

}  // namespace firn::archive
