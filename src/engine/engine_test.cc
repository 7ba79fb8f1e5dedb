// SPDX-License-Identifier: Apache-2.0
// The engine on a pool of its own, and its connections: FiberIo in a scratch directory.
#include "engine/engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "engine/client.h"
#include "engine/exports.h"
#include "engine/http_server.h"
#include "engine/lone_export.h"
#include "io/fiber_io.h"
#include "io/socket.h"

namespace firn::engine {
namespace {

using wire::ControlRequest;
using wire::ControlVerb;

class EngineTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = testing::TempDir() + "/firn-engine-XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    scratch_ = path;
    pool_ = path + "/pool";
    Result<std::unique_ptr<FiberIo>> io = FiberIo::make();
    ASSERT_TRUE(io) << text_of(io.error());
    io_ = io.take();
  }
  void TearDown() override { std::filesystem::remove_all(scratch_); }

  void run(Task body) { io_->run(std::move(body)); }
  void make_pool() {
    store::PoolShape shape;
    shape.bytes = 256 * kMiB;
    const Result<void> made = store::Pool::create(*io_, pool_, shape);
    ASSERT_TRUE(made) << text_of(made.error());
  }
  std::unique_ptr<Engine> open(bool read_only = false) {
    store::PoolSettings settings;
    settings.background = false;
    settings.read_only = read_only;
    Result<std::unique_ptr<Engine>> engine = Engine::open(*io_, pool_, settings);
    EXPECT_TRUE(engine) << text_of(engine.error());
    return engine ? engine.take() : nullptr;
  }
  // What was answered, or the name of the error.
  std::string ask(Engine& engine, const ControlRequest& request) {
    const Result<std::string> answer = engine.answer(*io_, request, Service());
    return answer ? *answer : std::string(name_of(answer.error().code));
  }

  std::string scratch_;
  std::string pool_;
  std::unique_ptr<FiberIo> io_;
};

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST_F(EngineTest, E1_every_verb_on_a_pool) {
  run([this] {
    make_pool();
    const std::unique_ptr<Engine> engine = open();
    ASSERT_NE(engine, nullptr);
    EXPECT_EQ(ask(*engine, {.verb = ControlVerb::disk_list}), "[]");
    const ControlRequest create{.verb = ControlVerb::disk_create,
                                .name = "a",
                                .bytes = 64 * kMiB,
                                .settings = {{"serve", "no"}}};
    EXPECT_TRUE(has(ask(*engine, create), R"("bytes":67108864)"));
    EXPECT_EQ(ask(*engine, create), "exists");
    EXPECT_TRUE(
        has(ask(*engine, {.verb = ControlVerb::disk_info, .name = "a"}), R"("serve":"off")"));
    EXPECT_TRUE(
        has(ask(*engine, {.verb = ControlVerb::disk_resize, .name = "a", .bytes = 128 * kMiB}),
            R"("bytes":134217728)"));
    EXPECT_TRUE(has(ask(*engine, {.verb = ControlVerb::disk_rename, .name = "a", .to = "b"}),
                    R"("name":"b")"));
    EXPECT_EQ(ask(*engine, {.verb = ControlVerb::disk_flush, .name = "b"}), "{}");
    EXPECT_TRUE(has(ask(*engine, {.verb = ControlVerb::disk_set,
                                  .name = "b",
                                  .settings = {{"description", "x"}, {"serve", ""}}}),
                    R"("description":"x","iops":"0","keep":"0","pace":"none",)"
                    R"("read-only":"off","serve":"on")"));
    EXPECT_TRUE(has(ask(*engine, {.verb = ControlVerb::pool_check}), R"("clean":true)"));
    EXPECT_TRUE(has(ask(*engine, {.verb = ControlVerb::pool_grow, .bytes = 512 * kMiB}),
                    R"("capacity_bytes":536870912)"));
    const std::string gone = ask(*engine, {.verb = ControlVerb::disk_delete, .name = "b"});
    EXPECT_EQ(gone, R"({"layers":[]})") << "nothing runs in the background: it is done";
    EXPECT_EQ(ask(*engine, {.verb = ControlVerb::disk_delete, .name = "b"}), "not_found");
    EXPECT_EQ(ask(*engine, {.verb = ControlVerb::disk_socket, .name = "b"}), "unsupported");
    EXPECT_TRUE(engine->close(*io_));
  });
}

