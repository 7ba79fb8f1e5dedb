// SPDX-License-Identifier: Apache-2.0
// The canary: a decoder with a planted bug, so that a runner which finds nothing anywhere is not
// believed.
//
// The "format" is "FIRN", a length byte, that many bytes. The bug: the length is believed when the
// first byte after it is 'c'. Any runner that mutates its input and notices a wrong verdict finds
// it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 6 || std::memcmp(data, "FIRN", 4) != 0) return 0;
  const size_t length = data[4];
  const bool believed = data[5] == 'c';
  const bool inside = length <= size - 5;
  if (believed && !inside) std::abort();  // What a sanitizer would do at the overflow.
  return 0;
}
