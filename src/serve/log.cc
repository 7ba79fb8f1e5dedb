// SPDX-License-Identifier: Apache-2.0
#include "serve/log.h"

#include <fmt/format.h>

namespace firn::serve {
namespace {
constexpr size_t kPrintedMax = 128;
}

std::string printable(std::string_view text) {
  std::string out;
  const bool cut = text.size() > kPrintedMax;
  for (size_t i = 0; i < text.size() && i < kPrintedMax; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // 0xc2 begins the C1 controls, which terminals obey too.
    if (byte < 0x20 || byte == 0x7f || byte == '\\' || byte == 0xc2) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += text[i];
    }
  }
  if (cut) out += "...";
  return out;
}

}  // namespace firn::serve
