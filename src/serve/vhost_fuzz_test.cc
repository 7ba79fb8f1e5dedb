// SPDX-License-Identifier: Apache-2.0
// A hostile guest and a hostile front end, from seeds, beside a guest that behaves: whatever they
// write into rings and say on the socket, the server lives, everything ends, and the other guest
// gets its answers.
#include <gtest/gtest.h>

#include "serve/vhost_test_front.h"

namespace firn::serve {
namespace {

using virtio::BlkStatus;
using virtio::BlkType;
using R = vhost::Request;

constexpr uint64_t kDiskBytes = 1 * kMiB;

uint64_t odd_number(Prng& prng) {
  static constexpr uint64_t kEdges[] = {0,          1,
                                        15,         16,
                                        127,        128,
                                        129,        0x8000,
                                        0xffff,     UINT32_MAX,
                                        UINT64_MAX, UINT64_MAX - 15,
                                        INT64_MAX,  DriverRing::kGuestBase};
  if (prng.one_in(2)) return kEdges[prng.below(std::size(kEdges))];
  if (prng.one_in(2)) return DriverRing::kGuestBase + prng.below(TestGuest::kBytes + 8192);
  return prng.next() >> prng.below(64);
}

// Scribbles over rings, tables and indices, as a guest can at any moment.
void scribble(Prng& prng, TestGuest& guest) {
  for (const auto& ring : guest.rings) {
    for (uint64_t i = prng.below(12); i > 0; --i) {
      const virtio::Descriptor each{odd_number(prng), static_cast<uint32_t>(odd_number(prng)),
                                    static_cast<uint16_t>(prng.below(8) | (prng.next() & 0x8080)),
                                    static_cast<uint16_t>(odd_number(prng))};
      std::memcpy(ring->descriptors_here() + 16 * prng.below(guest.shape.size), &each, 16);
    }
    std::byte* const places[] = {ring->available_here(), ring->used_here(), guest.data(0)};
    for (uint64_t i = prng.below(6); i > 0; --i) {
      std::byte* const at = places[prng.below(3)] + 2 * prng.below(40);
      store_relaxed<uint16_t>(at, static_cast<uint16_t>(odd_number(prng)));
    }
    // Often something that is believable so far.
    if (prng.one_in(2)) {
      store_release<uint16_t>(ring->available_here() + 2, static_cast<uint16_t>(prng.below(20)));
    }
  }
}

// Any message with any payload and any descriptors.
void babble(Prng& prng, TestFront& front, TestGuest& guest) {
  Raw payload = pattern(prng.below(48), prng.next());
  if (prng.one_in(2)) {
    payload.resize(prng.one_in(2) ? 8 : 40);
    for (size_t i = 0; i + 8 <= payload.size(); i += 8) {
      const le64 word = prng.one_in(2) ? prng.below(3) : odd_number(prng);
      std::memcpy(payload.data() + i, &word, 8);
    }
  }
  std::vector<int> fds;
  const int choices[] = {guest.fd.get(), guest.kicks[0].get(), guest.calls[0].get()};
  for (uint64_t i = prng.one_in(2) ? prng.below(3) : 0; i > 0; --i) {
    fds.push_back(choices[prng.below(3)]);
  }
  const uint32_t flags = prng.one_in(10) ? static_cast<uint32_t>(prng.next())
                                         : vhost::kVersion | (prng.one_in(2) ? 8 : 0);
  front.say(static_cast<R>(prng.below(42)), payload, std::move(fds), flags);
}

void be_hostile(VhostWorld& world, uint64_t seed, TestGuest& guest) {
  Prng prng(seed);
  for (int round = 0; round < 3; ++round) {
    TestFront front(world, guest);
    front.with_inflight = prng.one_in(2);
    guest.inflight.reset();
    guest.bases.assign(64, std::nullopt);
    if (!prng.one_in(8)) front.set_up();
    // Answers are thrown away, so that nobody waits for us.
    Group group(world.io());
    world.io().spawn(group, [&] {
      while (!front.hear().gone) {
      }
    });
    for (uint64_t i = prng.below(12); i > 0; --i) {
      if (!prng.one_in(3)) scribble(prng, guest);
      for (size_t ring = 0; ring < guest.rings.size(); ++ring) {
        world.io().signal(front.kick(ring));
      }
      if (prng.one_in(4)) babble(prng, front, guest);
      if (prng.one_in(2)) world.io().sleep(Duration(prng.below(5000)));
    }
    front.hang_up();
    group.wait();
    // What was scribbled must not end up in the next round's rings.
    std::fill_n(guest.map->data(), TestGuest::kDataAt, std::byte{0});
    for (size_t i = 0; i < guest.rings.size(); ++i) {
      guest.rings[i] = DriverRing::make(guest.shape, guest.map->data(), i * kMiB);
    }
  }
}

TEST(VhostFuzz, hostile_guests_hurt_nobody_else) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    VhostWorld world(kDiskBytes, {.remember = false});
    const DriverRing::Shape shape{static_cast<uint16_t>(8 << (seed % 4)), seed % 2 == 0,
                                  seed % 3 != 0, seed % 5 != 0};
    TestGuest bad(shape, 2);
    TestGuest good;
    world.simulate(seed, [&] {
      Group group(world.io());
      world.io().spawn(group, [&] { be_hostile(world, seed, bad); });
      world.io().spawn(group, [&] {
        TestFront front(world, good);
        front.set_up();
        for (int i = 0; i < 30; ++i) {
          EXPECT_EQ(front.request(BlkType::in, 8, 4096), BlkStatus::good) << "seed " << seed;
        }
        front.hang_up();
      });
      group.wait();
    });
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace firn::serve
