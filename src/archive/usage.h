// SPDX-License-Identifier: Apache-2.0
// The usage of segments: which slots of each are live. What cleaning decides by. Source:
// US 11960450 (lists and bitmaps), US 11435935.
//
//  S1  live_count is the number of live slots; a slot is live while its chunk has a reference and
//      lies there.
//  S2  A segment without a live slot is doomed: its object goes, not before release_ns.
//
// Rows that were changed are kept decoded, and staged together by stage().
#pragma once

#include <cstdint>
#include <map>

#include "archive/meta.h"
#include "format/archive_rows.h"

namespace firn::archive {

class Usage {
 public:
  explicit Usage(Meta& meta) : meta_(meta) {}
  Usage(const Usage&) = delete;
  Usage& operator=(const Usage&) = delete;

  // A new segment, with these slots live.
  void add(uint32_t disk, uint64_t segment, format::SegmentRow row);
  Result<void> kill(Io& io, uint32_t disk, uint64_t segment, uint16_t slot, uint64_t count);
  Result<void> revive(Io& io, uint32_t disk, uint64_t segment, uint16_t slot, uint64_t count);
  // The row, to be changed. Errc::corrupt when there is none.
  Result<format::SegmentRow*> row(Io& io, uint32_t disk, uint64_t segment);
  // Puts what was changed into the stage. `now_ns` + `grace_ns`: when the doomed ones may go.
  void stage(int64_t now_ns, int64_t grace_ns);
  // Rows that wait for stage().
  size_t changed() const { return changed_; }
  void forget() {
    rows_.clear();
    changed_ = 0;
  }

 private:
  struct Held {
    format::SegmentRow row;
    bool changed = false;
  };
  Result<Held*> held(Io& io, uint32_t disk, uint64_t segment);

  Meta& meta_;
  std::map<std::pair<uint32_t, uint64_t>, Held> rows_;
  size_t changed_ = 0;
};

}  // namespace firn::archive
