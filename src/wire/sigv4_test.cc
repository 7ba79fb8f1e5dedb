// SPDX-License-Identifier: Apache-2.0
// The examples that AWS publishes for S3 ("Signature Calculations for the Authorization Header").
#include "wire/sigv4.h"

#include <gtest/gtest.h>

namespace firn::wire {
namespace {

constexpr std::string_view kTime = "20130524T000000Z";
constexpr std::string_view kRegion = "us-east-1";
const AwsKey kKey{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};

SignedRequest example(std::string method, std::string path, TextPairs query, TextPairs headers,
                      std::string_view body = "") {
  SignedRequest request{std::move(method), std::move(path), std::move(query), std::move(headers),
                        sha256_hex(body)};
  request.headers.emplace_back("host", "examplebucket.s3.amazonaws.com");
  request.headers.emplace_back("x-amz-content-sha256", request.payload_hash);
  request.headers.emplace_back("x-amz-date", std::string(kTime));
  return request;
}

std::string signature(const SignedRequest& request) {
  const std::string text = authorization_of(kKey, kTime, kRegion, request);
  return text.substr(text.rfind('=') + 1);
}

TEST(SigV4, signs_a_ranged_get) {
  const SignedRequest request = example("GET", "/test.txt", {}, {{"range", "bytes=0-9"}});
  EXPECT_EQ(
      canonical_request(request),
      "GET\n/test.txt\n\nhost:examplebucket.s3.amazonaws.com\nrange:bytes=0-9\n"
      "x-amz-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
      "x-amz-date:20130524T000000Z\n\nhost;range;x-amz-content-sha256;x-amz-date\n"
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(string_to_sign(kTime, kRegion, canonical_request(request)),
            "AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n"
            "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972");
  EXPECT_EQ(authorization_of(kKey, kTime, kRegion, request),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(SigV4, signs_a_put_with_a_body_and_a_dollar) {
  const SignedRequest request = example(
      "PUT", "/" + uri_encoded("test$file.text", true), {},
      {{"date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
      "Welcome to Amazon S3.");
  EXPECT_EQ(request.path, "/test%24file.text");
  EXPECT_EQ(signature(request), "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(SigV4, signs_queries_sorted_and_without_values) {
  EXPECT_EQ(signature(example("GET", "/", {{"lifecycle", ""}}, {})),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  EXPECT_EQ(signature(example("GET", "/", {{"prefix", "J"}, {"max-keys", "2"}}, {})),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
  EXPECT_EQ(canonical_query({{"prefix", "a/b c"}, {"p", "1"}, {"p", "+"}}),
            "p=%2B&p=1&prefix=a%2Fb%20c");
}

TEST(SigV4, squeezes_spaces_in_headers) {
  const SignedRequest request{"GET", "/", {}, {{"host", "h"}, {"x", "  a   b "}}, "p"};
  EXPECT_NE(canonical_request(request).find("\nx:a b\n"), std::string::npos);
}

TEST(SigV4, knows_days_of_all_centuries) {
  EXPECT_EQ(aws_time(0), "19700101T000000Z");
  EXPECT_EQ(aws_time(1'369'353'599'999'999'999), "20130523T235959Z");
  EXPECT_EQ(aws_time(1'369'353'600'000'000'000), "20130524T000000Z");
  EXPECT_EQ(aws_time(951'782'400'000'000'000), "20000229T000000Z");
  EXPECT_EQ(aws_time(-1), "19691231T235959Z");
}

TEST(SigV4, digests_in_slices) {
  const std::string text = "Welcome to Amazon S3.";
  const auto bytes = std::as_bytes(std::span(text));
  const std::array<::iovec, 2> slices{slice_of(bytes.first(7)), slice_of(bytes.subspan(7))};
  EXPECT_EQ(sha256_hex(slices), "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072");
  EXPECT_EQ(md5_base64({}), "1B2M2Y8AsgTpgAmY7PhCfg==");
}

}  // namespace
}  // namespace firn::wire
