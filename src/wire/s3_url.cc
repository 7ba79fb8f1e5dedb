// SPDX-License-Identifier: Apache-2.0
#include "wire/s3_url.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "wire/text.h"

namespace firn::wire {
namespace {

constexpr uint64_t kPartBytesMin = uint64_t{5} * 1024 * 1024;
constexpr uint64_t kPartBytesMax = uint64_t{5} * 1024 * 1024 * 1024;

bool is_word(std::string_view text, std::string_view others) {
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           others.find(c) != std::string_view::npos;
  });
}

bool is_prefix(std::string_view text) {
  if (text.size() > 400) return false;
  while (!text.empty()) {
    const size_t slash = text.find('/');
    const std::string_view part = text.substr(0, slash);
    if (!is_word(part, "._=-") || part == "." || part == "..") return false;
    text.remove_prefix(slash == std::string_view::npos ? text.size() : slash + 1);
  }
  return true;
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

Result<void> take_option(std::string_view name, const std::string& value, StoreUrl& url) {
  if (name == "endpoint") {
    TRY(parse_endpoint(value));
    url.endpoint = value;
  } else if (name == "proxy") {
    TRY(parse_endpoint(value));
    url.proxy = value;
  } else if (name == "region" && is_word(value, "-_") && value.size() <= 64) {
    url.region = value;
  } else if (name == "profile" && is_word(value, "-_.@+") && value.size() <= 128) {
    url.profile = value;
  } else if (name == "style" && (value == "path" || value == "host")) {
    url.style = value;
  } else if (name == "ca" && !value.empty() && value.find('\0') == std::string::npos) {
    url.ca = value;
  } else if (name == "part") {
    url.part_bytes = TRY(parse_size(value));
    if (url.part_bytes < kPartBytesMin || url.part_bytes > kPartBytesMax) {
      return fail(Errc::invalid, "part={} in the address of a store: 5M to 5G",
                  printable(value, 24));
    }
  } else if (name == "patience") {
    const auto read = std::from_chars(value.data(), value.data() + value.size(), url.patience_s);
    if (read.ec != std::errc() || read.ptr != value.data() + value.size() || url.patience_s == 0 ||
        url.patience_s > 86400) {
      return fail(Errc::invalid, "patience={} in the address of a store: seconds, 1 to 86400",
                  printable(value, 24));
    }
  } else {
    return fail(Errc::invalid,
                "'{}={}' in the address of a store; known are endpoint, region, profile, "
                "style=path|host, part, patience, proxy and ca",
                printable(name, 24), printable(value, 40));
  }
  return ok;
}

Result<void> take_options(std::string_view query, StoreUrl& url) {
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos) {
      return fail(Errc::invalid, "'{}' in the address of a store has no value",
                  printable(pair, 40));
    }
    TRY(take_option(pair.substr(0, equals), TRY(percent_decoded(pair.substr(equals + 1), false)),
                    url));
  }
  return ok;
}

Result<StoreUrl> parse_s3(std::string_view text) {
  StoreUrl url{.kind = StoreUrl::Kind::s3};
  const size_t question = text.find('?');
  const std::string_view place = text.substr(0, question);
  if (place.find('@') != std::string_view::npos) {
    return fail(Errc::invalid,
                "an address of a store has no user or password in it: keys come from the "
                "environment or from a profile");
  }
  const size_t slash = place.find('/');
  url.bucket = place.substr(0, slash);
  if (!is_word(url.bucket, ".-_") || url.bucket.size() < 3 || url.bucket.size() > 63 ||
      url.bucket.find("..") != std::string::npos || url.bucket.front() == '.') {
    return fail(Errc::invalid, "'{}' is no name of a bucket", printable(url.bucket, 70));
  }
  std::string_view prefix;
  if (slash != std::string_view::npos) prefix = place.substr(slash + 1);
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (!is_prefix(prefix)) {
    return fail(Errc::invalid,
                "'{}' is no prefix for objects: parts of letters, digits and ._=- with single "
                "slashes between them",
                printable(prefix, 80));
  }
  url.prefix = prefix;
  if (question != std::string_view::npos) TRY(take_options(text.substr(question + 1), url));
  return url;
}

}  // namespace

Result<std::string> percent_decoded(std::string_view text, bool plus) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus) {
      decoded += ' ';
    } else if (text[i] != '%') {
      decoded += text[i];
    } else {
      const int high = i + 2 < text.size() ? digit_of(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? digit_of(text[i + 2]) : -1;
      if (high < 0 || low < 0) {
        return fail(Errc::invalid, "'{}' has a '%' that is no code", printable(text, 40));
      }
      decoded += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return decoded;
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  Endpoint endpoint;
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    endpoint.tls = true;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    return fail(Errc::invalid, "an endpoint begins with http:// or https://");
  }
  while (rest.ends_with('/')) rest.remove_suffix(1);
  // Brackets and colons: an address of IPv6.
  if (!is_word(rest, ".-_:[]") || rest.size() > 255 || rest.front() == ':' || rest.front() == '-') {
    return fail(Errc::invalid, "an endpoint is http://HOST:PORT or https://HOST:PORT, no more");
  }
  endpoint.authority = rest;
  return endpoint;
}

Result<StoreUrl> parse_store_url(std::string_view text) {
  if (text.find('\0') != std::string_view::npos || text.empty() || text.size() > 4096) {
    return fail(Errc::invalid, "'{}' is no address of a store", printable(text, 80));
  }
  if (text.starts_with("s3://")) return parse_s3(text.substr(5));
  StoreUrl url;
  if (text.starts_with("file://")) {
    url.path = TRY(percent_decoded(text.substr(7), false));
    if (!url.path.starts_with('/') || url.path.find('\0') != std::string::npos) {
      return fail(Errc::invalid, "'{}': file:// is followed by a whole path, as in file:///srv/x",
                  printable(text, 80));
    }
    return url;
  }
  const size_t scheme = text.find("://");
  if (scheme != std::string_view::npos && is_word(text.substr(0, scheme), "+.-")) {
    return fail(Errc::invalid, "stores begin with s3:// or file://, or are a directory; not {}://",
                printable(text.substr(0, scheme), 24));
  }
  url.path = text;
  return url;
}

std::string name_of(const StoreUrl& url) {
  if (url.kind == StoreUrl::Kind::s3) {
    return url.prefix.empty() ? fmt::format("s3://{}", url.bucket)
                              : fmt::format("s3://{}/{}", url.bucket, url.prefix);
  }
  return url.path.starts_with('/') ? "file://" + url.path : url.path;
}

}  // namespace firn::wire
