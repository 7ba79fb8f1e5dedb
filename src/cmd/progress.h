// SPDX-License-Identifier: Apache-2.0
// A progress bar on standard error, when that is a terminal; nothing in a pipe.
#pragma once

#include <string>
#include <string_view>

namespace firn::cmd {

class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();  // Leaves the terminal on a fresh line.
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Output of `qemu-img -p`, in pieces: "    (12.34/100%)\r".
  void take(std::string_view piece);
  void show(double percent);
  bool shown() const { return shown_; }

 private:
  std::string what_;
  std::string pending_;
  int drawn_ = -1;  // In permille.
  bool shown_;
};

// Pure. `columns` is the width of the terminal.
std::string progress_line(std::string_view what, double percent, size_t columns);

}  // namespace firn::cmd
