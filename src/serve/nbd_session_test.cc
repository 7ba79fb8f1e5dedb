// SPDX-License-Identifier: Apache-2.0
// The transmission phase, by a client that speaks raw bytes.
#include "serve/nbd_session.h"

#include <gtest/gtest.h>

#include "serve/nbd_test_client.h"

namespace firn::serve {
namespace {

using nbd::Command;
using nbd::Errno;
using nbd::Form;
using Verb = MemoryDevice::Verb;

constexpr Form kForms[] = {Form::simple, Form::structured, Form::extended};

std::string form_name(const testing::TestParamInfo<Form>& form) {
  static const char* const kNames[] = {"simple", "structured", "extended"};
  return kNames[static_cast<size_t>(form.param)];
}
class EachForm : public testing::TestWithParam<Form> {};
INSTANTIATE_TEST_SUITE_P(Nbd, EachForm, testing::ValuesIn(kForms), form_name);

TEST_P(EachForm, reads_what_it_wrote) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    EXPECT_EQ(client->export_bytes, 64 * kMiB);
    // Sizes at every border: sectors, the copied and the streamed path, one piece and more.
    for (const size_t size : {1u, 512u, 4096u, 65536u, 65537u, 1048576u, 1048577u, 5000001u}) {
      for (const uint64_t at : {uint64_t{0}, uint64_t{4096}, uint64_t{1048000}, uint64_t{777}}) {
        const Raw data = pattern(size, size + at);
        EXPECT_EQ(client->write(at, data).error, Errno::none);
        EXPECT_EQ(raw_of(server.device->content().subspan(at, size)), data);
        EXPECT_EQ(client->read(at, size), data) << size << " at " << at;
      }
    }
    client->disconnect();
    EXPECT_TRUE(client->at_end());
  });
  for (const MemoryDevice::Call& call : server.device->calls()) {
    EXPECT_TRUE(call.aligned);
    EXPECT_EQ(call.slices, call.verb == Verb::read || call.verb == Verb::write ? 1u : 0u);
    EXPECT_LE(call.range.length, kMiB);
  }
  EXPECT_TRUE(server.log.lines.empty()) << server.log.lines[0];
}

TEST_P(EachForm, holes_and_data_mix_in_large_reads) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    const Raw data = pattern(kMiB, 3);
    EXPECT_EQ(client->write(3 * kMiB, data).error, Errno::none);
    Raw expected(8 * kMiB);
    std::copy(data.begin(), data.end(), expected.begin() + 3 * kMiB);
    EXPECT_EQ(client->read(0, 8 * kMiB), expected);
    if (GetParam() == Form::simple) return;
    const TestReply whole = client->ask(Command::read, 0, 8 * kMiB, nbd::kFlagDf);
    EXPECT_EQ(whole.data.size(), 1u);
    EXPECT_TRUE(whole.holes.empty());
    EXPECT_EQ(whole.assembled(0, 8 * kMiB), expected);
    const TestReply parts = client->ask(Command::read, 0, 8 * kMiB);
    EXPECT_EQ(parts.holes.size(), 7u);
    EXPECT_EQ(client->ask(Command::read, 0, 4096, nbd::kFlagDf).data.size(), 1u);
  });
}

TEST_P(EachForm, sixty_four_mebibytes_are_tolerated_in_bounded_memory) {
  TestServer server(128 * kMiB, {.remember = false});
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    const Raw data = pattern(64 * kMiB, 5);
    EXPECT_EQ(client->write(kMiB / 2, data).error, Errno::none);
    EXPECT_EQ(client->read(kMiB / 2, data.size()), data);
    EXPECT_EQ(client->ask(Command::read, 0, data.size() + 1).error, Errno::invalid);
    EXPECT_EQ(client->read(0, 512).size(), 512u);
    EXPECT_LE(server.io().buffers().bytes_in_use(), 8 * kMiB);
  });
}

