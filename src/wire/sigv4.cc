// SPDX-License-Identifier: Apache-2.0
#include "wire/sigv4.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>

#include "base/check.h"

namespace firn::wire {
namespace {

constexpr std::string_view kAlgorithm = "AWS4-HMAC-SHA256";
constexpr std::string_view kHex = "0123456789abcdef";
constexpr std::string_view kHexUpper = "0123456789ABCDEF";

using Digest = std::array<unsigned char, 32>;

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

std::string hex_of(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    text += kHex[static_cast<unsigned char>(c) >> 4];
    text += kHex[static_cast<unsigned char>(c) & 15];
  }
  return text;
}

std::string digest_of(const EVP_MD* kind, Iovec body) {
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), kind, nullptr) == 1,
        "OpenSSL has no such digest");
  for (const ::iovec& slice : body) {
    CHECK(EVP_DigestUpdate(context.get(), slice.iov_base, slice.iov_len) == 1);
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> room{};
  unsigned length = 0;
  CHECK(EVP_DigestFinal_ex(context.get(), room.data(), &length) == 1);
  return std::string(room.begin(), room.begin() + length);
}

std::string hmac(std::string_view key, std::string_view text) {
  const auto data = std::as_bytes(std::span(text));
  std::array<unsigned char, EVP_MAX_MD_SIZE> room{};
  unsigned length = 0;
  CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
             static_cast<const unsigned char*>(static_cast<const void*>(data.data())), data.size(),
             room.data(), &length) != nullptr);
  return std::string(room.begin(), room.begin() + length);
}

std::string scope_of(std::string_view time, std::string_view region) {
  return fmt::format("{}/{}/s3/aws4_request", time.substr(0, 8), region);
}

std::string signed_names(TextPairs headers) {
  std::ranges::sort(headers);
  std::string names;
  for (const auto& [name, value] : headers) {
    if (!names.empty()) names += ';';
    names += name;
  }
  return names;
}

// Spaces at the ends go; spaces in a row become one.
std::string trimmed(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c == ' ' && (text.empty() || text.back() == ' ')) continue;
    text += c;
  }
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

}  // namespace

std::string aws_time(int64_t wall_clock_ns) {
  using namespace std::chrono;
  const sys_seconds whole(floor<seconds>(nanoseconds(wall_clock_ns)));
  const sys_days day = floor<days>(whole);
  const year_month_day date(day);
  const hh_mm_ss<seconds> clock(whole - day);
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count());
}

std::string uri_encoded(std::string_view text, bool keep_slashes) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slashes);
    if (plain) {
      encoded += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    encoded += '%';
    encoded += kHexUpper[byte >> 4];
    encoded += kHexUpper[byte & 15];
  }
  return encoded;
}

std::string canonical_query(const TextPairs& query) {
  TextPairs encoded;
  for (const auto& [name, value] : query) {
    encoded.emplace_back(uri_encoded(name, false), uri_encoded(value, false));
  }
  std::ranges::sort(encoded);
  std::string text;
  for (const auto& [name, value] : encoded) {
    if (!text.empty()) text += '&';
    text += name + "=" + value;
  }
  return text;
}

std::string canonical_request(const SignedRequest& request) {
  TextPairs headers = request.headers;
  std::ranges::sort(headers);
  std::string lines;
  for (const auto& [name, value] : headers) lines += name + ":" + trimmed(value) + "\n";
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}", request.method, request.path,
                     canonical_query(request.query), lines, signed_names(headers),
                     request.payload_hash);
}

std::string string_to_sign(std::string_view time, std::string_view region,
                           std::string_view canonical) {
  return fmt::format("{}\n{}\n{}\n{}", kAlgorithm, time, scope_of(time, region),
                     sha256_hex(canonical));
}

std::string signature_of(std::string_view secret_key, std::string_view time,
                         std::string_view region, std::string_view text) {
  const std::string day = hmac("AWS4" + std::string(secret_key), time.substr(0, 8));
  const std::string signing = hmac(hmac(hmac(day, region), "s3"), "aws4_request");
  return hex_of(hmac(signing, text));
}

std::string authorization_of(const AwsKey& key, std::string_view time, std::string_view region,
                             const SignedRequest& request) {
  const std::string text = string_to_sign(time, region, canonical_request(request));
  return fmt::format("{} Credential={}/{},SignedHeaders={},Signature={}", kAlgorithm,
                     key.access_key, scope_of(time, region), signed_names(request.headers),
                     signature_of(key.secret_key, time, region, text));
}

std::string sha256_hex(Iovec body) { return hex_of(digest_of(EVP_sha256(), body)); }

std::string sha256_hex(std::string_view text) {
  const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
  return sha256_hex(Iovec(&slice, 1));
}

std::string md5_base64(Iovec body) {
  const std::string digest = digest_of(EVP_md5(), body);
  std::array<unsigned char, 32> room{};
  const auto bytes = std::as_bytes(std::span(digest));
  const int length = EVP_EncodeBlock(
      room.data(), static_cast<const unsigned char*>(static_cast<const void*>(bytes.data())),
      static_cast<int>(bytes.size()));
  return std::string(room.begin(), room.begin() + length);
}

}  // namespace firn::wire
