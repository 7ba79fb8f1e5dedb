// SPDX-License-Identifier: Apache-2.0
// Structured logs: a level, a sentence, and one sink for the process. The default sink writes to
// stderr; the daemon installs its own. Callable from any thread.
#pragma once

#include <fmt/core.h>

#include <string_view>
#include <utility>

namespace firn {

enum class LogLevel : unsigned char { debug = 0, info = 1, warning = 2, error = 3 };
using LogSink = void (*)(LogLevel level, std::string_view sentence);

void set_log_sink(LogSink sink);  // Before other threads start; nullptr restores the default.
void log_text(LogLevel level, std::string_view sentence);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> form, Args&&... args) {
  log_text(level, fmt::format(form, std::forward<Args>(args)...));
}

}  // namespace firn