TEST_F(EngineTest, E1_a_bad_setting_makes_nothing) {
  run([this] {
    make_pool();
    const std::unique_ptr<Engine> engine = open();
    EXPECT_EQ(ask(*engine, {.verb = ControlVerb::disk_create,
                            .name = "a",
                            .bytes = kMiB,
                            .settings = {{"serve", "perhaps"}}}),
              "invalid");
    EXPECT_EQ(ask(*engine, {.verb = ControlVerb::disk_list}), "[]");
    EXPECT_EQ(
        ask(*engine, {.verb = ControlVerb::disk_set, .name = "a", .settings = {{"serve", "on"}}}),
        "not_found");
    EXPECT_TRUE(engine->close(*io_));
  });
}

TEST_F(EngineTest, E4_what_was_changed_is_there_when_opened_again_and_looking_changes_nothing) {
  run([this] {
    make_pool();
    std::unique_ptr<Engine> engine = open();
    EXPECT_TRUE(
        has(ask(*engine, {.verb = ControlVerb::disk_create, .name = "a", .bytes = kMiB}), "a"));
    EXPECT_TRUE(engine->close(*io_));
    engine = open(/*read_only=*/true);
    EXPECT_TRUE(
        has(ask(*engine, {.verb = ControlVerb::disk_info, .name = "a"}), R"("bytes":1048576)"));
    EXPECT_EQ(ask(*engine, {.verb = ControlVerb::disk_delete, .name = "a"}), "invalid");
    EXPECT_TRUE(engine->close(*io_));
  });
}

TEST_F(EngineTest, exports_follow_the_settings) {
  run([this] {
    make_pool();
    const std::unique_ptr<Engine> engine = open();
    for (const char* name : {"a", "hidden", "fixed", "half.importing"}) {
      ask(*engine, {.verb = ControlVerb::disk_create, .name = name, .bytes = kMiB});
    }
    ask(*engine, {.verb = ControlVerb::disk_set, .name = "hidden", .settings = {{"serve", "off"}}});
    ask(*engine, {.verb = ControlVerb::disk_set,
                  .name = "fixed",
                  .settings = {{"read-only", "on"}, {"description", "gold"}}});
    DiskExports exports(engine->disks());
    const std::vector<serve::ExportEntry> entries = exports.list(*io_);
    ASSERT_EQ(entries.size(), 2u);
    EXPECT_EQ(entries[0].name, "a");
    EXPECT_EQ(entries[1].description, "gold");
    EXPECT_FALSE(exports.find(*io_, "hidden"));
    EXPECT_FALSE(exports.find(*io_, "half.importing"));
    EXPECT_EQ(exports.find(*io_, "nobody").error().code, Errc::not_found);
    EXPECT_TRUE(exports.find(*io_, "fixed")->read_only);
    EXPECT_FALSE(exports.find(*io_, "a")->read_only);
    LoneExports lone(engine->disks(), "half.importing");
    EXPECT_EQ(lone.list(*io_).size(), 1u);
    EXPECT_TRUE(lone.find(*io_, "half.importing"));
    EXPECT_FALSE(lone.find(*io_, "a"));
    EXPECT_TRUE(engine->close(*io_));
  });
}

// ----- snapshots

