// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <isa-l/crc.h>
#include <isa-l/mem_routines.h>

namespace firn {

bool all_zero(View bytes) {
  return isal_zero_detect(const_cast<std::byte*>(bytes.data()), bytes.size()) == 0;
}

uint32_t crc32c(View bytes, uint32_t seed) {
  // isa-l takes and returns the register itself; the usual CRC32C inverts it at both ends.
  unsigned char* data =
      static_cast<unsigned char*>(static_cast<void*>(const_cast<std::byte*>(bytes.data())));
  return ~crc32_iscsi(data, static_cast<int>(bytes.size()), ~seed);
}

}  // namespace firn
