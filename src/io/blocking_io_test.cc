// SPDX-License-Identifier: Apache-2.0
#include "io/blocking_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include "io/io_test_dir.h"
#include "io/slice_cursor.h"
#include "io/socket.h"

namespace firn {
namespace {

TEST(SliceCursor, walks_partial_transfers) {
  std::array<std::byte, 30> room{};
  const std::array<::iovec, 4> slices{
      {{room.data(), 10}, {nullptr, 0}, {room.data() + 10, 5}, {room.data() + 15, 15}}};
  SliceCursor cursor(slices);
  EXPECT_EQ(cursor.next().size(), 4u);
  cursor.advance(4);
  ASSERT_EQ(cursor.next().size(), 1u);
  EXPECT_EQ(cursor.next()[0].iov_len, 6u);
  cursor.advance(6);
  EXPECT_EQ(cursor.next().size(), 2u);
  cursor.advance(20);
  EXPECT_TRUE(cursor.done());
  EXPECT_EQ(cursor.moved(), 30u);
}

TEST(BlockingIo, reads_what_it_wrote) {
  TestDir dir;
  BlockingIo io;
  auto file = io.open(dir / "f", {.create = true}).take();
  std::vector<std::byte> out(10000, std::byte{7});
  ASSERT_TRUE(io.write(*file, 5000, View(out)));
  ASSERT_TRUE(io.flush(*file));
  EXPECT_EQ(*io.size(*file), 15000u);
  std::vector<std::byte> in(15000);
  ASSERT_TRUE(io.read(*file, 0, Bytes(in)));
  EXPECT_EQ(in[4999], std::byte{0});
  EXPECT_EQ(in[14999], std::byte{7});
}

TEST(BlockingIo, direct_files_say_their_alignment_and_refuse_others) {
  TestDir dir;
  BlockingIo io;
  auto file = io.open(dir / "f", {.create = true, .direct = true}).take();
  const uint32_t alignment = file->alignment();  // 1 where the file system knows no direct I/O.
  EXPECT_TRUE(alignment == 1 || alignment == 512 || alignment == 4096);
  alignas(4096) std::array<std::byte, 8192> room{};
  ASSERT_TRUE(io.write(*file, 4096, View(room).first(4096)));
  ASSERT_TRUE(io.read(*file, 0, Bytes(room)));
  const Result<void> odd = io.write(*file, 1, View(room).first(4096));
  EXPECT_EQ(odd.has_value(), alignment == 1);
  if (!odd) {
    EXPECT_EQ(odd.error().code, Errc::invalid);
  }
  const Result<void> past = io.read(*file, 4096, Bytes(room));
  ASSERT_FALSE(past);
  EXPECT_EQ(past.error().code, Errc::io);
}

TEST(BlockingIo, past_the_end_is_an_error_that_names_file_and_offset) {
  TestDir dir;
  BlockingIo io;
  auto file = io.open(dir / "short", {.create = true}).take();
  std::array<std::byte, 100> room{};
  ASSERT_TRUE(io.write(*file, 0, View(room)));
  const Result<void> result = io.read(*file, 50, Bytes(room));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::io);
  const std::string text(text_of(result.error()));
  EXPECT_NE(text.find("short at 50: only 50 of 100"), std::string::npos) << text;
}

TEST(BlockingIo, offsets_that_no_file_can_have_are_invalid) {
  TestDir dir;
  BlockingIo io;
  auto file = io.open(dir / "f", {.create = true}).take();
  std::array<std::byte, 100> room{};
  EXPECT_EQ(io.read(*file, UINT64_MAX - 10, Bytes(room)).error().code, Errc::invalid);
}

TEST(BlockingIo, what_cannot_be_opened_is_named) {
  TestDir dir;
  BlockingIo io;
  const auto missing = io.open(dir / "no", {});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::not_found);
  EXPECT_NE(text_of(missing.error()).find(dir / "no"), std::string_view::npos);

  const auto directory = io.open(dir.path(), {});
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().code, Errc::invalid);
  EXPECT_NE(text_of(directory.error()).find("is a directory"), std::string_view::npos);
  EXPECT_EQ(io.open(dir.path(), {.writable = false}).error().code, Errc::invalid);

  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  for (const bool writable : {true, false}) {
    const auto fifo = io.open(dir / "fifo", {.writable = writable});  // Must not hang.
    ASSERT_FALSE(fifo);
    EXPECT_EQ(fifo.error().code, Errc::invalid);
  }
  auto first = io.open(dir / "x", {.create = true, .exclusive = true}).take();
  EXPECT_EQ(io.open(dir / "x", {.create = true, .exclusive = true}).error().code, Errc::exists);
}

