// SPDX-License-Identifier: Apache-2.0
// vhost-user from the front end's side: negotiation, rings of every kind, what a block device
// promises, and the ways in which a session ends.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "serve/vhost_test_front.h"

namespace firn::serve {
namespace {

using virtio::BlkStatus;
using virtio::BlkType;
using Verb = MemoryDevice::Verb;
using R = vhost::Request;

struct Kind {
  bool packed;
  bool event_index;
  bool indirect;
};
std::string kind_name(const testing::TestParamInfo<Kind>& kind) {
  return fmt::format("{}{}{}", kind.param.packed ? "packed" : "split",
                     kind.param.event_index ? "_event" : "", kind.param.indirect ? "_table" : "");
}
class EachRing : public testing::TestWithParam<Kind> {
 protected:
  static DriverRing::Shape shape(uint16_t size = 128) {
    return {size, GetParam().packed, GetParam().event_index, GetParam().indirect};
  }
};
INSTANTIATE_TEST_SUITE_P(Vhost, EachRing,
                         testing::Values(Kind{false, false, false}, Kind{false, true, false},
                                         Kind{false, true, true}, Kind{false, false, true},
                                         Kind{true, false, false}, Kind{true, true, false},
                                         Kind{true, true, true}),
                         kind_name);

TEST_P(EachRing, reads_what_it_wrote) {
  VhostWorld world;
  TestGuest guest(shape());
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    for (const uint32_t bytes : {512u, 4096u, 65536u}) {
      for (const size_t pieces : {size_t{1}, size_t{3}, size_t{11}}) {
        const uint64_t sector = bytes / 64 + pieces;
        const Raw data = pattern(bytes, bytes + pieces);
        EXPECT_EQ(front.write(sector, data, pieces), BlkStatus::good);
        EXPECT_EQ(raw_of(world.device->content().subspan(sector * 512, bytes)), data);
        EXPECT_EQ(front.read(sector, bytes, pieces), data);
      }
    }
    EXPECT_EQ(front.request(BlkType::flush, 0, 0), BlkStatus::good);
    EXPECT_EQ(world.device->count(Verb::flush), 1u);
    EXPECT_EQ(world.counters().requests[static_cast<size_t>(VhostOp::read)], 9u);
    front.hang_up();
  });
  EXPECT_TRUE(world.log.lines.empty()) << world.log.lines[0];
}

TEST_P(EachRing, many_laps_at_depth) {
  VhostWorld world;
  TestGuest guest(shape(16));
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    uint32_t begun = 0;
    uint32_t ended = 0;
    std::vector<uint16_t> free{0, 1, 2, 3, 4};
    while (ended < 2000) {
      while (begun < 2000 && !free.empty()) {
        const bool fits = front.begin(0, free.back(), begun % 2 == 0 ? BlkType::out : BlkType::in,
                                      8 * (begun % 1000), 4096, 1 + begun % 2);
        if (!fits) break;
        free.pop_back();
        ++begun;
      }
      front.publish(0);
      const auto slot = front.finish(0);
      ASSERT_TRUE(slot);
      EXPECT_EQ(front.status(*slot), BlkStatus::good);
      free.push_back(*slot);
      ++ended;
    }
    EXPECT_EQ(world.counters().in_flight, 0u);
    front.hang_up();
  });
}

