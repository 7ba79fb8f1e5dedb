// SPDX-License-Identifier: Apache-2.0
// Where an object store is, as people write it: "s3://bucket/prefix?endpoint=http://host:port",
// "file:///srv/bucket", "/srv/bucket". docs/reference/object-stores.md is the long form.
//
// Contract:
//  U1  Takes any bytes; a sentence never repeats what may be a secret (user:password@).
//  U2  Bucket, prefix, region and endpoint are safe to put into a request: no spaces, no control
//      characters, nothing that begins another header.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace firn::wire {

struct StoreUrl {
  enum class Kind : uint8_t { directory, s3 } kind = Kind::directory;
  std::string path;  // Of a directory.
  // Of S3; what is empty is found elsewhere, or has a default.
  std::string bucket;
  std::string prefix;  // Without slashes at its ends.
  std::string endpoint;
  std::string region;
  std::string profile;
  std::string style;  // "path" or "host".
  std::string proxy;
  std::string ca;  // A file of certificates.
  uint64_t part_bytes = 0;
  uint32_t patience_s = 0;
  auto operator<=>(const StoreUrl&) const = default;
};
Result<StoreUrl> parse_store_url(std::string_view text);
// "s3://bucket/prefix", "file:///srv/bucket": what may be printed anywhere.
std::string name_of(const StoreUrl& url);

struct Endpoint {
  bool tls = false;
  std::string authority;  // "host", "host:port": what the header Host says.
};
Result<Endpoint> parse_endpoint(std::string_view text);

// %41 becomes 'A', and '+' a space where `plus` says so.
Result<std::string> percent_decoded(std::string_view text, bool plus);

}  // namespace firn::wire
