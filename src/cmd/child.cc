// SPDX-License-Identifier: Apache-2.0
// Notes on the design. Two pipes and a signalfd are polled on a helper thread, so that the shard
// goes on serving the child's own NBD connection meanwhile. The child's end is the end of both
// pipes, then waitpid.
#include "cmd/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "wire/text.h"

namespace firn::cmd {
namespace {

constexpr size_t kErrorBytesMax = 4096;

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { close(); }
  int get() const { return fd_; }
  void set(int fd) {
    close();
    fd_ = fd;
  }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

struct Pipe {
  Fd read;
  Fd write;
};

Result<void> make_pipe(Pipe& pipe) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  pipe.read.set(ends[0]);
  pipe.write.set(ends[1]);
  return ok;
}

sigset_t interrupts() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return set;
}

void limit(int resource, uint64_t value) {
  const ::rlimit both{static_cast<rlim_t>(value), static_cast<rlim_t>(value)};
  ::setrlimit(static_cast<__rlimit_resource>(resource), &both);
}

// In the child, between fork and exec: only calls that are safe there. `parent` may be gone
// already.
[[noreturn]] void become(char* const* command, const ChildLimits& limits, const Pipe& out,
                         const Pipe& err, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  limit(RLIMIT_AS, limits.memory_bytes);
  limit(RLIMIT_CPU, limits.cpu_seconds);
  limit(RLIMIT_CORE, 0);
  // A group of its own: Ctrl-C comes to us alone, and we end it.
  ::setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0 || ::dup2(null, 0) < 0 || ::dup2(out.write.get(), 1) < 0 ||
      ::dup2(err.write.get(), 2) < 0) {
    ::_exit(127);
  }
  ::execvp(command[0], command);
  const char text[] = "not found; install the package qemu-utils\n";
  [[maybe_unused]] const ssize_t told = ::write(2, text, sizeof(text) - 1);
  ::_exit(127);
}

// Reads what is there. False at the end.
bool drain(int fd, const std::function<void(std::string_view)>& consume) {
  std::array<char, 4096> room{};
  const ssize_t got = ::read(fd, room.data(), room.size());
  if (got > 0) consume(std::string_view(room.data(), static_cast<size_t>(got)));
  return got > 0 || (got < 0 && errno == EINTR);
}

// The last line that says something: that is where programs put the reason.
std::string reason_of(std::string_view errors) {
  while (!errors.empty() && (errors.back() == '\n' || errors.back() == ' '))
    errors.remove_suffix(1);
  const size_t start = errors.rfind('\n');
  return wire::printable(start == std::string_view::npos ? errors : errors.substr(start + 1), 400);
}

Result<ChildEnd> outcome(int status, bool interrupted, const std::string& program, ChildEnd end) {
  if (interrupted) return fail(Errc::cancelled, "interrupted");
  if (WIFEXITED(status)) {
    end.status = WEXITSTATUS(status);
    return end;
  }
  const int signal = WTERMSIG(status);
  const bool limit = signal == SIGXCPU || signal == SIGKILL;
  return fail(Errc::io, "{} ended by signal {}{}", program, signal,
              limit ? ": it reached its limit of CPU time, or was killed" : "");
}

void keep(ChildEnd& end, std::string_view text) {
  end.first_errors +=
      text.substr(0, kErrorBytesMax - std::min(kErrorBytesMax, end.first_errors.size()));
  end.last_errors += text;
  const size_t size = end.last_errors.size();
  if (size > kErrorBytesMax) end.last_errors.erase(0, size - kErrorBytesMax);
}

}  // namespace

Result<ChildEnd> run_child(FiberIo& io, const std::vector<std::string>& command,
                           const ChildLimits& limits,
                           const std::function<void(std::string_view)>& on_output) {
  Pipe out;
  Pipe err;
  TRY(make_pipe(out));
  TRY(make_pipe(err));
  const sigset_t set = interrupts();
  const Fd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals.get() < 0) return fail_errno(errno, "cannot make a signalfd");
  std::vector<std::string> words = command;
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "cannot start {}", command[0]);
  if (child == 0) become(pointers.data(), limits, out, err, parent);
  out.write.close();
  err.write.close();
  ChildEnd end;
  bool interrupted = false;
  const auto keep_errors = [&end](std::string_view text) { keep(end, text); };
  while (out.read.get() >= 0 || err.read.get() >= 0) {
    // A negative descriptor is one that poll leaves out.
    std::array<::pollfd, 3> all{{{out.read.get(), POLLIN, 0},
                                 {err.read.get(), POLLIN, 0},
                                 {interrupted ? -1 : signals.get(), POLLIN, 0}}};
    io.offload([&all] { ::poll(all.data(), all.size(), -1); });
    if (all[0].revents != 0 && !drain(out.read.get(), on_output)) out.read.close();
    if (all[1].revents != 0 && !drain(err.read.get(), keep_errors)) err.read.close();
    if (all[2].revents != 0) {
      interrupted = true;
      ::kill(child, SIGKILL);
    }
  }
  int status = 0;
  io.offload([&] {
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  });
  return outcome(status, interrupted, command[0], std::move(end));
}

Result<void> run_child_well(FiberIo& io, const std::vector<std::string>& command,
                            const ChildLimits& limits,
                            const std::function<void(std::string_view)>& on_output) {
  const ChildEnd end = TRY(run_child(io, command, limits, on_output));
  if (end.status == 0) return ok;
  const std::string reason = reason_of(end.last_errors);
  return fail(Errc::io, "{}", reason.starts_with(command[0]) ? reason : command[0] + ": " + reason);
}

}  // namespace firn::cmd
