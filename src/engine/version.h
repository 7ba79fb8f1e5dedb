// SPDX-License-Identifier: Apache-2.0
// Which firn this is.
#pragma once

#include <string_view>

namespace firn::engine {

std::string_view version();   // "0.1.0"
std::string_view compiler();  // "g++ 12.2.0"

}  // namespace firn::engine
