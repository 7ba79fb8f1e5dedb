// SPDX-License-Identifier: Apache-2.0
// Events, pollers, descriptors beside bytes, and maps whose memory is taken away.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "io/blocking_io.h"
#include "io/fiber_io.h"
#include "io/host_event.h"
#include "io/io_test_dir.h"
#include "io/shared_map.h"
#include "io/socket.h"

namespace firn {
namespace {

std::unique_ptr<Event> same_event(const Fd& fd) {
  return adopt_event(duplicate(fd.get()).take()).take();
}

TEST(Event, signals_of_one_turn_are_one_and_none_is_lost) {
  auto io = FiberIo::make().take();
  io->run([&] {
    const Fd fd = make_event_fd().take();
    const auto ours = same_event(fd);
    const auto theirs = same_event(fd);
    int heard = 0;
    Group group(*io);
    io->spawn(group, [&] {
      while (io->wait(*ours)) ++heard;
    });
    for (int i = 0; i < 5; ++i) {
      for (int twice = 0; twice < 2; ++twice) io->signal(*theirs);
      const int before = heard;
      while (heard == before) io->yield();
    }
    EXPECT_EQ(heard, 5);
    io->shutdown(*ours);
    group.wait();
    EXPECT_EQ(io->wait(*ours).error().code, Errc::cancelled);
  });
}

TEST(Event, is_given_although_it_dies_in_the_same_turn) {
  const Fd fd = make_event_fd().take();
  auto io = FiberIo::make().take();
  io->run([&] { io->signal(*same_event(fd)); });
  EXPECT_EQ(take_signals(fd.get()), 0);
  EXPECT_EQ(take_signals(fd.get()), EAGAIN);
}

TEST(Event, is_given_in_the_middle_of_a_long_turn) {
  const Fd fd = make_event_fd().take();
  auto io = FiberIo::make().take();
  int heard_in_turn = 0;
  io->run([&] {
    const auto event = same_event(fd);
    Group group(*io);
    io->spawn(group, [&] { io->signal(*event); });
    for (int i = 0; i < 8; ++i) {
      io->spawn(group, [&] { heard_in_turn += take_signals(fd.get()) == 0 ? 1 : 0; });
    }
  });
  EXPECT_EQ(heard_in_turn, 1);
}

// What was signalled, and is still to be given at the end of its turn.
TEST(Event, is_not_lost_when_a_deep_load_enters_the_ring_before_the_turn_ends) {
  const TestDir dir;
  const Fd fd = make_event_fd().take();
  auto io = FiberIo::make().take();
  io->run([&] {
    const auto file = io->open(dir / "f", {.create = true}).take();
    const auto event = same_event(fd);
    const std::array<std::byte, 512> room{};
    for (int round = 0; round < 2; ++round) {
      io->signal(*event);
      {
        Group group(*io);
        for (uint64_t i = 0; i < 20; ++i) {
          io->spawn(group, [&, i] { EXPECT_TRUE(io->write(*file, i * 512, View(room))); });
        }
      }
      EXPECT_EQ(take_signals(fd.get()), 0) << round;
    }
  });
}

TEST(Event, by_plain_system_calls) {
  BlockingIo io;
  const Fd fd = make_event_fd().take();
  const auto event = same_event(fd);
  io.signal(*event);
  EXPECT_TRUE(io.wait(*event));
  io.shutdown(*event);
  EXPECT_FALSE(io.wait(*event));
  EXPECT_FALSE(adopt_event(make_shared_memory("no-event", 4096).take()));
}

// Somebody writes memory and says nothing until it is asked to.
TEST(Poller, is_looked_at_and_armed_before_a_sleep) {
  struct Ring final : Poller {
    explicit Ring(Io& world) : io(world) {}
    bool look() override {
      ++looks;
      if (value == seen) return false;
      seen = value;
      io.wake(here);
      return true;
    }
    bool arm() override {
      ++arms;
      return look();
    }
    Io& io;
    WaitList here;
    int value = 0, seen = 0, looks = 0, arms = 0;
  };
  auto io = FiberIo::make().take();
  io->run([&] {
    Ring ring(*io);
    io->watch(ring);
    Group group(*io);
    io->spawn(group, [&] {
      for (int i = 0; i < 3; ++i) io->park(ring.here);
    });
    for (int i = 1; i <= 3; ++i) {
      io->sleep(std::chrono::microseconds(100));
      ring.value = i;  // Found by the look of the turn, or of the sleep.
    }
    group.wait();
    EXPECT_GT(ring.arms, 0);
    io->unwatch(ring);
  });
}

TEST(Descriptors, travel_with_their_bytes) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const auto a = adopt_socket(ends[0]).take();
  const auto b = adopt_socket(ends[1]).take();
  auto io = FiberIo::make().take();
  io->run([&] {
    const Fd event = make_event_fd().take();
    const std::array<std::byte, 3> bytes{};
    const ::iovec slice = slice_of(View(bytes));
    const std::array<int, 2> fds{event.get(), event.get()};
    ASSERT_TRUE(io->send(*a, Iovec(&slice, 1), fds));
    ASSERT_TRUE(io->send(*a, Iovec(&slice, 1), {}));
    std::array<std::byte, 100> room;
    std::vector<Fd> came;
    const Result<size_t> first = io->receive(*b, room, came);
    ASSERT_TRUE(first);
    EXPECT_EQ(came.size(), 2u);
    EXPECT_TRUE(adopt_event(std::move(came[0])));
    const std::vector<int> many(Io::kDescriptorsMax, event.get());
    ASSERT_TRUE(io->send(*a, Iovec(&slice, 1), many));
    came.clear();
    while (came.empty()) ASSERT_TRUE(io->receive(*b, room, came));
    EXPECT_EQ(came.size(), Io::kDescriptorsMax);
  });
}

TEST(SharedMap, lost_memory_reads_as_zeroes) {
  const Fd fd = make_shared_memory("shrinks", 64 * 1024, false).take();
  const auto map = SharedMap::make(fd, 4096, 8192, "test").take();
  const auto other = SharedMap::make(fd, 0, 4096, "test").take();
  map->data()[0] = other->data()[0] = std::byte{7};
  ASSERT_EQ(::ftruncate(fd.get(), 4096), 0);
  EXPECT_FALSE(map->broken());
  EXPECT_EQ(map->data()[0], std::byte{0});
  EXPECT_TRUE(map->broken());
  map->data()[8191] = std::byte{1};
  EXPECT_EQ(other->data()[0], std::byte{7});
  EXPECT_FALSE(other->broken());
}

TEST(SharedMap, refuses_what_is_not_there) {
  const Fd fd = make_shared_memory("small", 8192).take();
  EXPECT_FALSE(SharedMap::make(fd, 0, 8193, "test"));
  EXPECT_FALSE(SharedMap::make(fd, UINT64_MAX - 4095, 4096, "test"));
  EXPECT_FALSE(SharedMap::make(fd, 0, 0, "test"));
  EXPECT_FALSE(SharedMap::make(make_event_fd().take(), 0, 4096, "test"));
  EXPECT_NE(::ftruncate(fd.get(), 4096), 0);  // Sealed.
}

}  // namespace
}  // namespace firn
