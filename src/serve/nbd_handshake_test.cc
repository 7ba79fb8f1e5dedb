// SPDX-License-Identifier: Apache-2.0
// The handshake, option by option, and what clients do wrong in it.
#include "serve/nbd_handshake.h"

#include <gtest/gtest.h>

#include <set>

#include "serve/nbd_test_client.h"

namespace firn::serve {
namespace {

using nbd::Form;
using nbd::Option;
using nbd::OptionReply;

Raw info_for(std::string_view name) {
  return nbd::encode(nbd::InfoRequest{name, true, true, true});
}

TEST(NbdHandshake, literal_bytes) {
  TestServer server(kMiB);
  server.run([&] {
    auto client = server.client();
    EXPECT_EQ(client->get(18), raw_of(std::string_view("NBDMAGICIHAVEOPT\0\3", 18)));
    EXPECT_TRUE(client->put(raw_of(std::string_view("\0\0\0\3", 4))));
    EXPECT_TRUE(client->put(raw_of(std::string_view("IHAVEOPT\0\0\0\1\0\0\0\4disk", 20))));
    const Raw reply = client->get(10);
    EXPECT_EQ(View(reply).size(), 10u);
    EXPECT_EQ(load<be64>(reply), kMiB);
    EXPECT_EQ(load<be16>(View(reply).subspan(8)), 0x0d6d);
  });
}

TEST(NbdHandshake, old_clients_get_their_zeroes) {
  TestServer server(kMiB);
  server.run([&] {
    auto client = server.client();
    client->greet(0);
    EXPECT_TRUE(client->put_option(Option::export_name, raw_of("disk")));
    const Raw reply = client->get(10 + 124);
    ASSERT_EQ(reply.size(), 134u);
    EXPECT_TRUE(all_zero(View(reply).subspan(10)));
    EXPECT_EQ(client->read(0, 512).size(), 512u);
    auto other = server.client();
    other->greet(0);  // Without fixed newstyle no other option exists.
    EXPECT_TRUE(other->put_option(Option::list, {}));
    EXPECT_TRUE(other->at_end());
  });
}

TEST(NbdHandshake, unknown_client_flags_end_it) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->greet(0x80000001);
    EXPECT_TRUE(client->at_end());
  });
  EXPECT_TRUE(server.log.says("handshake failed: unix: client flags 0x80000000 are unknown"));
  EXPECT_EQ(server.counters.handshakes_failed, 1u);
}

TEST(NbdHandshake, list_and_abort) {
  TestServer server;
  server.exports.add("other", server.device);
  server.run([&] {
    auto client = server.client();
    client->greet();
    const auto answers = client->option(Option::list);
    ASSERT_EQ(answers.size(), 3u);
    EXPECT_EQ(answers[0].type, OptionReply::server);
    const auto entry = nbd::decode_server_entry(answers[0].data);
    ASSERT_TRUE(entry);
    EXPECT_EQ(entry->name, "disk");
    EXPECT_EQ(entry->description, "a test");
    EXPECT_EQ(answers[2].type, OptionReply::ack);
    EXPECT_EQ(client->last(client->option(Option::list, raw_of("x"))), OptionReply::error_invalid);
    EXPECT_EQ(client->last(client->option(Option::abort)), OptionReply::ack);
    EXPECT_TRUE(client->at_end());
  });
  EXPECT_TRUE(server.log.lines.empty());
}

TEST(NbdHandshake, a_list_of_thousands_is_whole) {
  TestServer server;
  for (int i = 0; i < 3000; ++i) server.exports.add(fmt::format("snap{}", i), server.device);
  server.run([&] {
    auto client = server.client();
    client->greet();
    const auto answers = client->option(Option::list);
    ASSERT_EQ(answers.size(), 3002u);
    std::set<std::string> names;
    for (size_t i = 0; i + 1 < answers.size(); ++i) {
      const auto entry = nbd::decode_server_entry(answers[i].data);
      ASSERT_TRUE(entry);
      names.emplace(entry->name);
    }
    EXPECT_EQ(names.size(), 3001u);
    EXPECT_EQ(answers.back().type, OptionReply::ack);
    EXPECT_EQ(client->go("snap2999"), OptionReply::ack);
  });
}