// The order of everything is the seed's: requests that end in any order, sleeps between any two.
TEST_P(EachRing, no_wake_up_is_lost) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    VhostWorld world(16 * kMiB, {.remember = false});
    TestGuest guest(shape(static_cast<uint16_t>(4 << (seed % 3))), 1 + seed % 2);
    world.simulate(seed, [&] {
      TestFront front(world, guest);
      front.set_up();
      Prng prng(seed);
      Group group(world.io());
      for (size_t ring = 0; ring < guest.rings.size(); ++ring) {
        world.io().spawn(group, [&, ring] {
          uint32_t begun = 0;
          std::vector<uint16_t> free{static_cast<uint16_t>(ring * 4),
                                     static_cast<uint16_t>(ring * 4 + 1),
                                     static_cast<uint16_t>(ring * 4 + 2)};
          // Tokens are below the ring's size: the slot of ring 1 is what it says.
          if (guest.shape.size < 8) free = {static_cast<uint16_t>(ring * 2)};
          const size_t all = free.size();
          while (begun < 60 || free.size() < all) {
            while (begun < 60 && !free.empty() &&
                   front.begin(ring, free.back(), BlkType::out, prng.below(1000), 512)) {
              free.pop_back();
              ++begun;
              if (prng.one_in(3)) break;
            }
            front.publish(ring);
            if (prng.one_in(2)) world.io().sleep(Duration(prng.below(3000)));
            const auto slot = front.finish(ring);
            ASSERT_TRUE(slot) << "seed " << seed;
            free.push_back(*slot);
          }
        });
      }
      group.wait();
      EXPECT_EQ(world.counters().requests[static_cast<size_t>(VhostOp::write)],
                60u * guest.rings.size());
      for (uint8_t i = 0; i < guest.rings.size(); ++i) front.stop_ring(i);
      front.hang_up();
    });
    if (testing::Test::HasFailure()) return;
  }
}

TEST_P(EachRing, stops_and_goes_on) {
  VhostWorld world;
  TestGuest guest(shape(8));
  world.run([&] {
    TestFront front(world, guest);
    front.with_inflight = false;
    front.set_up();
    for (int round = 0; round < 5; ++round) {
      for (int i = 0; i < 7; ++i) EXPECT_EQ(front.write(8, pattern(4096, 1)), BlkStatus::good);
      world.device->hold();
      EXPECT_TRUE(front.begin(0, 0, BlkType::out, 0, 4096));
      front.publish(0);
      while (world.device->waiting() == 0) world.io().yield();
      Group group(world.io());
      world.io().spawn(group, [&] {
        for (int i = 0; i < 3; ++i) world.io().yield();
        world.device->let_go(world.io());
      });
      front.stop_ring(0);  // Returns when the request has ended, and its answer is there.
      EXPECT_TRUE(guest.rings[0]->take());
      group.wait();
      front.start_ring(0);
    }
    EXPECT_EQ(front.read(8, 4096), pattern(4096, 1));
    front.hang_up();
  });
}

TEST_P(EachRing, memory_changes_under_a_running_ring) {
  VhostWorld world;
  TestGuest guest(shape());
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    const Raw data = pattern(4096, 5);
    EXPECT_EQ(front.write(0, data), BlkStatus::good);
    world.device->hold();
    EXPECT_TRUE(front.begin(0, 1, BlkType::in, 0, 4096));
    front.publish(0);
    while (world.device->waiting() == 0) world.io().yield();
    Group group(world.io());
    world.io().spawn(group, [&] { world.device->let_go(world.io()); });
    EXPECT_EQ(front.give_memory(), 0u);
    EXPECT_EQ(front.finish(0), 1);
    EXPECT_EQ(front.read(0, 4096), data);
    // A table without the ring breaks it, and nothing else.
    EXPECT_EQ(front.order(R::set_memory_table, Raw(8)), 0u);
    EXPECT_TRUE(world.log.says("not within the memory table"));
    EXPECT_EQ(front.ask(R::get_queue_count).number(), 64u);
    front.hang_up();
  });
}

