// SPDX-License-Identifier: Apache-2.0
// firn disk create | list | info | resize | rename | delete | set
#include "cmd/commands.h"
#include "cmd/print.h"
#include "cmd/session.h"

namespace firn::cmd {
namespace {

using wire::ControlRequest;
using wire::ControlVerb;

ControlVerb verb_of(Command command) {
  switch (command) {
    case Command::disk_create:
      return ControlVerb::disk_create;
    case Command::disk_info:
      return ControlVerb::disk_info;
    case Command::disk_resize:
      return ControlVerb::disk_resize;
    case Command::disk_rename:
      return ControlVerb::disk_rename;
    case Command::disk_delete:
      return ControlVerb::disk_delete;
    case Command::disk_set:
      return ControlVerb::disk_set;
    case Command::disk_list:
    case Command::disk_import:
    case Command::disk_export:
    case Command::pool_create:
    case Command::pool_info:
    case Command::pool_check:
    case Command::pool_grow:
    case Command::serve:
    case Command::nbd:
    case Command::changes_begin:
    case Command::changes_list:
    case Command::changes_apps:
    case Command::changes_end:
    case Command::changes_off:
      break;
  }
  return ControlVerb::disk_list;
}

Result<void> check_reserved(std::string_view name) {
  if (!engine::is_import(name)) return ok;
  return fail(Errc::invalid,
              "disk name \"{}\": the suffix {} is for imports under way; choose another", name,
              engine::kImportSuffix);
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
  }
  return kDone;
}

}  // namespace firn::cmd
