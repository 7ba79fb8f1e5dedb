// SPDX-License-Identifier: Apache-2.0
// A layer is a device: the six verbs that every front end calls and every layer answers.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"
#include "io/io.h"

namespace firn {

struct Geometry {
  uint64_t bytes = 0;          // May grow while open (live resize); a value read afresh each time.
  uint32_t block = 512;        // Smallest unit that is atomic over a crash and cheap to write.
  uint32_t optimal = 4096;     // Writes of this size and alignment need no read.
  uint32_t discard = 4096;     // Granularity at which discard gives space back.
  bool volatile_cache = true;  // Whether flush means anything.
  bool read_only = false;
};

enum class Extent : uint8_t {
  data = 1,  // Holds grains of its own.
  zero = 2,  // Reads as zero, and was written or discarded as zero: hides what lies below.
  hole = 3,  // Reads as zero, nothing was ever written here.
};

struct ExtentRun {
  uint64_t length = 0;
  Extent kind = Extent::hole;
  uint32_t depth =
      0;  // 0 nobody's, 1 the disk's own layer, 2.. an ancestor's (qemu:allocation-depth).
};

// Where map() puts what it finds; runs come in order and cover the range from its beginning.
class ExtentSink {
 public:
  virtual ~ExtentSink() = default;
  // False: enough, stop.
  virtual bool add(ExtentRun run) = 0;
};

struct WriteFlags {
  bool fua = false;         // Durable before the call returns.
  bool background = false;  // No guest's: nobody steps back for it, and it steps back itself.
};
struct ZeroFlags {
  bool fua = false;
  bool keep_space = false;  // NBD's NO_HOLE: later writes here must not fail for lack of space.
  bool fast_only = false;   // Errc::unsupported at once rather than doing it by writing zeroes.
};

// A block device. Contract, for every implementation:
//  D1  A completed write is visible to every later read, through any layer above.
//  D2  Data is durable when a flush that began after the write completed has completed; not before.
//  D3  After a crash each block of an unflushed write holds its old or its new content, never a
//  mixture
//      within Geometry::block.
//  D4  A failed write leaves the range undefined until rewritten. A failed flush fences the device:
//  all
//      later writes and flushes fail with Errc::fenced.
//  D5  Requests may overlap in time. Where they overlap in range, each 512-byte sector ends up as
//  one of
//      them wrote it.
//  D6  Ranges are in bytes, any alignment; a range that is not within geometry().bytes is the
//  caller's
//      error (CHECK). Buffers need no alignment; 4096-aligned ones save a copy.
class BlockDevice {
 public:
  virtual ~BlockDevice() = default;
  virtual Geometry geometry() const = 0;
  virtual Result<void> read(Io&, Range, Iovec into) = 0;
  virtual Result<void> write(Io&, Range, Iovec from, WriteFlags) = 0;
  virtual Result<void> zero(Io&, Range, ZeroFlags) = 0;
  virtual Result<void> discard(Io&, Range) = 0;
  virtual Result<void> flush(Io&) = 0;
  virtual Result<void> map(Io&, Range, ExtentSink&) = 0;

 protected:
  BlockDevice() = default;
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;
};

}  // namespace firn