TEST(NbdHandshake, info_tells_and_go_goes) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->greet();
    for (const Option option : {Option::info, Option::go}) {
      const auto answers = client->option(option, info_for("disk"));
      ASSERT_EQ(answers.size(), 5u);
      const auto size = nbd::decode_info_export(answers[0].data);
      ASSERT_TRUE(size);
      EXPECT_EQ(size->bytes, 64 * kMiB);
      EXPECT_EQ(size->flags & nbd::kSendDf, 0);
      const auto block = nbd::decode_info_block_size(answers[1].data);
      ASSERT_TRUE(block);
      EXPECT_EQ(block->minimum, 1u);
      EXPECT_EQ(block->preferred, 4096u);
      EXPECT_EQ(block->maximum, 33554432u);
      EXPECT_EQ(nbd::decode_info_text(answers[2].data)->text, "disk");
      EXPECT_EQ(nbd::decode_info_text(answers[3].data)->text, "a test");
      EXPECT_EQ(answers[4].type, OptionReply::ack);
    }
    EXPECT_EQ(client->read(0, 512).size(), 512u);
  });
}

TEST(NbdHandshake, unknown_exports) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->greet();
    for (const char* name : {"nothing", "DISK", "disk ", "../disk", "/etc/passwd"}) {
      EXPECT_EQ(client->go(name), OptionReply::error_unknown) << name;
      EXPECT_EQ(client->last(client->option(Option::info, info_for(name))),
                OptionReply::error_unknown);
    }
    EXPECT_EQ(client->go("disk"), OptionReply::ack);  // The conversation goes on.
    auto other = server.client();
    other->greet();
    EXPECT_TRUE(other->put_option(Option::export_name, raw_of("no\nthing")));
    EXPECT_TRUE(other->at_end());
  });
  EXPECT_TRUE(server.log.says("export 'no\\x0athing'"));
}

TEST(NbdHandshake, an_export_that_cannot_be_opened_is_explained_to_us_only) {
  TestServer server;
  server.exports.broken = Errc::corrupt;
  server.run([&] {
    auto client = server.client();
    client->greet();
    const auto answers = client->option(Option::go, info_for("disk"));
    ASSERT_EQ(answers.size(), 1u);
    EXPECT_EQ(answers[0].type, OptionReply::error_unknown);
    EXPECT_EQ(text_in(answers[0].data), "the export cannot be opened");
    server.exports.broken.reset();
    EXPECT_EQ(client->go("disk"), OptionReply::ack);
  });
  EXPECT_TRUE(server.log.says("export not opened: unix: the page at /secret/path is rotten"));
}

TEST(NbdHandshake, the_default_export) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->greet();
    EXPECT_EQ(client->go(""), OptionReply::ack);  // There is only one.
  });
  server.exports.add("second", std::make_shared<MemoryDevice>(kMiB));
  server.run([&] {
    auto client = server.client();
    client->greet();
    EXPECT_EQ(client->go(""), OptionReply::error_unknown);  // Which one?
    EXPECT_EQ(client->go("second"), OptionReply::ack);
  });
  server.settings.default_export = "second";
  server.run([&] {
    auto client = server.client();
    client->greet();
    EXPECT_EQ(client->go(""), OptionReply::ack);
    EXPECT_EQ(client->export_bytes, kMiB);
  });
}

TEST(NbdHandshake, forms) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->greet();
    EXPECT_EQ(client->last(client->option(Option::structured_reply, raw_of("x"))),
              OptionReply::error_invalid);
    EXPECT_EQ(client->form(Form::structured), OptionReply::ack);
    EXPECT_EQ(client->form(Form::extended), OptionReply::ack);
    EXPECT_EQ(client->form(Form::structured), OptionReply::error_extended_headers_required);
    EXPECT_EQ(client->form(Form::extended), OptionReply::ack);
    EXPECT_EQ(client->go("disk"), OptionReply::ack);
    EXPECT_NE(client->export_flags & nbd::kSendDf, 0);
    EXPECT_EQ(client->export_flags & nbd::kBlockStatusPayload, 0);  // No context was selected.
    EXPECT_EQ(client->read(0, 512).size(), 512u);
    auto other = server.client();
    other->greet();
    EXPECT_EQ(other->form(Form::extended), OptionReply::ack);
    EXPECT_TRUE(other->put_option(Option::export_name, raw_of("disk")));
    EXPECT_TRUE(other->at_end());
  });
}

