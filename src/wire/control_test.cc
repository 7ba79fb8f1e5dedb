// SPDX-License-Identifier: Apache-2.0
#include "wire/control.h"

#include <gtest/gtest.h>

#include <set>

namespace firn::wire {
namespace {

using Verb = ControlVerb;

// Every verb, with every member that it has.
std::vector<ControlRequest> full_requests() {
  return {
      {.verb = Verb::pool_info},
      {.verb = Verb::pool_grow, .bytes = UINT64_MAX},
      {.verb = Verb::pool_check, .repair = true},
      {.verb = Verb::disk_list},
      {.verb = Verb::disk_info, .name = "web:01"},
      {.verb = Verb::disk_create,
       .name = "a",
       .bytes = 4096,
       .settings = {{"description", "first \"quoted\"\n"}, {"serve", "off"}}},
      {.verb = Verb::disk_resize, .name = "a.b", .bytes = 1},
      {.verb = Verb::disk_rename, .name = "a", .to = "b"},
      {.verb = Verb::disk_delete, .name = "a", .snapshots = true},
      {.verb = Verb::disk_set, .name = "a", .settings = {{"serve", ""}}},
      {.verb = Verb::disk_flush, .name = "web:01"},
      {.verb = Verb::disk_socket, .name = "web:01@monday"},
      {.verb = Verb::disk_consolidate, .name = "a", .keep = 0},
      {.verb = Verb::snapshot_list, .name = "a"},
      {.verb = Verb::snapshot_info, .name = "a@2026-11-21T16:00:00Z"},
      {.verb = Verb::snapshot_create, .name = "a@b"},
      {.verb = Verb::snapshot_delete, .name = "a@b"},
      {.verb = Verb::snapshot_revert, .name = "a@b", .force = true},
      {.verb = Verb::snapshot_clone, .name = "a@b", .to = "c"},
      {.verb = Verb::extents,
       .name = "a@b",
       .base = "a",
       .offset = UINT64_MAX,
       .limit = kExtentsMax},
      {.verb = Verb::job_list},
      {.verb = Verb::changes_begin, .name = "a", .app = "nightly", .snapshot = "n-1"},
      {.verb = Verb::changes_list,
       .name = "a",
       .offset = UINT64_MAX,
       .limit = 5,
       .since = "10111213-1415-1617-1819-1a1b1c1d1e1f/x/7"},
      {.verb = Verb::changes_apps, .name = "a"},
      {.verb = Verb::changes_end, .name = "a", .app = "nightly"},
      {.verb = Verb::changes_off, .name = "a"},
      {.verb = Verb::disk_shrink, .name = "a"},
      {.verb = Verb::disk_restore, .name = "a", .settings = {{"snapshot", "b@c"}, {"url", "/d"}}},
  };
}

TEST(Control, C3_every_verb_makes_the_round_trip) {
  std::set<ControlVerb> verbs;
  for (const ControlRequest& request : full_requests()) {
    EXPECT_TRUE(verbs.insert(request.verb).second);
    const ControlCall call = encode_control(request);
    const Result<ControlRequest> again = decode_control(call.method, call.target, call.body);
    ASSERT_TRUE(again) << call.method << ' ' << call.target << ' ' << call.body << ": "
                       << text_of(again.error());
    EXPECT_EQ(*again, request) << call.target;
    EXPECT_TRUE(check_control_name(request.verb, request.name)) << call.target;
    EXPECT_TRUE(call.method != "GET" || only_looks(request.verb)) << call.target;
  }
}

TEST(Control, what_only_looks) {
  EXPECT_TRUE(only_looks(ControlVerb::extents));
  EXPECT_TRUE(only_looks(ControlVerb::job_list));
  for (const ControlVerb verb :
       {ControlVerb::pool_check, ControlVerb::disk_socket, ControlVerb::disk_consolidate,
        ControlVerb::snapshot_create, ControlVerb::snapshot_delete, ControlVerb::snapshot_revert,
        ControlVerb::snapshot_clone}) {
    EXPECT_FALSE(only_looks(verb)) << static_cast<int>(verb);
  }
}

TEST(Control, what_is_left_out_stays_left_out) {
  const auto keep = decode_control("POST", "/api/v1/disks/a/consolidate", "");
  ASSERT_TRUE(keep);
  EXPECT_FALSE(keep->keep.has_value());
  const auto extents = decode_control("POST", "/api/v1/disks/a@b/extents", R"({"offset":"1G"})");
  ASSERT_TRUE(extents);
  EXPECT_EQ(extents->offset, 1ULL << 30);
  EXPECT_EQ(extents->base, "");
  EXPECT_FALSE(extents->limit.has_value());
}

TEST(Control, sizes_may_be_texts) {
  const Result<ControlRequest> request =
      decode_control("POST", "/api/v1/disks", R"({"name":"web","size":"10G"})");
  ASSERT_TRUE(request);
  EXPECT_EQ(request->bytes, 10ULL << 30);
}

struct Refused {
  const char* method;
  const char* target;
  const char* body;
  Errc code;
  const char* says;
};

TEST(Control, C1_C2_what_is_refused_is_named) {
  const Refused rows[] = {
      {"GET", "/", "", Errc::not_found, "no such path"},
      {"POST", "/api/v1/disks/a/changes-begin", "{}", Errc::invalid, "\"app\" is missing"},
      {"POST", "/api/v1/disks/a/changes-begin", R"({"app":"x/y"})", Errc::invalid, "x/y"},
      {"POST", "/api/v1/disks/a/changes", R"({"since":7})", Errc::invalid, "give a change id"},
      {"POST", "/api/v1/disks/a/changes", R"({"since":"a","limit":-1})", Errc::invalid,
       "give a number"},
      {"GET", "/api/v1/", "", Errc::not_found, "no such path"},
      {"GET", "/api/v2/pool", "", Errc::not_found, "no such path"},
      {"GET", "/api/v1/pool/", "", Errc::not_found, "no such path"},
      {"GET", "/api/v1/disks/a/b/c", "", Errc::not_found, "no such path"},
      {"GET", "/api/v1/disks//resize", "", Errc::not_found, "no such path"},
      {"POST", "/api/v1/pool/grow/up", "", Errc::not_found, "no such path"},
      {"DELETE", "/api/v1/disks/a", "", Errc::unsupported, "DELETE"},
      {"GET", "/api/v1/pool/grow", "", Errc::unsupported, "GET"},
      {"GET", "/api/v1/disks/a@b", "", Errc::invalid, "a@b"},
      {"GET", "/api/v1/disks/..", "", Errc::invalid, "begins with '.'"},
      {"POST", "/api/v1/disks", "", Errc::invalid, "\"name\" is missing"},
      {"POST", "/api/v1/disks", R"({"name":"a"})", Errc::invalid, "\"size\" is missing"},
      {"POST", "/api/v1/disks", R"({"name":7,"size":1})", Errc::invalid, "\"name\""},
      {"POST", "/api/v1/disks", R"({"name":"a","size":-1})", Errc::invalid, "\"size\""},
      {"POST", "/api/v1/disks", R"({"name":"a","size":1.5})", Errc::invalid, "\"size\""},
      {"POST", "/api/v1/disks", R"({"name":"a","size":99999999999999999999})", Errc::invalid,
       "\"size\""},
      {"POST", "/api/v1/disks", R"({"name":"a","size":"10X"})", Errc::invalid, "10X"},
      {"POST", "/api/v1/disks", R"({"name":"a","size":1,"szie":1})", Errc::invalid, "szie"},
      {"POST", "/api/v1/disks", R"({"name":"a","size":1)", Errc::invalid, "not a JSON object"},
      {"POST", "/api/v1/disks", "[]", Errc::invalid, "not a JSON object"},
      {"POST", "/api/v1/disks", R"({"name":"a","size":1,"settings":{"x":[[[[]]]]}})", Errc::invalid,
       "JSON"},
      {"POST", "/api/v1/disks/a/set", R"({"settings":{"serve":true}})", Errc::invalid, "serve"},
      {"POST", "/api/v1/disks/a/set", R"({"settings":[]})", Errc::invalid, "settings"},
      {"POST", "/api/v1/disks/a/rename", R"({"to":"b/c"})", Errc::invalid, "b/c"},
      {"POST", "/api/v1/pool/check", R"({"repair":"yes"})", Errc::invalid, "repair"},
      {"GET", "/api/v1/pool", R"({"size":1})", Errc::invalid, "size"},
      {"POST", "/api/v1/snapshots", R"({"name":"a"})", Errc::invalid, "names no snapshot"},
      {"POST", "/api/v1/snapshots", R"({"name":"a@b@c"})", Errc::invalid, "holds '@'"},
      {"POST", "/api/v1/snapshots", R"({"name":"a@b/c"})", Errc::invalid, "holds '/'"},
      {"POST", "/api/v1/disks", R"({"name":"a@b","size":1})", Errc::invalid, "a@b"},
      {"GET", "/api/v1/snapshots/a", "", Errc::invalid, "names no snapshot"},
      {"GET", "/api/v1/snapshots/a@", "", Errc::invalid, "snapshot's name is empty"},
      {"GET", "/api/v1/snapshots", "", Errc::unsupported, "GET"},
      {"GET", "/api/v1/jobs/x", "", Errc::not_found, "no such path"},
      {"POST", "/api/v1/snapshots/a@b/clone", "", Errc::invalid, "\"to\" is missing"},
      {"POST", "/api/v1/snapshots/a@b/clone", R"({"to":"c@d"})", Errc::invalid, "c@d"},
      {"POST", "/api/v1/snapshots/a@b/revert", R"({"force":1})", Errc::invalid, "force"},
      {"POST", "/api/v1/disks/a/consolidate", R"({"keep":-1})", Errc::invalid, "keep"},
      {"POST", "/api/v1/disks/a/consolidate", R"({"keep":4294967296})", Errc::invalid, "keep"},
      {"POST", "/api/v1/disks/a/extents", R"({"limit":-1})", Errc::invalid, "limit"},
      {"POST", "/api/v1/disks/a/extents", R"({"base":"a@b@c"})", Errc::invalid, "b@c"},
      {"POST", "/api/v1/disks/a/delete", R"({"snapshots":"yes"})", Errc::invalid, "snapshots"},
      {"POST", "/api/v1/disks/a/delete", "\xff", Errc::invalid, "JSON"},
  };
  for (const Refused& row : rows) {
    const Result<ControlRequest> request = decode_control(row.method, row.target, row.body);
    ASSERT_FALSE(request) << row.target << ' ' << row.body;
    EXPECT_EQ(request.error().code, row.code) << row.target << ' ' << text_of(request.error());
    EXPECT_NE(text_of(request.error()).find(row.says), std::string::npos)
        << row.target << ": " << text_of(request.error());
  }
}

TEST(Control, C1_bodies_are_bounded_in_length_and_depth) {
  const std::string deep = std::string(20000, '[') + std::string(20000, ']');
  EXPECT_FALSE(decode_control("POST", "/api/v1/pool/check", deep));
  const std::string open = "{\"settings\":" + std::string(60000, '{');
  EXPECT_FALSE(decode_control("POST", "/api/v1/disks/a/set", open));
  const std::string large = "{\"repair\":true" + std::string(kControlBodyBytesMax, ' ') + "}";
  EXPECT_FALSE(decode_control("POST", "/api/v1/pool/check", large));
  std::string many = "{\"settings\":{\"k\":\"\"";
  for (size_t i = 0; i < kSettingsMax; ++i) many += fmt::format(",\"k{}\":\"\"", i);
  EXPECT_FALSE(decode_control("POST", "/api/v1/disks/a/set", many + "}}"));
}

TEST(Control, problems_make_the_round_trip) {
  for (uint8_t number = 1; number <= 12; ++number) {
    const auto code = static_cast<Errc>(number);
    const Error again =
        decode_problem(status_of(code), encode_problem(status_of(code), code, "disk \"x\": no"));
    EXPECT_EQ(again.code, code);
    EXPECT_EQ(text_of(again), "disk \"x\": no");
    EXPECT_GE(status_of(code), 400);
  }
  EXPECT_EQ(decode_problem(502, "<html>").code, Errc::io);
  EXPECT_EQ(decode_problem(500, R"({"code":"nonsense","detail":"x"})").code, Errc::io);
  EXPECT_EQ(decode_problem(500, R"({"code":1,"detail":[]})").code, Errc::io);
}

}  // namespace
}  // namespace firn::wire