TEST(Vhost, memory_comes_and_goes_by_slots) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.negotiate();
    EXPECT_GE(front.ask(R::get_memory_slots).number(), 8u);
    vhost::Region region{DriverRing::kGuestBase, TestGuest::kBytes, DriverRing::kUserBase, 0};
    EXPECT_EQ(front.order(R::add_memory_region, vhost::encode(region), {guest.fd.get()}), 0u);
    EXPECT_EQ(front.order(R::add_memory_region, vhost::encode(region), {guest.fd.get()}), 1u);
    front.start_ring(0);
    EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::good);
    vhost::Region other = region;
    other.guest += 1 << 30;
    EXPECT_EQ(front.order(R::remove_memory_region, vhost::encode(other)), 1u);
    other.user += 1 << 30;
    EXPECT_EQ(front.order(R::add_memory_region, vhost::encode(other), {guest.fd.get()}), 0u);
    EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::good);
    EXPECT_EQ(front.order(R::remove_memory_region, vhost::encode(other)), 0u);
    EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::good);
    EXPECT_EQ(front.order(R::remove_memory_region, vhost::encode(region)), 0u);
    EXPECT_TRUE(world.log.says("ring broken"));
    front.hang_up();
  });
}

TEST(Vhost, a_buffer_may_lie_across_two_regions) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.negotiate();
    const uint64_t half = TestGuest::kDataAt + 2048;
    vhost::MemoryTable table;
    table.count = 2;
    table.regions[0] = {DriverRing::kGuestBase, half, DriverRing::kUserBase, 0};
    table.regions[1] = {DriverRing::kGuestBase + half, TestGuest::kBytes - half,
                        DriverRing::kUserBase + (1 << 30), half};
    std::array<std::byte, 512> room;
    const size_t bytes = vhost::encode(table, room);
    EXPECT_EQ(
        front.order(R::set_memory_table, View(room).first(bytes), {guest.fd.get(), guest.fd.get()}),
        0u);
    front.start_ring(0);
    const Raw data = pattern(4096, 9);
    EXPECT_EQ(front.write(0, data), BlkStatus::good);
    EXPECT_EQ(front.read(0, 4096), data);
    front.hang_up();
  });
  EXPECT_EQ(world.device->calls()[0].slices, 2u);
}

TEST(Vhost, configuration_has_exactly_the_size_that_was_asked_for) {
  VhostWorld world(10 * kMiB);
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.negotiate();
    for (const size_t size : {size_t{8}, size_t{60}, size_t{72}, size_t{256}}) {
      std::array<std::byte, 512> room;
      const Raw nothing(size);
      const size_t bytes = vhost::encode(vhost::Config{0, 0, nothing}, room);
      const TestFront::Answer answer = front.ask(R::get_config, View(room).first(bytes));
      ASSERT_EQ(answer.payload.size(), bytes);
      EXPECT_EQ(uint64_t{load<le64>(View(answer.payload).subspan(vhost::kConfigHeadBytes))},
                10 * kMiB / 512);
    }
    std::array<std::byte, 512> room;
    const Raw nothing(200);
    const size_t bytes = vhost::encode(vhost::Config{100, 0, nothing}, room);
    front.say(R::get_config, View(room).first(bytes));
    EXPECT_TRUE(front.is_dropped());
  });
}

