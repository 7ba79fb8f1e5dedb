// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1, as much of it as a control plane needs: one request, one response, then the connection
// ends. Why our own: docs/decisions/0020-http.md.
//
// Contract:
//  H1  Nothing is read that was not bounded before: kHeadBytesMax for the head, the caller's limit
//      for the body. A head that has no end within the limit is refused.
//  H2  A message with two meanings is refused: Content-Length twice or malformed,
//      Transfer-Encoding, a line that folds, a bare CR or LF, a control character.
//  H3  parse_*(text_of_*(x)) == x, for an x that parse_* can return.
//
// Does not do: keep-alive, chunks, compression, ranges, upgrades, percent-encoding (no name in the
// API needs it).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace firn::wire {

inline constexpr size_t kHeadBytesMax = 8 * 1024;

struct HttpRequest {
  std::string method;
  std::string target;  // Without its query, which nothing here takes.
  uint64_t body_bytes = 0;
  bool expects_continue = false;  // The client waits for "100 Continue" before it sends the body.
  auto operator<=>(const HttpRequest&) const = default;
};

struct HttpResponse {
  int status = 0;
  std::string type;
  uint64_t body_bytes = 0;
  auto operator<=>(const HttpResponse&) const = default;
};

// The length of the head, with its empty line, when `text` holds all of it. Errc::invalid once it
// cannot end within kHeadBytesMax.
Result<std::optional<size_t>> head_length(std::string_view text);

// `head` is exactly what head_length measured.
Result<HttpRequest> parse_request(std::string_view head);
Result<HttpResponse> parse_response(std::string_view head);

std::string text_of_request(const HttpRequest& request);
std::string text_of_response(const HttpResponse& response);

// "Not Found" for 404.
std::string_view reason_of(int status);

}  // namespace firn::wire
