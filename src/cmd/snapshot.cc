// SPDX-License-Identifier: Apache-2.0
// firn snapshot create | list | delete | revert, firn disk clone | consolidate | delete: what makes
// layers, and what leaves jobs behind that take them out.
#include <algorithm>
#include <array>

#include "base/check.h"
#include "cmd/commands.h"
#include "cmd/jobs.h"
#include "cmd/print.h"
#include "cmd/session.h"

namespace firn::cmd {
namespace {

using wire::ControlRequest;
using wire::ControlVerb;

struct Row {
  Command command;
  ControlVerb verb;
  bool waits;         // For its jobs, when a daemon does them.
  const char* doing;  // For the progress bar.
};
constexpr std::array<Row, 7> kRows{{
    {Command::snapshot_create, ControlVerb::snapshot_create, false, "cleaning up"},
    {Command::snapshot_list, ControlVerb::snapshot_list, false, ""},
    {Command::snapshot_delete, ControlVerb::snapshot_delete, true, "deleting"},
    {Command::snapshot_revert, ControlVerb::snapshot_revert, false, "dropping what came after"},
    {Command::disk_clone, ControlVerb::snapshot_clone, false, ""},
    {Command::disk_consolidate, ControlVerb::disk_consolidate, true, "consolidating"},
    {Command::disk_delete, ControlVerb::disk_delete, true, "deleting"},
}};

ControlRequest request_of(const Arguments& arguments, ControlVerb verb) {
  ControlRequest request;
  request.verb = verb;
  request.name = arguments.name;
  request.to = arguments.to;
  request.force = arguments.force;
  request.snapshots = arguments.snapshots;
  request.keep = arguments.keep;
  return request;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string line;
  for (const std::string& each : texts) line += (line.empty() ? "" : ", ") + each;
  return line;
}

// What people want to know beside "it is done".
std::string said(const Arguments& arguments, const std::string& answer) {
  if (arguments.json) return indented(answer);
  if (arguments.command == Command::snapshot_list) return table_of_snapshots(answer);
  const std::vector<std::string> deleted = texts_member(answer, "deleted");
  if (arguments.command == Command::disk_consolidate) {
    return deleted.empty() ? "" : fmt::format("deleted: {}\n", joined(deleted));
  }
  if (arguments.command == Command::snapshot_create && !deleted.empty()) {
    return fmt::format("deleted by the settings of the disk: {}\n", joined(deleted));
  }
  return "";
}

}  // namespace

Result<int> run_snapshot_command(FiberIo& io, const Arguments& arguments) {
  const auto row = std::ranges::find(kRows, arguments.command, &Row::command);
  CHECK(row != kRows.end());
  const ControlRequest request = request_of(arguments, row->verb);
  if (row->verb == ControlVerb::snapshot_clone) TRY(check_reserved(request.to));
  std::unique_ptr<Session> session = TRY(Session::open(
      io, arguments.pool,
      wire::only_looks(request.verb) ? Session::Purpose::look : Session::Purpose::change));
  const std::string answer = TRY(session->ask(request));
  // Without a daemon nobody else would do the jobs before the next opening.
  if (!arguments.background && (row->waits || !session->has_daemon())) {
    TRY(wait_for_jobs(io, *session, numbers_member(answer, "layers"),
                      fmt::format("{} {}", row->doing, arguments.name)));
  }
  TRY(session->close());
  TRY(print(said(arguments, answer)));
  const std::vector<std::string> in_use = in_use_of(answer, arguments.name);
  if (in_use.empty()) return kDone;
  return fail(Errc::busy, "in use, and therefore not deleted: {}; disconnect them and try again",
              joined(in_use));
}

}  // namespace firn::cmd
