// SPDX-License-Identifier: Apache-2.0
#include "engine/log.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <ctime>

#include "engine/answer.h"

namespace firn::engine {
namespace {

LogSettings current;

constexpr std::array<std::string_view, 4> kNames{"debug", "info", "warning", "error"};
constexpr std::array<int, 4> kPriorities{7, 6, 4, 3};  // syslog's

// logfmt needs no quotes around a plain word.
bool is_plain(std::string_view value) {
  for (const char c : value) {
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!word && std::string_view("._:/+-@").find(c) == std::string_view::npos) return false;
  }
  return !value.empty();
}

std::string time_with_ms(int64_t wall_clock_ns) {
  std::string text = text_of_time(wall_clock_ns);
  text.pop_back();
  return text + fmt::format(".{:03}Z", wall_clock_ns / 1'000'000 % 1000);
}

void append(std::string& line, LogFormat format, std::string_view key, std::string_view value) {
  if (format == LogFormat::json) {
    line += line.ends_with('{') ? "" : ",";
    line += quoted(key) + ':' + quoted(value);
    return;
  }
  if (!line.empty() && !line.ends_with('>')) line += ' ';
  line += key;
  line += '=';
  line += is_plain(value) ? std::string(value) : quoted(value);
}

}  // namespace

std::string_view name_of(LogLevel level) { return kNames[static_cast<size_t>(level)]; }

std::string log_line(const LogSettings& settings, int64_t wall_clock_ns, LogLevel level,
                     std::string_view event, std::initializer_list<LogField> fields) {
  std::string line;
  if (settings.journal) line = fmt::format("<{}>", kPriorities[static_cast<size_t>(level)]);
  if (settings.format == LogFormat::json) line += '{';
  if (!settings.journal || settings.format == LogFormat::json) {
    append(line, settings.format, "time", time_with_ms(wall_clock_ns));
  }
  append(line, settings.format, "level", name_of(level));
  append(line, settings.format, "event", event);
  for (const LogField& field : fields) append(line, settings.format, field.key, field.value);
  if (settings.format == LogFormat::json) line += '}';
  return line + '\n';
}

void set_log(const LogSettings& settings) {
  current = settings;
  set_log_sink([](LogLevel level, std::string_view sentence) { log_event(level, sentence); });
}

void ServeLog::line(serve::Severity severity, std::string_view event, std::string_view object,
                    std::string_view why) {
  LogLevel level = LogLevel::info;
  if (severity == serve::Severity::warning) level = LogLevel::warning;
  if (severity == serve::Severity::error) level = LogLevel::error;
  log_event(level, event, {{"object", std::string(object)}, {"why", std::string(why)}});
}

bool stderr_is_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat seen {};
  if (stream == nullptr || ::fstat(STDERR_FILENO, &seen) != 0) return false;
  return fmt::format("{}:{}", seen.st_dev, seen.st_ino) == stream;
}

void log_event(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  if (level < current.level) return;
  ::timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const int64_t ns = now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
  const std::string line = log_line(current, ns, level, event, fields);
  // Nobody is left to tell when standard error is gone.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

void log_error(std::string_view event, Error error, std::string_view object) {
  log_event(LogLevel::error, event,
            {{"object", std::string(object)},
             {"code", std::string(firn::name_of(error.code))},
             {"why", std::string(text_of(error))}});
}

}  // namespace firn::engine
