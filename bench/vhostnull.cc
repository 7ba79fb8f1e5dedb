// SPDX-License-Identifier: Apache-2.0
// vhostnull: firn's vhost-user server over a disk that does nothing: what the rings cost alone.
//
//   vhostnull SOCKET        until SIGTERM
#include <fmt/core.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>

#include "io/fiber_io.h"
#include "io/socket.h"
#include "serve/vhost_server.h"

namespace {

using namespace firn;

class Nothing final : public BlockDevice {
 public:
  Geometry geometry() const override { return {.bytes = 1 * kTiB}; }
  Result<void> read(Io&, Range, Iovec) override { return ok; }
  Result<void> write(Io&, Range, Iovec, WriteFlags) override { return ok; }
  Result<void> zero(Io&, Range, ZeroFlags) override { return ok; }
  Result<void> discard(Io&, Range) override { return ok; }
  Result<void> flush(Io&) override { return ok; }
  Result<void> map(Io&, Range, ExtentSink&) override { return ok; }
};

class OneDisk final : public serve::ExportSource {
 public:
  Result<serve::Export> find(Io&, std::string_view) override {
    serve::Export found;
    found.name = "null";
    found.device = std::make_shared<Nothing>();
    return Result<serve::Export>(std::move(found));
  }
  std::vector<serve::ExportEntry> list(Io&) override { return {{"null", ""}}; }
};

class Quiet final : public serve::Log {
 public:
  void line(serve::Severity severity, std::string_view event, std::string_view object,
            std::string_view why) override {
    if (severity == serve::Severity::info) return;
    fmt::print(stderr, "{} {}: {}\n", event, object, why);
  }
};

Result<void> serve_until_told(FiberIo& io, const std::string& path) {
  OneDisk disk;
  Quiet log;
  serve::VhostServer server(io, disk, log);
  server.offer("null", TRY(listen_unix(path)));
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  const int fd = ::signalfd(-1, &set, SFD_CLOEXEC);
  const Result<void> waited = io.wait_readable(fd);
  ::close(fd);
  ::unlink(path.c_str());
  server.drain(std::chrono::seconds(1));
  return waited;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    fmt::print(stderr, "usage: vhostnull SOCKET\n");
    return 2;
  }
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  Result<std::unique_ptr<FiberIo>> io = FiberIo::make();
  Result<void> served;
  if (io) (*io)->run([&] { served = serve_until_told(**io, arguments[1]); });
  if (io && served) return 0;
  fmt::print(stderr, "vhostnull: {}\n", text_of(io ? served.error() : io.error()));
  return 1;
}
