// SPDX-License-Identifier: Apache-2.0
// Notes on the design. Two NBD servers: `local_` for Unix sockets, which file permissions guard,
// and `remote_` for TCP, with TLS as configured. One directory of vhost-user sockets, looked at
// again after whatever may have changed a disk. Two HTTP servers: the control socket, which may
// change things, and the web port, which only looks.
//
// Order of the end: no new requests of the control plane; NBD drains; one-off exports end; the
// sockets' paths go while the pool is still locked, so that they are never a successor's; the pool
// is written home.
#include "engine/daemon.h"

#include <pthread.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <list>

#include "engine/client.h"
#include "engine/engine.h"
#include "engine/exports.h"
#include "engine/http_server.h"
#include "engine/lone_export.h"
#include "engine/metrics.h"
#include "engine/systemd.h"
#include "engine/version.h"
#include "io/socket.h"
#include "serve/nbd_server.h"
#include "serve/tls.h"

namespace firn::engine {
namespace {

constexpr Duration kDrain = std::chrono::seconds(10);
constexpr Duration kLoneTick = std::chrono::milliseconds(100);  // While a one-off export exists.
constexpr Duration kLonePatience = std::chrono::seconds(30);    // Until somebody must have come.
constexpr size_t kLoneMax = 64;
constexpr uint32_t kPrivate = 0600;

sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  return set;
}

HttpAnswer problem_of(int status, Error error) {
  return {status, "application/problem+json",
          wire::encode_problem(status, error.code, text_of(error))};
}

class Daemon {
 public:
  Daemon(FiberIo& io, const DaemonSettings& settings) : io_(io), settings_(settings), group_(io) {}

  Result<void> start();
  Result<void> wait_for_signal();
  Result<void> stop();

 private:
  Result<void> start_nbd();
  Result<void> start_tls(serve::NbdServer::Settings& remote);
  Result<void> start_vhost();
  Result<void> start_control();
  Result<void> listen_nbd(const std::string& address, uint32_t mode);
  void adopt_nbd(std::unique_ptr<Socket> socket);
  void announce();

  HttpAnswer answer(Io& io, const wire::HttpRequest& request, std::string_view body,
                    bool may_change);
  Result<std::string> answer_api(Io& io, const wire::ControlRequest& request);
  Result<std::string> open_lone(Io& io, const std::string& disk);
  void keep_lone(Io& io, std::list<std::unique_ptr<LoneExport>>::iterator place);
  std::string metrics() const;
  Service service() const;

