// SPDX-License-Identifier: Apache-2.0
// The pure parts of the commands: what an image may refer to, tables, the progress bar, the parser.
#include <gtest/gtest.h>

#include "cmd/arguments.h"
#include "cmd/image.h"
#include "cmd/jobs.h"
#include "cmd/print.h"
#include "cmd/progress.h"

namespace firn::cmd {
namespace {

TEST(Image, J1_only_what_lies_beside_is_followed) {
  EXPECT_EQ(beside("/i/top.qcow2", "base.qcow2"), "/i/base.qcow2");
  EXPECT_EQ(beside("/i/top.qcow2", "/i/base.qcow2"), "/i/base.qcow2");
  EXPECT_EQ(beside("/i/top.qcow2", "/i/with:colon"), "/i/with:colon");
  for (const char* reference :
       {"/etc/shadow", "../base.qcow2", "sub/base.qcow2", "/i/../etc/shadow", "nbd://host/x", "..",
        ".", "json:{\"driver\":\"file\"}", "fat:rw", "", "/i/", "/other/top.qcow2", "ssh://h/p"}) {
    EXPECT_FALSE(beside("/i/top.qcow2", reference).has_value()) << reference;
  }
}

TEST(Image, what_qemu_says_is_taken_with_care) {
  const Result<ImageInfo> info = parse_image_info(
      R"({"format":"vmdk","virtual-size":4194304,"backing-filename":"b",
          "backing-filename-format":"raw",
          "format-specific":{"data":{"data-file":"d","extents":[{"filename":"e"},7,{"x":1}]}}})",
      "f");
  ASSERT_TRUE(info);
  EXPECT_EQ(info->bytes, 4194304u);
  EXPECT_EQ(info->backing, "b");
  EXPECT_EQ(info->references, (std::vector<std::string>{"d", "e"}));
  for (const char* json : {"", "[]", "{", R"({"format":"raw"})", R"({"format":7,"virtual-size":1})",
                           R"({"format":"raw","virtual-size":-1})"}) {
    EXPECT_EQ(parse_image_info(json, "f").error().code, Errc::io) << json;
  }
  EXPECT_EQ(parse_image_info(R"({"format":"vdi","virtual-size":1})", "f").error().code,
            Errc::unsupported);
}

TEST(Print, tables) {
  EXPECT_EQ(table_of_disks(R"([{"name":"a","bytes":1073741824,"mapped_bytes":0,"attached":1,
                               "settings":{"serve":"off","read-only":"off","new":"x y"}},
                              {"name":"long-name"}])"),
            "NAME        SIZE  MAPPED  ATTACHED  SNAPSHOTS  SETTINGS\n"
            "a          1 GiB     0 B         1          -  serve=off new=\"x y\"\n"
            "long-name      -       -         -          -\n");
  EXPECT_EQ(table_of_disks("not json"), "NAME  SIZE  MAPPED  ATTACHED  SNAPSHOTS  SETTINGS\n");
  EXPECT_EQ(table_of_snapshots(R"([{"name":"s","created":"x","bytes":1024,"mapped_bytes":0,
                                   "attached":2,"current":false,"clones":["c","d\u001b",7]}])"),
            "NAME  CREATED   SIZE  MAPPED  ATTACHED  CLONES\n"
            "s     x        1 KiB     0 B         2  c, d? (not below the disk)\n");
  EXPECT_EQ(table_of_snapshots("{"), "NAME  CREATED  SIZE  MAPPED  ATTACHED  CLONES\n");
  EXPECT_EQ(table_of_jobs(R"([{"kind":"drop","layer":3,"into":0,"disk":"","done":1,"total":9,
                              "state":"waiting","error":""},{}])"),
            "KIND  LAYER  INTO  DISK  STEPS  STATE    ERROR\n"
            "drop      3     -  -       1/9  waiting\n"
            "-         -     -  -       -/-  -        -\n");
  EXPECT_EQ(table_of_jobs(R"([{"kind":"drop","layer":3,"into":0,"disk":"","done":1,"total":9,
                              "state":"failed","error":"x","failures":2,"again_seconds":4}])"),
            "KIND  LAYER  INTO  DISK  STEPS  STATE                 ERROR\n"
            "drop      3     -  -       1/9  failed, again in 4 s  x\n");
  const auto disk = [](const char* tracking) {
    return text_of_disk(fmt::format(R"({{"name":"a","tracking":{}}})", tracking));
  };
  EXPECT_NE(disk("7").find("tracking   -\n"), std::string::npos);
  EXPECT_NE(disk(R"({"active":false,"applications":[]})").find("tracking   off\n"),
            std::string::npos);
  EXPECT_NE(disk(R"({"active":true,"change_id":"d/b/2","applications":[
                     {"name":"x","change_id":"d/b/1","began":"then","current":true},
                     {"name":"y","change_id":"d/a/1","began":"then","current":false}]})")
                .find("tracking      on, last event d/b/2\n"
                      "applications  x: then, d/b/1\n"
                      "              y: then, d/a/1 (next copy is a full one)\n"),
            std::string::npos);
  EXPECT_NE(text_of_pool("[]").find("capacity   -"), std::string::npos);
  EXPECT_TRUE(text_of_check(R"({"clean":true,"disks":1})").starts_with("clean: 1 disks"));
  EXPECT_TRUE(text_of_check(R"({"clean":false,"findings":["page 7\u001b"]})")
                  .starts_with("page 7?\nnot clean"));
  EXPECT_FALSE(is_clean("{}"));
  EXPECT_FALSE(is_clean(R"({"clean":1})"));
  EXPECT_EQ(number_member(R"({"x":-1})", "x"), 0u);
  EXPECT_EQ(text_member("7", "x"), "");
}

