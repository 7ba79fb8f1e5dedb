// SPDX-License-Identifier: Apache-2.0
// firn pool create | info | check | grow
#include <unistd.h>

#include <cerrno>

#include "cmd/commands.h"
#include "cmd/print.h"
#include "cmd/session.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

using wire::ControlRequest;
using wire::ControlVerb;

Result<int> create(FiberIo& io, const Arguments& arguments) {
  TRY(store::Pool::create(io, arguments.pool, arguments.shape));
  std::unique_ptr<Session> session = TRY(Session::open(io, arguments.pool, Session::Purpose::look));
  const std::string info = TRY(session->ask({.verb = ControlVerb::pool_info}));
  TRY(session->close());
  if (arguments.json) {
    TRY(print(indented(info)));
  } else {
    TRY(print(fmt::format(
        "pool {} of {} is made; next: firn --pool {} disk create NAME --size 10G\n", arguments.pool,
        wire::text_of_size(number_member(info, "capacity_bytes")), arguments.pool)));
  }
  return kDone;
}

ControlRequest request_of(const Arguments& arguments) {
  ControlRequest request;
  request.bytes = arguments.bytes;
  request.repair = arguments.repair;
  request.verb = ControlVerb::pool_info;
  if (arguments.command == Command::pool_check) request.verb = ControlVerb::pool_check;
  if (arguments.command == Command::pool_grow) request.verb = ControlVerb::pool_grow;
  return request;
}

}  // namespace

Result<void> print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail_errno(errno, "cannot write to standard output");
    text.remove_prefix(static_cast<size_t>(written));
  }
  return ok;
}

Result<int> run_pool_command(FiberIo& io, const Arguments& arguments) {
  if (arguments.command == Command::pool_create) return create(io, arguments);
  const bool changes = arguments.command == Command::pool_grow || arguments.repair;
  std::unique_ptr<Session> session = TRY(Session::open(
      io, arguments.pool, changes ? Session::Purpose::change : Session::Purpose::look));
  if (arguments.repair && session->has_daemon()) {
    return fail(Errc::busy,
                "pool {} is being served; --repair needs it for itself: stop the daemon first",
                arguments.pool);
  }
  const std::string answer = TRY(session->ask(request_of(arguments)));
  TRY(session->close());
  const bool check = arguments.command == Command::pool_check;
  if (arguments.json) {
    TRY(print(indented(answer)));
  } else if (check) {
    TRY(print(text_of_check(answer)));
  } else if (arguments.command == Command::pool_info) {
    TRY(print(text_of_pool(answer)));
  }
  return check && !is_clean(answer) ? kFailed : kDone;
}

}  // namespace firn::cmd
