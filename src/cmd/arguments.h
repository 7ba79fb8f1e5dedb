// SPDX-License-Identifier: Apache-2.0
// The command line as a struct. The only door to the library that parses it.
//
// DESIGN's section on the command line is a contract: scripts depend on the spelling of every
// option here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cmd/bench.h"
#include "engine/daemon.h"
#include "store/pool.h"

namespace firn::cmd {

enum class Command : uint8_t {
  pool_create,
  pool_info,
  pool_check,
  pool_grow,
  serve,
  disk_create,
  disk_list,
  disk_info,
  disk_resize,
  disk_rename,
  disk_delete,
  disk_set,
  disk_import,
  disk_export,
  disk_clone,
  disk_consolidate,
  disk_shrink,
  snapshot_create,
  snapshot_list,
  snapshot_delete,
  snapshot_revert,
  snapshot_diff,
  changes_diff,
  changes_allocated,
  jobs,
  nbd,
  changes_begin,
  changes_list,
  changes_apps,
  changes_end,
  changes_off,
  archive_doctor,
  bench,
  archive_create,
  archive_push,
  archive_list,
  archive_delete,
  archive_clean,
  archive_scrub,
  archive_rebuild,
  archive_check,
  archive_stats,
  archive_keep,
  restore,
};

// What the verbs of an archive take besides a name.
struct ArchiveArguments {
  std::string url;
  std::string key_file;
  std::string passphrase_file;
  uint64_t segment_bytes = uint64_t{16} << 20;
  int level = 3;
  bool take_over = false;  // push
  bool salvage = false;    // restore: what is not damaged
  bool instant = false;    // restore: served at once
  uint64_t grace_seconds = 3600;
  uint64_t min_age_seconds = 3600;
  bool garbage = false;  // clean: look for objects that nobody knows
  bool dry_run = false;
  uint32_t hourly = 0, daily = 0, weekly = 0, monthly = 0, yearly = 0, last = 0;  // keep
};

struct Arguments {
  Command command = Command::pool_info;
  std::string pool;  // The directory.
  bool json = false;

  std::string name;                  // The disk, or DISK@SNAPSHOT.
  std::string base;                  // diff: what it is compared with
  std::string to;                    // rename, clone
  std::string file;                  // import, export
  std::string store_url;             // archive doctor
  std::string format;                // import, export; empty: find out
  uint64_t bytes = 0;                // --size
  std::string app, snapshot, since;  // changes
  bool repair = false;
  bool force = false;              // export: replace FILE; revert: under its clients
  bool background = false;         // delete, consolidate: do not wait for the jobs
  bool snapshots = false;          // disk delete: with its snapshots
  std::optional<uint64_t> keep;    // consolidate
  uint64_t offset = 0;             // diff, allocated: from here on ...
  std::optional<uint64_t> limit;   // ... at most so many extents
  bool follow_references = false;  // import: let the image refer to files elsewhere
  std::vector<std::pair<std::string, std::string>> settings;  // set, create
  store::PoolShape shape;                                     // pool create
  engine::DaemonSettings daemon;                              // serve
  BenchSettings bench;
  ArchiveArguments archive;
};

// Nothing: the process ends with `exit_status`; help, version or the complaint is printed already.
std::optional<Arguments> parse_arguments(int argc, char** argv, int& exit_status);

}  // namespace firn::cmd
