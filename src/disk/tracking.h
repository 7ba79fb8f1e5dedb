// SPDX-License-Identifier: Apache-2.0
// Change tracking as a user of Disks sees it: events, applications, lists of what changed. How it
// works is in disk/changes.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "io/io.h"

namespace firn::disk {

class ChangeSink;

// An application that backs a disk up, or whatever else asks what changed.
struct ApplicationInfo {
  std::string name;
  std::string change_id;  // Of its last begin.
  std::string previous;   // Of the one before; empty when there is none that still counts.
  int64_t began_ns = 0;   // Wall clock.
  bool current =
      true;  // False: the disk went back to a snapshot since, its next copy is a full one.
};

struct BegunInfo {
  std::string change_id;
  std::string previous;  // Since when it is to be asked; empty: a full copy is needed.
  std::string snapshot;  // "DISK@SNAP", if one was made.
};

struct ChangeList {
  std::string since;
  std::string now;  // The last event; what has changed after it is told, too.
  uint64_t block_bytes = 0;
  uint64_t disk_bytes = 0;
  std::vector<Range> extents;
  uint64_t bytes = 0;        // In them.
  uint64_t next_offset = 0;  // Where the rest begins; 0: that was all.
};
inline constexpr uint64_t kChangeExtentsMax = 65536;  // Of one list.

struct TrackingInfo {
  std::string disk;
  bool active = false;
  std::string change_id;  // Of the last event.
  uint64_t block_bytes = 0;
  uint64_t memory_bytes = 0;
  uint64_t applications = 0;
  uint64_t events = 0;  // These since the disk was opened.
  uint64_t flushes = 0;
  uint64_t marks = 0;
  uint64_t intent_misses = 0;
  uint64_t log_pages = 0;
  uint64_t recovered_bytes = 0;  // Called changed after a crash.
  uint64_t lost_log_pages = 0;
};

// What changed for one application, as long as somebody holds it: DISK since the last begin,
// DISK@SNAP between the begin that made it and the one before. What is not known counts as changed.
class ChangeView {
 public:
  virtual ~ChangeView() = default;
  virtual Result<void> changed(Io& io, Range range, ChangeSink& sink) = 0;
};

class Tracking {
 public:
  // An event, and with `snapshot` not empty the disk's snapshot in the same moment. The first one
  // of a disk begins its tracking.
  virtual Result<BegunInfo> begin(Io& io, std::string_view disk, std::string_view application,
                                  std::string_view snapshot) = 0;
  // What changed since an event, from `offset` on, at most `limit` extents. Errc::invalid and why
  // a full copy is needed.
  virtual Result<ChangeList> list(Io& io, std::string_view disk, std::string_view since,
                                  uint64_t offset, uint64_t limit) = 0;
  virtual Result<std::vector<ApplicationInfo>> applications(Io& io, std::string_view disk) = 0;
  // The application is forgotten. Its change ids stay good.
  virtual Result<void> end(Io& io, std::string_view disk, std::string_view application) = 0;
  // No changes are tracked any more; all applications and change ids are void.
  virtual Result<void> off(Io& io, std::string_view disk) = 0;
  virtual std::vector<TrackingInfo> tracked() const = 0;  // Of the disks that are open.
  // Not active, and nothing else said, where there is none.
  virtual Result<TrackingInfo> info(Io& io, std::string_view disk) = 0;
  struct NamedView {
    std::string application;
    std::shared_ptr<ChangeView> view;
  };
  // Of DISK or DISK@SNAP.
  virtual Result<std::vector<NamedView>> views(Io& io, std::string_view name) = 0;

 protected:
  Tracking() = default;
  ~Tracking() = default;
};

}  // namespace firn::disk