TEST_P(EachForm, past_the_end) {
  TestServer server(kMiB);
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    const Raw sector = pattern(512, 1);
    const uint64_t wrapping = UINT64_MAX - 255;
    for (const uint64_t at : {kMiB, kMiB - 511, UINT64_MAX, wrapping, uint64_t{1} << 63}) {
      EXPECT_EQ(client->write(at, sector).error, Errno::no_space) << at;
      EXPECT_EQ(client->ask(Command::write_zeroes, at, 512).error, Errno::no_space) << at;
      EXPECT_EQ(client->ask(Command::read, at, 512).error, Errno::invalid) << at;
      EXPECT_EQ(client->ask(Command::trim, at, 512).error, Errno::invalid) << at;
      EXPECT_EQ(client->ask(Command::cache, at, 512).error, Errno::invalid) << at;
      EXPECT_EQ(client->ask(Command::block_status, at, 512).error, Errno::invalid) << at;
    }
    const Raw large = pattern(300000, 1);  // Its payload must be taken off the stream, too.
    EXPECT_EQ(client->write(kMiB - 4096, large).error, Errno::no_space);
    EXPECT_EQ(client->write(kMiB - 512, sector).error, Errno::none);
    EXPECT_EQ(client->read(kMiB - 512, 512), sector);
    EXPECT_EQ(server.device->count(Verb::write), 1u);
  });
}

TEST_P(EachForm, requests_of_nothing_do_nothing) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    for (const Command command :
         {Command::read, Command::trim, Command::write_zeroes, Command::cache}) {
      EXPECT_EQ(client->ask(command, 0, 0).error, Errno::none);
    }
    EXPECT_EQ(client->ask(Command::block_status, 0, 0).error, Errno::invalid);
    EXPECT_EQ(client->write(0, {}).error, Errno::none);
    EXPECT_TRUE(server.device->calls().empty());
  });
}

TEST_P(EachForm, unknown_commands_and_flags) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    EXPECT_EQ(client->ask(static_cast<Command>(8), 0, 4096).error, Errno::invalid);
    EXPECT_EQ(client->ask(static_cast<Command>(65535), 0, 4096).error, Errno::invalid);
    EXPECT_EQ(client->ask(Command::read, 0, 4096, 1 << 9).error, Errno::invalid);
    EXPECT_EQ(client->ask(Command::trim, 0, 4096, nbd::kFlagNoHole).error, Errno::invalid);
    EXPECT_EQ(client->ask(Command::flush, 0, 4096).error, Errno::invalid);
    EXPECT_EQ(client->ask(Command::flush, 1, 0).error, Errno::invalid);
    const Raw sector = pattern(512, 1);
    EXPECT_EQ(client->write(0, sector, nbd::kFlagFastZero).error, Errno::invalid);
    // FUA is accepted everywhere.
    EXPECT_EQ(client->ask(Command::read, 0, 4096, nbd::kFlagFua).error, Errno::none);
    EXPECT_EQ(client->ask(Command::flush, 0, 0, nbd::kFlagFua).error, Errno::none);
    EXPECT_EQ(client->read(0, 512).size(), 512u);
    EXPECT_EQ(server.device->count(Verb::write), 0u);
  });
  EXPECT_TRUE(server.log.lines.empty());
}

TEST_P(EachForm, read_only_exports_refuse_to_change) {
  TestServer server;
  server.exports.add("frozen", server.device).read_only = true;
  server.run([&] {
    auto client = server.client();
    client->connect("frozen", GetParam());
    EXPECT_NE(client->export_flags & nbd::kReadOnly, 0);
    EXPECT_EQ(client->write(0, pattern(512, 1)).error, Errno::perm);
    EXPECT_EQ(client->write(0, pattern(200000, 1)).error, Errno::perm);
    EXPECT_EQ(client->ask(Command::trim, 0, 512).error, Errno::perm);
    EXPECT_EQ(client->ask(Command::write_zeroes, 0, 512).error, Errno::perm);
    EXPECT_EQ(client->ask(Command::flush, 0, 0).error, Errno::none);
    EXPECT_EQ(client->read(0, 512).size(), 512u);
  });
  EXPECT_EQ(server.device->count(Verb::write), 0u);
  EXPECT_EQ(server.by_export["frozen"].errors[static_cast<size_t>(Command::write)], 2u);
}

