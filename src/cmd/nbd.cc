// SPDX-License-Identifier: Apache-2.0
// firn nbd DISK --stdio: for clients that start their server. With a daemon it is a pipe to it.
#include <unistd.h>

#include <vector>

#include "base/units.h"
#include "cmd/commands.h"
#include "cmd/session.h"
#include "io/socket.h"

namespace firn::cmd {
namespace {

constexpr size_t kChunkBytes = 256 * kKiB;

// Until either end has ended; then both are ended.
void copy(Io& io, Socket& from, Socket& to) {
  std::vector<std::byte> room(kChunkBytes);
  while (true) {
    const Result<size_t> got = io.receive(from, room);
    if (!got || *got == 0) break;
    const ::iovec slice = slice_of(View(room).first(*got));
    if (!io.send(to, Iovec(&slice, 1))) break;
  }
  io.shutdown(to);
  io.shutdown(from);
}

}  // namespace

Result<int> run_nbd(FiberIo& io, const Arguments& arguments) {
  std::unique_ptr<Session> session =
      TRY(Session::open(io, arguments.pool, Session::Purpose::change));
  std::unique_ptr<Socket> client = TRY(adopt_pair(STDIN_FILENO, STDOUT_FILENO, "stdio"));
  if (!session->has_daemon()) {
    TRY(session->converse(arguments.name, std::move(client)));
    TRY(session->close());
    return kDone;
  }
  const std::string path = TRY(session->socket_of(arguments.name));
  const std::unique_ptr<Socket> server = TRY(connect_unix(io, path));
  {
    Group both(io);
    io.spawn(both, [&] { copy(io, *client, *server); });
    io.spawn(both, [&] { copy(io, *server, *client); });
  }
  TRY(session->close());
  return kDone;
}

}  // namespace firn::cmd
