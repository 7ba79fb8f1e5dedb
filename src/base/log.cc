// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <atomic>
#include <cstdio>

namespace firn {
namespace {

void to_stderr(LogLevel level, std::string_view sentence) {
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  if (level == LogLevel::debug) return;
  std::fprintf(stderr, "firn: %s: %.*s\n", kNames[static_cast<size_t>(level)],
               static_cast<int>(sentence.size()), sentence.data());
}
std::atomic<LogSink> sink{to_stderr};

}  // namespace

void set_log_sink(LogSink replacement) { sink = replacement != nullptr ? replacement : to_stderr; }
void log_text(LogLevel level, std::string_view sentence) { sink.load()(level, sentence); }

}  // namespace firn