TEST(Vhost, block_requests_are_what_they_say) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    // Id.
    EXPECT_EQ(front.request(BlkType::get_id, 0, 20), BlkStatus::good);
    EXPECT_EQ(text_in(View(guest.data(0), 5)), std::string("disk\0", 5));
    EXPECT_EQ(front.request(BlkType::get_id, 0, 19), BlkStatus::io_error);
    // Out of range, odd lengths, unknown types.
    const uint64_t end = 16 * kMiB / 512;
    EXPECT_EQ(front.request(BlkType::in, end, 512), BlkStatus::io_error);
    EXPECT_EQ(front.request(BlkType::in, end - 1, 1024), BlkStatus::io_error);
    EXPECT_EQ(front.request(BlkType::out, UINT64_MAX, 512), BlkStatus::io_error);
    EXPECT_EQ(front.request(BlkType::out, uint64_t{1} << 55, 512), BlkStatus::io_error);
    EXPECT_EQ(front.request(BlkType::out, 0, 511), BlkStatus::io_error);
    EXPECT_EQ(front.request(static_cast<BlkType>(77), 0, 512), BlkStatus::unsupported);
    EXPECT_EQ(front.request(BlkType::out, end - 1, 512), BlkStatus::good);
    // Discard and zeroes: several segments, all judged before any is done.
    EXPECT_EQ(front.write(0, pattern(32768, 3)), BlkStatus::good);
    const auto segments = [&](std::vector<virtio::BlkSegment> list, BlkType type) {
      std::memcpy(guest.data(0), list.data(), list.size() * 16);
      return front.request(type, 0, static_cast<uint32_t>(list.size() * 16));
    };
    EXPECT_EQ(segments({{0, 8, 0}, {16, 8, 0}}, BlkType::discard), BlkStatus::good);
    EXPECT_EQ(segments({{32, 8, virtio::kBlkUnmap}}, BlkType::zero), BlkStatus::good);
    EXPECT_EQ(segments({{40, 8, 0}}, BlkType::zero), BlkStatus::good);
    EXPECT_EQ(segments({{48, 8, 0}, {end, 8, 0}}, BlkType::discard), BlkStatus::io_error);
    EXPECT_EQ(segments({{48, 8, 2}}, BlkType::zero), BlkStatus::unsupported);
    EXPECT_EQ(segments({{48, 8, 1}}, BlkType::discard), BlkStatus::unsupported);
    EXPECT_EQ(front.request(BlkType::discard, 0, 24), BlkStatus::io_error);
    front.hang_up();
  });
  std::vector<MemoryDevice::Call> changes;
  for (const MemoryDevice::Call& call : world.device->calls()) {
    if (call.verb == Verb::zero || call.verb == Verb::discard) changes.push_back(call);
  }
  ASSERT_EQ(changes.size(), 4u);
  EXPECT_EQ(changes[1].range, (Range{8192, 4096}));
  EXPECT_FALSE(changes[2].keep_space);
  EXPECT_TRUE(changes[3].keep_space);
}

TEST(Vhost, writes_are_as_durable_as_the_guest_believes) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    const auto last_was_fua = [&] { return world.device->calls().back().fua; };
    EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::good);
    EXPECT_FALSE(last_was_fua());
    const auto set_cache = [&](uint8_t on) {
      std::array<std::byte, 16> room;
      const Raw value{static_cast<std::byte>(on)};
      const size_t bytes = vhost::encode(vhost::Config{32, 0, value}, room);
      return front.order(R::set_config, View(room).first(bytes));
    };
    EXPECT_EQ(set_cache(0), 0u);
    EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::good);
    EXPECT_TRUE(last_was_fua());
    EXPECT_EQ(set_cache(1), 0u);
    EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::good);
    EXPECT_FALSE(last_was_fua());
    EXPECT_EQ(set_cache(2), 1u);
    front.hang_up();
  });
  // A driver that cannot flush: firmware.
  TestGuest simple;
  world.run([&] {
    TestFront front(world, simple);
    front.set_up(virtio::kBlkFlush | virtio::kBlkConfigWriteCache);
    EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::good);
    EXPECT_TRUE(world.device->calls().back().fua);
    front.hang_up();
  });
}

TEST(Vhost, the_cache_mode_outlives_the_server) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    {
      TestFront front(world, guest);
      front.set_up();
      std::array<std::byte, 16> room;
      const Raw off{std::byte{0}};
      const size_t bytes = vhost::encode(vhost::Config{32, 0, off}, room);
      EXPECT_EQ(front.order(R::set_config, View(room).first(bytes)), 0u);
      EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::good);
      world.restart_server();
    }
    TestFront again(world, guest);
    again.set_up();
    EXPECT_EQ(again.write(0, pattern(512, 1)), BlkStatus::good);
    EXPECT_TRUE(world.device->calls().back().fua);
    again.hang_up();
  });
}

