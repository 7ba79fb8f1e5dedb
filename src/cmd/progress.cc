// SPDX-License-Identifier: Apache-2.0
#include "cmd/progress.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace firn::cmd {
namespace {

constexpr size_t kPendingMax = 64;

size_t columns_of_terminal() {
  ::winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

std::string progress_line(std::string_view what, double percent, size_t columns) {
  const double bounded = std::clamp(percent, 0.0, 100.0);
  const std::string end = fmt::format(" {:5.1f} %", bounded);
  const size_t room =
      columns > what.size() + end.size() + 4 ? columns - what.size() - end.size() - 4 : 0;
  const size_t width = std::min<size_t>(room, 50);
  if (width < 5) return fmt::format("{}{}", what, end);
  const auto full = static_cast<size_t>(bounded / 100.0 * static_cast<double>(width));
  return fmt::format("{} [{}{}]{}", what, std::string(full, '#'), std::string(width - full, '.'),
                     end);
}

Progress::Progress(std::string what)
    : what_(std::move(what)), shown_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (drawn_ >= 0) fmt::print(stderr, "\n");
}

void Progress::show(double percent) {
  const int permille = static_cast<int>(percent * 10);
  if (!shown_ || permille == drawn_) return;
  drawn_ = permille;
  fmt::print(stderr, "\r{}", progress_line(what_, percent, columns_of_terminal()));
  std::fflush(stderr);
}

void Progress::take(std::string_view piece) {
  pending_ += piece;
  while (true) {
    const size_t end = pending_.find(')');
    if (end == std::string::npos) break;
    const size_t start = pending_.rfind('(', end);
    if (start != std::string::npos) show(std::strtod(pending_.c_str() + start + 1, nullptr));
    pending_.erase(0, end + 1);
  }
  if (pending_.size() > kPendingMax) pending_.clear();
}

}  // namespace firn::cmd
