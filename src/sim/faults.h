// SPDX-License-Identifier: Apache-2.0
// Fault: which call of a simulated program goes wrong, and how.
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>

namespace firn::sim {

enum class Verb : uint8_t {
  any,
  open,
  read,
  write,
  flush,
  resize,
  punch,
  remove,
  name,
  lock,
  socket
};

enum class Effect : uint8_t {
  fail,  // Returns `error`. A write may have happened in part; a flush has made nothing durable.
  lose,  // A write: reports success, changes nothing.
  misdirect,  // A write: happens `shift` bytes further on.
  lie,        // A flush: reports success, makes nothing durable.
};

struct Fault {
  std::string files = "*";     // Shell pattern over the path; '*' crosses '/'.
  Verb verb = Verb::any;       // `any` counts all of them.
  uint64_t nth = 1;            // The Nth call that matches, counted from 1 ...
  bool and_all_later = false;  // ... and those after it.
  Effect effect = Effect::fail;
  int error = EIO;
  int64_t shift = 1 << 20;

  uint64_t calls = 0;   // How many matched so far.
  uint64_t struck = 0;  // How many went wrong: 0 tells an error-counting loop that it is through.
};

}  // namespace firn::sim
