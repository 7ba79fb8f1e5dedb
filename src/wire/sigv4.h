// SPDX-License-Identifier: Apache-2.0
// AWS Signature Version 4, for requests whose signature stands in the Authorization header. Pure:
// a request, a key and a time make a signature. Why our own: docs/decisions/0040-s3-client.md.
//
// Contract:
//  G1  canonical_query() is what is signed and what must be sent, letter by letter.
//  G2  Nothing here logs, or puts a secret into a sentence.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace firn::wire {

struct AwsKey {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  // Empty: a key of its own.
};

using TextPairs = std::vector<std::pair<std::string, std::string>>;

struct SignedRequest {
  std::string method;
  std::string path;   // Encoded already, beginning with '/'.
  TextPairs query;    // Raw.
  TextPairs headers;  // Names in lower case; all of them are signed. "host" must be there.
  std::string payload_hash;
};

inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";

// "20130524T000000Z".
std::string aws_time(int64_t wall_clock_ns);
// All but letters, digits and -._~ becomes %XX; '/' too, unless it separates.
std::string uri_encoded(std::string_view text, bool keep_slashes);
// Sorted and encoded: "max-keys=2&prefix=J", "lifecycle=".
std::string canonical_query(const TextPairs& query);
std::string canonical_request(const SignedRequest& request);
std::string string_to_sign(std::string_view time, std::string_view region,
                           std::string_view canonical_request);
std::string signature_of(std::string_view secret_key, std::string_view time,
                         std::string_view region, std::string_view string_to_sign);
// The value of the header Authorization.
std::string authorization_of(const AwsKey& key, std::string_view time, std::string_view region,
                             const SignedRequest& request);

// In lower-case hexadecimal; and base64, as Content-MD5 wants it.
std::string sha256_hex(Iovec body);
std::string sha256_hex(std::string_view text);
std::string md5_base64(Iovec body);

}  // namespace firn::wire