TEST(NbdHandshake, unknown_and_oversized_options_keep_the_conversation_in_step) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->greet();
    EXPECT_EQ(client->last(client->option(static_cast<Option>(4), raw_of("peek"))),
              OptionReply::error_unsupported);
    EXPECT_EQ(client->last(client->option(static_cast<Option>(0xffffffff))),
              OptionReply::error_unsupported);
    EXPECT_EQ(client->last(client->option(Option::go, Raw(nbd::kOptionBytesMax + 1))),
              OptionReply::error_too_big);
    EXPECT_EQ(client->last(client->option(Option::go, Raw(3))), OptionReply::error_invalid);
    EXPECT_EQ(client->last(client->option(Option::info, Raw(5000, std::byte{1}))),
              OptionReply::error_invalid);
    EXPECT_EQ(client->go("disk"), OptionReply::ack);
    auto other = server.client();
    other->greet();
    other->put(nbd::encode(nbd::OptionHeader{Option::list, 0xffffffff}));
    EXPECT_TRUE(other->at_end());
  });
  EXPECT_TRUE(server.log.says("option 3 announces 4294967295 bytes"));
}

TEST(NbdHandshake, wrong_magic_is_named) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->greet();
    client->put(raw_of("GET / HTTP/1.1\r\n\r\n"));
    EXPECT_TRUE(client->at_end());
  });
  EXPECT_TRUE(server.log.says("an option begins with 0x474554202f204854"));
}

TEST(NbdHandshake, cut_off_at_every_byte) {
  Raw bytes = raw_of(std::string_view("\0\0\0\3", 4));
  const Raw go = info_for("disk");
  const auto header = nbd::encode(nbd::OptionHeader{Option::go, static_cast<uint32_t>(go.size())});
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.insert(bytes.end(), go.begin(), go.end());
  TestServer server;
  server.run([&] {
    for (size_t cut = 0; cut < bytes.size(); ++cut) {
      auto client = server.client();
      client->get(sizeof(nbd::Greeting));
      EXPECT_TRUE(client->put(View(bytes).first(cut)));
      client->leave();
    }
    EXPECT_TRUE(server.wait_until([&] {
      return server.server->counters().connections_total == bytes.size() &&
             server.server->counters().connections == 0;
    }));
  });
  EXPECT_EQ(server.exports.finds, 0u);
  EXPECT_EQ(server.counters.handshakes_failed,
            bytes.size() - 2);  // Not those cut between two options.
}

TEST(NbdHandshake, who_dawdles_is_cut_off) {
  TestServer server;
  server.simulate(1, [&] {
    auto silent = server.client();
    auto half = server.client();
    half->greet();
    half->put(raw_of("IHAVE"));
    auto busy = server.client();  // Keeps talking, but never gets anywhere.
    busy->greet();
    const Time begun = server.io().now();
    while (!busy->option(Option::list).empty()) server.io().sleep(std::chrono::seconds(1));
    EXPECT_TRUE(silent->get(18).size() == 18 && silent->at_end());
    EXPECT_TRUE(half->at_end());
    const Duration taken = server.io().now() - begun;
    EXPECT_GE(taken, std::chrono::seconds(29));
    EXPECT_LE(taken, std::chrono::seconds(32));
    // Who is past the handshake may be as slow as he likes.
    auto client = server.client();
    client->connect("disk", Form::structured);
    server.io().sleep(std::chrono::hours(1));
    EXPECT_EQ(client->read(0, 512).size(), 512u);
  });
  EXPECT_TRUE(server.log.says("handshake failed: "));
  EXPECT_TRUE(server.log.says("it took too long"));
}

// --- metadata contexts

std::vector<std::string> names_of(const std::vector<OptionAnswer>& answers) {
  std::vector<std::string> names;
  for (const OptionAnswer& each : answers) {
    if (each.type != OptionReply::meta_context) continue;
    names.emplace_back(nbd::decode_meta_context_entry(each.data)->name);
  }
  return names;
}

