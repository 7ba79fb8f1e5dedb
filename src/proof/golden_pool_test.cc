// SPDX-License-Identifier: Apache-2.0
// Pools of earlier versions open, check clean and show what they showed when they were made.
#include "proof/golden_pool.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "sim/sim_io.h"
#include "store/pool.h"

namespace firn::proof {
namespace {

std::string golden(const std::string& name) {
  std::ifstream file(std::string(FIRN_GOLDEN) + "/" + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}
// "MD5  NAME", as md5sum writes it.
std::map<std::string, std::string> recorded(const std::string& text) {
  std::map<std::string, std::string> sums;
  std::istringstream lines(text);
  for (std::string sum, name; lines >> sum >> name;) sums[name] = sum;
  return sums;
}
void expect_sums(Io& io, disk::Disks& disks, const std::map<std::string, std::string>& wanted) {
  const auto report = disks.check(io, false);
  ASSERT_TRUE(report) << text_of(report.error());
  for (const std::string& finding : report->findings) ADD_FAILURE() << finding;
  auto sums = sums_of(io, disks);
  ASSERT_TRUE(sums) << text_of(sums.error());
  EXPECT_EQ(*sums, wanted);
}

TEST(GoldenPool, a_deep_tree_of_version_1_opens_and_shows_what_it_showed) {
  const std::string packed = golden("pool-v1-tree.bin");
  const auto wanted = recorded(golden("pool-v1-tree.md5"));
  EXPECT_LT(packed.size(), 256 * kKiB);
  EXPECT_GT(wanted.size(), 30U);
  auto world = unpack_world(std::as_bytes(std::span(packed)));
  ASSERT_TRUE(world) << text_of(world.error());
  sim::SimIo io(*world, 1, {.order = sim::Order::immediate});
  io.run([&] {
    for (const bool background : {true, false}) {
      auto pool = store::Pool::open(io, kGoldenPool, {.background = background});
      ASSERT_TRUE(pool) << text_of(pool.error());
      auto disks = disk::Disks::open(io, **pool);
      ASSERT_TRUE(disks) << text_of(disks.error());
      EXPECT_EQ((*disks)->jobs().empty(), !background) << "what it was in the middle of";
      expect_sums(io, **disks, wanted);
      const auto swept = (*disks)->sweep(io);
      EXPECT_TRUE(swept) << text_of(swept.error());
      expect_sums(io, **disks, wanted);
      EXPECT_EQ((*disks)->info("plain")->settings.at("note"), "nobody cloned me");
      disks->reset();
      const auto closed = (*pool)->close(io);
      EXPECT_TRUE(closed) << text_of(closed.error());
    }
  });
}

TEST(GoldenPool, an_image_is_what_was_packed) {
  const sim::World world = make_golden_pool();
  const auto packed = pack_world(world);
  auto again = unpack_world(packed);
  ASSERT_TRUE(again) << text_of(again.error());
  EXPECT_EQ(pack_world(*again), packed);
  for (const size_t cut : {packed.size() - 1, packed.size() / 2, size_t{9}, size_t{0}}) {
    EXPECT_FALSE(unpack_world(View(packed).first(cut))) << cut;
  }
}

}  // namespace
}  // namespace firn::proof