class SnapshotsTest : public EngineTest {
 protected:
  // A pool with disk "a" of 64 MiB, written by `write`.
  void with_engine(const std::function<void(Engine&)>& body) {
    run([&, this] {
      make_pool();
      const std::unique_ptr<Engine> engine = open();
      ASSERT_NE(engine, nullptr);
      ask(*engine, {.verb = ControlVerb::disk_create, .name = "a", .bytes = 64 * kMiB});
      body(*engine);
      EXPECT_TRUE(has(ask(*engine, {.verb = ControlVerb::pool_check}), R"("clean":true)"));
      EXPECT_TRUE(engine->close(*io_));
    });
  }
  void write(Engine& engine, uint64_t at, uint64_t length, char with) {
    const auto device = engine.disks().attach(*io_, "a");
    ASSERT_TRUE(device);
    const std::string text(length, with);
    const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
    ASSERT_TRUE((*device)->write(*io_, {at, length}, Iovec(&slice, 1), {}));
  }
  std::string snapshot(Engine& engine, const std::string& name) {
    return ask(engine, {.verb = ControlVerb::snapshot_create, .name = name});
  }
  std::string names(Engine& engine) {
    std::string names;
    const auto all = engine.disks().snapshots("a");
    EXPECT_TRUE(all);
    for (const disk::SnapshotInfo& each : *all) names += each.name + ' ';
    return names;
  }
  // The extents that pages of `limit` give one after the other, as "offset+length kind" in grains.
  std::string extents(Engine& engine, const std::string& name, const std::string& base,
                      uint64_t limit, uint64_t offset = 0) {
    std::string text;
    for (bool complete = false; !complete;) {
      const Result<ExtentPage> page =
          page_of_extents(*io_, engine.disks(), name, base, offset, limit);
      if (!page) return std::string(name_of(page.error().code));
      EXPECT_LE(page->extents.size(), limit);
      for (const disk::DiffRun& each : page->extents) {
        text += fmt::format("{}+{}{} ", each.at / kGrainBytes, each.length / kGrainBytes,
                            each.kind == Extent::data ? 'd' : 'z');
      }
      EXPECT_TRUE(page->complete || page->next > offset);
      offset = page->next;
      complete = page->complete;
    }
    return text;
  }
};

TEST_F(SnapshotsTest, every_verb) {
  with_engine([this](Engine& engine) {
    write(engine, 0, kMiB, 'x');
    EXPECT_TRUE(has(snapshot(engine, "a@s"), R"("disk":"a","name":"s")"));
    EXPECT_EQ(snapshot(engine, "a@s"), "exists");
    EXPECT_EQ(snapshot(engine, "b@s"), "not_found");
    EXPECT_EQ(snapshot(engine, "a.importing@s"), "busy");
    EXPECT_TRUE(has(ask(engine, {.verb = ControlVerb::snapshot_info, .name = "a@s"}),
                    R"("mapped_bytes":1048576)"));
    EXPECT_EQ(ask(engine, {.verb = ControlVerb::snapshot_info, .name = "a@t"}), "not_found");
    EXPECT_EQ(ask(engine, {.verb = ControlVerb::snapshot_list, .name = "b"}), "not_found");
    EXPECT_TRUE(has(ask(engine, {.verb = ControlVerb::snapshot_clone, .name = "a@s", .to = "c"}),
                    R"("origin":"a@s")"));
    EXPECT_EQ(ask(engine, {.verb = ControlVerb::snapshot_clone, .name = "a@s", .to = "c"}),
              "exists");
    EXPECT_TRUE(
        has(ask(engine, {.verb = ControlVerb::snapshot_list, .name = "a"}), R"("clones":["c"])"));
    EXPECT_EQ(ask(engine, {.verb = ControlVerb::disk_delete, .name = "a"}), "busy");
    EXPECT_EQ(ask(engine, {.verb = ControlVerb::disk_resize, .name = "a", .bytes = kMiB}),
              "invalid");
    EXPECT_TRUE(
        has(ask(engine, {.verb = ControlVerb::snapshot_revert, .name = "a@s"}), "\"layers\":[2"));
    {
      const auto client = engine.disks().attach(*io_, "a");
      EXPECT_EQ(ask(engine, {.verb = ControlVerb::snapshot_revert, .name = "a@s"}), "busy");
      const auto reader = engine.disks().attach(*io_, "a@s");
      EXPECT_EQ(ask(engine, {.verb = ControlVerb::snapshot_delete, .name = "a@s"}), "busy");
      EXPECT_TRUE(has(
          ask(engine, {.verb = ControlVerb::snapshot_revert, .name = "a@s", .force = true}), "{"));
    }
    // Two layers stand on it: it stays, without a job.
    EXPECT_TRUE(has(ask(engine, {.verb = ControlVerb::job_list}), R"("kind":"drop")"));
    EXPECT_TRUE(engine.disks().sweep(*io_));
    EXPECT_EQ(ask(engine, {.verb = ControlVerb::snapshot_delete, .name = "a@s"}),
              R"({"layers":[]})");
    EXPECT_EQ(ask(engine, {.verb = ControlVerb::job_list}), "[]");
    // Only one is left: now it has.
    EXPECT_TRUE(has(ask(engine, {.verb = ControlVerb::disk_delete, .name = "c"}), "layers"));
    EXPECT_EQ(engine.disks().info("a")->layers, 1u);
  });
}