TEST(Vhost, a_read_only_disk_says_so) {
  VhostWorld world;
  world.exports.read_only = true;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    EXPECT_NE(front.features & virtio::kBlkReadOnly, 0u);
    EXPECT_EQ(front.features & (virtio::kBlkDiscard | virtio::kBlkWriteZeroes), 0u);
    EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::io_error);
    EXPECT_EQ(front.request(BlkType::discard, 0, 16), BlkStatus::io_error);
    EXPECT_EQ(front.read(0, 512), Raw(512));
    front.hang_up();
  });
  EXPECT_EQ(world.device->count(Verb::write), 0u);
}

TEST(Vhost, device_errors_reach_the_guest_and_the_log) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    world.device->fail_at(4096, Errc::io);
    for (int i = 0; i < 10; ++i) {
      EXPECT_EQ(front.request(BlkType::in, 8, 512), BlkStatus::io_error);
    }
    EXPECT_EQ(front.request(BlkType::in, 0, 512), BlkStatus::good);
    world.device->fail(Verb::discard, Errc::unsupported);
    const virtio::BlkSegment segment{0, 8, 0};
    std::memcpy(guest.data(0), &segment, 16);
    EXPECT_EQ(front.request(BlkType::discard, 0, 16), BlkStatus::unsupported);
    front.hang_up();
  });
  EXPECT_EQ(world.log.lines.size(), 4u);  // The first, second, fourth and eighth.
  EXPECT_TRUE(world.log.says("read of 512 bytes at 4096"));
}

TEST(Vhost, a_new_size_reaches_the_guest) {
  VhostWorld world(16 * kMiB - 2048);
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    const Fd theirs(fds[0]);
    const std::unique_ptr<Socket> ours = adopt_socket(fds[1]).take();
    EXPECT_EQ(front.order(R::set_backend_socket, {}, {theirs.get()}), 0u);
    world.server().look_at_disks();  // Nothing has changed, and nothing is said.
    world.device->grow(16 * kMiB);
    world.server().look_at_disks();
    std::array<std::byte, vhost::kHeaderBytes> head;
    const Result<size_t> got = world.io().receive(*ours, head);
    ASSERT_TRUE(got && *got == head.size());
    EXPECT_EQ(uint32_t{load<le32>(head)}, 2u);
    EXPECT_EQ(front.request(BlkType::in, (16 * kMiB - 512) / 512, 512), BlkStatus::good);
    front.hang_up();
  });
}

TEST(Vhost, a_ring_that_is_disabled_waits) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    EXPECT_EQ(front.order(R::set_vring_enable, vhost::encode(vhost::VringState{0, 0})), 0u);
    EXPECT_TRUE(front.begin(0, 0, BlkType::out, 0, 512));
    front.publish(0);
    world.io().signal(front.kick(0));
    for (int i = 0; i < 10; ++i) world.io().yield();
    EXPECT_EQ(world.device->count(Verb::write), 0u);
    EXPECT_EQ(front.order(R::set_vring_enable, vhost::encode(vhost::VringState{0, 1})), 0u);
    EXPECT_EQ(front.finish(0), 0);
    front.hang_up();
  });
}

// The server dies at a moment that the seed chooses, as the guest's memory sees it: what was not
// answered then is answered by the successor, each once, and nothing is answered twice.
struct Dying {
  Raw guest;
  Raw log;
  static Dying now(TestGuest& guest, const SharedMap& log) {
    return {raw_of(guest.map->bytes()), raw_of(log.bytes())};
  }
  void restore(TestGuest& into, const SharedMap& map) const {
    std::copy(guest.begin(), guest.end(), into.map->data());
    std::copy(log.begin(), log.end(), map.data());
  }
};

