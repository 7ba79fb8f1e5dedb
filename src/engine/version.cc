// SPDX-License-Identifier: Apache-2.0
#include "engine/version.h"

namespace firn::engine {

std::string_view version() { return FIRN_VERSION; }

std::string_view compiler() {
#ifdef __clang__
  return "clang " __clang_version__;
#else
  return "g++ " __VERSION__;
#endif
}

}  // namespace firn::engine
