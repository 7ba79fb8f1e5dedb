// SPDX-License-Identifier: Apache-2.0
// Any bytes as an HTTP head, of a request and of a response. What is accepted obeys H1 to H3.
#include <cstdint>

#include "base/check.h"
#include "wire/http.h"

namespace {

using firn::wire::HttpRequest;
using firn::wire::HttpResponse;

void check_request(std::string_view head) {
  const firn::Result<HttpRequest> request = firn::wire::parse_request(head);
  if (!request) return;
  CHECK(!request->method.empty() && request->target.starts_with('/'));
  for (const char c : request->method + request->target) CHECK(c > ' ' && c < 0x7f);
  const firn::Result<HttpRequest> again =
      firn::wire::parse_request(firn::wire::text_of_request(*request));
  CHECK(again && *again == *request, "H3");
}

void check_response(std::string_view head) {
  const firn::Result<HttpResponse> response = firn::wire::parse_response(head);
  if (!response) return;
  CHECK(response->status >= 100 && response->status <= 999);
  const firn::Result<HttpResponse> again =
      firn::wire::parse_response(firn::wire::text_of_response(*response));
  CHECK(again && *again == *response, "H3");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(data, data + size);
  const firn::Result<std::optional<size_t>> length = firn::wire::head_length(text);
  if (length && length->has_value()) {
    CHECK(**length <= text.size() && **length <= firn::wire::kHeadBytesMax, "H1");
    check_request(std::string_view(text).substr(0, **length));
    check_response(std::string_view(text).substr(0, **length));
  }
  check_request(text);
  check_response(text);
  return 0;
}
