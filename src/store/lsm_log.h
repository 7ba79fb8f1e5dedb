// SPDX-License-Identifier: Apache-2.0
// The local log of a tree in the bucket: what was written and is not in the store yet, in segments,
// one for each generation. docs/format/lsm_log.md
//
// Contract:
//  G1  A batch is durable when a sync() that began after its append() has returned.
//  G2  Replay gives batches in the order of append(), all that were durable and perhaps some more,
//      each whole, none behind one that is missing in its segment.
//  G3  A segment's file is used again only when the store has all that is in it.
//  G4  After a failed write or flush nothing is durable any more until the log is opened again: the
//      error is told to every later sync().
//
// One process at a time: a lock on DIR/lock.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "format/lsm_log.h"
#include "io/barrier.h"
#include "io/io.h"
#include "io/mutex.h"

namespace firn::store {

class LsmLog {
 public:
  // Takes the lock, makes the files when they are not there, and looks at them.
  // Files that wait to be used again keep at most `spare_bytes` each.
  static Result<std::unique_ptr<LsmLog>> open(Io& io, const std::string& directory,
                                              uint64_t spare_bytes);

  // --- what was found
  bool found() const { return !found_.empty(); }
  const format::Uuid& tree() const { return head_.tree; }  // Of what was found.
  const format::Uuid& log() const { return head_.log; }
  Result<bool> has_batches(Io& io);  // Whether what was found says anything. Changes nothing.
  // Gives `sink` every batch of the segments above `published`, and goes on in the last of them.
  // Returns how many segments had something.
  Result<size_t> replay(Io& io, uint64_t published, const std::function<Result<void>(View)>& sink);
  // Forgets what was found; the first segment is `segment`.
  Result<void> begin(Io& io, format::Uuid tree, format::Uuid log, uint64_t segment);

  // --- at work
  void append(View batch);
  uint64_t bytes_live() const { return live().end + live().pending.size(); }
  uint64_t bytes() const;  // Of segments that are not retired.
  uint64_t pending_bytes() const { return live().pending.size(); }
  Result<void> spill(Io& io);  // Writes what waits in memory; not durable.
  Result<void> sync(Io& io);
  // prepare(), switch_segment() and reclaim() are called by one fiber at a time; syncs go on.
  // A new segment, which switch_segment() makes the live one, without a wait. Returns the old one.
  Result<void> prepare(Io& io);
  uint64_t switch_segment();
  uint64_t live_segment() const { return live().number; }
  // The store has everything up to `segment`. Their space is given back by reclaim().
  void retire(uint64_t segment);
  Result<void> reclaim(Io& io);
  // Everything is in the store: nothing is left to find.
  Result<void> forget(Io& io);
  void release() { lock_.reset(); }  // Another process may open it.
  uint64_t flushes() const { return flushes_; }
  std::optional<Error> broken() const { return broken_; }

 private:
  struct Segment {
    uint64_t number = 0;
    uint64_t end = 0;      // Of what is written.
    uint64_t records = 0;  // Appended.
    std::vector<std::byte> pending;
    bool batches = false;  // More than the link to the one before.
    bool dirty = false;    // Something was written since the last flush.
    bool retired = false;
  };
  LsmLog() = default;
  Segment& live() { return *segments_.back(); }
  const Segment& live() const { return *segments_.back(); }
  File& file_of(uint64_t segment) { return *files_[segment % format::kLsmLogSlots]; }
  Result<void> look(Io& io);
  Result<std::unique_ptr<Segment>> read_segment(Io& io, uint64_t number,
                                                const std::function<Result<void>(View)>& sink);
  Result<std::unique_ptr<Segment>> make_segment(Io& io, uint64_t number);
  format::LsmLogHead head_of(uint64_t segment) const;
  Result<void> write_out(Io& io, Segment& segment);
  Result<void> flush_all(Io& io);
  Result<void> note(Result<void> result);

  std::string directory_;
  uint64_t spare_bytes_ = 0;
  std::unique_ptr<File> lock_;
  std::array<std::unique_ptr<File>, format::kLsmLogSlots> files_;
  std::vector<uint64_t> found_;                    // Ascending.
  format::LsmLogHead head_;                        // Tree and log.
  std::deque<std::unique_ptr<Segment>> segments_;  // The live one last.
  std::unique_ptr<Segment> next_;
  Mutex writing_;
  Barrier syncs_;
  std::optional<Error> broken_;
  uint64_t flushes_ = 0;
};

}  // namespace firn::store