class EveryOther final : public MetaContext {
 public:
  EveryOther() : MetaContext("x-test:parity") {}
  Result<void> status(Io&, Range range, StatusSink& sink) override {
    for (uint64_t at = range.at; at < range.end();) {
      const uint64_t end = std::min(range.end(), round_down(at, 4096) + 4096);
      if (!sink.add(end - at, static_cast<uint32_t>(at / 4096 % 2))) return ok;
      at = end;
    }
    return ok;
  }
};

TEST(NbdContexts, listing) {
  TestServer server;
  server.exports.add("disk", server.device).contexts = {std::make_shared<EveryOther>()};
  server.run([&] {
    auto client = server.client();
    client->greet();
    const auto list = [&](std::vector<std::string_view> queries) {
      return names_of(client->option(Option::list_meta_context,
                                     nbd::encode(nbd::MetaQueries{"disk", std::move(queries)})));
    };
    using Names = std::vector<std::string>;
    EXPECT_EQ(list({}), (Names{"base:allocation", "qemu:allocation-depth", "x-test:parity"}));
    EXPECT_EQ(list({"qemu:"}), Names{"qemu:allocation-depth"});
    EXPECT_EQ(list({"base:", "base:allocation"}), Names{"base:allocation"});
    EXPECT_EQ(list({"nobody:"}), Names{});
    EXPECT_EQ(client->last(client->option(Option::list_meta_context,
                                          nbd::encode(nbd::MetaQueries{"nothing", {}}))),
              OptionReply::error_unknown);
    EXPECT_EQ(client->last(client->option(Option::list_meta_context,
                                          nbd::encode(nbd::MetaQueries{"disk", {"base"}}))),
              OptionReply::error_invalid);
    EXPECT_EQ(client->last(client->option(Option::list_meta_context, Raw(3))),
              OptionReply::error_invalid);
  });
}

TEST(NbdContexts, X3_a_context_of_ones_own) {
  TestServer server;
  server.exports.add("disk", server.device).contexts = {std::make_shared<EveryOther>()};
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::structured, {"x-test:parity"});
    EXPECT_EQ(client->contexts["x-test:parity"], 1u);
    const TestReply reply = client->ask(nbd::Command::block_status, 4096, 8192);
    ASSERT_EQ(reply.status.size(), 1u);
    ASSERT_EQ(reply.status[0].runs.size(), 2u);
    EXPECT_EQ(reply.status[0].runs[0].flags, 1u);
    EXPECT_EQ(reply.status[0].runs[1].flags, 0u);
  });
}

TEST(NbdContexts, selection) {
  TestServer server;
  server.exports.add("other", std::make_shared<MemoryDevice>(kMiB));
  server.run([&] {
    auto client = server.client();
    client->greet();
    EXPECT_EQ(client->select("disk", {"base:allocation"}),
              OptionReply::error_invalid);  // Too early.
    EXPECT_EQ(client->form(Form::structured), OptionReply::ack);
    EXPECT_EQ(client->select("disk", {"base:"}), OptionReply::ack);  // No wildcard when selecting.
    EXPECT_TRUE(client->contexts.empty());
    EXPECT_EQ(client->select("nothing", {"base:allocation"}), OptionReply::error_unknown);
    EXPECT_EQ(client->select("disk", {"base:allocation"}), OptionReply::ack);
    EXPECT_EQ(client->go("other"), OptionReply::ack);  // For another export: the selection is void.
    EXPECT_EQ(client->ask(nbd::Command::block_status, 0, 512).error, nbd::Errno::invalid);
    auto second = server.client();
    second->greet();
    EXPECT_EQ(second->form(Form::structured), OptionReply::ack);
    EXPECT_EQ(second->select("disk", {"base:allocation"}), OptionReply::ack);
    EXPECT_EQ(second->select("disk", {}), OptionReply::ack);  // Replaces.
    EXPECT_EQ(second->go("disk"), OptionReply::ack);
    EXPECT_EQ(second->ask(nbd::Command::block_status, 0, 512).error, nbd::Errno::invalid);
  });
}

TEST(NbdHandshake, starttls_where_there_is_none) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->greet();
    EXPECT_EQ(client->last(client->option(Option::starttls)), OptionReply::error_policy);
    EXPECT_EQ(client->go("disk"), OptionReply::ack);
  });
}

}  // namespace
}  // namespace firn::serve
