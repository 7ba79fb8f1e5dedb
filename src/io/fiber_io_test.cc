// SPDX-License-Identifier: Apache-2.0
#include "io/fiber_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "io/io_test_dir.h"
#include "io/shards.h"
#include "io/socket.h"

namespace firn {
namespace {

using namespace std::chrono_literals;

// Each test runs on the best ring that the kernel gives and on a plain one, as on an old kernel.
class FiberIoTest : public testing::TestWithParam<bool> {
 protected:
  FiberIoTest() {
    FiberIo::Settings settings;
    settings.ring.plain = GetParam();
    settings.buffer_bytes = 2 * kMiB;
    io_ = FiberIo::make(settings).take();
  }
  TestDir dir_;
  std::unique_ptr<FiberIo> io_;
};
INSTANTIATE_TEST_SUITE_P(Rings, FiberIoTest, testing::Bool(), [](const auto& each) {
  return each.param ? std::string("plain") : std::string("best");
});

::iovec part(std::vector<std::byte>& of, size_t at, size_t length) {
  return slice_of(Bytes(of).subspan(at, length));
}

TEST_P(FiberIoTest, reads_what_it_wrote_in_pieces) {
  io_->run([&] {
    auto file = io_->open(dir_ / "f", {.create = true}).take();
    std::vector<std::byte> out(100000);
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(i * 7);
    const std::array<::iovec, 4> pieces{part(out, 0, 10), part(out, 10, 0), part(out, 10, 60000),
                                        part(out, 60010, 39990)};
    ASSERT_TRUE(io_->write(*file, 33, Iovec(pieces)));
    ASSERT_TRUE(io_->flush(*file));
    EXPECT_EQ(*io_->size(*file), 100033u);
    std::vector<std::byte> in(100000);
    ASSERT_TRUE(io_->read(*file, 33, Bytes(in)));
    EXPECT_EQ(in, out);
    ASSERT_TRUE(io_->punch(*file, 4096, 8192));
    ASSERT_TRUE(io_->read(*file, 4096, Bytes(in).first(8192)));
    EXPECT_TRUE(all_zero(View(in).first(8192)));
    ASSERT_TRUE(io_->resize(*file, 50));
    EXPECT_EQ(*io_->size(*file), 50u);
  });
}

TEST_P(FiberIoTest, direct_transfers_from_registered_and_other_buffers) {
  io_->run([&] {
    auto file = io_->open(dir_ / "f", {.create = true, .direct = true}).take();
    Buffer fixed = io_->buffers().take(*io_, 65536);
    std::fill(fixed.bytes().begin(), fixed.bytes().end(), std::byte{42});
    ASSERT_TRUE(io_->write(*file, 65536, View(fixed.bytes())));
    Buffer other = io_->buffers().take(*io_, 8192);
    const std::array<::iovec, 2> two{slice_of(other.bytes().first(4096)),
                                     slice_of(other.bytes().subspan(4096))};
    ASSERT_TRUE(io_->read(*file, 65536 - 4096, Iovec(two)));
    EXPECT_EQ(other.bytes()[4095], std::byte{0});
    EXPECT_EQ(other.bytes()[4096], std::byte{42});
    if (file->alignment() > 1) {
      const Result<void> odd = io_->write(*file, 0, View(fixed.bytes()).subspan(1, 512));
      ASSERT_FALSE(odd);
      EXPECT_EQ(odd.error().code, Errc::invalid);
    }
  });
}

TEST_P(FiberIoTest, errors_name_the_object) {
  io_->run([&] {
    const auto missing = io_->open(dir_ / "no", {});
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code, Errc::not_found);
    EXPECT_NE(text_of(missing.error()).find("no"), std::string_view::npos);
    EXPECT_EQ(io_->open(dir_.path(), {}).error().code, Errc::invalid);
    auto file = io_->open(dir_ / "f", {.create = true}).take();
    std::array<std::byte, 100> room{};
    ASSERT_TRUE(io_->write(*file, 0, View(room)));
    const Result<void> past = io_->read(*file, 50, Bytes(room));
    ASSERT_FALSE(past);
    EXPECT_EQ(past.error().code, Errc::io);
    EXPECT_NE(text_of(past.error()).find("only 50 of 100"), std::string_view::npos);
    EXPECT_EQ(io_->remove(dir_ / "no").error().code, Errc::not_found);
    auto shown = io_->open(dir_ / "f", {.writable = false}).take();
    EXPECT_EQ(io_->write(*shown, 0, View(room)).error().sys, EBADF);
    EXPECT_EQ(io_->flush_directory(dir_ / "no").error().code, Errc::not_found);
  });
}

TEST_P(FiberIoTest, directories_links_and_locks) {
  io_->run([&] {
    ASSERT_TRUE(io_->make_directory(dir_ / "d"));
    auto file = io_->open(dir_ / "d/f", {.create = true}).take();
    ASSERT_TRUE(io_->link_symbolically("d/f", dir_ / "link"));
    auto other = io_->open(dir_ / "link", {}).take();
    ASSERT_TRUE(io_->lock(*file, true));
    std::array<std::byte, 1> room{};
    ASSERT_TRUE(io_->write(*file, 0, View(room)));  // Puts it into the ring's table ...
    EXPECT_EQ(io_->lock(*other, true).error().code, Errc::busy);
    file.reset();
    EXPECT_TRUE(io_->lock(*other, true));  // ... which must not hold the lock.
    ASSERT_TRUE(io_->flush_directory(dir_ / "d"));
    ASSERT_TRUE(io_->remove(dir_ / "link"));
  });
}

TEST_P(FiberIoTest, flushes_are_shared_and_each_begins_after_its_caller_asked) {
  io_->run([&] {
    auto file = io_->open(dir_ / "f", {.create = true}).take();
    std::array<std::byte, 100> room{};
    ASSERT_TRUE(io_->write(*file, 0, View(room)));
    const uint64_t before = io_->counters().operations;
    {
      Group group(*io_);
      for (int i = 0; i < 50; ++i) {
        io_->spawn(group, [&] { EXPECT_TRUE(io_->flush(*file)); });
      }
    }
    const uint64_t flushes = io_->counters().operations - before;
    EXPECT_GE(flushes, 1u);
    EXPECT_LE(flushes, 3u);  // One in progress, one gathering; and perhaps the mailbox.
  });
}

TEST_P(FiberIoTest, group_waits_for_children_and_grandchildren) {
  std::string trace;
  io_->run([&] {
    {
      Group group(*io_);
      io_->spawn(group, [&] {
        Group inner(*io_);
        io_->spawn(inner, [&] {
          io_->sleep(1ms);
          trace += "a";
        });
        inner.wait();
        trace += "b";
      });
      trace += "0";
    }
    trace += "c";
  });
  EXPECT_EQ(trace, "0abc");
}

// However long this process is kept from running: a sleep began between what the clock said to its
// fiber before, and what it said to the next one.
TEST_P(FiberIoTest, sleepers_wake_in_order_of_their_deadlines) {
  struct Sleeper {
    Duration span;
    Time before{};
    size_t woken = 0;
  };
  std::vector<Sleeper> sleepers{{9ms}, {3ms}, {6ms}, {0ms}};
  Time behind{};
  io_->run([&] {
    Group group(*io_);
    size_t awake = 0;
    for (Sleeper& each : sleepers) {
      io_->spawn(group, [&] {
        each.before = io_->now();
        io_->sleep(each.span);
        EXPECT_GE(io_->now() - each.before, each.span);
        each.woken = ++awake;
      });
    }
    io_->yield();
    behind = io_->now();
  });
  for (size_t i = 0; i < sleepers.size(); ++i) {
    const Sleeper& one = sleepers[i];
    const Time latest = (i + 1 < sleepers.size() ? sleepers[i + 1].before : behind) + one.span;
    for (const Sleeper& other : sleepers) {
      if (latest >= other.before + other.span) continue;
      EXPECT_LT(one.woken, other.woken) << one.span.count() << " and " << other.span.count();
    }
  }
}

TEST_P(FiberIoTest, an_idle_shard_sleeps_in_one_system_call) {
  const int signal = ::eventfd(0, EFD_CLOEXEC);
  uint64_t enters = 0;
  io_->run([&] {
    Group group(*io_);
    io_->spawn(group, [&] {
      const uint64_t before = io_->counters().enters;
      ASSERT_TRUE(io_->wait_readable(signal));
      enters = io_->counters().enters - before;
    });
    io_->sleep(20ms);  // However long that takes, the shard has nothing to do meanwhile.
    const uint64_t one = 1;
    EXPECT_EQ(::write(signal, &one, sizeof(one)), 8);
  });
  ::close(signal);
  EXPECT_LE(enters, 4u);  // Into the sleep, its end, the signal.
}

TEST_P(FiberIoTest, offload_runs_elsewhere_while_other_fibers_go_on) {
  const std::thread::id here = std::this_thread::get_id();
  std::atomic<bool> released = false;
  int turns = 0;
  io_->run([&] {
    Group group(*io_);
    io_->spawn(group, [&] {
      std::thread::id there = here;
      io_->offload([&] {
        there = std::this_thread::get_id();
        released.wait(false);
      });
      EXPECT_NE(there, here);
    });
    for (; turns < 10; ++turns) io_->yield();
    released = true;
    released.notify_all();
  });
  EXPECT_EQ(turns, 10);
}

TEST_P(FiberIoTest, posts_from_other_threads_arrive_in_order) {
  std::vector<int> seen;
  std::thread poster;
  io_->run([&] {
    WaitList all;
    poster = std::thread([&] {
      for (int i = 0; i < 1000; ++i) {
        io_->post([&, i] {
          seen.push_back(i);
          if (i == 999) io_->wake(all, 1);
        });
      }
    });
    io_->park(all);
  });
  poster.join();
  ASSERT_EQ(seen.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST_P(FiberIoTest, thousands_of_fibers_on_one_file) {
  io_->run([&] {
    auto file = io_->open(dir_ / "f", {.create = true}).take();
    {
      Group group(*io_);
      for (uint64_t i = 0; i < 3000; ++i) {
        io_->spawn(group, [&, i] {
          std::array<std::byte, 512> room{};
          room.fill(static_cast<std::byte>(i % 251));
          EXPECT_TRUE(io_->write(*file, i * 512, View(room)));
        });
      }
    }
    Group group(*io_);
    for (uint64_t i = 0; i < 3000; ++i) {
      io_->spawn(group, [&, i] {
        std::array<std::byte, 512> room{};
        EXPECT_TRUE(io_->read(*file, i * 512, Bytes(room)));
        EXPECT_EQ(room[511], static_cast<std::byte>(i % 251));
      });
    }
  });
  EXPECT_GE(io_->counters().operations, 6000u);
  EXPECT_LT(io_->counters().enters, 6000u);  // Batched.
  EXPECT_GT(io_->counters().stack_high_water_bytes, 0u);
}

// --- sockets

struct Pair {
  std::unique_ptr<Socket> a;
  std::unique_ptr<Socket> b;
};
Pair make_pair() {
  std::array<int, 2> ends{};
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()) == 0);
  return {adopt_socket(ends[0]).take(), adopt_socket(ends[1]).take()};
}

TEST_P(FiberIoTest, sends_all_of_it_however_slowly_it_is_received) {
  io_->run([&] {
    Pair pair = make_pair();
    std::vector<std::byte> out(3 << 20);
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(i * 13 >> 3);
    Group group(*io_);
    io_->spawn(group, [&] {
      const std::array<::iovec, 3> pieces{part(out, 0, 1 << 20), part(out, 1 << 20, 1),
                                          part(out, (1 << 20) + 1, (2 << 20) - 1)};
      EXPECT_TRUE(io_->send(*pair.a, Iovec(pieces)));
      io_->shutdown(*pair.a);
    });
    std::vector<std::byte> in;
    std::vector<std::byte> room(70000);
    for (;;) {
      const Result<size_t> got = io_->receive(*pair.b, room);
      ASSERT_TRUE(got);
      if (*got == 0) break;
      in.insert(in.end(), room.begin(), room.begin() + static_cast<ptrdiff_t>(*got));
    }
    EXPECT_EQ(in, out);
    EXPECT_EQ(io_->send(*pair.a, Iovec(std::array{part(out, 0, 1)})).error().sys, EPIPE);
    EXPECT_EQ(io_->send(*pair.b, Iovec(std::array{part(out, 0, 1)})).error().sys, EPIPE);
  });
}

TEST_P(FiberIoTest, K3_shutdown_ends_calls_that_wait) {
  io_->run([&] {
    Pair pair = make_pair();
    auto listener = listen_tcp("127.0.0.1:0").take();
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    ASSERT_EQ(::pipe2(in.data(), O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(out.data(), O_CLOEXEC), 0);
    auto stdio = adopt_pair(in[0], out[1], "stdio").take();
    Group group(*io_);
    int ended = 0;
    io_->spawn(group, [&] {
      std::array<std::byte, 10> room{};
      EXPECT_EQ(*io_->receive(*pair.a, room), 0u);
      ++ended;
    });
    io_->spawn(group, [&] {
      EXPECT_EQ(io_->accept(*listener).error().code, Errc::cancelled);
      ++ended;
    });
    io_->spawn(group, [&] {
      std::array<std::byte, 10> room{};
      EXPECT_EQ(*io_->receive(*stdio, room), 0u);
      ++ended;
    });
    io_->sleep(1ms);  // Lets them wait; shutdown ends those who come later too.
    io_->shutdown(*pair.a);
    io_->shutdown(*listener);
    io_->shutdown(*stdio);
    group.wait();
    EXPECT_EQ(ended, 3);
    ::close(in[1]);
    ::close(out[0]);
  });
}

TEST_P(FiberIoTest, a_dropped_socket_is_the_end_for_its_peer_at_once) {
  io_->run([&] {
    Pair pair = make_pair();
    std::array<std::byte, 10> room{};
    Group group(*io_);
    io_->spawn(group, [&] {
      EXPECT_EQ(*io_->receive(*pair.a, room), 10u);
      pair.a.reset();
    });
    const ::iovec slice = slice_of(View(room));
    ASSERT_TRUE(io_->send(*pair.b, Iovec(&slice, 1)));
    EXPECT_EQ(*io_->receive(*pair.b, room), 0u);
  });
}

TEST_P(FiberIoTest, serves_unix_and_tcp_and_pipes) {
  io_->run([&] {
    auto path = listen_unix(dir_ / "s").take();
    auto port = listen_tcp("127.0.0.1:0").take();
    Group group(*io_);
    for (Socket* listener : {path.get(), port.get()}) {
      io_->spawn(group, [&, listener] {  // An echo, once.
        auto end = io_->accept(*listener).take();
        std::array<std::byte, 64> room{};
        const size_t got = *io_->receive(*end, room);
        const ::iovec slice = slice_of(View(room).first(got));
        EXPECT_TRUE(io_->send(*end, Iovec(&slice, 1)));
      });
    }
    auto one = connect_unix(*io_, dir_ / "s").take();
    auto two = connect_tcp(*io_, "127.0.0.1:" + std::to_string(local_port(*port))).take();
    EXPECT_EQ(one->peer(), "unix");
    for (Socket* end : {one.get(), two.get()}) {
      std::array<std::byte, 5> room{std::byte{1}, std::byte{2}};
      const ::iovec slice = slice_of(View(room));
      ASSERT_TRUE(io_->send(*end, Iovec(&slice, 1)));
      room.fill(std::byte{0});
      EXPECT_EQ(*io_->receive(*end, room), 5u);
      EXPECT_EQ(room[1], std::byte{2});
    }
    EXPECT_EQ(connect_unix(*io_, dir_ / "nobody").error().code, Errc::not_found);
  });
}

TEST_P(FiberIoTest, a_pipe_without_a_reader_is_an_error_not_a_signal) {
  io_->run([&] {
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    ASSERT_EQ(::pipe2(in.data(), O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(out.data(), O_CLOEXEC), 0);
    auto stdio = adopt_pair(in[0], out[1], "stdio").take();
    ::close(out[0]);
    std::array<std::byte, 5> room{};
    const ::iovec slice = slice_of(View(room));
    EXPECT_EQ(io_->send(*stdio, Iovec(&slice, 1)).error().sys, EPIPE);
    ::close(in[1]);
    EXPECT_EQ(*io_->receive(*stdio, room), 0u);
  });
}

TEST(FiberIo, the_best_ring_is_what_this_kernel_gives) {
  auto ring = Ring::make({}, {}).take();
  EXPECT_TRUE(ring->deferred()) << "Linux 6.1 and later";
  auto plain = Ring::make({.plain = true}, {}).take();
  EXPECT_FALSE(plain->deferred());
}

TEST(Shards, run_apart_and_call_each_other) {
  auto shards = Shards::start(3, {.ring = {}, .buffer_bytes = kMiB, .helpers = nullptr}).take();
  std::atomic<int> sum = 0;
  std::atomic<int> left = 3;
  for (size_t i = 0; i < 3; ++i) {
    shards->post(i, [&, i] {
      FiberIo& here = shards->at(i);
      FiberIo& there = shards->at((i + 1) % 3);
      for (int round = 0; round < 100; ++round) {
        std::thread::id mine = std::this_thread::get_id();
        std::thread::id other = mine;
        here.call(there, [&] {
          other = std::this_thread::get_id();
          there.yield();
        });
        EXPECT_NE(mine, other);
        ++sum;
      }
      --left;
      left.notify_all();
    });
  }
  for (int seen = left; seen > 0; seen = left) left.wait(seen);
  shards.reset();
  EXPECT_EQ(sum, 300);
}

TEST(FiberIoDeathTest, an_operation_outside_of_a_fiber_is_a_programmers_error) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto io = FiberIo::make().take();
        io->sleep(1ms);
      },
      "outside of run");
}

}  // namespace
}  // namespace firn
