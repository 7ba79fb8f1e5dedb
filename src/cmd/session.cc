// SPDX-License-Identifier: Apache-2.0
#include "cmd/session.h"

#include "base/check.h"
#include "cmd/print.h"
#include "engine/client.h"
#include "serve/nbd_server.h"
#include "wire/text.h"

namespace firn::cmd {

using wire::ControlRequest;
using wire::ControlVerb;

Result<std::unique_ptr<Session>> Session::open(FiberIo& io, const std::string& directory,
                                               Purpose purpose) {
  std::unique_ptr<Session> session(new Session(io, directory));
  const ControlRequest hello{.verb = ControlVerb::pool_info};
  const std::optional<std::string> info = TRY(engine::ask_daemon(io, directory, hello));
  if (info.has_value()) return session;
  store::PoolSettings settings;
  settings.background = false;  // A command is over before it would be of use.
  settings.read_only = purpose == Purpose::look;
  session->engine_ = TRY(engine::Engine::open(io, directory, settings));
  return session;
}

Result<void> check_reserved(std::string_view name) {
  if (!engine::is_import(name)) return ok;
  return fail(Errc::invalid,
              "disk name \"{}\": the suffix {} is for imports under way; choose another", name,
              engine::kImportSuffix);
}

Session::~Session() {
  // A command that failed half way still gives the pool back in order; its own error is the one to
  // tell.
  if (engine_ != nullptr) static_cast<void>(close().has_value());
}

Result<void> Session::close() {
  end_socket();
  if (engine_ == nullptr) return ok;
  const std::unique_ptr<engine::Engine> engine = std::move(engine_);
  return engine->close(io_);
}

Result<std::string> Session::ask(const ControlRequest& request) {
  TRY(wire::check_control_name(request.verb, request.name));
  if (!request.to.empty()) TRY(wire::check_disk_name(request.to));
  if (!request.base.empty()) TRY(wire::check_any_name(request.base));
  if (engine_ == nullptr) {
    const std::optional<std::string> answer = TRY(engine::ask_daemon(io_, directory_, request));
    if (answer.has_value()) return *answer;
    return fail(Errc::io, "pool {}: its daemon ended meanwhile; try again", directory_);
  }
  // Through the same door as a request from the wire: the same checks, the same sentences.
  const wire::ControlCall call = wire::encode_control(request);
  const ControlRequest decoded = TRY(wire::decode_control(call.method, call.target, call.body));
  return engine_->answer(io_, decoded, engine::Service());
}

Result<void> Session::sweep() {
  CHECK(engine_ != nullptr, "a daemon sweeps by itself");
  return engine_->disks().sweep(io_);
}

Result<std::string> Session::socket_of(const std::string& disk) {
  if (engine_ == nullptr) {
    const std::string answer = TRY(ask({.verb = ControlVerb::disk_socket, .name = disk}));
    return text_member(answer, "socket");
  }
  CHECK(export_ == nullptr, "one disk at a time");
  TRY(wire::check_any_name(disk));
  export_ = TRY(engine::LoneExport::begin(io_, directory_, engine_->disks(), disk));
  return export_->path();
}

Result<void> Session::converse(const std::string& disk, std::unique_ptr<Socket> client) {
  CHECK(engine_ != nullptr, "a daemon has its own connections");
  TRY(wire::check_any_name(disk));
  TRY(engine::find_any(engine_->disks(), disk));
  engine::LoneExports exports(engine_->disks(), disk);
  engine::ServeLog log;
  serve::NbdServer server(io_, exports, log, {});
  server.converse(std::move(client));
  server.drain(Duration::zero());
  return ok;
}

void Session::end_socket() {
  if (export_ != nullptr) export_->end(io_);
  export_.reset();
}

}  // namespace firn::cmd
