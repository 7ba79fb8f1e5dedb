// SPDX-License-Identifier: Apache-2.0
#include "sim/sim_io.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace firn::sim {
namespace {

using namespace std::chrono_literals;

std::vector<std::byte> fill(size_t length, int value) {
  return std::vector<std::byte>(length, static_cast<std::byte>(value));
}

// Several fibers that write, sleep, flush and talk: enough for a seed to matter.
uint64_t busy_run(uint64_t seed, Order order = Order::drawn) {
  World world;
  SimIo io(world, seed, {.order = order});
  io.run([&] {
    auto file = io.open("/f", {.create = true}).take();
    SocketPair pair = io.pipe_pair();
    Group group(io);
    for (int i = 0; i < 5; ++i) {
      io.spawn(group, [&, i] {
        for (int round = 0; round < 5; ++round) {
          const auto bytes = fill(1000, i);
          EXPECT_TRUE(io.write(*file, io.random() % 10000, View(bytes)));
          if (io.sometimes("lingers")) io.sleep(1ms);
          if (round % 2 == 1) {
            EXPECT_TRUE(io.flush(*file));
          }
          const ::iovec slice = slice_of(View(bytes).first(10));
          EXPECT_TRUE(io.send(*pair.a, Iovec(&slice, 1)));
        }
      });
    }
    std::array<std::byte, 100> room{};
    for (size_t got = 0; got < 250;) got += *io.receive(*pair.b, room);
  });
  return io.trace_hash();
}

TEST(SimIo, the_same_seed_gives_the_same_trace) {
  for (uint64_t seed = 0; seed < 20; ++seed) EXPECT_EQ(busy_run(seed), busy_run(seed));
  EXPECT_NE(busy_run(1), busy_run(2));
  EXPECT_EQ(busy_run(3, Order::in_order), busy_run(3, Order::in_order));
  EXPECT_EQ(busy_run(3, Order::immediate), busy_run(3, Order::immediate));
}

TEST(SimIo, operations_complete_out_of_order_when_drawn_and_in_order_when_asked) {
  for (const Order order : {Order::drawn, Order::in_order}) {
    bool shuffled = false;
    for (uint64_t seed = 0; seed < 10; ++seed) {
      World world;
      SimIo io(world, seed, {.order = order});
      std::vector<int> done;
      io.run([&] {
        auto file = io.open("/f", {.create = true}).take();
        Group group(io);
        for (int i = 0; i < 8; ++i) {
          io.spawn(group, [&, i] {
            const auto bytes = fill(512, i);
            EXPECT_TRUE(io.write(*file, 0, View(bytes)));
            done.push_back(i);
          });
        }
      });
      shuffled |= !std::is_sorted(done.begin(), done.end());
    }
    EXPECT_EQ(shuffled, order == Order::drawn);
  }
}

TEST(SimIo, time_is_virtual) {
  World world;
  SimIo io(world, 1);
  io.run([&] {
    const Time begin = io.now();
    const int64_t wall = io.wall_clock_ns();
    io.sleep(std::chrono::hours(24 * 365));
    EXPECT_EQ(io.now() - begin, std::chrono::hours(24 * 365));
    EXPECT_EQ(io.wall_clock_ns() - wall, Duration(std::chrono::hours(24 * 365)).count());
  });
}

TEST(SimIo, names_behave_like_those_of_a_host) {
  World world;
  SimIo io(world, 1);
  io.run([&] {
    EXPECT_EQ(io.open("/no", {}).error().code, Errc::not_found);
    EXPECT_EQ(io.open("/no/f", {.create = true}).error().code, Errc::not_found);
    ASSERT_TRUE(io.make_directory("/d"));
    EXPECT_EQ(io.make_directory("/d").error().code, Errc::exists);
    EXPECT_EQ(io.open("/d", {}).error().code, Errc::invalid);
    auto file = io.open("/d/f", {.create = true, .exclusive = true}).take();
    EXPECT_EQ(io.open("/d/f", {.create = true, .exclusive = true}).error().code, Errc::exists);
    ASSERT_TRUE(io.link_symbolically("f", "/d/link"));
    auto same = io.open("/d/link", {}).take();
    const auto bytes = fill(100, 5);
    ASSERT_TRUE(io.write(*same, 0, View(bytes)));
    EXPECT_EQ(*io.size(*file), 100u);
    ASSERT_TRUE(io.lock(*file, true));
    EXPECT_EQ(io.lock(*same, false).error().code, Errc::busy);
    file.reset();
    EXPECT_TRUE(io.lock(*same, false));
    ASSERT_TRUE(io.remove("/d/f"));
    EXPECT_EQ(io.open("/d/link", {}).error().code, Errc::not_found);
    EXPECT_TRUE(io.flush_directory("/d"));
    EXPECT_EQ(io.flush_directory("/e").error().code, Errc::not_found);
    auto shown = io.open("/g", {.writable = false, .create = true}).take();
    EXPECT_EQ(io.write(*shown, 0, View(bytes)).error().sys, EBADF);
  });
}

TEST(SimIo, reads_past_the_end_and_unaligned_direct_transfers_are_refused) {
  World world;
  SimIo io(world, 1);
  io.run([&] {
    auto file = io.open("/f", {.create = true, .direct = true}).take();
    EXPECT_EQ(file->alignment(), 512u);
    Buffer buffer = io.buffers().take(io, 8192);
    std::fill(buffer.bytes().begin(), buffer.bytes().end(), std::byte{3});
    ASSERT_TRUE(io.write(*file, 512, View(buffer.bytes())));
    EXPECT_EQ(io.write(*file, 1, View(buffer.bytes())).error().code, Errc::invalid);
    EXPECT_EQ(io.read(*file, 1024, buffer.bytes()).error().code, Errc::io);
    ASSERT_TRUE(io.punch(*file, 512, 4096));
    ASSERT_TRUE(io.read(*file, 512, buffer.bytes()));
    EXPECT_TRUE(all_zero(View(buffer.bytes()).first(4096)));
    EXPECT_EQ(buffer.bytes()[4096], std::byte{3});
  });
}

TEST(SimIo, the_Nth_call_fails_and_error_counting_comes_to_an_end) {
  uint64_t runs = 0;
  for (uint64_t nth = 1;; ++nth) {
    World world;
    SimIo io(world, nth);
    const size_t fault = io.add_fault({.files = "/f", .nth = nth});
    int failed = 0;
    io.run([&] {
      auto file = io.open("/f", {.create = true});
      if (!file) {
        ++failed;
        return;
      }
      const auto bytes = fill(512, 1);
      failed += io.write(**file, 0, View(bytes)) ? 0 : 1;
      failed += io.flush(**file) ? 0 : 1;
      failed += io.resize(**file, 4096) ? 0 : 1;
    });
    ++runs;
    if (io.fault(fault).struck == 0) {
      EXPECT_EQ(failed, 0);
      break;
    }
    EXPECT_EQ(failed, 1);
  }
  EXPECT_EQ(runs, 5u);  // open, write, flush, resize, and the run that none hits.
}

TEST(SimIo, W4_a_failed_flush_is_final) {
  World world;
  SimIo io(world, 1);
  io.add_fault({.verb = Verb::flush, .nth = 2});
  io.run([&] {
    auto file = io.open("/f", {.create = true}).take();
    EXPECT_TRUE(io.flush(*file));
    EXPECT_FALSE(io.flush(*file));
    EXPECT_FALSE(io.flush(*file));
  });
}

TEST(SimIo, a_failed_write_leaves_any_part_of_it) {
  bool none = false;
  bool some = false;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    World world;
    SimIo io(world, seed);
    io.add_fault({.verb = Verb::write});
    io.run([&] {
      auto file = io.open("/f", {.create = true}).take();
      const auto bytes = fill(4096, 9);
      EXPECT_EQ(io.write(*file, 0, View(bytes)).error().sys, EIO);
      const uint64_t size = *io.size(*file);
      EXPECT_EQ(size % 512, 0u);
      none |= size == 0;
      some |= size > 0 && size < 4096;
    });
  }
  EXPECT_TRUE(none && some);
}