TEST_P(EachForm, fua_and_flush_are_durable_and_nothing_else_is) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    const Raw small = pattern(4096, 1);
    const Raw large = pattern(3 * kMiB, 2);
    EXPECT_EQ(client->write(0, small).error, Errno::none);
    server.device->crash();
    EXPECT_NE(client->read(0, 4096), small);
    EXPECT_EQ(client->write(0, small, nbd::kFlagFua).error, Errno::none);
    EXPECT_EQ(server.device->count(Verb::flush), 0u);
    EXPECT_TRUE(server.device->calls().back().fua);
    EXPECT_EQ(client->write(4 * kMiB, large, nbd::kFlagFua).error, Errno::none);
    server.device->crash();
    EXPECT_EQ(client->read(0, 4096), small);
    EXPECT_EQ(client->read(4 * kMiB, large.size()), large);
    EXPECT_EQ(client->ask(Command::write_zeroes, 0, 4096, nbd::kFlagFua).error, Errno::none);
    EXPECT_EQ(client->ask(Command::trim, 4 * kMiB, kMiB, nbd::kFlagFua).error, Errno::none);
    server.device->crash();
    EXPECT_EQ(client->read(0, 4096), Raw(4096));
    EXPECT_EQ(client->read(4 * kMiB, kMiB), Raw(kMiB));
    EXPECT_EQ(client->write(0, small).error, Errno::none);
    EXPECT_EQ(client->ask(Command::flush, 0, 0).error, Errno::none);
    server.device->crash();
    EXPECT_EQ(client->read(0, 4096), small);
  });
}

TEST_P(EachForm, zeroes_carry_their_flags) {
  TestServer server(64 * kMiB, {.fast_zero = false});
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    EXPECT_EQ(client->ask(Command::write_zeroes, 0, 8192, nbd::kFlagNoHole).error, Errno::none);
    EXPECT_TRUE(server.device->calls().back().keep_space);
    EXPECT_EQ(client->ask(Command::write_zeroes, 0, 8192, nbd::kFlagFastZero).error,
              Errno::unsupported);
    EXPECT_TRUE(server.device->calls().back().fast_only);
    EXPECT_EQ(client->ask(Command::write_zeroes, 0, 8192).error, Errno::none);
  });
}

TEST_P(EachForm, each_error_of_the_device_has_its_number) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    const std::map<Errc, Errno> expected{{Errc::io, Errno::io},
                                         {Errc::corrupt, Errno::io},
                                         {Errc::no_space, Errno::no_space},
                                         {Errc::invalid, Errno::invalid},
                                         {Errc::fenced, Errno::io},
                                         {Errc::unsupported, Errno::unsupported},
                                         {Errc::cancelled, Errno::shutdown},
                                         {Errc::timed_out, Errno::io},
                                         {Errc::busy, Errno::io},
                                         {Errc::not_found, Errno::io},
                                         {Errc::exists, Errno::io},
                                         {Errc::too_new, Errno::io}};
    for (const auto& [code, number] : expected) {
      for (size_t verb = 0; verb < MemoryDevice::kVerbs; ++verb) {
        if (static_cast<Verb>(verb) != Verb::flush)
          server.device->fail(static_cast<Verb>(verb), code);
      }
      EXPECT_EQ(client->ask(Command::read, 0, 4096).error, number);
      EXPECT_EQ(client->write(0, pattern(4096, 1)).error, number);
      EXPECT_EQ(client->write(0, pattern(5 * kMiB, 1)).error, number);
      EXPECT_EQ(client->ask(Command::trim, 0, 4096).error, number);
      EXPECT_EQ(client->ask(Command::write_zeroes, 0, 4096).error, number);
      EXPECT_EQ(client->ask(Command::cache, 0, 4096).error, number);
      if (GetParam() != Form::simple) {
        EXPECT_EQ(client->ask(Command::block_status, 0, 4096).error, number);
      }
      server.device->heal();
      EXPECT_EQ(client->read(0, 4096).size(), 4096u);
    }
    EXPECT_EQ(server.device->count(Verb::flush), 0u);
    server.device->fail(Verb::flush, Errc::io);
    EXPECT_EQ(client->ask(Command::flush, 0, 0).error, Errno::io);
    server.device->heal();
    EXPECT_EQ(client->write(0, pattern(4096, 1)).error, Errno::io);  // Fenced: D4.
    EXPECT_EQ(client->read(0, 4096).size(), 4096u);
  });
  EXPECT_TRUE(server.log.says("request failed: disk"));
  EXPECT_LT(server.log.lines.size(), 10u);  // The 1st, 2nd, 4th ... of many.
}

