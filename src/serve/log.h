// SPDX-License-Identifier: Apache-2.0
// Where front ends say what happened, for people: one line per event, naming who and what.
//
// Does not format, rotate or filter: the engine's structured log implements it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace firn::serve {

enum class Severity : uint8_t { info, warning, error };

class Log {
 public:
  virtual ~Log() = default;
  // "client dropped", the client, the reason. No text in it is trusted: see printable().
  virtual void line(Severity severity, std::string_view event, std::string_view object,
                    std::string_view why) = 0;

 protected:
  Log() = default;
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;
};

// Hostile text for a log line: at most 128 bytes, control characters as \xNN.
std::string printable(std::string_view text);

}  // namespace firn::serve
