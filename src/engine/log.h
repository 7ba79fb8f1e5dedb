// SPDX-License-Identifier: Apache-2.0
// The log: one line for each event, on standard error, for journald, for people and for programs.
//
//   time=2026-11-20T11:33:15.123Z level=error event="client lost" object=10.0.0.7:4711 code=io
//   why="..."
//   {"time":"2026-11-20T11:33:15.123Z","level":"error","event":"client
//   lost","object":"10.0.0.7:4711",...}
//
// Contract:
//  L1  An event is one write(2) of one line of UTF-8, whatever bytes the values hold.
//  L2  Under journald (JOURNAL_STREAM names our stderr) each line begins with its priority, "<6>",
//      and the text form leaves out the time, which the journal has.
//  L3  An error is logged once, where it ends: with its code, its sentence, and what was given up.
//
// Does not buffer, rotate or filter by subject: whoever reads the other end of a pipe must read it.
// Why our own: docs/decisions/0021-log.md.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "base/log.h"
#include "base/result.h"
#include "serve/log.h"

namespace firn::engine {

enum class LogFormat : uint8_t { text, json };

struct LogSettings {
  LogLevel level = LogLevel::info;
  LogFormat format = LogFormat::text;
  bool journal = false;
};

struct LogField {
  std::string_view key;
  std::string value;
};

// Pure: the line, with its line end.
std::string log_line(const LogSettings& settings, int64_t wall_clock_ns, LogLevel level,
                     std::string_view event, std::initializer_list<LogField> fields);

// Once, before anybody logs. What the rooms below say through base/log.h then comes out here.
void set_log(const LogSettings& settings);
// Whether standard error is the journal's.
bool stderr_is_journal();

void log_event(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});
// Where an error ends.
void log_error(std::string_view event, Error error, std::string_view object);

// What front ends say.
class ServeLog final : public serve::Log {
 public:
  void line(serve::Severity severity, std::string_view event, std::string_view object,
            std::string_view why) override;
};

std::string_view name_of(LogLevel level);

}  // namespace firn::engine