TEST_P(EachForm, a_failure_in_the_middle_of_a_large_read) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    EXPECT_EQ(client->write(0, pattern(6 * kMiB, 4)).error, Errno::none);
    server.device->fail_at(3 * kMiB + 5, Errc::corrupt);
    const TestReply reply = client->ask(Command::read, 0, 6 * kMiB);
    if (GetParam() == Form::simple) {
      EXPECT_TRUE(reply.gone);  // Its header had promised the data.
      return;
    }
    EXPECT_EQ(reply.error, Errno::io);
    EXPECT_EQ(reply.error_at, 3 * kMiB);
    EXPECT_EQ(reply.data.size(), 3u);
    EXPECT_EQ(reply.data.at(kMiB), raw_of(server.device->content().subspan(kMiB, kMiB)));
    const TestReply whole = client->ask(Command::read, 0, 6 * kMiB, nbd::kFlagDf);
    EXPECT_EQ(whole.error, Errno::io);
    EXPECT_EQ(whole.error_at, 3 * kMiB);
    EXPECT_EQ(whole.data.size(), 1u);
    EXPECT_EQ(client->read(0, kMiB).size(), kMiB);
  });
}

TEST_P(EachForm, a_failure_in_the_middle_of_a_large_write_keeps_the_stream_in_step) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    server.device->fail_at(2 * kMiB, Errc::no_space);
    const Raw data = pattern(32 * kMiB, 4);
    EXPECT_EQ(client->write(0, data).error, Errno::no_space);
    EXPECT_EQ(client->read(0, 512), raw_of(View(data).first(512)));
  });
}

TEST_P(EachForm, many_requests_in_flight_are_all_answered) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", GetParam());
    constexpr uint64_t kCount = 1000;
    Group sending(server.io());
    server.io().spawn(sending, [&] {
      Raw batch;
      for (uint64_t i = 0; i < kCount; ++i) {
        client->append_request(batch, {0, Command::write, i, i * 4096, 4096}, pattern(4096, i));
        if (i % 10 == 9) {
          client->put(batch);
          batch.clear();
        }
      }
    });
    std::vector<bool> seen(kCount);
    for (uint64_t i = 0; i < kCount; ++i) {
      const TestReply reply = client->get_reply();
      ASSERT_FALSE(reply.gone);
      ASSERT_LT(reply.cookie, kCount);
      EXPECT_FALSE(seen[reply.cookie]);
      seen[reply.cookie] = true;
    }
    sending.wait();
    for (uint64_t i = 0; i < kCount; ++i) EXPECT_EQ(client->read(i * 4096, 4096), pattern(4096, i));
  });
  EXPECT_LT(server.counters.sends, 1000u + 500);  // The writes' replies went out in batches.
  EXPECT_EQ(server.by_export["disk"].bytes_written, 1000u * 4096);
  EXPECT_EQ(server.by_export["disk"].requests[static_cast<size_t>(Command::write)], 1000u);
}

TEST(NbdStatus, base_allocation) {
  for (const Form form : {Form::structured, Form::extended}) {
    TestServer server;
    server.run([&] {
      auto client = server.client();
      client->connect("disk", form, {"base:allocation", "qemu:allocation-depth"});
      EXPECT_EQ(client->contexts.size(), 2u);
      EXPECT_EQ(client->write(kMiB, pattern(8192, 1)).error, Errno::none);
      EXPECT_EQ(client->ask(Command::write_zeroes, kMiB + 8192, 4096).error, Errno::none);
      const TestReply reply = client->ask(Command::block_status, 0, 4 * kMiB);
      ASSERT_EQ(reply.error, Errno::none);
      ASSERT_EQ(reply.status.size(), 2u);
      const auto& base = reply.status[0];
      EXPECT_EQ(base.context, client->contexts["base:allocation"]);
      ASSERT_EQ(base.runs.size(), 3u);
      EXPECT_EQ(base.runs[0].length, kMiB);
      EXPECT_EQ(base.runs[0].flags, nbd::kStateHole | nbd::kStateZero);
      EXPECT_EQ(base.runs[1].length, 8192u);
      EXPECT_EQ(base.runs[1].flags, 0u);
      EXPECT_EQ(base.runs[2].length, 3 * kMiB - 8192);
      const auto& depth = reply.status[1];
      ASSERT_EQ(depth.runs.size(), 3u);
      EXPECT_EQ(depth.runs[1].length, 12288u);
      EXPECT_EQ(depth.runs[1].flags, 1u);
      EXPECT_EQ(depth.runs[2].flags, 0u);

      const TestReply one =
          client->ask(Command::block_status, kMiB + 4096, 4 * kMiB, nbd::kFlagReqOne);
      ASSERT_EQ(one.status.size(), 2u);
      ASSERT_EQ(one.status[0].runs.size(), 1u);
      EXPECT_EQ(one.status[0].runs[0].length, 4096u);
      ASSERT_EQ(one.status[1].runs.size(), 1u);
      EXPECT_EQ(one.status[1].runs[0].length, 8192u);
    });
  }
}