TEST(SimIo, lost_and_misdirected_writes_rot_and_latent_errors) {
  World world;
  SimIo io(world, 1);
  io.run([&] {
    auto file = io.open("/f", {.create = true}).take();
    const auto zero = fill(8192, 0);
    const auto ones = fill(4096, 1);
    ASSERT_TRUE(io.write(*file, 0, View(zero)));
    io.add_fault({.verb = Verb::write, .nth = 1, .effect = Effect::lose});
    io.add_fault({.verb = Verb::write, .nth = 2, .effect = Effect::misdirect, .shift = 4096});
    ASSERT_TRUE(io.write(*file, 0, View(ones)));
    EXPECT_TRUE(all_zero(world.content("/f")));
    ASSERT_TRUE(io.write(*file, 0, View(ones)));
    EXPECT_TRUE(all_zero(world.content("/f", {0, 4096})));
    EXPECT_EQ(world.content("/f", {4096, 4096}), ones);

    world.flip_bit("/f", 4096, 3);
    EXPECT_EQ(world.content("/f", {4096, 1})[0], std::byte{9});

    world.make_unreadable("/f", {512, 512});
    std::array<std::byte, 512> room{};
    EXPECT_TRUE(io.read(*file, 0, Bytes(room)));
    EXPECT_EQ(io.read(*file, 512, Bytes(room)).error().sys, EIO);
    ASSERT_TRUE(io.write(*file, 512, View(room)));  // Cured.
    EXPECT_TRUE(io.read(*file, 512, Bytes(room)));
  });
}

