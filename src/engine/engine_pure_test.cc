// SPDX-License-Identifier: Apache-2.0
// The parts of the engine that need no pool: settings, log lines, metrics text, answers.
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>

#include "engine/answer.h"
#include "engine/disk_paths.h"
#include "engine/engine.h"
#include "engine/log.h"
#include "engine/metrics.h"
#include "engine/settings.h"

namespace firn::engine {
namespace {

// ----- settings

TEST(Settings, G1_what_is_stored_has_one_spelling) {
  EXPECT_EQ(*check_setting("serve", "no"), "off");
  EXPECT_EQ(*check_setting("read-only", "true"), "on");
  EXPECT_EQ(*check_setting("description", "a \"disk\""), "a \"disk\"");
  EXPECT_EQ(*check_setting("serve", ""), "") << "empty restores the default";
  EXPECT_EQ(check_setting("description", std::string(256, 'x'))->size(), 256u);
}

TEST(Settings, G1_what_is_refused_is_named) {
  const auto sentence = [](std::string_view key, std::string_view value) {
    const Result<std::string> checked = check_setting(key, value);
    return checked ? std::string("accepted") : std::string(text_of(checked.error()));
  };
  EXPECT_NE(sentence("coalescence", "wild").find("no setting \"coalescence\""), std::string::npos);
  EXPECT_NE(sentence("coalescence", "wild").find("read-only"), std::string::npos)
      << "says what there is";
  EXPECT_NE(sentence("serve", "maybe").find("\"maybe\" is neither on nor off"), std::string::npos);
  EXPECT_NE(sentence("description", std::string(257, 'x')).find("0 to 256"), std::string::npos);
  EXPECT_NE(sentence("description", "a\nb").find("control character"), std::string::npos);
}

TEST(Settings, G2_defaults_hold_where_nothing_readable_is_stored) {
  EXPECT_TRUE(flag_setting({}, "serve"));
  EXPECT_FALSE(flag_setting({}, "read-only"));
  EXPECT_FALSE(flag_setting({{"serve", "off"}}, "serve"));
  EXPECT_TRUE(flag_setting({{"serve", "on tuesdays"}}, "serve"));
  EXPECT_EQ(text_setting({}, "description"), "");
  EXPECT_EQ(text_setting({{"description", "x"}}, "description"), "x");
}

TEST(Settings, G1_counts) {
  EXPECT_EQ(*check_setting("keep", "7"), "7");
  EXPECT_EQ(*check_setting("chain", "032"), "32") << "one spelling";
  for (const char* value : {"-1", "7 ", "1000001", "many", "1.5", "99999999999999999999"}) {
    const Result<std::string> checked = check_setting("keep", value);
    ASSERT_FALSE(checked) << value;
    EXPECT_NE(std::string(text_of(checked.error())).find("from 0 to 1000000"), std::string::npos);
  }
  EXPECT_EQ(count_setting({}, "keep"), 0u);
  EXPECT_EQ(count_setting({{"keep", "3"}}, "keep"), 3u);
  EXPECT_EQ(count_setting({{"keep", "for ever"}}, "keep"), 0u) << "G2";
}

TEST(Settings, G1_numbers) {
  EXPECT_EQ(*check_setting("iops", "0500"), "500");
  EXPECT_EQ(*check_setting("iops", "0"), "0");
  EXPECT_EQ(*check_setting("bandwidth", "1024K"), "1M");
  EXPECT_EQ(*check_setting("bandwidth", "1.5MiB"), "1536K");
  EXPECT_EQ(*check_setting("bandwidth", "0"), "0");
  EXPECT_EQ(*check_setting("burst", "2"), "2");
  EXPECT_EQ(*check_setting("burst", "0.250"), "0.25");
  EXPECT_EQ(*check_setting("coalesce", "off"), "off");
  const std::pair<const char*, const char*> bad[] = {
      {"iops", "-1"},         {"iops", "many"},       {"iops", "1.5"},    {"iops", "1000000001"},
      {"bandwidth", "65535"}, {"bandwidth", "10 MB"}, {"bandwidth", "x"}, {"bandwidth", "2T"},
      {"burst", "0"},         {"burst", "0.0005"},    {"burst", ".5"},    {"burst", "1."},
      {"burst", "3601"},      {"coalesce", "on"},     {"coalesce", "au"}, {"coalesce", "auto off"}};
  for (const auto& [key, value] : bad) {
    const Result<std::string> checked = check_setting(key, value);
    ASSERT_FALSE(checked) << key << " " << value;
    const std::string why(text_of(checked.error()));
    EXPECT_NE(why.find(key), std::string::npos) << why;
    EXPECT_NE(why.find(value), std::string::npos) << why;
  }
  EXPECT_EQ(count_setting({}, "iops"), 0u);
  EXPECT_EQ(count_setting({{"bandwidth", "2M"}}, "bandwidth"), 2 * kMiB);
  EXPECT_EQ(count_setting({}, "burst"), 100u);
  EXPECT_EQ(count_setting({{"burst", "for ever"}}, "burst"), 100u) << "G2";
  EXPECT_EQ(text_setting({{"coalesce", "by-magic"}}, "coalesce"), "auto") << "G2";
}

TEST(Settings, limits_of_a_disk) {
  EXPECT_FALSE(limits_of({}));
  EXPECT_FALSE(limits_of({{"burst", "3"}}));
  const auto requests = limits_of({{"iops", "500"}});
  ASSERT_TRUE(requests);
  EXPECT_EQ(requests->requests.rate, 500u);
  EXPECT_EQ(requests->requests.burst, 50u);
  EXPECT_EQ(requests->bytes.rate, 0u);
  const auto bytes = limits_of({{"bandwidth", "1M"}, {"burst", "2"}, {"iops", "1"}});
  ASSERT_TRUE(bytes);
  EXPECT_EQ(bytes->bytes.burst, 2 * kMiB);
  EXPECT_EQ(limits_of({{"iops", "1"}})->requests.burst, 1u) << "never less than one request";
}

TEST(Settings, every_row_of_the_table_is_sound) {
  std::set<std::string_view> keys;
  for (const SettingRow& row : all_settings()) {
    EXPECT_TRUE(keys.insert(row.key).second) << row.key;
    EXPECT_LE(row.min, row.max) << row.key;
    EXPECT_TRUE(row.sentence.ends_with('.')) << row.key;
    const Result<std::string> initial = check_setting(row.key, row.initial);
    ASSERT_TRUE(initial) << row.key;
    EXPECT_EQ(*initial, row.initial) << "a default is stored as it is spelt";
    EXPECT_NE(describe_settings().find(row.key), std::string::npos);
  }
}

// ----- the log

TEST(Log, L1_lines_of_text_and_json) {
  constexpr int64_t kTime = 1'795'174'395'123'000'000;  // 2026-11-20T11:33:15.123Z
  const LogSettings text;
  EXPECT_EQ(
      log_line(text, kTime, LogLevel::info, "serving", {{"pool", "/p"}, {"why", "a \"b\"\nc"}}),
      "time=2026-11-20T11:33:15.123Z level=info event=serving pool=/p why=\"a \\\"b\\\"\\nc\"\n");
  LogSettings json;
  json.format = LogFormat::json;
  EXPECT_EQ(log_line(json, kTime, LogLevel::error, "x", {{"k", "\xff\x01"}}),
            "{\"time\":\"2026-11-20T11:33:15.123Z\",\"level\":\"error\",\"event\":\"x\","
            "\"k\":\"\xef\xbf\xbd\\u0001\"}\n");
}

TEST(Log, L2_the_journal_gets_priorities) {
  LogSettings settings;
  settings.journal = true;
  EXPECT_EQ(log_line(settings, 0, LogLevel::error, "x y", {}), "<3>level=error event=\"x y\"\n");
  EXPECT_EQ(log_line(settings, 0, LogLevel::debug, "x", {}), "<7>level=debug event=x\n");
  settings.format = LogFormat::json;
  EXPECT_EQ(log_line(settings, 0, LogLevel::info, "x", {}),
            "<6>{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"info\",\"event\":\"x\"}\n");
}

TEST(Log, times) {
  EXPECT_EQ(text_of_time(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(text_of_time(951'782'400LL * 1'000'000'000), "2000-02-29T00:00:00Z");
  EXPECT_EQ(text_of_time(4'102'444'799LL * 1'000'000'000), "2099-12-31T23:59:59Z");
  EXPECT_EQ(text_of_time(-1), "1969-12-31T23:59:59Z");
}

// ----- metrics

// The format's own rules, line by line: what promtool would say.
void expect_valid(const std::string& text) {
  static const std::regex help("# HELP ([a-z_][a-z0-9_]*) .+");
  static const std::regex type("# TYPE ([a-z_][a-z0-9_]*) (gauge|counter)");
  static const std::regex sample(
      "([a-z_][a-z0-9_]*)(\\{[a-z_][a-z0-9_]*=\"([^\"\\\\\n]|\\\\[\\\\\"n])*\""
      "(,[a-z_][a-z0-9_]*=\"([^\"\\\\\n]|\\\\[\\\\\"n])*\")*\\})? [0-9.e+-]+");
  ASSERT_TRUE(text.ends_with('\n'));
  std::set<std::string> families;
  std::set<std::string> samples;
  std::string family;
  bool typed = false;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_match(line, match, help)) {
      family = match[1];
      typed = false;
      EXPECT_TRUE(families.insert(family).second) << line;
      EXPECT_TRUE(family.starts_with("firn_")) << line;
    } else if (std::regex_match(line, match, type)) {
      EXPECT_EQ(match[1], family) << line;
      EXPECT_EQ(match[2] == "counter", family.ends_with("_total")) << line;
      typed = true;
    } else {
      ASSERT_TRUE(std::regex_match(line, match, sample)) << line;
      EXPECT_EQ(match[1], family) << line;
      EXPECT_TRUE(typed) << line;
      EXPECT_TRUE(samples.insert(line.substr(0, line.rfind(' '))).second) << "twice: " << line;
    }
  }
}

TEST(Metrics, M1_everything_is_valid_text) {
  MetricsText text;
  add_build(text);
  store::PoolInfo pool;
  pool.directory = "/a \"b\"\\c\nd";
  pool.capacity_bytes = uint64_t{64} << 30;
  add_pool(text, pool);
  disk::DiskInfo a;
  a.name = "a";
  a.bytes = 4096;
  disk::DiskInfo b;
  b.name = "b:1";
  add_disks(text, {a, b});
  disk::JobInfo waiting;
  waiting.steps_total = 3;
  disk::JobInfo running = waiting;
  running.kind = disk::JobKind::consolidate;
  running.state = disk::JobState::running;
  running.steps_done = 2;
  add_jobs(text, {waiting, running, waiting}, {.consolidated = 5, .work_ns = 1'500'000'000});
  add_instant(text, {{"c", {{.done_bytes = 1, .total_bytes = 2}, "no route"}}});
  add_paths(text, {{"a", {}}});
  add_nbd(text, {});
  add_io(text, FiberIoCounters());
  add_process(text);
  const std::string out = text.take();
  expect_valid(out);
  EXPECT_NE(out.find("firn_disk_bytes{disk=\"a\"} 4096\n"), std::string::npos);
  EXPECT_NE(out.find("firn_pool_capacity_bytes 68719476736\n"), std::string::npos);
  for (const char* line :
       {"firn_jobs{kind=\"drop\",state=\"waiting\"} 2\n",
        "firn_job_steps_done{kind=\"consolidate\",state=\"running\"} 2\n",
        "firn_job_steps_planned{kind=\"drop\",state=\"waiting\"} 6\n",
        "firn_jobs_ended_total{how=\"consolidated\"} 5\n",
        "firn_restoring_done_bytes{disk=\"c\"} 1\n", "firn_restoring_stalled{disk=\"c\"} 1\n",
        "firn_job_work_seconds_total{kind=\"layer\"} 1.5\n", "firn_disk_layers{disk=\"a\"} 1\n",
        "firn_pool_data_read_bytes_total{by=\"consolidate\"} 0\n"}) {
    EXPECT_NE(out.find(line), std::string::npos) << line;
  }
  EXPECT_NE(out.find("directory=\"/a \\\"b\\\"\\\\c\\nd\""), std::string::npos) << "M2";
}

TEST(MetricsDeathTest, M1_M2_programmers_errors) {
  MetricsText text;
  EXPECT_DEATH(text.family("other_x", MetricType::gauge, "x"), "CHECK");
  EXPECT_DEATH(text.family("firn_x", MetricType::counter, "x"), "CHECK");
  EXPECT_DEATH(text.sample({}, uint64_t{1}), "CHECK");
  text.family("firn_x", MetricType::gauge, "x");
  EXPECT_DEATH(text.sample({{"Bad-Key", "x"}}, uint64_t{1}), "CHECK");
  EXPECT_DEATH(text.family("firn_x", MetricType::gauge, "x"), "came before");
}

// ----- answers

TEST(Answer, documents_keep_their_keys) {
  disk::DiskInfo info;
  info.name = "a";
  info.bytes = 1;
  info.settings = {{"serve", "off"}, {"from-the-future", "x"}};
  EXPECT_EQ(answer_disks({info}),
            R"([{"name":"a","uuid":"","bytes":1,"mapped_bytes":0,"metadata_bytes":0,)"
            R"("created":"1970-01-01T00:00:00Z","attached":0,"snapshots":0,"layers":1,)"
            R"("origin":"","settings":{"bandwidth":"0",)"
            R"("burst":"0.1","chain":"0","coalesce":"auto","completion":"off",)"
            R"("description":"","iops":"0","keep":"0","pace":"none",)"
            R"("read-only":"off","serve":"off","placement":"in-place","from-the-future":"x"}}])");
  EXPECT_EQ(answer_disks({}), "[]");
  disk::TrackingInfo tracking;
  EXPECT_NE(answer_disk(info, tracking, {})
                .find(R"("tracking":{"active":false,"change_id":null,)"
                      R"("block_bytes":null,"applications":[]})"),
            std::string::npos);
  tracking.active = true;
  tracking.change_id = "d/b/2";
  tracking.block_bytes = 65536;
  disk::ApplicationInfo app;
  app.name = "x";
  app.change_id = "d/b/1";
  EXPECT_NE(answer_disk(info, tracking, {app})
                .find(R"("tracking":{"active":true,"change_id":"d/b/2","block_bytes":65536,)"
                      R"("applications":[{"name":"x","change_id":"d/b/1","previous":null,)"
                      R"("began":"1970-01-01T00:00:00Z","current":true}]})"),
            std::string::npos);
  disk::CheckReport report;
  EXPECT_NE(answer_check(report).find(R"("clean":true)"), std::string::npos);
  report.findings = {"page 7 is \xff"};
  EXPECT_NE(answer_check(report).find(R"("clean":false)"), std::string::npos);
  EXPECT_NE(answer_pool({}, {}).find(R"("served":false)"), std::string::npos);
  EXPECT_NE(answer_pool({}, {{"unix:/x"}, 3}).find(R"("listeners":["unix:/x"],"connections":3)"),
            std::string::npos);
}

TEST(Answer, snapshots_jobs_and_extents_keep_their_keys) {
  disk::SnapshotInfo info;
  info.disk = "a";
  info.name = "s";
  info.layer = 7;
  info.clones = {"b", "c"};
  const std::string snapshot =
      R"({"disk":"a","name":"s","uuid":"","bytes":0,"mapped_bytes":0,"metadata_bytes":0,)"
      R"("created":"1970-01-01T00:00:00Z","attached":0,"layer":7,"current":true,)"
      R"("clones":["b","c"])";
  EXPECT_EQ(answer_snapshots({info}), "[" + snapshot + "}]");
  EXPECT_EQ(answer_made(info, {{"r"}, {}}, {3}), snapshot + R"(,"deleted":["r"],"layers":[3]})");
  EXPECT_EQ(answer_snapshots({}), "[]");
  info.attached = 2;
  EXPECT_EQ(answer_kept({{"r"}, {info}}, {}),
            R"({"deleted":["r"],"in_use":[{"name":"s","attached":2}],"layers":[]})");
  EXPECT_EQ(answer_layers({1, 2}), R"({"layers":[1,2]})");
  disk::JobInfo job;
  job.kind = disk::JobKind::consolidate;
  job.state = disk::JobState::failed;
  job.layer = 4;
  job.into = 5;
  job.steps_total = 9;
  job.error = "page 7";
  EXPECT_EQ(answer_jobs({job}),
            R"([{"kind":"consolidate","layer":4,"into":5,"disk":"","done":0,"total":9,)"
            R"("state":"failed","error":"page 7","failures":0,"again_seconds":null}])");
  job.failures = 3;
  job.again_in = std::chrono::milliseconds(3100);
  EXPECT_NE(answer_jobs({job}).find(R"("failures":3,"again_seconds":4)"), std::string::npos);
  EXPECT_EQ(answer_jobs({}), "[]");
  ExtentPage page{8192, {{0, 4096, Extent::data}, {4096, 4096, Extent::zero}}, 8192, true};
  EXPECT_EQ(answer_extents("a@t", "a@s", 0, page),
            R"({"name":"a@t","base":"a@s","bytes":8192,"offset":0,"extents":[)"
            R"({"offset":0,"length":4096,"kind":"data"},)"
            R"({"offset":4096,"length":4096,"kind":"zero"}],"next":8192,"complete":true})");
}

TEST(Answer, names_of_imports_are_told_apart) {
  EXPECT_TRUE(is_import("web.importing"));
  EXPECT_FALSE(is_import("importing"));
}

}  // namespace
}  // namespace firn::engine
