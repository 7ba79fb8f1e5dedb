// SPDX-License-Identifier: Apache-2.0
// The commands: each does what its verb says, prints on standard output, and returns the exit
// status or the error that firn_main prints. Run as fibers of the shard `io`.
#pragma once

#include "base/result.h"
#include "cmd/arguments.h"
#include "io/fiber_io.h"

namespace firn::cmd {

inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;

Result<int> run_pool_command(FiberIo& io, const Arguments& arguments);
Result<int> run_disk_command(FiberIo& io, const Arguments& arguments);
Result<int> run_changes_command(FiberIo& io, const Arguments& arguments);
Result<int> run_snapshot_command(FiberIo& io, const Arguments& arguments);
Result<int> run_extents(FiberIo& io, const Arguments& arguments);
Result<int> run_jobs(FiberIo& io, const Arguments& arguments);
Result<int> run_import(FiberIo& io, const Arguments& arguments);
Result<int> run_export(FiberIo& io, const Arguments& arguments);
Result<int> run_serve(FiberIo& io, const Arguments& arguments);
// Blocks: it is all that its process does.
Result<int> run_bench(const BenchSettings& settings, bool json);
Result<int> run_archive_command(FiberIo& io, const Arguments& arguments);
Result<int> run_archive_push(FiberIo& io, const Arguments& arguments);
Result<int> run_restore(FiberIo& io, const Arguments& arguments);
Result<int> run_nbd(FiberIo& io, const Arguments& arguments);
Result<int> run_archive_doctor(FiberIo& io, const std::string& url, bool json);

// One document, one write; an error when nobody takes it (a full disk, a closed pipe).
Result<void> print(std::string_view text);

}  // namespace firn::cmd