TEST_P(EachRing, requests_in_flight_outlive_the_server) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    VhostWorld world(16 * kMiB, {.remember = false});
    TestGuest guest(shape(16));
    world.simulate(seed, [&] {
      Prng prng(seed);
      auto front = std::make_unique<TestFront>(world, guest);
      front->set_up();
      const auto log = SharedMap::make(guest.inflight, 0, guest.inflight_shape.bytes, "log").take();
      for (int i = 0; i < 20; ++i) EXPECT_EQ(front->write(8, pattern(512, 2)), BlkStatus::good);
      uint16_t begun = 0;
      while (begun < 5 && front->begin(0, begun, BlkType::out, 100 + begun, 512)) ++begun;
      if (prng.one_in(2)) world.device->hold();
      front->publish(0);
      for (uint64_t i = prng.below(12); i > 0; --i) world.io().yield();
      const Dying dying = Dying::now(guest, *log);
      world.device->let_go(world.io());
      world.restart_server();
      dying.restore(guest, *log);
      front = std::make_unique<TestFront>(world, guest);
      front->set_up();
      std::vector<bool> answered(begun);
      for (uint16_t i = 0; i < begun; ++i) {
        const auto slot = front->finish(0);
        ASSERT_TRUE(slot && *slot < begun && !answered[*slot]) << "seed " << seed;
        answered[*slot] = true;
        EXPECT_EQ(front->status(*slot), BlkStatus::good);
      }
      EXPECT_FALSE(guest.rings[0]->take()) << "seed " << seed;
      for (int i = 0; i < 40; ++i) EXPECT_EQ(front->write(8, pattern(512, 3)), BlkStatus::good);
      front->stop_ring(0);
      front->hang_up();
    });
    if (testing::Test::HasFailure()) return;
  }
}

TEST_P(EachRing, a_log_that_was_ended_says_nothing) {
  VhostWorld world;
  TestGuest guest(shape(8));
  world.run([&] {
    for (int round = 0; round < 3; ++round) {
      TestFront front(world, guest);
      front.set_up();
      for (int i = 0; i < 7; ++i) EXPECT_EQ(front.write(8, pattern(512, 1)), BlkStatus::good);
      front.stop_ring(0);
      front.hang_up();
      world.restart_server();
    }
  });
}

// P7: what a front end may get wrong ends its own session, with a line that says so; the next one
// is served.
void expect_dropped(const char* words, const std::function<void(TestFront&, TestGuest&)>& say) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    say(front, guest);
    EXPECT_TRUE(front.is_dropped()) << words;
    TestFront next(world, guest);
    EXPECT_EQ(next.ask(R::get_queue_count).number(), 64u);
    next.hang_up();
    EXPECT_EQ(world.counters().protocol_errors, 1u) << words;
  });
  EXPECT_TRUE(world.log.says(words))
      << words << ": " << (world.log.lines.empty() ? "nothing" : world.log.lines[0]);
}

Raw head_of(uint32_t request, uint32_t flags, uint32_t size) {
  Raw bytes(12);
  const le32 values[] = {request, flags, size};
  std::memcpy(bytes.data(), values, 12);
  return bytes;
}

void say_table(TestFront& front, vhost::Region region, int fd) {
  vhost::MemoryTable table;
  table.count = 1;
  table.regions[0] = region;
  std::array<std::byte, 64> room;
  front.say(R::set_memory_table, View(room).first(vhost::encode(table, room)), {fd});
}

TEST(Vhost, malformed_messages_end_the_session) {
  const auto raw = [](uint32_t request, uint32_t flags, uint32_t size) {
    return [=](TestFront& f, TestGuest&) { f.say_raw(head_of(request, flags, size)); };
  };
  expect_dropped("flags", raw(1, 2, 0));
  expect_dropped("payload", raw(1, 1, 1 << 20));
  expect_dropped("message 99", raw(99, 1, 0));
  expect_dropped("reply", raw(1, 5, 0));
  expect_dropped("4 bytes", [](TestFront& f, TestGuest&) { f.say(R::set_features, Raw(4)); });
  expect_dropped("middle", [](TestFront& f, TestGuest&) {
    f.say_raw(head_of(2, 1, 8));
    f.hang_up();
  });
  expect_dropped("no ring 64", [](TestFront& f, TestGuest&) {
    f.say(R::set_vring_size, vhost::encode(vhost::VringState{64, 128}));
  });
  expect_dropped("not offered", [](TestFront& f, TestGuest&) {
    f.say(R::set_features, vhost::encode_number(uint64_t{1} << 63));
  });
}

