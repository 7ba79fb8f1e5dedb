// SPDX-License-Identifier: Apache-2.0
// Any bytes as a control request: "METHOD TARGET\nBODY". What is accepted obeys C1 and C3.
#include <cstdint>

#include "base/check.h"
#include "wire/control.h"
#include "wire/text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using firn::wire::ControlRequest;
  const std::string text(data, data + size);
  const size_t space = text.find(' ');
  const size_t line = text.find('\n');
  if (space == std::string::npos || line == std::string::npos || line < space) return 0;
  const std::string_view view(text);
  const firn::Result<ControlRequest> request = firn::wire::decode_control(
      view.substr(0, space), view.substr(space + 1, line - space - 1), view.substr(line + 1));
  static_cast<void>(firn::wire::decode_problem(500, view.substr(line + 1)).code);
  if (!request) {
    CHECK(!firn::text_of(request.error()).empty());
    for (const char c : firn::text_of(request.error())) CHECK(c >= ' ' && c <= '~', "C1");
    return 0;
  }
  CHECK(request->name.empty() || firn::wire::check_any_name(request->name), "C1");
  CHECK(request->base.empty() || firn::wire::check_any_name(request->base), "C1");
  CHECK(request->to.empty() || firn::wire::check_disk_name(request->to), "C1");
  CHECK(request->settings.size() <= firn::wire::kSettingsMax, "C1");
  const firn::wire::ControlCall call = firn::wire::encode_control(*request);
  const firn::Result<ControlRequest> again =
      firn::wire::decode_control(call.method, call.target, call.body);
  CHECK(again && *again == *request, "C3");
  return 0;
}
