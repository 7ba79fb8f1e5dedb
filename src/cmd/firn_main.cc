// SPDX-License-Identifier: Apache-2.0
// firn: parse the command line, run the command on a shard, say what went wrong in one line.
#include <unistd.h>

#include <cstdio>

#include "cmd/commands.h"

namespace firn::cmd {
namespace {

Result<int> run(FiberIo& io, const Arguments& arguments) {
  switch (arguments.command) {
    case Command::pool_create:
    case Command::pool_info:
    case Command::pool_check:
    case Command::pool_grow:
      return run_pool_command(io, arguments);
    case Command::disk_import:
      return run_import(io, arguments);
    case Command::disk_export:
      return run_export(io, arguments);
    case Command::snapshot_create:
    case Command::snapshot_list:
    case Command::snapshot_delete:
    case Command::snapshot_revert:
    case Command::disk_clone:
    case Command::disk_consolidate:
    case Command::disk_delete:
      return run_snapshot_command(io, arguments);
    case Command::snapshot_diff:
    case Command::changes_diff:
    case Command::changes_allocated:
      return run_extents(io, arguments);
    case Command::jobs:
      return run_jobs(io, arguments);
    case Command::archive_doctor:
      return run_archive_doctor(io, arguments.store_url, arguments.json);
    case Command::serve:
      return run_serve(io, arguments);
    case Command::bench:
      return run_bench(arguments.bench, arguments.json);
    case Command::nbd:
      return run_nbd(io, arguments);
    case Command::changes_begin:
    case Command::changes_list:
    case Command::changes_apps:
    case Command::changes_end:
    case Command::changes_off:
      return run_changes_command(io, arguments);
    case Command::disk_create:
    case Command::disk_list:
    case Command::disk_info:
    case Command::disk_resize:
    case Command::disk_rename:
    case Command::disk_set:
    case Command::disk_shrink:
      return run_disk_command(io, arguments);
    case Command::archive_push:
      return run_archive_push(io, arguments);
    case Command::restore:
      return run_restore(io, arguments);
    case Command::archive_create:
    case Command::archive_list:
    case Command::archive_delete:
    case Command::archive_clean:
    case Command::archive_scrub:
    case Command::archive_rebuild:
    case Command::archive_check:
    case Command::archive_stats:
    case Command::archive_keep:
      return run_archive_command(io, arguments);
  }
  return kFailed;
}

int complain(Error error) {
  fmt::print(stderr, "firn: {}\n", text_of(error));
  return kFailed;
}

// Signals are blocked before any thread exists, so that all threads inherit it.
bool takes_signals(Command command) {
  return command == Command::serve || command == Command::disk_import ||
         command == Command::disk_export || command == Command::archive_push ||
         command == Command::restore;
}

// Commands that move disks through connections, not through the shard's own buffers: those are
// registered and so resident, and a small host that pushes has better use for the memory.
FiberIo::Settings settings_for(Command command) {
  FiberIo::Settings settings;
  if (command == Command::archive_push || command == Command::restore ||
      command == Command::archive_delete || command == Command::archive_clean ||
      command == Command::archive_scrub) {
    settings.buffer_bytes = 4 * kMiB;
  }
  return settings;
}

int main_of(int argc, char** argv) {
  int status = kDone;
  const std::optional<Arguments> arguments = parse_arguments(argc, argv, status);
  if (!arguments.has_value()) return status;
  // A command says what went wrong in one line of its own; the daemon sets its log as it was told.
  engine::set_log({.level = LogLevel::error});
  if (takes_signals(arguments->command)) engine::block_signals();
  Result<std::unique_ptr<FiberIo>> io = FiberIo::make(settings_for(arguments->command));
  if (!io) return complain(io.error());
  (*io)->run([&] {
    const Result<int> done = run(**io, *arguments);
    status = done ? *done : complain(done.error());
  });
  return status;
}

}  // namespace
}  // namespace firn::cmd

int main(int argc, char** argv) { return firn::cmd::main_of(argc, argv); }
