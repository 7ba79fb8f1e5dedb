// SPDX-License-Identifier: Apache-2.0
// firn disk create | list | info | resize | rename | set. Those that leave jobs: snapshot.cc.
#include <algorithm>
#include <array>

#include "base/check.h"
#include "cmd/commands.h"
#include "cmd/print.h"
#include "cmd/session.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

using wire::ControlRequest;
using wire::ControlVerb;

struct Row {
  Command command;
  ControlVerb verb;
};
constexpr std::array<Row, 7> kRows{{
    {Command::disk_create, ControlVerb::disk_create},
    {Command::disk_list, ControlVerb::disk_list},
    {Command::disk_info, ControlVerb::disk_info},
    {Command::disk_resize, ControlVerb::disk_resize},
    {Command::disk_rename, ControlVerb::disk_rename},
    {Command::disk_set, ControlVerb::disk_set},
    {Command::disk_shrink, ControlVerb::disk_shrink},
}};

ControlVerb verb_of(Command command) {
  const auto row = std::ranges::find(kRows, command, &Row::command);
  CHECK(row != kRows.end());
  return row->verb;
}

}  // namespace

Result<int> run_disk_command(FiberIo& io, const Arguments& arguments) {
  ControlRequest request;
  request.verb = verb_of(arguments.command);
  request.name = arguments.name;
  request.to = arguments.to;
  request.bytes = arguments.bytes;
  request.settings = arguments.settings;
  if (request.verb == ControlVerb::disk_create) TRY(check_reserved(request.name));
  if (request.verb == ControlVerb::disk_rename) TRY(check_reserved(request.to));
  std::unique_ptr<Session> session = TRY(Session::open(
      io, arguments.pool,
      wire::only_looks(request.verb) ? Session::Purpose::look : Session::Purpose::change));
  const std::string answer = TRY(session->ask(request));
  TRY(session->close());
  if (arguments.json) {
    TRY(print(indented(answer)));
  } else if (request.verb == ControlVerb::disk_list) {
    TRY(print(table_of_disks(answer)));
  } else if (request.verb == ControlVerb::disk_info) {
    TRY(print(text_of_disk(answer)));
  } else if (request.verb == ControlVerb::disk_shrink) {
    TRY(print(fmt::format("{} came back to the pool, {} to the host; {} moved\n",
                          wire::text_of_size(number_member(answer, "emptied_bytes")),
                          wire::text_of_size(number_member(answer, "returned_bytes")),
                          wire::text_of_size(number_member(answer, "moved_bytes")))));
  }
  return kDone;
}

}  // namespace firn::cmd
