// SPDX-License-Identifier: Apache-2.0
// firn changes begin | list | apps | end | off
#include "cmd/commands.h"
#include "cmd/print.h"
#include "cmd/session.h"

namespace firn::cmd {
namespace {

using wire::ControlRequest;
using wire::ControlVerb;

ControlVerb verb_of(Command command) {
  if (command == Command::changes_begin) return ControlVerb::changes_begin;
  if (command == Command::changes_list) return ControlVerb::changes_list;
  if (command == Command::changes_end) return ControlVerb::changes_end;
  if (command == Command::changes_off) return ControlVerb::changes_off;
  return ControlVerb::changes_apps;
}

// For people and pipes: page after page. With --json one page, whose next_offset says what is left.
Result<void> list_all(Session& session, ControlRequest request, uint64_t limit) {
  constexpr uint64_t kPage = 16384;
  uint64_t left = limit == 0 ? UINT64_MAX : limit;
  do {
    request.limit = std::min(kPage, left);
    const std::string answer = TRY(session.ask(request));
    TRY(print(text_of_changes(answer)));
    left -= *request.limit;
    request.offset = number_member(answer, "next_offset");
  } while (request.offset != 0 && left > 0);
  return ok;
}

}  // namespace

Result<int> run_changes_command(FiberIo& io, const Arguments& arguments) {
  ControlRequest request;
  request.verb = verb_of(arguments.command);
  request.name = arguments.name;
  request.app = arguments.app;
  request.snapshot = arguments.snapshot;
  request.since = arguments.since;
  request.offset = arguments.offset;
  request.limit = arguments.limit.value_or(0);
  const bool looks = request.verb == ControlVerb::changes_list || wire::only_looks(request.verb);
  std::unique_ptr<Session> session = TRY(
      Session::open(io, arguments.pool, looks ? Session::Purpose::look : Session::Purpose::change));
  if (request.verb == ControlVerb::changes_list && !arguments.json) {
    TRY(list_all(*session, request, arguments.limit.value_or(0)));
    TRY(session->close());
    return kDone;
  }
  const std::string answer = TRY(session->ask(request));
  TRY(session->close());
  if (arguments.json) {
    TRY(print(indented(answer)));
  } else if (request.verb == ControlVerb::changes_begin) {
    TRY(print(text_member(answer, "change_id") + "\n"));
  } else if (request.verb == ControlVerb::changes_apps) {
    TRY(print(table_of_applications(answer)));
  }
  return kDone;
}

}  // namespace firn::cmd