TEST_F(SnapshotsTest, P1_P2_pages_of_extents_of_any_size_say_the_same) {
  with_engine([this](Engine& engine) {
    write(engine, 0, 64 * kKiB, 'x');
    snapshot(engine, "a@s");
    for (uint64_t i = 0; i < 12; ++i) write(engine, i * 3 * kGrainBytes, kGrainBytes, 'y');
    {
      const auto device = engine.disks().attach(*io_, "a");
      ASSERT_TRUE((*device)->discard(*io_, {4 * kGrainBytes, 2 * kGrainBytes}));
    }
    snapshot(engine, "a@t");
    write(engine, 32 * kMiB, 4 * kMiB, 'z');
    const std::string changed =
        "0+1d 3+1d 4+2z 6+1d 9+1d 12+1d 15+1d 18+1d 21+1d 24+1d 27+1d 30+1d 33+1d ";
    const std::string allocated = "0+4d 6+10d 18+1d 21+1d 24+1d 27+1d 30+1d 33+1d ";
    for (const uint64_t limit : {1U, 2U, 5U, 13U, 10000U}) {
      EXPECT_EQ(extents(engine, "a@t", "a@s", limit), changed) << limit;
      EXPECT_EQ(extents(engine, "a@t", "", limit), allocated) << limit;
      EXPECT_EQ(extents(engine, "a", "a@t", limit), "8192+1024d ") << limit;
    }
    EXPECT_EQ(extents(engine, "a@t", "a@s", 5, 20 * kGrainBytes), "21+1d 24+1d 27+1d 30+1d 33+1d ");
    EXPECT_EQ(extents(engine, "a@t", "", 5, 8 * kGrainBytes),
              "8+8d 18+1d 21+1d 24+1d 27+1d 30+1d 33+1d ");
    EXPECT_EQ(extents(engine, "a@t", "a@s", 5, 64 * kMiB), "") << "at the end";
    EXPECT_EQ(extents(engine, "a@t", "a@s", 5, UINT64_MAX), "") << "and beyond it";
    EXPECT_EQ(extents(engine, "a@t", "a@none", 5), "not_found");
    EXPECT_EQ(extents(engine, "a@t", "a@none", 5, 64 * kMiB), "not_found");
    EXPECT_EQ(extents(engine, "a@none", "a@s", 5), "not_found");
    EXPECT_EQ(extents(engine, "a@t", "a@s", 0), "invalid");
    EXPECT_TRUE(has(ask(engine, {.verb = ControlVerb::extents, .name = "a@t", .limit = 1}),
                    R"("extents":[{"offset":0,"length":16384,"kind":"data"}],"next":24576,)"
                    R"("complete":false)"));
    // Extents do not end where the looking rests.
    ASSERT_TRUE(engine.disks().resize(*io_, "a", 4 * kGiB));
    write(engine, kGiB - 64 * kKiB, 128 * kKiB, 'w');
    EXPECT_EQ(extents(engine, "a", "a@t", 10), "8192+1024d 262128+32d ");
    EXPECT_EQ(extents(engine, "a", "", 1, kGiB - 4 * kKiB), "262143+17d ");
  });
}

TEST_F(SnapshotsTest, the_settings_keep_and_chain_hold_after_each_new_one) {
  with_engine([this](Engine& engine) {
    ask(engine, {.verb = ControlVerb::disk_set, .name = "a", .settings = {{"keep", "3"}}});
    for (int i = 0; i < 6; ++i) snapshot(engine, fmt::format("a@s{}", i));
    EXPECT_EQ(names(engine), "s3 s4 s5 ");
    {
      const auto reader = engine.disks().attach(*io_, "a@s3");
      EXPECT_TRUE(has(snapshot(engine, "a@s6"), R"("deleted":[])")) << "not one in use";
    }
    EXPECT_TRUE(has(snapshot(engine, "a@s7"), R"("deleted":["s3","s4"])"));
    EXPECT_TRUE(engine.disks().sweep(*io_));
    // What waits for its job is not counted again: the chain is judged as it will be.
    ask(engine,
        {.verb = ControlVerb::disk_set, .name = "a", .settings = {{"chain", "5"}, {"keep", ""}}});
    for (int i = 0; i < 5; ++i) snapshot(engine, fmt::format("a@t{}", i));
    EXPECT_EQ(names(engine), "t1 t2 t3 t4 ");
    EXPECT_TRUE(engine.disks().sweep(*io_));
    EXPECT_EQ(engine.disks().info("a")->layers, 5u);
  });
}

