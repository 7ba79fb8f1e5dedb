// SPDX-License-Identifier: Apache-2.0
#include "wire/http.h"

#include <gtest/gtest.h>

namespace firn::wire {
namespace {

TEST(Http, a_request_as_curl_sends_it) {
  const std::string text =
      "POST /api/v1/disks?x=y HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/7.88.1\r\nAccept: "
      "*/*\r\n"
      "content-LENGTH:  17 \r\nContent-Type: application/json\r\n\r\n{\"name\":";
  const Result<std::optional<size_t>> length = head_length(text);
  ASSERT_TRUE(length);
  ASSERT_TRUE(length->has_value());
  const Result<HttpRequest> request = parse_request(std::string_view(text).substr(0, **length));
  ASSERT_TRUE(request) << text_of(request.error());
  EXPECT_EQ(request->method, "POST");
  EXPECT_EQ(request->target, "/api/v1/disks");
  EXPECT_EQ(request->body_bytes, 17u);
  EXPECT_FALSE(request->expects_continue);
}

TEST(Http, H3_requests_and_responses_make_the_round_trip) {
  for (const HttpRequest& request : {HttpRequest{"GET", "/healthz", 0, false},
                                     HttpRequest{"POST", "/api/v1/disks/a/resize", 65536, true}}) {
    const Result<HttpRequest> again = parse_request(text_of_request(request));
    ASSERT_TRUE(again) << text_of(again.error());
    EXPECT_EQ(*again, request);
  }
  for (const HttpResponse& response :
       {HttpResponse{200, "application/json", 12}, HttpResponse{507, "application/problem+json", 0},
        HttpResponse{204, "", 0}}) {
    const Result<HttpResponse> again = parse_response(text_of_response(response));
    ASSERT_TRUE(again) << text_of(again.error());
    EXPECT_EQ(*again, response);
  }
}

TEST(Http, H1_a_head_is_bounded) {
  EXPECT_FALSE(head_length("GET / HTTP/1.1\r\n")->has_value());
  EXPECT_FALSE(head_length("")->has_value());
  const std::string endless = "GET / HTTP/1.1\r\nX: " + std::string(kHeadBytesMax, 'a');
  EXPECT_FALSE(head_length(endless));
  EXPECT_FALSE(head_length(endless + "\r\n\r\n")) << "an end beyond the limit is no end";
  const std::string largest = endless.substr(0, kHeadBytesMax - 4) + "\r\n\r\n";
  EXPECT_EQ(**head_length(largest), kHeadBytesMax);
  EXPECT_TRUE(parse_request(largest));
}

TEST(Http, H2_what_could_mean_two_things_is_refused) {
  const std::string line = "POST / HTTP/1.1\r\n";
  for (const char* fields :
       {"Content-Length: 1\r\nContent-Length: 1\r\n", "Content-Length: -1\r\n",
        "Content-Length: +1\r\n", "Content-Length: 1, 1\r\n", "Content-Length: 0x10\r\n",
        "Content-Length:\r\n", "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: chunked\r\n", "TRANSFER-encoding: identity\r\n", "X : y\r\n", ": y\r\n",
        "X\r\n", "X: a\r\n b\r\n", "X: a\nY: b\r\n", "X: a\rb\r\n", "X: \x01\r\n",
        "Expect: the unexpected\r\n"}) {
    EXPECT_FALSE(parse_request(line + fields + "\r\n")) << fields;
  }
}

TEST(Http, request_lines_that_are_none) {
  for (const char* line : {"", "GET", "GET /", "GET  HTTP/1.1", "GET / HTTP/2", "GET / http/1.1",
                           "GET x HTTP/1.1", "GET /a b HTTP/1.1", "G(T / HTTP/1.1", " / HTTP/1.1",
                           "GET /\x7f HTTP/1.1", "GET http://x/ HTTP/1.1"}) {
    EXPECT_FALSE(parse_request(std::string(line) + "\r\n\r\n")) << line;
  }
  EXPECT_FALSE(parse_request("GET / HTTP/1.1\r\n")) << "the empty line is missing";
}

TEST(Http, status_lines_that_are_none) {
  for (const char* line :
       {"", "HTTP/1.1", "HTTP/1.1 2", "HTTP/1.1 20x OK", "HTTP/1.1 2000", "HTTP/1.1 099 x"}) {
    EXPECT_FALSE(parse_response(std::string(line) + "\r\n\r\n")) << line;
  }
  EXPECT_EQ(parse_response("HTTP/1.1 200\r\n\r\n")->status, 200);
}

}  // namespace
}  // namespace firn::wire