TEST(Print, members_that_commands_decide_by) {
  EXPECT_EQ(numbers_member(R"({"layers":[3,"x",-1,4]})", "layers"), (std::vector<uint64_t>{3, 4}));
  EXPECT_TRUE(numbers_member("[]", "layers").empty());
  EXPECT_TRUE(flag_member(R"({"complete":true})", "complete"));
  EXPECT_FALSE(flag_member(R"({"complete":1})", "complete"));
  EXPECT_EQ(in_use_of(R"({"in_use":[{"name":"s","attached":1},{"name":"t","attached":2}]})", "a"),
            (std::vector<std::string>{"'a@s' (1 client)", "'a@t' (2 clients)"}));
  const std::vector<ExtentLine> extents =
      extents_of(R"({"extents":[{"offset":1,"length":2,"kind":"data"},7]})");
  ASSERT_EQ(extents.size(), 2u);
  EXPECT_EQ(extents[0].length, 2u);
  EXPECT_EQ(extents[1].kind, "-");
}

TEST(JobWatch, follows_its_layers_until_they_are_gone) {
  JobWatch watch({3, 5});
  const auto jobs = [](const char* json) { return jobs_of(json); };
  EXPECT_TRUE(*watch.look(jobs(R"([{"layer":3,"done":5,"total":10},{"layer":5,"done":0,"total":10},
                                   {"layer":9,"done":0,"total":99,"state":"failed"}])")));
  EXPECT_EQ(watch.percent(), 25.0);
  EXPECT_TRUE(*watch.look(jobs(R"([{"layer":5,"done":5,"total":10}])")));
  EXPECT_EQ(watch.percent(), 75.0);
  EXPECT_FALSE(*watch.look(jobs("[]")));
  EXPECT_EQ(watch.percent(), 100.0);
  JobWatch stopped({3});
  const Result<bool> look =
      stopped.look(jobs(R"([{"layer":3,"state":"failed","error":"page 7 is corrupt"}])"));
  ASSERT_FALSE(look);
  EXPECT_NE(std::string(text_of(look.error())).find("page 7 is corrupt"), std::string::npos);
}

TEST(Progress, lines_fit_the_terminal) {
  EXPECT_EQ(progress_line("x", 50, 30), "x [########.........]  50.0 %");
  EXPECT_EQ(progress_line("x", 250, 30), "x [#################] 100.0 %");
  EXPECT_EQ(progress_line("importing something", 1, 20), "importing something   1.0 %");
  for (size_t columns = 20; columns < 200; ++columns) {
    EXPECT_LT(progress_line("abc", 33.3, columns).size(), columns);
  }
}

struct Parsed {
  int status = 0;
  std::optional<Arguments> arguments;
};
Parsed parse(std::vector<std::string> words) {
  words.insert(words.begin(), "firn");
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  Parsed parsed;
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  parsed.arguments =
      parse_arguments(static_cast<int>(words.size()), pointers.data(), parsed.status);
  testing::internal::GetCapturedStdout();
  testing::internal::GetCapturedStderr();
  return parsed;
}

TEST(Arguments, the_contract_parses) {
  const Parsed create = parse({"pool", "create", "/p", "--size", "64G", "--journal", "pmem:/m"});
  ASSERT_TRUE(create.arguments);
  EXPECT_EQ(create.arguments->shape.bytes, uint64_t{64} << 30);
  EXPECT_EQ(create.arguments->shape.journal, "pmem:/m");
  const Parsed disk = parse({"disk", "create", "a", "--size", "1G", "serve=off", "--pool", "/p"});
  ASSERT_TRUE(disk.arguments) << "--pool may stand anywhere";
  EXPECT_EQ(disk.arguments->pool, "/p");
  EXPECT_EQ(disk.arguments->settings.front().second, "off");
  const Parsed serve = parse({"serve", "/p", "--nbd", "unix:/s", "--nbd", "tcp:[::1]:0",
                              "--nbd-mode", "0666", "--http", "127.0.0.1:9", "--cache", "32M"});
  ASSERT_TRUE(serve.arguments);
  EXPECT_EQ(serve.arguments->daemon.nbd.size(), 2u);
  EXPECT_EQ(serve.arguments->daemon.nbd_mode, 0666u);
  EXPECT_EQ(serve.arguments->daemon.pool.cache_bytes, uint64_t{32} << 20);
  const Parsed vhost = parse({"serve", "/p", "--vhost-user-dir", "/v", "--vhost-user-mode", "0600",
                              "--vhost-user-owner", "root:kvm"});
  ASSERT_TRUE(vhost.arguments);
  EXPECT_EQ(vhost.arguments->daemon.vhost.directory, "/v");
  EXPECT_EQ(vhost.arguments->daemon.vhost.mode, 0600u);
  EXPECT_EQ(vhost.arguments->daemon.vhost.owner, "root:kvm");
  EXPECT_TRUE(parse({"--pool", "/p", "nbd", "a", "--stdio"}).arguments);
  const Parsed keep = parse({"--pool", "/p", "disk", "consolidate", "a", "--keep", "0"});
  ASSERT_TRUE(keep.arguments);
  EXPECT_EQ(keep.arguments->keep, 0u);
  const Parsed diff = parse({"changes", "diff", "a@x", "a@y", "--offset", "1G", "--limit", "5",
                             "--json", "--pool", "/p"});
  ASSERT_TRUE(diff.arguments);
  EXPECT_EQ(diff.arguments->base, "a@x");
  EXPECT_EQ(diff.arguments->name, "a@y");
  EXPECT_EQ(diff.arguments->offset, uint64_t{1} << 30);
  EXPECT_EQ(diff.arguments->limit, 5u);
  for (const auto& words :
       std::vector<std::vector<std::string>>{{"snapshot", "create", "a@b"},
                                             {"snapshot", "list", "a"},
                                             {"snapshot", "delete", "a@b", "--background"},
                                             {"snapshot", "revert", "a@b", "--force"},
                                             {"snapshot", "diff", "a@b", "a", "--json"},
                                             {"disk", "clone", "a@b", "c"},
                                             {"disk", "delete", "a", "--snapshots", "--background"},
                                             {"changes", "allocated", "a@b"},
                                             {"jobs"}}) {
    std::vector<std::string> all = words;
    all.insert(all.end(), {"--pool", "/p"});
    EXPECT_TRUE(parse(all).arguments) << words.front() << ' ' << words.back();
  }
  EXPECT_EQ(parse({"disk", "import", "--help"}).status, 0);
  EXPECT_EQ(parse({"--version"}).status, 0);
}

TEST(Arguments, usage_is_status_2) {
  const std::vector<std::vector<std::string>> wrong{
      {},
      {"frobnicate"},
      {"pool"},
      {"pool", "create"},
      {"pool", "create", "/p", "--size", "12parsecs"},
      {"pool", "create", "/p", "--journal", "tape:/t"},
      {"pool", "create", "/p", "--tier", "/t"},
      {"serve", "/p", "--nbd", "carrier-pigeon"},
      {"serve", "/p", "--nbd", "tcp:127.0.0.1:65536"},
      {"serve", "/p", "--http", "9090"},
      {"serve", "/p", "--nbd-mode", "0999"},
      {"serve", "/p", "--tls", "required"},
      {"serve", "/p", "--vhost-user-dir", "/v", "--vhost-user-mode", "rw"},
      {"disk", "set", "a", "novalue", "--pool", "/p"},
      {"disk", "import", "a", "f", "--format", "iso", "--pool", "/p"},
      {"nbd", "a", "--pool", "/p"},
      {"snapshot", "--pool", "/p"},
      {"snapshot", "create", "--pool", "/p"},
      {"snapshot", "list", "--pool", "/p"},
      {"snapshot", "diff", "a@b", "--pool", "/p"},
      {"snapshot", "create", "a@b"},
      {"disk", "clone", "a@b", "--pool", "/p"},
      {"disk", "consolidate", "a", "--keep", "-1", "--pool", "/p"},
      {"disk", "consolidate", "a", "--keep", "all", "--pool", "/p"},
      {"changes", "diff", "a@b", "a@c", "--limit", "0", "--pool", "/p"},
      {"changes", "diff", "a@b", "a@c", "--offset", "far", "--pool", "/p"},
  };
  for (const auto& words : wrong) {
    const Parsed parsed = parse(words);
    EXPECT_FALSE(parsed.arguments) << (words.empty() ? "" : words.back());
    EXPECT_EQ(parsed.status, 2) << (words.empty() ? "" : words.back());
  }
}

}  // namespace
}  // namespace firn::cmd
