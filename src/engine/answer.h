// SPDX-License-Identifier: Apache-2.0
// What the engine answers, as JSON: the bodies of the control protocol, which are also what the
// command line prints with --json and makes its tables from. Keys are stable;
// docs/reference/control.md lists them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "disk/disks.h"
#include "engine/extents.h"
#include "engine/instant.h"
#include "engine/keep.h"
#include "store/pool.h"

namespace firn::engine {

// The daemon's part of the answer about a pool; empty when nobody serves it.
struct Service {
  std::vector<std::string> listeners;  // "unix:/pool/nbd.sock", "tcp:127.0.0.1:10809"
  uint64_t connections = 0;
};

std::string answer_pool(const store::PoolInfo& info, const Service& service);
std::string answer_check(const disk::CheckReport& report);
// `arriving`: while parts of it are still elsewhere.
std::string answer_disk(const disk::DiskInfo& info, const disk::TrackingInfo& tracking,
                        const std::vector<disk::ApplicationInfo>& applications,
                        const std::optional<Instant::Progress>& arriving = std::nullopt);
std::string answer_disks(const std::vector<disk::DiskInfo>& infos);
std::string answer_begun(const disk::BegunInfo& info);
std::string answer_changes(const disk::ChangeList& list);
std::string answer_applications(const std::vector<disk::ApplicationInfo>& infos);
std::string answer_snapshot(const disk::SnapshotInfo& info);
std::string answer_snapshots(const std::vector<disk::SnapshotInfo>& infos);
// A new snapshot, and what the keep policy deleted for it.
std::string answer_made(const disk::SnapshotInfo& info, const Kept& kept,
                        const std::vector<uint32_t>& layers);
std::string answer_kept(const Kept& kept, const std::vector<uint32_t>& layers);
// What is left to do: the layers whose jobs a verb has begun.
std::string answer_layers(const std::vector<uint32_t>& layers);
std::string answer_shrunk(const disk::ShrinkInfo& info);
std::string answer_jobs(const std::vector<disk::JobInfo>& jobs);
std::string answer_extents(std::string_view name, std::string_view base, uint64_t offset,
                           const ExtentPage& page);
std::string answer_socket(const std::string& path);
inline std::string answer_nothing() { return "{}"; }

std::string_view name_of(disk::JobKind kind);
std::string_view name_of(disk::JobState state);

// The text as a JSON string, with its quotes. What is not UTF-8 becomes U+FFFD.
std::string quoted(std::string_view text);
// "2026-11-20T11:33:15Z"
std::string text_of_time(int64_t wall_clock_ns);

}  // namespace firn::engine
