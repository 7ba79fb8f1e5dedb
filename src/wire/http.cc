// SPDX-License-Identifier: Apache-2.0
// Notes on the design. A head is cut into lines, each line is checked for bytes that have no
// business in it, and only then looked at. Header names that we do not use are checked and
// forgotten.
#include "wire/http.h"

#include <array>
#include <charconv>

#include "wire/text.h"

namespace firn::wire {
namespace {

constexpr std::string_view kEnd = "\r\n\r\n";

struct Reason {
  int status;
  std::string_view text;
};
constexpr std::array<Reason, 17> kReasons{{{200, "OK"},
                                           {201, "Created"},
                                           {400, "Bad Request"},
                                           {403, "Forbidden"},
                                           {404, "Not Found"},
                                           {405, "Method Not Allowed"},
                                           {408, "Request Timeout"},
                                           {409, "Conflict"},
                                           {411, "Length Required"},
                                           {413, "Content Too Large"},
                                           {431, "Request Header Fields Too Large"},
                                           {423, "Locked"},
                                           {500, "Internal Server Error"},
                                           {501, "Not Implemented"},
                                           {503, "Service Unavailable"},
                                           {504, "Gateway Timeout"},
                                           {507, "Insufficient Storage"}}};

// RFC 9110's tchar.
bool is_token(std::string_view text) {
  if (text.empty()) return false;
  for (const char c : text) {
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!word && std::string_view("!#$%&'*+-.^_`|~").find(c) == std::string_view::npos)
      return false;
  }
  return true;
}

bool is_visible(std::string_view text) {
  for (const char c : text) {
    if (c < '!' || c > '~') return false;
  }
  return !text.empty();
}

bool is_value(std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < ' ' && c != '\t') || byte == 0x7f) return false;
  }
  return true;
}

bool same_name(std::string_view a, std::string_view lower) {
  if (a.size() != lower.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const char c = static_cast<char>(a[i] >= 'A' && a[i] <= 'Z' ? a[i] + 32 : a[i]);
    if (c != lower[i]) return false;
  }
  return true;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

template <class Number>
bool parse_number(std::string_view text, Number& into) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
  return error == std::errc{} && end == text.data() + text.size();
}

// Takes the next line off `head`, without its CR LF.
std::string_view next_line(std::string_view& head) {
  const size_t end = head.find("\r\n");
  const std::string_view line = head.substr(0, end);
  head.remove_prefix(end == std::string_view::npos ? head.size() : end + 2);
  return line;
}

// What the headers said that anybody here wants to know.
struct Fields {
  uint64_t length = 0;
  bool has_length = false;
  bool expects_continue = false;
  std::string_view type;
};

Result<void> take_field(std::string_view line, Fields& fields) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
    return fail(Errc::invalid, "HTTP head: \"{}\" is not a header line", printable(line));
  }
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = trimmed(line.substr(colon + 1));
  if (!is_value(value)) {
    return fail(Errc::invalid, "HTTP head: header {} holds a control character", printable(name));
  }
  if (same_name(name, "transfer-encoding")) {
    return fail(Errc::invalid,
                "HTTP head: Transfer-Encoding is not understood; send Content-Length");
  }
  if (same_name(name, "content-length")) {
    if (fields.has_length) return fail(Errc::invalid, "HTTP head: Content-Length came twice");
    if (!parse_number(value, fields.length)) {
      return fail(Errc::invalid, "HTTP head: Content-Length \"{}\" is not a length",
                  printable(value));
    }
    fields.has_length = true;
  } else if (same_name(name, "expect")) {
    if (!same_name(value, "100-continue")) {
      return fail(Errc::invalid, "HTTP head: cannot meet Expect \"{}\"", printable(value));
    }
    fields.expects_continue = true;
  } else if (same_name(name, "content-type")) {
    fields.type = value;
  }
  return ok;
}

Result<Fields> parse_fields(std::string_view rest) {
  Fields fields;
  while (rest != "\r\n") {
    if (rest.empty()) return fail(Errc::invalid, "HTTP head: ends without its empty line");
    const std::string_view line = next_line(rest);
    TRY(take_field(line, fields));
  }
  return fields;
}

bool is_version(std::string_view text) { return text == "HTTP/1.1" || text == "HTTP/1.0"; }

}  // namespace

std::string_view reason_of(int status) {
  for (const Reason& reason : kReasons) {
    if (reason.status == status) return reason.text;
  }
  return "Unknown";
}

Result<std::optional<size_t>> head_length(std::string_view text) {
  const size_t end = text.substr(0, kHeadBytesMax).find(kEnd);
  if (end != std::string_view::npos) return std::optional<size_t>(end + kEnd.size());
  if (text.size() >= kHeadBytesMax) {
    return fail(Errc::invalid, "HTTP head: longer than {} bytes", kHeadBytesMax);
  }
  return std::optional<size_t>();
}

Result<HttpRequest> parse_request(std::string_view head) {
  const std::string_view line = next_line(head);
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || !is_version(line.substr(last + 1))) {
    return fail(Errc::invalid, "HTTP head: \"{}\" is not a request line", printable(line));
  }
  HttpRequest request;
  request.method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  request.target = target.substr(0, target.find('?'));
  if (!is_token(request.method) || !is_visible(target) || target[0] != '/') {
    return fail(Errc::invalid, "HTTP head: \"{}\" is not a request line", printable(line));
  }
  const Fields fields = TRY(parse_fields(head));
  request.body_bytes = fields.length;
  request.expects_continue = fields.expects_continue;
  return request;
}

Result<HttpResponse> parse_response(std::string_view head) {
  const std::string_view line = next_line(head);
  HttpResponse response;
  if (line.size() < 12 || !is_version(line.substr(0, 8)) || line[8] != ' ' ||
      !parse_number(line.substr(9, 3), response.status) || response.status < 100 ||
      (line.size() > 12 && line[12] != ' ')) {
    return fail(Errc::invalid, "HTTP head: \"{}\" is not a status line", printable(line));
  }
  const Fields fields = TRY(parse_fields(head));
  response.type = fields.type;
  response.body_bytes = fields.length;
  return response;
}

std::string text_of_request(const HttpRequest& request) {
  std::string text = fmt::format("{} {} HTTP/1.1\r\nHost: firn\r\nConnection: close\r\n",
                                 request.method, request.target);
  if (request.expects_continue) text += "Expect: 100-continue\r\n";
  if (request.body_bytes != 0) {
    text +=
        fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", request.body_bytes);
  }
  return text + "\r\n";
}

std::string text_of_response(const HttpResponse& response) {
  std::string text = fmt::format("HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Length: {}\r\n",
                                 response.status, reason_of(response.status), response.body_bytes);
  if (!response.type.empty()) text += fmt::format("Content-Type: {}\r\n", response.type);
  return text + "\r\n";
}

}  // namespace firn::wire
