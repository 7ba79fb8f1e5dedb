// SPDX-License-Identifier: Apache-2.0
// A server is killed, its machine is not: every write that was answered is there for the next one,
// flushed or not (store/shadow.h). Kills are tried at the moments that a second fiber chooses, with
// all that the files have then, and the lasting memory as it is then.
#include <gtest/gtest.h>

#include <map>

#include "base/aligned.h"
#include "base/log.h"
#include "disk/disks.h"
#include "format/shadow.h"
#include "sim/crash.h"
#include "sim/sim_io.h"

namespace firn::disk {
namespace {

using Grains = std::map<uint64_t, char>;  // What was answered: 0 for a discard.

// The instant of a kill.
struct Instant {
  size_t event = 0;
  // What of it is not zero.
  std::map<std::string, std::map<size_t, std::vector<std::byte>>> memory{};
  std::map<std::string, Grains> answered{};
  std::map<std::string, Grains> asked{};  // Under way: either content is right.
};

struct Client {
  std::string disk;
  Grains answered{};
  Grains asked{};
};

class Life {
 public:
  explicit Life(sim::World& world, uint64_t seed) : world_(world), io_(world, seed), prng_(seed) {}

  void run(uint64_t seed) {
    io_.run([&] {
      ASSERT_TRUE(store::Pool::create(io_, "/p", {.bytes = 64 * kMiB, .journal_bytes = kMiB}));
      auto pool = store::Pool::open(io_, "/p", {.cache_bytes = 8 * kPageBytes}).take();
      auto disks = Disks::open(io_, *pool).take();
      for (Client& client : clients_) {
        ASSERT_TRUE(disks->create(io_, client.disk, kGiB));
      }
      ASSERT_TRUE(disks->snapshot(io_, "a", "s"));
      Group group(io_);
      size_t running = clients_.size();
      for (Client& client : clients_) {
        io_.spawn(group, [&] {
          use(*disks, client, seed);
          --running;
        });
      }
      io_.spawn(group, [&] {
        while (running > 0) {
          io_.sleep(std::chrono::microseconds(prng_.below(400)));
          note_instant();
        }
      });
      group.wait();
      note_instant();
      EXPECT_TRUE(disks->close(io_));
      disks.reset();
      ASSERT_TRUE(pool->close(io_));
    });
  }
  const std::vector<Instant>& instants() const { return instants_; }

 private:
  void use(Disks& disks, Client& client, uint64_t seed) {
    Prng prng(seed * 31 + static_cast<uint64_t>(client.disk[0]));
    const auto device = disks.attach(io_, client.disk).take();
    AlignedBuffer buffer(kGrainBytes);
    const ::iovec slice = slice_of(buffer.bytes());
    for (int i = 0; i < 120; ++i) {
      const uint64_t grain = prng.below(4) * 512 + prng.below(64);
      const bool discards = prng.one_in(6);
      const char with = discards ? '\0' : static_cast<char>('a' + prng.below(26));
      client.asked[grain] = with;
      std::memset(buffer.data(), with, kGrainBytes);
      const Range range{grain * kGrainBytes, kGrainBytes};
      const Result<void> done =
          discards ? device->discard(io_, range) : device->write(io_, range, Iovec(&slice, 1), {});
      EXPECT_TRUE(done);
      client.asked.erase(grain);
      client.answered[grain] = with;
      if (prng.one_in(25)) {
        EXPECT_TRUE(device->flush(io_));
      }
      if (client.disk == "b" && prng.one_in(30)) {
        EXPECT_TRUE(disks.snapshot(io_, "b", fmt::format("s{}", i)));
      }
    }
  }
  void note_instant() {
    Instant& now = instants_.emplace_back();
    now.event = world_.events().size();
    for (const auto& [path, kept] : world_.lasting()) {
      for (size_t at = 0; at < kept->bytes().size(); at += kPageBytes) {
        const View page = kept->bytes().subspan(at, kPageBytes);
        if (!all_zero(page)) now.memory[path][at].assign(page.begin(), page.end());
      }
    }
    for (const Client& client : clients_) {
      now.answered[client.disk] = client.answered;
      now.asked[client.disk] = client.asked;
    }
  }

  sim::World& world_;
  sim::SimIo io_;
  Prng prng_;
  std::vector<Client> clients_{{"a"}, {"b"}, {"c"}};
  std::vector<Instant> instants_;
};

void expect_answered(Io& io, Disks& disks, const Instant& instant) {
  AlignedBuffer buffer(kGrainBytes);
  const ::iovec slice = slice_of(buffer.bytes());
  for (const auto& [name, grains] : instant.answered) {
    const auto device = disks.attach(io, name).take();
    for (const auto& [grain, with] : grains) {
      ASSERT_TRUE(device->read(io, {grain * kGrainBytes, kGrainBytes}, Iovec(&slice, 1)));
      const char got = static_cast<char>(buffer.data()[17]);
      const auto asked = instant.asked.at(name).find(grain);
      if (asked != instant.asked.at(name).end() && got == asked->second) continue;
      EXPECT_EQ(got, with) << "disk " << name << " grain " << grain;
    }
  }
}

void expect_restart(sim::World world, const Instant& instant, uint64_t seed) {
  for (const auto& [path, pages] : instant.memory) {
    auto kept = std::make_shared<sim::LastingBytes>(format::kShadowBytes);
    for (const auto& [at, page] : pages) std::ranges::copy(page, kept->bytes().subspan(at).begin());
    world.lasting()[path] = kept;
  }
  sim::SimIo io(world, seed, {.order = sim::Order::in_order});
  io.run([&] {
    auto opened = store::Pool::open(io, "/p", {.background = false});
    ASSERT_TRUE(opened) << text_of(opened.error());
    const auto pool = opened.take();
    auto disks = Disks::open(io, *pool).take();
    expect_answered(io, *disks, instant);
    const auto report = disks->check(io, false);
    ASSERT_TRUE(report);
    for (const std::string& finding : report->findings) ADD_FAILURE() << finding;
    EXPECT_TRUE(disks->close(io));
    disks.reset();
    ASSERT_TRUE(pool->close(io));
  });
}

TEST(Kill, what_was_answered_outlives_the_process) {
  set_log_sink([](LogLevel, std::string_view) {});
  size_t kills = 0;
  for (uint64_t seed = 1; seed <= 12 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    sim::World world;
    Life life(world, seed);
    life.run(seed);
    sim::Crash crash(world);
    for (const Instant& instant : life.instants()) {
      crash.move_to(instant.event);
      sim::Fate all;
      all.kept.assign(crash.atoms().size() / 64 + 1, ~uint64_t{0});
      expect_restart(crash.image(all), instant, seed);
      ++kills;
      if (testing::Test::HasFailure()) break;
    }
  }
  set_log_sink(nullptr);
  EXPECT_GE(kills, 300U);
}

}  // namespace
}  // namespace firn::disk