TEST(SimIo, space_runs_out_and_comes_back) {
  World world;
  SimIo io(world, 1);
  world.set_capacity("/d*", 8192);
  io.run([&] {
    auto file = io.open("/d1", {.create = true}).take();
    auto other = io.open("/other", {.create = true}).take();
    const auto bytes = fill(4096, 1);
    ASSERT_TRUE(io.write(*file, 0, View(bytes)));
    ASSERT_TRUE(io.write(*file, 40960, View(bytes)));
    EXPECT_EQ(io.write(*file, 8192, View(bytes)).error().code, Errc::no_space);
    EXPECT_TRUE(io.write(*file, 0, View(bytes)));  // Has its space already.
    EXPECT_TRUE(io.write(*other, 0, View(bytes)));
    ASSERT_TRUE(io.punch(*file, 0, 4096));
    EXPECT_TRUE(io.write(*file, 8192, View(bytes)));
  });
}

TEST(SimIo, sometimes_is_a_swarm) {
  int on = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    World world;
    SimIo io(world, seed);
    int fired = 0;
    for (int i = 0; i < 100; ++i) fired += io.sometimes("here") ? 1 : 0;
    if (fired == 0) continue;
    ++on;
    EXPECT_GT(fired, 5);
    EXPECT_LT(fired, 60);
    EXPECT_EQ(io.sites().at("here"), static_cast<uint64_t>(fired));
  }
  EXPECT_GT(on, 60);
  EXPECT_LT(on, 140);
}

TEST(SimIo, sockets_wait_when_full_and_end_in_order) {
  World world;
  SimIo io(world, 4, {.pipe_bytes = 1000});
  io.run([&] {
    auto listener = io.listen();
    auto client = io.connect(*listener).take();
    auto server = io.accept(*listener).take();
    Group group(io);
    io.spawn(group, [&] {
      const auto bytes = fill(100000, 3);
      const ::iovec slice = slice_of(View(bytes));
      EXPECT_TRUE(io.send(*client, Iovec(&slice, 1)));
      client.reset();
    });
    std::array<std::byte, 4096> room{};
    size_t total = 0;
    for (;;) {
      const size_t got = *io.receive(*server, room);
      if (got == 0) break;
      EXPECT_LE(got, 1000u);
      total += got;
    }
    EXPECT_EQ(total, 100000u);
    const ::iovec slice = slice_of(View(room));
    EXPECT_EQ(io.send(*server, Iovec(&slice, 1)).error().sys, EPIPE);
    io.shutdown(*listener);
    EXPECT_EQ(io.accept(*listener).error().code, Errc::cancelled);
    EXPECT_FALSE(io.connect(*listener));
  });
}

TEST(SimIoDeathTest, a_deadlock_names_who_waits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        World world;
        SimIo io(world, 77);
        WaitList never;
        io.run([&] { io.park(never); });
      },
      "deadlock under seed 77.*fiber 1 waits for park");
}

}  // namespace
}  // namespace firn::sim
