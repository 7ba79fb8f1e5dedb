// SPDX-License-Identifier: Apache-2.0
#include "engine/client.h"

#include <cerrno>

#include "io/socket.h"
#include "wire/http.h"

namespace firn::engine {
namespace {

constexpr size_t kChunkBytes = 64 * 1024;
constexpr size_t kBodyBytesMax = 256 * 1024 * 1024;  // A list of a hundred thousand disks is 40 MB.

Result<void> receive_more(Io& io, Socket& socket, std::string& text) {
  const size_t before = text.size();
  text.resize(before + kChunkBytes);
  const Result<size_t> got =
      io.receive(socket, std::as_writable_bytes(std::span(text)).subspan(before));
  text.resize(before + (got ? *got : 0));
  if (!got) return got.error();
  if (*got == 0) {
    return fail(Errc::io, "the daemon ended before it answered; its log may say why");
  }
  return ok;
}

Result<std::string> converse(Io& io, Socket& socket, const wire::ControlCall& call,
                             std::string& answer) {
  const std::string text =
      wire::text_of_request({call.method, call.target, call.body.size(), false}) + call.body;
  const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
  TRY(io.send(socket, Iovec(&slice, 1)));
  std::optional<size_t> head;
  while (!head.has_value()) {
    TRY(receive_more(io, socket, answer));
    head = TRY(wire::head_length(answer));
  }
  const wire::HttpResponse response =
      TRY(wire::parse_response(std::string_view(answer).substr(0, *head)));
  if (response.body_bytes > kBodyBytesMax) {
    return fail(Errc::invalid, "the daemon announces an answer of {} bytes", response.body_bytes);
  }
  const size_t whole = *head + static_cast<size_t>(response.body_bytes);
  while (answer.size() < whole) TRY(receive_more(io, socket, answer));
  std::string body = answer.substr(*head, static_cast<size_t>(response.body_bytes));
  if (response.status != 200) return wire::decode_problem(response.status, body);
  return body;
}

}  // namespace

std::string control_path(const std::string& directory) { return directory + "/firn.sock"; }

Result<std::optional<std::string>> ask_daemon(Io& io, const std::string& directory,
                                              const wire::ControlRequest& request) {
  const Result<std::unique_ptr<Socket>> socket = connect_unix(io, control_path(directory));
  if (!socket) {
    const Error error = socket.error();
    // EINVAL: a path too long for a socket, so nobody can listen there.
    if (error.sys == ENOENT || error.sys == ECONNREFUSED || error.sys == ENOTDIR ||
        error.sys == EINVAL) {
      return std::optional<std::string>();
    }
    return error;
  }
  std::string answer;
  Result<std::string> body = converse(io, **socket, wire::encode_control(request), answer);
  if (body) return std::optional<std::string>(body.take());
  // A daemon that was killed leaves its listening socket to the kernel for a moment, which takes a
  // connection and then drops it. Where nothing can have changed, that is no daemon.
  if (answer.empty() && wire::only_looks(request.verb)) return std::optional<std::string>();
  return body.error();
}

}  // namespace firn::engine