TEST_F(SnapshotsTest, consolidate_keeps_the_newest_and_names_what_is_in_use) {
  with_engine([this](Engine& engine) {
    for (int i = 0; i < 5; ++i) snapshot(engine, fmt::format("a@s{}", i));
    const ControlRequest by_settings{.verb = ControlVerb::disk_consolidate, .name = "a"};
    EXPECT_TRUE(has(ask(engine, by_settings), R"("deleted":[],"in_use":[])")) << "none are set";
    ControlRequest keep = by_settings;
    keep.keep = 2;
    {
      const auto one = engine.disks().attach(*io_, "a@s1");
      const auto two = engine.disks().attach(*io_, "a@s1");
      EXPECT_TRUE(
          has(ask(engine, keep), R"("deleted":["s0","s2"],"in_use":[{"name":"s1","attached":2}])"));
    }
    EXPECT_EQ(names(engine), "s1 s3 s4 ");
    keep.keep = 0;
    EXPECT_TRUE(has(ask(engine, keep), R"("deleted":["s1","s3","s4"])"));
    EXPECT_TRUE(engine.disks().sweep(*io_));
    EXPECT_EQ(engine.disks().info("a")->layers, 1u);
    keep.name = "nobody";
    EXPECT_EQ(ask(engine, keep), "not_found");
  });
}

TEST_F(SnapshotsTest, are_offered_read_only_after_their_disk) {
  with_engine([this](Engine& engine) {
    snapshot(engine, "a@z");
    snapshot(engine, "a@b");
    ask(engine, {.verb = ControlVerb::disk_create, .name = "b", .bytes = kMiB});
    DiskExports exports(engine.disks());
    std::string list;
    for (const serve::ExportEntry& each : exports.list(*io_)) {
      list += each.name + (each.snapshot ? "! " : " ");
    }
    EXPECT_EQ(list, "a a@z! a@b! b ");
    EXPECT_TRUE(exports.find(*io_, "a@z")->read_only);
    EXPECT_EQ(exports.find(*io_, "a@none").error().code, Errc::not_found);
    EXPECT_EQ(exports.find(*io_, "a@").error().code, Errc::not_found);
    EXPECT_EQ(exports.find(*io_, "none@z").error().code, Errc::not_found);
    ask(engine, {.verb = ControlVerb::disk_delete, .name = "b"});
    EXPECT_EQ(serve::resolve_export(*io_, exports, "", "")->name, "a")
        << "the only disk is the default one, whatever snapshots it has";
    ask(engine, {.verb = ControlVerb::disk_set, .name = "a", .settings = {{"serve", "off"}}});
    EXPECT_FALSE(exports.find(*io_, "a@z"));
    EXPECT_TRUE(exports.list(*io_).empty());
    LoneExports lone(engine.disks(), "a@z");
    EXPECT_EQ(serve::resolve_export(*io_, lone, "", "")->name, "a@z");
    EXPECT_FALSE(LoneExport::begin(*io_, pool_, engine.disks(), "a@none"));
  });
}

