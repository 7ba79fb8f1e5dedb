// SPDX-License-Identifier: Apache-2.0
// firn bench: what a disk does through libfirn, and whether it keeps what was written.
#pragma once

#include <cstdint>
#include <string>

namespace firn::cmd {

struct BenchSettings {
  std::string socket;           // The disk's vhost-user socket.
  std::string rw = "randread";  // randread, randwrite, randrw, read, write
  uint64_t block = 4096;
  uint32_t depth = 32;
  uint32_t queues = 1;
  double seconds = 5;
  uint64_t bytes = 0;        // How much of the disk is used; 0: all of it, 1 GiB when verifying.
  uint64_t flush_every = 0;  // A flush after so many writes; 0: none.
  uint32_t seed = 1;
  bool verify = false;
};

}  // namespace firn::cmd