TEST(Vhost, wrong_descriptors_end_the_session) {
  const auto kick = vhost::encode(vhost::VringDescriptor{0, true});
  expect_dropped("2 descriptors", [](TestFront& f, TestGuest& g) {
    f.say(R::set_owner, {}, {g.fd.get(), g.fd.get()});
  });
  expect_dropped("0 descriptors",
                 [&](TestFront& f, TestGuest&) { f.say(R::set_vring_kick, kick); });
  expect_dropped("not an eventfd",
                 [&](TestFront& f, TestGuest& g) { f.say(R::set_vring_kick, kick, {g.fd.get()}); });
  expect_dropped("not memory", [](TestFront& f, TestGuest& g) {
    say_table(f, {0, 4096, 0, 0}, g.kicks[0].get());
  });
  expect_dropped("not within", [](TestFront& f, TestGuest& g) {
    say_table(f, {0, 2 * TestGuest::kBytes, 0, 0}, g.fd.get());
  });
  expect_dropped("requests of 4 rings", [](TestFront& f, TestGuest& g) {
    f.say(R::set_inflight, vhost::encode(vhost::Inflight{64, 0, 4, 1024}), {g.fd.get()});
  });
  expect_dropped("not aligned", [](TestFront& f, TestGuest& g) {
    f.say(R::set_inflight, vhost::encode(vhost::Inflight{1 << 20, 1, 1, 1024}), {g.fd.get()});
  });
}

TEST(Vhost, too_many_descriptors) {
  VhostWorld world;
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    const std::vector<int> many(Io::kDescriptorsMax, guest.fd.get());
    const auto head = vhost::encode(vhost::Header{R::set_owner, 1, 0});
    front.say_raw(View(head).first(6), many);
    front.say_raw(View(head).subspan(6), many);
    EXPECT_TRUE(front.is_dropped());
  });
}

// Q1: a hostile guest breaks its own ring, whatever it writes there; the session goes on.
void expect_broken(const char* words, const std::function<void(TestGuest&)>& poison) {
  VhostWorld world;
  TestGuest guest(DriverRing::Shape(), 2);
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    poison(guest);
    world.io().signal(front.kick(0));
    const std::unique_ptr<Event> error =
        adopt_event(duplicate(guest.errors[0].get()).take()).take();
    EXPECT_TRUE(world.io().wait(*error)) << words;
    // The other ring does not notice.
    EXPECT_EQ(front.write(0, pattern(512, 1), 1, 1), BlkStatus::good);
    EXPECT_NE(front.stop_ring(0), ~uint32_t{0});
    front.hang_up();
  });
  EXPECT_TRUE(world.log.says(words))
      << words << ": " << (world.log.lines.empty() ? "nothing" : world.log.lines[0]);
}

constexpr uint64_t kGood = DriverRing::kGuestBase + TestGuest::kDataAt;

void describe(TestGuest& guest, size_t index, virtio::Descriptor descriptor) {
  std::memcpy(guest.rings[0]->descriptors_here() + 16 * index, &descriptor, 16);
}
void offer(TestGuest& guest, uint16_t head, uint16_t count = 1) {
  std::byte* const ring = guest.rings[0]->available_here();
  store_relaxed<uint16_t>(ring + 4, head);
  store_relaxed<uint16_t>(ring + 6, head);
  store_release<uint16_t>(ring + 2, count);
}