TEST(NbdStatus, many_runs_are_cut_short_but_never_empty) {
  for (const Form form : {Form::structured, Form::extended}) {
    TestServer server(64 * kMiB, {.remember = false});
    server.run([&] {
      auto client = server.client();
      client->connect("disk", form);
      for (uint64_t at = 0; at < 32 * kMiB; at += 8192) {
        client->put_request({0, Command::write, 1, at, 4096}, pattern(4096, at));
        EXPECT_EQ(client->get_reply().error, Errno::none);
      }
      uint64_t covered = 0;
      size_t replies = 0;
      while (covered < 64 * kMiB) {
        const TestReply reply = client->ask(Command::block_status, covered, 64 * kMiB - covered);
        ASSERT_EQ(reply.status.size(), 1u);
        for (const auto& run : reply.status[0].runs) {
          const bool data = covered < 32 * kMiB && covered % 8192 == 0;
          EXPECT_EQ(run.flags, data ? 0u : 3u) << covered;
          covered += run.length;
        }
        ++replies;
      }
      EXPECT_EQ(covered, 64 * kMiB);
      EXPECT_GT(replies, 1u);
    });
  }
}

TEST(NbdStatus, nobody_asked_for_a_context) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::structured, {});
    EXPECT_EQ(client->ask(Command::block_status, 0, 4096).error, Errno::invalid);
    auto other = server.client();
    other->connect("disk", Form::structured, {"nobody:knows", "base:allocatio"});
    EXPECT_TRUE(other->contexts.empty());
    EXPECT_EQ(other->ask(Command::block_status, 0, 4096).error, Errno::invalid);
  });
}

Raw filter_of(uint64_t length, std::vector<uint32_t> ids) {
  Raw out = raw_of(view_of(be64(length)));
  for (const uint32_t id : ids) {
    const Raw each = raw_of(view_of(be32(id)));
    out.insert(out.end(), each.begin(), each.end());
  }
  return out;
}

TEST(NbdStatus, filter_of_contexts) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::extended, {"base:allocation", "qemu:allocation-depth"});
    EXPECT_NE(client->export_flags & nbd::kBlockStatusPayload, 0);
    const auto ask = [&](View payload, uint64_t at = 0) {
      nbd::Request request{nbd::kFlagPayloadLen, Command::block_status, 5, at, payload.size()};
      client->put_raw_request(request, payload);
      return client->get_reply();
    };
    const uint32_t depth = client->contexts["qemu:allocation-depth"];
    const TestReply good = ask(filter_of(kMiB, {depth}));
    ASSERT_EQ(good.status.size(), 1u);
    EXPECT_EQ(good.status[0].context, depth);
    EXPECT_EQ(good.status[0].runs[0].length, kMiB);
    EXPECT_EQ(ask(filter_of(kMiB, {1, 2})).status.size(), 2u);
    EXPECT_EQ(ask(filter_of(kMiB, {1, 1})).error, Errno::invalid);
    EXPECT_EQ(ask(filter_of(kMiB, {0})).error, Errno::invalid);
    EXPECT_EQ(ask(filter_of(kMiB, {3})).error, Errno::invalid);
    EXPECT_EQ(ask(filter_of(kMiB, {})).error, Errno::invalid);
    EXPECT_EQ(ask(filter_of(0, {1})).error, Errno::invalid);
    EXPECT_EQ(ask(filter_of(UINT64_MAX, {1}), 2).error, Errno::invalid);
    EXPECT_EQ(ask(Raw(9)).error, Errno::invalid);
    EXPECT_EQ(ask(Raw(100000)).error, Errno::invalid);
    EXPECT_EQ(ask({}).error, Errno::invalid);
    EXPECT_EQ(client->read(0, 512).size(), 512u);
  });
}