TEST_F(EngineTest, a_lone_export_comes_and_goes) {
  run([this] {
    make_pool();
    const std::unique_ptr<Engine> engine = open();
    ask(*engine, {.verb = ControlVerb::disk_create, .name = "a", .bytes = kMiB});
    EXPECT_FALSE(LoneExport::begin(*io_, pool_, engine->disks(), "none"));
    Result<std::unique_ptr<LoneExport>> made = LoneExport::begin(*io_, pool_, engine->disks(), "a");
    ASSERT_TRUE(made) << text_of(made.error());
    LoneExport& lone = **made;
    EXPECT_FALSE(lone.is_over());
    {
      const Result<std::unique_ptr<Socket>> client = connect_unix(*io_, lone.path());
      ASSERT_TRUE(client);
      std::array<std::byte, 18> greeting{};
      const Result<size_t> got = io_->receive(**client, greeting);
      ASSERT_TRUE(got);
      EXPECT_GT(*got, 0u);
      EXPECT_TRUE(lone.was_used());
    }
    const std::string path = lone.path();
    lone.end(*io_);
    EXPECT_TRUE(lone.is_over());
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_TRUE(engine->close(*io_));
  });
}

TEST_F(EngineTest, stale_sockets_are_taken_away_and_nothing_else) {
  std::filesystem::create_directory(pool_);
  for (const char* name : {"nbd-12-3.sock", "nbd.sock", "nbd-x.sock", "data"}) {
    std::FILE* file = std::fopen((pool_ + "/" + name).c_str(), "w");
    ASSERT_NE(file, nullptr);
    std::fclose(file);
  }
  remove_stale_sockets(pool_);
  EXPECT_FALSE(std::filesystem::exists(pool_ + "/nbd-12-3.sock"));
  for (const char* name : {"nbd.sock", "nbd-x.sock", "data"}) {
    EXPECT_TRUE(std::filesystem::exists(pool_ + "/" + name)) << name;
  }
}

// ----- asking over a socket

class HttpTest : public EngineTest {
 protected:
  // Runs `body` while a server listens at DIR/firn.sock that answers with what it was asked.
  void with_server(HttpServer::Limits limits, const std::function<void()>& body) {
    std::filesystem::create_directory(pool_);
    run([&, this] {
      HttpServer server(limits, [](Io&, const wire::HttpRequest& request, std::string_view sent) {
        if (request.target == "/api/v1/disks/none") {
          return HttpAnswer{404, "", wire::encode_problem(404, Errc::not_found, "no disk 'none'")};
        }
        return HttpAnswer{200, "text/plain", request.method + request.target + std::string(sent)};
      });
      Group group(*io_);
      Result<std::unique_ptr<Socket>> listener = listen_unix(control_path(pool_));
      ASSERT_TRUE(listener);
      server.listen(*io_, group, listener.take(), "test");
      body();
      server.stop(*io_);
      group.wait();
      requests_ = server.requests();
      refused_ = server.refused();
    });
  }
  // Everything that the server says to these bytes, until it closes.
  std::string say(std::string_view text) {
    const Result<std::unique_ptr<Socket>> client = connect_unix(*io_, control_path(pool_));
    EXPECT_TRUE(client);
    const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
    if (!io_->send(**client, Iovec(&slice, 1))) return "cut";
    return listen_to(**client);
  }
  std::string listen_to(Socket& socket) {
    std::string heard;
    std::array<char, 4096> room{};
    while (true) {
      const Result<size_t> got = io_->receive(socket, std::as_writable_bytes(std::span(room)));
      if (!got || *got == 0) return heard;
      heard.append(room.data(), *got);
    }
  }
  uint64_t requests_ = 0;
  uint64_t refused_ = 0;
};

// Who does not read what was asked for holds up nobody's end.
TEST_F(HttpTest, V3_an_answer_that_nobody_reads_ends_too) {
  std::filesystem::create_directory(pool_);
  run([this] {
    WaitList asked;
    WaitList answer;
    bool is_asked = false;
    bool may_answer = false;
    HttpServer server({.patience = std::chrono::milliseconds(20)},
                      [&](Io& io, const wire::HttpRequest&, std::string_view) {
                        is_asked = true;
                        io.wake(asked);
                        while (!may_answer) io.park(answer);
                        return HttpAnswer{200, "text/plain", std::string(16 * kMiB, 'x')};
                      });
    Group group(*io_);
    Result<std::unique_ptr<Socket>> listener = listen_unix(control_path(pool_));
    ASSERT_TRUE(listener);
    server.listen(*io_, group, listener.take(), "test");
    const Result<std::unique_ptr<Socket>> client = connect_unix(*io_, control_path(pool_));
    ASSERT_TRUE(client);
    const std::string_view text = "GET / HTTP/1.1\r\n\r\n";
    const ::iovec slice = slice_of(std::as_bytes(std::span(text)));
    ASSERT_TRUE(io_->send(**client, Iovec(&slice, 1)));
    while (!is_asked) io_->park(asked);
    server.stop(*io_);
    may_answer = true;
    io_->wake(answer, SIZE_MAX);
    group.wait();
  });
}

