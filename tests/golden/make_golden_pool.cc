// SPDX-License-Identifier: Apache-2.0
// make_golden_pool DIR: writes pool-v1-tree.bin and .md5 there (README.md). Done once for each
// version of the format; a committed file is never made again.
#include <fmt/core.h>

#include <fstream>

#include "proof/golden_pool.h"
#include "sim/sim_io.h"
#include "store/pool.h"

int main(int count, char** words) {
  using namespace firn;
  if (count != 2) {
    fmt::print(stderr, "usage: make_golden_pool DIR\n");
    return 2;
  }
  const std::string stem = std::string(words[1]) + "/pool-v1-tree";
  sim::World world = proof::make_golden_pool();
  const auto packed = proof::pack_world(world);
  std::ofstream(stem + ".bin", std::ios::binary)
      .write(reinterpret_cast<const char*>(packed.data()),
             static_cast<std::streamsize>(packed.size()));
  sim::SimIo io(world, 1, {.order = sim::Order::immediate});
  bool good = false;
  io.run([&] {
    auto pool = store::Pool::open(io, proof::kGoldenPool, {.background = true}).take();
    auto disks = disk::Disks::open(io, *pool).take();
    const auto sums = proof::sums_of(io, *disks);
    if (!sums) return;
    std::ofstream list(stem + ".md5");
    for (const auto& [name, sum] : *sums) list << sum << "  " << name << '\n';
    good = list.good();
    disks.reset();
    good = pool->close(io).has_value() && good;
  });
  fmt::print("{} bytes\n", packed.size());
  return good ? 0 : 1;
}
