// SPDX-License-Identifier: Apache-2.0
// CHECK: what the programmer promised. Always on; prints and aborts. DCHECK: on except in release.
#pragma once

#include <fmt/core.h>

#include <string>

namespace firn {
[[noreturn]] void check_failed(const char* expression, const char* file, int line,
                               const std::string& detail);
}  // namespace firn

#define CHECK(expression, ...)                                                   \
  do {                                                                           \
    if (!(expression)) [[unlikely]] {                                            \
      ::firn::check_failed(#expression, __FILE__, __LINE__,                      \
                           std::string(__VA_OPT__(::fmt::format(__VA_ARGS__)))); \
    }                                                                            \
  } while (false)

#ifdef FIRN_DCHECK
#define DCHECK(expression, ...) CHECK(expression __VA_OPT__(, ) __VA_ARGS__)
#else
#define DCHECK(expression, ...) \
  do {                          \
    if (false) {                \
      (void)(expression);       \
    }                           \
  } while (false)
#endif