  FiberIo& io_;
  const DaemonSettings& settings_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<DiskExports> exports_;
  ServeLog log_;
  std::unique_ptr<serve::TlsContext> tls_;
  std::unique_ptr<serve::NbdServer> local_;
  std::unique_ptr<serve::NbdServer> remote_;
  std::unique_ptr<VhostDisks> vhost_;  // When wanted.
  std::unique_ptr<Socket> control_socket_;  // Until control_ has it.
  std::unique_ptr<HttpServer> control_;
  std::unique_ptr<HttpServer> web_;
  std::list<std::unique_ptr<LoneExport>> lone_;
  std::vector<std::string> listeners_;  // Of NBD, for people.
  std::vector<std::string> others_;
  std::vector<std::string> paths_;  // Ours to remove.
  bool stopping_ = false;
  Group group_;  // Last: its fibers use everything above.
};

// ----- the beginning

Result<void> Daemon::start() {
  engine_ = TRY(Engine::open(io_, settings_.directory, settings_.pool));
  remove_stale_sockets(settings_.directory);
  engine_->instant().begin(io_);
  exports_ = std::make_unique<DiskExports>(engine_->disks(), &engine_->paths());
  // Bound before anything else and answered last: whoever finds an NBD socket of ours finds this
  // one too, and takes nobody's absence for a pool that is free.
  control_socket_ = TRY(listen_unix(control_path(settings_.directory), kPrivate));
  paths_.push_back(control_path(settings_.directory));
  TRY(start_nbd());
  TRY(start_vhost());
  TRY(start_control());
  announce();
  return ok;
}

Result<void> Daemon::start_tls(serve::NbdServer::Settings& remote) {
  if (settings_.tls_certificates.empty() && settings_.tls_psk.empty()) return ok;
  serve::TlsFiles files;
  files.directory = settings_.tls_certificates;
  files.psk_file = settings_.tls_psk;
  // A ca-cert.pem beside the server's own is what says that clients must show a certificate.
  files.verify_clients = std::filesystem::exists(files.directory + "/ca-cert.pem");
  tls_ = TRY(serve::TlsContext::load(io_, files));
  remote.tls = tls_.get();
  remote.tls_mode = settings_.tls_required ? serve::TlsMode::required : serve::TlsMode::allowed;
  return ok;
}

Result<void> Daemon::start_nbd() {
  serve::NbdServer::Settings remote;
  TRY(start_tls(remote));
  local_ = std::make_unique<serve::NbdServer>(io_, *exports_, log_, serve::NbdServer::Settings());
  remote_ = std::make_unique<serve::NbdServer>(io_, *exports_, log_, remote);
  const std::string own = settings_.directory + "/nbd.sock";
  bool own_is_asked_for = false;
  for (const std::string& address : settings_.nbd) {
    if (address.starts_with("unix:")) {
      std::error_code none;
      own_is_asked_for |= std::filesystem::weakly_canonical(address.substr(5), none) ==
                          std::filesystem::weakly_canonical(own, none);
    }
    TRY(listen_nbd(address, settings_.nbd_mode));
  }
  if (!own_is_asked_for) TRY(listen_nbd("unix:" + own, kPrivate));
  std::vector<HandedOver> handed = TRY(take_handed_over());
  for (HandedOver& each : handed) adopt_nbd(std::move(each.socket));
  return ok;
}

Result<void> Daemon::listen_nbd(const std::string& address, uint32_t mode) {
  std::unique_ptr<Socket> socket = TRY(serve::listen_at(address, mode));
  if (address.starts_with("unix:")) {
    paths_.push_back(address.substr(5));
    listeners_.push_back(address);
    local_->listen(std::move(socket), address);
    return ok;
  }
  // The port that the kernel chose, where 0 was asked for.
  const std::string name =
      fmt::format("{}:{}", address.substr(0, address.rfind(':')), local_port(*socket));
  listeners_.push_back(name);
  remote_->listen(std::move(socket), name);
  return ok;
}

void Daemon::adopt_nbd(std::unique_ptr<Socket> socket) {
  const uint16_t port = local_port(*socket);
  const std::string name =
      port == 0 ? std::string("unix:systemd") : fmt::format("tcp:systemd:{}", port);
  listeners_.push_back(name);
  (port == 0 ? local_ : remote_)->listen(std::move(socket), name);
}

Result<void> Daemon::start_vhost() {
  if (settings_.vhost.directory.empty()) return ok;
  vhost_ = TRY(VhostDisks::begin(io_, *exports_, log_, settings_.vhost));
  others_.push_back("vhost-user " + settings_.vhost.directory);
  return ok;
}

Result<void> Daemon::start_control() {
  const auto handler = [this](bool may_change) {
    return [this, may_change](Io& io, const wire::HttpRequest& request, std::string_view body) {
      return answer(io, request, body, may_change);
    };
  };
  control_ = std::make_unique<HttpServer>(HttpServer::Limits(), handler(true));
  web_ = std::make_unique<HttpServer>(HttpServer::Limits(), handler(false));
  const std::string path = control_path(settings_.directory);
  others_.push_back("control " + path);
  control_->listen(io_, group_, std::move(control_socket_), path);
  if (settings_.http.empty()) return ok;
  std::unique_ptr<Socket> web = TRY(listen_tcp(settings_.http));
  const std::string where =
      fmt::format("http://{}:{}/metrics", settings_.http.substr(0, settings_.http.rfind(':')),
                  local_port(*web));
  others_.push_back(where);
  web_->listen(io_, group_, std::move(web), where);
  return ok;
}

void Daemon::announce() {
  std::string where;
  for (const std::string& each : listeners_) where += "  nbd " + each;
  for (const std::string& each : others_) where += "  " + each;
  const size_t disks = engine_->disks().list().size();
  const std::string line =
      fmt::format("serving {} ({} disks):{}\n", settings_.directory, disks, where);
  // A closed standard output is no reason not to serve.
  [[maybe_unused]] const ssize_t written = ::write(STDOUT_FILENO, line.data(), line.size());
  log_event(LogLevel::info, "serving",
            {{"pool", settings_.directory},
             {"version", std::string(version())},
             {"where", where.substr(2)}});
  tell_systemd(fmt::format("READY=1\nSTATUS=Serving {} disks of {}", disks, settings_.directory));
}

// ----- requests

HttpAnswer Daemon::answer(Io& io, const wire::HttpRequest& request, std::string_view body,
                          bool may_change) {
  if (request.method == "GET" && request.target == "/metrics") {
    return {200, "text/plain; version=0.0.4; charset=utf-8", metrics()};
  }
  if (request.method == "GET" && request.target == "/healthz") {
    const bool fenced = engine_->pool().info().fenced;
    return {fenced ? 503 : 200, "text/plain", fenced ? "fenced\n" : "ok\n"};
  }
  const Result<wire::ControlRequest> decoded =
      wire::decode_control(request.method, request.target, body);
  if (!decoded) {
    const Error error = decoded.error();
    const bool wrong_method = error.code == Errc::unsupported;
    return problem_of(wrong_method ? 405 : wire::status_of(error.code), error);
  }
  if (!may_change && !wire::only_looks(decoded->verb)) {
    return problem_of(403, fail(Errc::unsupported, "this port only looks; change things through {}",
                                control_path(settings_.directory)));
  }
  const Result<std::string> json = answer_api(io, *decoded);
  if (!json) return problem_of(wire::status_of(json.error().code), json.error());
  return {200, "application/json", *json};
}

Result<std::string> Daemon::answer_api(Io& io, const wire::ControlRequest& request) {
  if (request.repair) {
    return fail(Errc::busy, "pool {} is being served; stop the daemon before you repair",
                settings_.directory);
  }
  if (request.verb == wire::ControlVerb::disk_socket) return open_lone(io, request.name);
  Result<std::string> answer = engine_->answer(io, request, service());
  if (vhost_ != nullptr && !stopping_ && !wire::only_looks(request.verb)) vhost_->refresh();
  return answer;
}

Result<std::string> Daemon::open_lone(Io& io, const std::string& disk) {
  if (stopping_) return fail(Errc::cancelled, "the daemon is ending");
  if (lone_.size() >= kLoneMax) {
    return fail(Errc::busy, "{} sockets for single disks are open already; try again later",
                kLoneMax);
  }
  std::unique_ptr<LoneExport> made =
      TRY(LoneExport::begin(io, settings_.directory, engine_->disks(), disk,
                            &engine_->paths()));
  std::string path = made->path();
  lone_.push_back(std::move(made));
  const auto place = std::prev(lone_.end());
  io_.spawn(group_, [this, place] { keep_lone(io_, place); });
  return answer_socket(path);
}

void Daemon::keep_lone(Io& io, std::list<std::unique_ptr<LoneExport>>::iterator place) {
  LoneExport& lone = **place;
  const Time late = io.now() + kLonePatience;
  while (!stopping_ && !lone.is_over() && (lone.was_used() || io.now() < late)) io.sleep(kLoneTick);
  lone.end(io);
  lone_.erase(place);
}

Service Daemon::service() const {
  uint64_t connections = local_->counters().connections + remote_->counters().connections;
  if (vhost_ != nullptr) {
    for (const auto& [disk, counters] : vhost_->server().counters()) {
      connections += counters.connections;
    }
  }
  return {listeners_, connections};
}

std::string Daemon::metrics() const {
  MetricsText text;
  add_build(text);
  add_pool(text, engine_->pool().info());
  add_disks(text, engine_->disks().list());
  add_tracking(text, engine_->disks().tracking().tracked());
  add_fetched(text, engine_->instant().fetched());
  add_jobs(text, engine_->disks().jobs(), engine_->disks().job_counters());
  add_instant(text, engine_->instant().all());
  add_paths(text, engine_->paths().parts());
  const NbdMetrics servers[] = {{"unix", local_.get()}, {"tcp", remote_.get()}};
  add_nbd(text, servers);
  if (vhost_ != nullptr) add_vhost(text, vhost_->server());
  add_io(text, io_.counters());
  text.family("firn_http_requests_total", MetricType::counter,
              "Requests answered by the control plane.");
  text.sample({{"port", "control"}}, control_->requests());
  text.sample({{"port", "web"}}, web_->requests());
  add_process(text);
  return text.take();
}

// ----- the end

Result<void> Daemon::wait_for_signal() {
  const sigset_t set = ending_signals();
  const int fd = ::signalfd(-1, &set, SFD_CLOEXEC);
  if (fd < 0) return fail_errno(errno, "cannot make a signalfd");
  const Result<void> waited = io_.wait_readable(fd);
  ::signalfd_siginfo taken{};
  [[maybe_unused]] const ssize_t got = ::read(fd, &taken, sizeof(taken));
  ::close(fd);
  log_event(LogLevel::info, "ending", {{"signal", fmt::format("{}", taken.ssi_signo)}});
  // The first one is heeded here; the next one ends the process as signals do.
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return waited;
}

Result<void> Daemon::stop() {
  stopping_ = true;
  tell_systemd("STOPPING=1\nSTATUS=Answering what is in flight");
  if (engine_ != nullptr) engine_->paths().lift(io_);
  if (control_ != nullptr) control_->stop(io_);
  if (web_ != nullptr) web_->stop(io_);
  if (vhost_ != nullptr) vhost_->end(kDrain);
  if (local_ != nullptr) local_->drain(kDrain);
  if (remote_ != nullptr) remote_->drain(kDrain);
  group_.wait();
  if (engine_ == nullptr) return ok;
  engine_->instant().end(io_);
  for (const std::string& path : paths_) ::unlink(path.c_str());
  vhost_.reset();
  local_.reset();
  remote_.reset();
  return engine_->close(io_);
}

}  // namespace

void block_signals() {
  const sigset_t set = ending_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Result<void> serve_pool(FiberIo& io, const DaemonSettings& settings) {
  LogSettings log = settings.log;
  log.journal = stderr_is_journal();
  set_log(log);
  Daemon daemon(io, settings);
  const Result<void> started = daemon.start();
  Result<void> served;
  if (started) served = daemon.wait_for_signal();
  const Result<void> stopped = daemon.stop();
  if (!started) return started.error();
  if (!served) return served.error();
  if (!stopped) return stopped.error();
  log_event(LogLevel::info, "ended", {{"pool", settings.directory}});
  return ok;
}

}  // namespace firn::engine