TEST(Vhost, hostile_chains_break_their_ring) {
  expect_broken("no end", [](TestGuest& g) {
    describe(g, 0, {kGood, 16, virtio::kNext, 1});
    describe(g, 1, {kGood, 16, virtio::kNext, 0});
    offer(g, 0);
  });
  expect_broken("no end", [](TestGuest& g) {
    describe(g, 0, {kGood, 16, virtio::kNext, 0});
    offer(g, 0);
  });
  expect_broken("leaves its table", [](TestGuest& g) {
    describe(g, 0, {kGood, 16, virtio::kNext, 500});
    offer(g, 0);
  });
  expect_broken("buffer 128", [](TestGuest& g) { offer(g, 128); });
  expect_broken("129 requests", [](TestGuest& g) { offer(g, 0, 129); });
  expect_broken("in flight", [](TestGuest& g) {
    describe(g, 0, {kGood, 16, 0, 0});
    offer(g, 0, 2);
  });
  expect_broken("behind", [](TestGuest& g) {
    describe(g, 0, {kGood, 16, virtio::kWrite | virtio::kNext, 1});
    describe(g, 1, {kGood, 16, 0, 0});
    offer(g, 0);
  });
}

TEST(Vhost, hostile_addresses_break_their_ring) {
  const uint64_t addresses[] = {0x1000, UINT64_MAX - 7,
                                DriverRing::kGuestBase + TestGuest::kBytes - 8};
  for (const uint64_t address : addresses) {
    expect_broken("not in the guest's memory", [&](TestGuest& g) {
      describe(g, 0, {address, 16, 0, 0});
      offer(g, 0);
    });
  }
}

TEST(Vhost, hostile_tables_break_their_ring) {
  const auto with_table = [](uint64_t address, uint32_t length, uint16_t flags = 0) {
    return [=](TestGuest& g) {
      const auto all = static_cast<uint16_t>(virtio::kIndirectTable | flags);
      describe(g, 0, {address, length, all, 1});
      offer(g, 0);
    };
  };
  expect_broken("indirect table", with_table(0x1000, 32));
  expect_broken("indirect table", with_table(kGood, 33));
  expect_broken("indirect table", with_table(kGood, 0));
  expect_broken("indirect table", with_table(kGood, 32, virtio::kNext));
  expect_broken("indirect table", [&](TestGuest& g) {
    const virtio::Descriptor inner{kGood, 32, virtio::kIndirectTable, 0};
    std::memcpy(g.data(0), &inner, 16);
    with_table(kGood, 32)(g);
  });
  expect_broken("no end", [&](TestGuest& g) {
    const virtio::Descriptor inner{kGood, 8, virtio::kNext, 0};
    std::memcpy(g.data(0), &inner, 16);
    with_table(kGood, 32)(g);
  });
}

// G4: a front end that cuts its memory off costs itself its session.
TEST(Vhost, memory_that_is_taken_away) {
  VhostWorld world;
  TestGuest guest({}, 1, false);
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    EXPECT_EQ(front.write(0, pattern(512, 1)), BlkStatus::good);
    world.device->hold();
    EXPECT_TRUE(front.begin(0, 0, BlkType::in, 0, 4096));
    front.publish(0);
    while (world.device->waiting() == 0) world.io().yield();
    ASSERT_EQ(::ftruncate(guest.fd.get(), 0), 0);
    world.device->let_go(world.io());
    EXPECT_TRUE(front.is_dropped());
  });
  EXPECT_TRUE(world.log.says("memory was taken away"));
}

TEST(Vhost, a_front_end_may_leave_at_any_time) {
  for (int step = 0; step < 6; ++step) {
    VhostWorld world;
    TestGuest guest;
    world.run([&] {
      TestFront front(world, guest);
      if (step > 0) front.negotiate();
      if (step > 1) {
        EXPECT_EQ(front.give_memory(), 0u);
      }
      if (step > 2) front.give_inflight();
      if (step > 3) front.start_ring(0);
      if (step > 4) {
        world.device->hold();
        EXPECT_TRUE(front.begin(0, 0, BlkType::out, 0, 4096));
        front.publish(0);
        while (world.device->waiting() == 0) world.io().yield();
      }
      front.hang_up();
      for (int i = 0; i < 5; ++i) world.io().yield();
      world.device->let_go(world.io());
    });
    EXPECT_TRUE(world.log.lines.empty()) << world.log.lines[0];
  }
}

}  // namespace
}  // namespace firn::serve