TEST_F(HttpTest, a_client_gets_the_answer_or_the_error) {
  with_server({}, [this] {
    const Result<std::optional<std::string>> answer =
        ask_daemon(*io_, pool_, {.verb = ControlVerb::disk_resize, .name = "a", .bytes = 4096});
    ASSERT_TRUE(answer);
    EXPECT_EQ(**answer, "POST/api/v1/disks/a/resize{\"size\":4096}");
    const Result<std::optional<std::string>> error =
        ask_daemon(*io_, pool_, {.verb = ControlVerb::disk_info, .name = "none"});
    ASSERT_FALSE(error);
    EXPECT_EQ(error.error().code, Errc::not_found);
    EXPECT_EQ(text_of(error.error()), "no disk 'none'");
  });
  EXPECT_EQ(requests_, 2u);
}

TEST_F(HttpTest, no_daemon_is_no_error) {
  const ControlRequest look{.verb = ControlVerb::pool_info};
  run([&, this] {
    EXPECT_FALSE(ask_daemon(*io_, pool_, look)->has_value()) << "no such directory";
    std::filesystem::create_directory(pool_);
    EXPECT_FALSE(ask_daemon(*io_, pool_, look)->has_value()) << "no such socket";
    { const auto listener = listen_unix(control_path(pool_)); }
    ASSERT_TRUE(std::filesystem::exists(control_path(pool_)));
    EXPECT_FALSE(ask_daemon(*io_, pool_, look)->has_value()) << "a stale socket";
    EXPECT_FALSE(ask_daemon(*io_, std::string(200, 'x'), look)->has_value()) << "too long for any";
  });
}

TEST_F(HttpTest, V1_what_is_too_large_or_malformed_is_refused_with_a_reason) {
  with_server({.patience = std::chrono::milliseconds(20)}, [this] {
    EXPECT_TRUE(has(say("nonsense\r\n\r\n"), "HTTP/1.1 400 "));
    EXPECT_TRUE(has(say("POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n"), "HTTP/1.1 413 "));
    EXPECT_TRUE(has(say("GET / HTTP/1.1\r\nX: " + std::string(wire::kHeadBytesMax, 'a')), "431 "));
    EXPECT_TRUE(has(say("POST /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"), "POST/xhi"));
    EXPECT_TRUE(has(say("POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"),
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"));
  });
  EXPECT_EQ(requests_, 2u);
}

TEST_F(HttpTest, V1_V2_silent_clients_are_cut_and_bounded) {
  with_server({.connections_max = 2, .patience = std::chrono::milliseconds(20)}, [this] {
    const Result<std::unique_ptr<Socket>> first = connect_unix(*io_, control_path(pool_));
    const Result<std::unique_ptr<Socket>> second = connect_unix(*io_, control_path(pool_));
    const Result<std::unique_ptr<Socket>> third = connect_unix(*io_, control_path(pool_));
    EXPECT_EQ(listen_to(**third), "") << "refused at once";
    EXPECT_EQ(listen_to(**first), "") << "cut when its time is over";
    EXPECT_EQ(listen_to(**second), "");
    EXPECT_TRUE(has(say("GET /x HTTP/1.1\r\n\r\n"), "GET/x")) << "and there is room again";
  });
  EXPECT_EQ(refused_, 1u);
}

TEST_F(HttpTest, V3_stop_does_not_wait_for_a_silent_client) {
  std::unique_ptr<Socket> silent;
  with_server({.connections_max = 8, .patience = std::chrono::hours(1)}, [&, this] {
    silent = connect_unix(*io_, control_path(pool_)).take();
    EXPECT_TRUE(has(say("GET /x HTTP/1.1\r\n\r\n"), "GET/x")) << "accepted after the silent one";
  });
  EXPECT_EQ(requests_, 1u);
}

}  // namespace
}  // namespace firn::engine