TEST(NbdExtended, effects_may_be_longer_than_32_bits) {
  TestServer server(uint64_t{6} * kGiB, {.remember = false});
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::extended);
    EXPECT_EQ(client->ask(Command::trim, 4096, 5 * kGiB).error, Errno::none);
    EXPECT_EQ(server.device->count(Verb::discard), 6u);  // In steps.
    const TestReply reply = client->ask(Command::block_status, 0, 6 * kGiB);
    EXPECT_EQ(reply.status[0].runs[0].length, 6 * kGiB);
    EXPECT_EQ(client->ask(Command::cache, 0, 6 * kGiB).error, Errno::none);
    EXPECT_EQ(client->ask(Command::trim, 4096, UINT64_MAX).error, Errno::invalid);
    EXPECT_EQ(client->ask(Command::write_zeroes, 8, UINT64_MAX - 7).error, Errno::no_space);
  });
}

TEST(NbdExtended, payloads_where_none_belong) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::extended);
    // A payload on a command that takes none is taken off the stream and refused.
    client->put_raw_request({nbd::kFlagPayloadLen, Command::trim, 1, 0, 100000}, Raw(100000));
    EXPECT_EQ(client->get_reply().error, Errno::invalid);
    client->put_raw_request({nbd::kFlagPayloadLen, static_cast<Command>(99), 2, 0, 7}, Raw(7));
    EXPECT_EQ(client->get_reply().error, Errno::invalid);
    // A write without the flag has none.
    client->put_raw_request({0, Command::write, 3, 0, 4096});
    EXPECT_EQ(client->get_reply().error, Errno::invalid);
    EXPECT_EQ(client->read(0, 512).size(), 512u);
    client->put_raw_request({nbd::kFlagPayloadLen, Command::trim, 4, 0, nbd::kPayloadMax + 1});
    EXPECT_TRUE(client->at_end());
  });
  EXPECT_TRUE(server.log.says("client dropped: unix: a trim of 67108865 bytes"));
  EXPECT_EQ(server.counters.protocol_errors, 1u);
}

TEST(NbdHostile, wrong_magic_ends_the_connection_and_is_named) {
  for (const Form form : kForms) {
    TestServer server;
    server.run([&] {
      auto client = server.client();
      client->connect("disk", form);
      EXPECT_EQ(client->write(0, pattern(512, 1)).error, Errno::none);
      Raw junk(40, std::byte{0x41});
      EXPECT_TRUE(client->put(junk));
      EXPECT_TRUE(client->at_end());
    });
    EXPECT_TRUE(server.log.says("client dropped: unix: a request begins with 0x41414141"));
  }
}

TEST(NbdHostile, absurd_writes_end_the_connection) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::structured);
    client->put_request({0, Command::write, 1, 0, UINT32_MAX});
    EXPECT_TRUE(client->at_end());
  });
  EXPECT_TRUE(server.log.says("a write of 4294967295 bytes"));
}

TEST(NbdHostile, cut_off_in_mid_request_at_every_byte) {
  Raw bytes(nbd::kRequestBytes);
  nbd::encode(nbd::Request{0, Command::write, 1, 0, 200}, Form::structured, bytes);
  bytes.resize(bytes.size() + 200);
  TestServer server;
  server.run([&] {
    for (size_t cut = 0; cut < bytes.size(); ++cut) {
      auto client = server.client();
      client->connect("disk", Form::structured);
      EXPECT_TRUE(client->put(View(bytes).first(cut)));
      client->leave();
    }
    EXPECT_TRUE(server.wait_until([&] { return server.server->counters().connections == 0; }));
  });
  EXPECT_EQ(server.device->count(Verb::write), 0u);
  EXPECT_EQ(server.counters.protocol_errors, bytes.size() - 1);
}

