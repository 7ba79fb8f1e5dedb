// SPDX-License-Identifier: Apache-2.0
// Logs of requests in flight that a hostile front end hands over.
#include "serve/inflight_log.h"

#include <gtest/gtest.h>

#include "base/shared.h"
#include "serve/vhost_test_front.h"

namespace firn::serve {
namespace {

using R = vhost::Request;

// Of the protocol's layout.
constexpr size_t kHead = 32;
constexpr size_t kEntry = 32;
constexpr size_t kNextAt = 2;
constexpr size_t kNumAt = 6;

TEST(PackedLog, a_chain_that_leaves_the_log_costs_no_place) {
  constexpr uint16_t kSize = 4;
  std::vector<std::byte> room(PackedLog::bytes(kSize));
  {
    PackedLog before(room, kSize);
    before.begin({0, true});
  }
  // Three descriptors, of which the third lies nowhere.
  const auto entry = [&](size_t i) { return room.data() + kHead + kEntry * i; };
  store_relaxed<uint16_t>(entry(0) + kNumAt, 3);
  store_relaxed<uint16_t>(entry(0) + kNextAt, 1);
  store_relaxed<uint16_t>(entry(1) + kNextAt, 0xffff);
  *entry(0) = std::byte{1};  // In flight.
  const size_t last_free = kSize;
  store_relaxed<uint16_t>(room.data() + 12, last_free);  // Nothing is free.
  store_relaxed<uint16_t>(room.data() + 14, last_free);
  PackedLog after(room, kSize);
  ASSERT_TRUE(after.is_begun());
  EXPECT_TRUE(after.recover(false).empty());
  // All places of the ring in one chain: each has a place of its own in the log.
  const std::vector<PackedLog::Descriptor> whole(kSize, PackedLog::Descriptor{.address = ~0ULL});
  EXPECT_LT(after.took(whole), kSize);
  EXPECT_TRUE(all_zero(View(room).subspan(kHead + kEntry * kSize))) << "behind the last place";
  for (size_t i = 0; i < kSize; ++i) {
    EXPECT_EQ(load_relaxed<uint64_t>(entry(i) + 16), ~0ULL) << i;
  }
}

// A log for split rings is smaller than one for packed rings of the same size.
TEST(Vhost, a_log_of_another_kind_is_refused) {
  VhostWorld world;
  TestGuest guest({.size = 1024, .packed = true});
  world.run([&] {
    TestFront front(world, guest);
    front.negotiate(virtio::kPacked);
    EXPECT_EQ(front.give_memory(), 0U);
    front.give_inflight();
    const uint64_t packed = front.features | virtio::kPacked;
    EXPECT_EQ(front.order(R::set_features, vhost::encode_number(packed)), 0U);
    const DriverRing& ring = *guest.rings[0];
    front.say(R::set_vring_size, vhost::encode(vhost::VringState{0, 1024}));
    front.say(R::set_vring_base, vhost::encode(vhost::VringState{0, 0x80008000}));
    front.say(R::set_vring_address,
              vhost::encode(
                  vhost::VringAddress{0, 0, ring.descriptors(), ring.used(), ring.available(), 0}));
    const auto which = vhost::encode(vhost::VringDescriptor{0, true});
    front.say(R::set_vring_kick, which, {guest.kicks[0].get()});
    EXPECT_EQ(front.order(R::set_vring_enable, vhost::encode(vhost::VringState{0, 1})), 1U);
    front.hang_up();
  });
  EXPECT_TRUE(world.log.says("another kind"));
}

// A front end that does not read what it is told, and then wants to be told elsewhere.
TEST(Vhost, a_backend_socket_that_is_full_holds_nobody_up) {
  VhostWorld world(16 * kMiB - 2048);
  TestGuest guest;
  world.run([&] {
    TestFront front(world, guest);
    front.set_up();
    int full[2];
    int fresh[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, full), 0);
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fresh), 0);
    const Fd deaf(full[0]);
    const Fd ours(full[1]);
    const Fd theirs(fresh[0]);
    const std::unique_ptr<Socket> heard = adopt_socket(fresh[1]).take();
    const std::vector<std::byte> junk(4096);
    while (::send(ours.get(), junk.data(), junk.size(), MSG_DONTWAIT) > 0) {
    }
    while (::send(ours.get(), junk.data(), 1, MSG_DONTWAIT) > 0) {
    }
    EXPECT_EQ(front.order(R::set_backend_socket, {}, {ours.get()}), 0U);
    world.device->grow(16 * kMiB - 1024);
    world.server().look_at_disks();
    EXPECT_EQ(front.order(R::set_backend_socket, {}, {theirs.get()}), 0U);
    world.device->grow(16 * kMiB);
    world.server().look_at_disks();
    std::array<std::byte, vhost::kHeaderBytes> head;
    const Result<size_t> got = world.io().receive(*heard, head);
    EXPECT_TRUE(got && *got == head.size());
    front.hang_up();
  });
}

}  // namespace
}  // namespace firn::serve
