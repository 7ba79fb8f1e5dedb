// SPDX-License-Identifier: Apache-2.0
// What the two load generators share: which blocks to touch in which order, how latencies are kept,
// how a run is reported. Knows nothing of how an operation reaches its device.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bench {

using Clock = std::chrono::steady_clock;

enum class Mode : uint8_t {
  randread,
  randwrite,
  seqread,
  seqwrite,
  first_touch,  // Random writes that touch each block once; the run ends when all are touched.
};

struct Workload {
  Mode mode = Mode::randread;
  uint64_t block = 4096;
  uint64_t depth = 1;
  uint64_t flush_every = 0;  // A flush after each so many completed writes; 0: none.
  double seconds = 2;        // The run ends at whichever comes first ...
  uint64_t count = 0;        // ... this many operations; 0: time alone.
  uint64_t seed = 1;
  uint64_t bytes = 0;  // How much of the device is used; 0: all of it.
  uint64_t skip = 0;   // Begin as if so many operations had been done: a run in several parts.
  std::string log;     // A file for every operation: when it ended, how long it took.
  bool writes() const {
    return mode == Mode::randwrite || mode == Mode::seqwrite || mode == Mode::first_touch;
  }
};

// Takes --mode, --block, --depth, --flush-every, --seconds, --count, --seed, --bytes, --skip, --log
// out of the arguments and leaves the rest, in order. Ends the process with status 2 at a value
// that makes no sense.
struct Arguments {
  Workload workload;
  std::vector<std::string_view> rest;
};
Arguments parse(int count, char** arguments);
uint64_t size_of(std::string_view text);  // "4096", "4K", "128K", "2G".
std::string_view name_of(Mode mode);

// The byte offset of the next operation; nothing when first_touch has touched everything.
class Offsets {
 public:
  Offsets(const Workload& workload, uint64_t device_bytes);
  std::optional<uint64_t> next();

 private:
  uint64_t permuted(uint64_t index) const;

  Mode mode_;
  uint64_t block_;
  uint64_t blocks_;
  uint64_t seed_;
  uint64_t issued_ = 0;
  unsigned bits_ = 1;
};

// Fills a buffer with bytes that neither compress, nor repeat, nor are zero; restamp() makes it
// another one cheaply, so that no engine can profit from equal writes.
void fill(std::span<std::byte> buffer, uint64_t seed);
void restamp(std::span<std::byte> buffer, uint64_t number);

// Latencies in nanoseconds, 64 buckets to a doubling: 1.6 % wide.
class Histogram {
 public:
  void add(Clock::duration taken);
  double percentile_us(double p) const;
  double max_us() const { return static_cast<double>(max_) / 1000; }
  uint64_t count() const { return count_; }

 private:
  static constexpr unsigned kSteps = 64;
  static size_t bucket_of(uint64_t value);
  static uint64_t value_of(size_t bucket);

  std::vector<uint64_t> buckets_ = std::vector<uint64_t>(64 * kSteps);
  uint64_t count_ = 0;
  uint64_t max_ = 0;
};

// A run: decides what to issue next and when to stop; the generators issue and report back. SIGTERM
// and SIGINT end it like the end of its time: what is in flight completes and is reported.
class Run {
 public:
  struct Step {
    enum class Kind : uint8_t { operation, flush, none } kind;
    uint64_t at = 0;
  };

  Run(const Workload& workload, uint64_t device_bytes);
  // What to put into a free slot now; none when there is nothing more to issue.
  Step next();
  void completed(Step step, Clock::time_point issued, bool good);
  uint64_t issued() const { return issued_; }
  // One line of JSON on stdout. The exit status: 0, or 1 when any operation failed.
  int report() const;

 private:
  bool over();
  void write_log() const;

  Workload workload_;
  Offsets offsets_;
  Histogram operations_;
  Histogram flushes_;
  Clock::time_point begin_;
  Clock::time_point end_;
  uint64_t issued_ = 0;
  uint64_t since_flush_ = 0;
  uint64_t errors_ = 0;
  bool stopped_ = false;
  struct Logged {
    uint64_t ended_ns;  // Of CLOCK_MONOTONIC.
    uint64_t taken_ns;
  };
  std::vector<Logged> logged_;
};

[[noreturn]] void die(const std::string& text);

}  // namespace bench