TEST(BlockingIo, directories_links_locks_and_punches) {
  TestDir dir;
  BlockingIo io;
  ASSERT_TRUE(io.make_directory(dir / "d"));
  EXPECT_EQ(io.make_directory(dir / "d").error().code, Errc::exists);
  auto file = io.open(dir / "d/f", {.create = true}).take();
  ASSERT_TRUE(io.link_symbolically("d/f", dir / "link"));
  auto other = io.open(dir / "link", {}).take();
  ASSERT_TRUE(io.lock(*file, true));
  EXPECT_EQ(io.lock(*other, false).error().code, Errc::busy);
  file.reset();
  ASSERT_TRUE(io.lock(*other, false));
  std::vector<std::byte> ones(8192, std::byte{1});
  ASSERT_TRUE(io.write(*other, 0, View(ones)));
  ASSERT_TRUE(io.punch(*other, 4096, 4096));
  ASSERT_TRUE(io.read(*other, 0, Bytes(ones)));
  EXPECT_EQ(ones[4095], std::byte{1});
  EXPECT_EQ(ones[4096], std::byte{0});
  ASSERT_TRUE(io.resize(*other, 100));
  EXPECT_EQ(*io.size(*other), 100u);
  ASSERT_TRUE(io.flush_directory(dir / "d"));
  ASSERT_TRUE(io.remove(dir / "d/f"));
  EXPECT_EQ(io.remove(dir / "d/f").error().code, Errc::not_found);
}

TEST(BlockingIo, spawn_and_offload_run_inline) {
  BlockingIo io;
  Group group(io);
  int ran = 0;
  io.spawn(group, [&] { ++ran; });
  io.offload([&] { ++ran; });
  io.yield();
  EXPECT_EQ(ran, 2);
}

TEST(BlockingIoDeathTest, park_is_a_programmers_error) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        BlockingIo io;
        WaitList list;
        io.park(list);
      },
      "park under BlockingIo");
}

TEST(BlockingIo, sockets_carry_bytes_until_shutdown) {
  TestDir dir;
  BlockingIo io;
  auto listener = listen_unix(dir / "s").take();
  auto client = connect_unix(io, dir / "s").take();
  auto server = io.accept(*listener).take();
  const std::array<std::byte, 5> hello{std::byte{1}, std::byte{2}, std::byte{3}};
  const ::iovec slice = slice_of(View(hello));
  ASSERT_TRUE(io.send(*client, Iovec(&slice, 1)));
  std::array<std::byte, 16> room{};
  EXPECT_EQ(*io.receive(*server, room), 5u);
  io.shutdown(*client);
  EXPECT_EQ(*io.receive(*server, room), 0u);
  EXPECT_EQ(*io.receive(*client, room), 0u);
  EXPECT_EQ(io.send(*client, Iovec(&slice, 1)).error().sys, EPIPE);
  EXPECT_EQ(listen_unix(dir / "s").error().code, Errc::busy);
}

TEST(Socket, bad_addresses_are_named) {
  BlockingIo io;
  EXPECT_EQ(listen_tcp("nonsense").error().code, Errc::invalid);
  EXPECT_EQ(listen_unix(std::string(200, 'x')).error().code, Errc::invalid);
  EXPECT_EQ(connect_unix(io, "/nonexistent/socket").error().code, Errc::not_found);
  TestDir dir;
  auto file = io.open(dir / "file", {.create = true}).take();
  EXPECT_EQ(listen_unix(dir / "file").error().code, Errc::exists);
  const int fd = ::open((dir / "file").c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_FALSE(adopt_socket(fd));
  ::close(fd);
}

TEST(Socket, a_stale_path_is_replaced) {
  TestDir dir;
  BlockingIo io;
  { auto gone = listen_unix(dir / "s").take(); }
  auto listener = listen_unix(dir / "s");
  ASSERT_TRUE(listener) << text_of(listener.error());
}

TEST(Socket, tcp_on_loopback_and_a_pair_of_pipes) {
  BlockingIo io;
  auto listener = listen_tcp("127.0.0.1:0").take();
  const uint16_t port = local_port(*listener);
  ASSERT_NE(port, 0);
  auto client = connect_tcp(io, "127.0.0.1:" + std::to_string(port)).take();
  auto server = io.accept(*listener).take();
  EXPECT_EQ(server->peer().substr(0, 10), "127.0.0.1:");

  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  auto loop = adopt_pair(pipe[0], pipe[1], "stdio").take();
  const std::array<std::byte, 3> bytes{std::byte{9}};
  const ::iovec slice = slice_of(View(bytes));
  ASSERT_TRUE(io.send(*loop, Iovec(&slice, 1)));
  std::array<std::byte, 16> room{};
  EXPECT_EQ(*io.receive(*loop, room), 3u);
  EXPECT_EQ(room[0], std::byte{9});
}

}  // namespace
}  // namespace firn