TEST(NbdHostile, cut_off_in_a_large_write) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::extended);
    client->put_request({0, Command::write, 1, 0, 8 * kMiB}, pattern(3 * kMiB + 5, 1));
    client->leave();
    EXPECT_TRUE(server.wait_until([&] { return server.server->counters().connections == 0; }));
  });
  EXPECT_TRUE(server.log.says("it left in the middle of a write"));
}

TEST(NbdHostile, a_client_that_leaves_with_requests_in_flight) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::structured);
    server.device->hold();
    for (uint64_t i = 0; i < 20; ++i) {
      client->put_request({0, Command::write, i, i * 4096, 4096}, pattern(4096, i));
      client->put_request({0, Command::read, 100 + i, i * 4096, 4096});
    }
    EXPECT_TRUE(server.wait_until([&] { return server.device->waiting() == 40; }));
    client.reset();
    server.io().sleep(std::chrono::milliseconds(1));
    EXPECT_EQ(server.server->counters().connections, 1u);  // What is in flight runs to its end.
    server.device->let_go(server.io());
    EXPECT_TRUE(server.wait_until([&] { return server.server->counters().connections == 0; }));
  });
  EXPECT_EQ(server.device->count(Verb::write), 20u);
}

TEST(NbdHostile, a_client_that_does_not_read_is_bounded_and_disturbs_nobody) {
  TestServer server;
  server.run([&] {
    std::vector<std::unique_ptr<TestClient>> mute;
    Group senders(server.io());
    for (int i = 0; i < 8; ++i) {
      mute.push_back(server.client());
      mute.back()->connect("disk", Form::structured);
      TestClient& client = *mute.back();
      server.io().spawn(senders, [&client] {
        for (uint64_t k = 0; k < 100; ++k) {
          if (!client.put_request({nbd::kFlagDf, Command::read, k, 0, kMiB})) return;
        }
      });
    }
    EXPECT_TRUE(
        server.wait_until([&] { return server.server->exports().at("disk").in_flight >= 8 * 4; }));
    // They hold at most their budgets, half of the pool stays for others, and who reads is served.
    BufferPool& pool = server.io().buffers();
    EXPECT_LE(pool.bytes_in_use(), pool.arena().size() / 2);
    auto client = server.client();
    client->connect("disk", Form::structured);
    const Raw data = pattern(4 * kMiB, 9);
    for (int i = 0; i < 10; ++i) {
      EXPECT_EQ(client->write(8 * kMiB, data).error, Errno::none);
      EXPECT_EQ(client->read(8 * kMiB, data.size()), data);
    }
    for (auto& each : mute) each->leave();
    senders.wait();
  });
}

TEST(NbdHostile, a_client_that_never_reads_replies_runs_out_of_slots) {
  TestServer server;
  server.run([&] {
    auto client = server.client();
    client->connect("disk", Form::extended);
    Group sending(server.io());
    server.io().spawn(sending, [&] {
      for (uint64_t i = 0; i < 100000; ++i) {
        if (!client->put_request({0, Command::flush, i, 0, 0})) return;
      }
    });
    // It stops being read from: requests accepted stand still at some number far below what it
    // sends.
    uint64_t accepted = 0;
    EXPECT_TRUE(server.wait_until([&] {
      const uint64_t before = accepted;
      server.io().sleep(std::chrono::milliseconds(20));
      accepted = server.server->exports().at("disk").requests[static_cast<size_t>(Command::flush)];
      return accepted == before && accepted > 0;
    }));
    EXPECT_LT(accepted, 50000u);
    EXPECT_LE(server.server->exports().at("disk").in_flight, 128u);
    client->leave();
    sending.wait();
  });
}

TEST(NbdMultiConn, a_flush_on_one_connection_covers_the_writes_of_another) {
  TestServer server;
  server.run([&] {
    auto one = server.client();
    auto two = server.client();
    one->connect("disk", Form::structured);
    two->connect("disk", Form::extended);
    EXPECT_NE(one->export_flags & nbd::kCanMultiConn, 0);
    const Raw data = pattern(4096, 1);
    EXPECT_EQ(one->write(0, data).error, Errno::none);
    EXPECT_EQ(two->read(0, 4096), data);
    EXPECT_EQ(two->ask(Command::flush, 0, 0).error, Errno::none);
    server.device->crash();
    EXPECT_EQ(one->read(0, 4096), data);
  });
}

}  // namespace
}  // namespace firn::serve
