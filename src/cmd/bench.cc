// SPDX-License-Identifier: Apache-2.0
// Notes on the design. One request for each slot is in flight; a slot's block is nobody else's
// meanwhile, so that what a read must find is known: with --verify each block carries where it is
// and how often it was written, in every 512 bytes, and a table remembers the last write that was
// acknowledged. At the end all that was written is read once more.
#include "cmd/bench.h"

#include <firn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <ctime>
#include <vector>

#include "base/prng.h"
#include "cmd/commands.h"

namespace firn::cmd {
namespace {

// What every 512 bytes of a verified block begin with.
struct Stamp {
  uint64_t block = 0;
  uint32_t version = 0;
  uint32_t seed = 0;
  bool operator==(const Stamp&) const = default;
};

double now_seconds() {
  ::timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// Counts of latencies, eight to a doubling.
class Latencies {
 public:
  void add(double seconds) {
    const auto ns = static_cast<uint64_t>(std::max(seconds, 0.0) * 1e9);
    ++counts_[bucket_of(ns)];
    ++all_;
  }
  double us(double part) const {
    uint64_t left = static_cast<uint64_t>(part * static_cast<double>(all_));
    for (size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] > left) return static_cast<double>(value_of(i)) / 1000;
      left -= counts_[i];
    }
    return 0;
  }

 private:
  static size_t bucket_of(uint64_t value) {
    if (value < 8) return value;
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - 4;
    return std::min<size_t>(shift * 8 + (value >> shift), 511);
  }
  static uint64_t value_of(size_t bucket) {
    if (bucket < 16) return bucket;
    const size_t shift = bucket / 8 - 1;
    return (bucket - shift * 8) << shift;
  }
  std::array<uint64_t, 512> counts_{};
  uint64_t all_ = 0;
};

class Bench {
 public:
  explicit Bench(const BenchSettings& settings) : settings_(settings), prng_(settings.seed) {}
  ~Bench() { firn_disconnect(channel_); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Result<void> open();
  Result<void> run();
  Result<void> read_back();
  std::string report(bool json) const;
  uint64_t wrong() const { return wrong_ + errors_; }

 private:
  enum class Kind : uint8_t { read, write, flush };
  struct Slot {
    Kind kind = Kind::read;
    uint64_t block = 0;
    double begun = 0;
  };

  bool writes_next();
  bool pick(Slot& slot);
  Result<void> offer(uint64_t number);
  Result<void> take_in();
  void completed(uint64_t number, const firn_completion& done, double now);
  void stamp(uint64_t number, uint32_t version);
  void check(uint64_t number);
  std::byte* data_of(uint64_t slot) const { return memory_ + slot * settings_.block; }
  Error refused(const char* what) const { return fail(Errc::io, "{}: {}", what, firn_error()); }

  const BenchSettings& settings_;
  Prng prng_;
  firn_channel* channel_ = nullptr;
  std::byte* memory_ = nullptr;
  uint64_t blocks_ = 0;
  std::vector<Slot> slots_;
  std::vector<uint64_t> free_;
  std::vector<uint32_t> versions_;  // By block, when verifying; 0: not written by us.
  std::vector<bool> busy_;          // By block, when verifying.
  uint64_t next_ = 0;               // Of a sequential run.
  uint64_t since_flush_ = 0;
  bool reading_back_ = false;
  uint64_t reads_ = 0, writes_ = 0, flushes_ = 0, errors_ = 0, wrong_ = 0, checked_ = 0;
  double seconds_ = 0;
  Latencies latencies_;
};

Result<void> Bench::open() {
  const uint64_t slots = uint64_t{settings_.depth} * settings_.queues;
  firn_options options{};
  options.size = sizeof(options);
  options.queues = settings_.queues;
  options.depth = settings_.depth;
  options.memory_bytes = slots * settings_.block + 4096;
  options.patience_ms = 60'000;
  if (firn_connect(settings_.socket.c_str(), &options, &channel_) != 0) return refused("connect");
  struct firn_geometry geometry {};
  if (firn_get_geometry(channel_, &geometry) != 0) return refused("geometry");
  memory_ = static_cast<std::byte*>(firn_allocate(channel_, slots * settings_.block));
  uint64_t bytes = settings_.bytes == 0 ? geometry.bytes : settings_.bytes;
  if (settings_.verify && settings_.bytes == 0) bytes = std::min(bytes, kGiB);
  blocks_ = std::min(bytes, geometry.bytes) / settings_.block;
  if (blocks_ < 2 * slots || settings_.block > geometry.transfer_max) {
    return fail(Errc::invalid, "{} blocks of {} bytes for {} requests at once", blocks_,
                settings_.block, slots);
  }
  slots_.resize(slots);
  for (uint64_t i = slots; i-- > 0;) free_.push_back(i);
  if (settings_.verify) {
    versions_.resize(blocks_);
    busy_.resize(blocks_);
  }
  for (uint64_t at = 0; at + 8 <= slots * settings_.block; at += 8) {
    const uint64_t word = prng_.next() | 1;
    std::memcpy(memory_ + at, &word, 8);
  }
  return ok;
}

bool Bench::writes_next() {
  if (reading_back_) return false;
  if (settings_.rw == "randrw") return prng_.one_in(2);
  return settings_.rw == "randwrite" || settings_.rw == "write";
}

// False: nothing more to read back.
bool Bench::pick(Slot& slot) {
  slot.kind = writes_next() ? Kind::write : Kind::read;
  if (settings_.flush_every != 0 && since_flush_ >= settings_.flush_every) {
    since_flush_ = 0;
    slot.kind = Kind::flush;
    return true;
  }
  if (reading_back_) {
    while (next_ < blocks_ && versions_[next_] == 0) ++next_;
    slot.block = next_++;
    return slot.block < blocks_;
  }
  do {
    const bool random = settings_.rw.starts_with("rand");
    slot.block = random ? prng_.below(blocks_) : next_++ % blocks_;
  } while (settings_.verify && busy_[slot.block]);
  return true;
}

void Bench::stamp(uint64_t number, uint32_t version) {
  const Stamp stamp{slots_[number].block, version, settings_.seed};
  for (uint64_t at = 0; at < settings_.block; at += 512) {
    std::memcpy(data_of(number) + at, &stamp, sizeof(stamp));
  }
}

void Bench::check(uint64_t number) {
  const uint32_t version = versions_[slots_[number].block];
  if (version == 0) return;
  ++checked_;
  const Stamp wanted{slots_[number].block, version, settings_.seed};
  for (uint64_t at = 0; at < settings_.block; at += 512) {
    Stamp found;
    std::memcpy(&found, data_of(number) + at, sizeof(found));
    if (found == wanted) continue;
    ++wrong_;
    if (wrong_ <= 8) {
      fmt::print(stderr, "firn bench: block {} holds version {} of block {}, not version {}\n",
                 wanted.block, found.version, found.block, version);
    }
    return;
  }
}

Result<void> Bench::offer(uint64_t number) {
  Slot& slot = slots_[number];
  slot.begun = now_seconds();
  firn_request request{};
  request.cookie = number;
  request.queue = static_cast<uint16_t>(number % settings_.queues);
  request.op = FIRN_FLUSH;
  if (slot.kind != Kind::flush) {
    request.op = slot.kind == Kind::write ? FIRN_WRITE : FIRN_READ;
    request.offset = slot.block * settings_.block;
    request.length = static_cast<uint32_t>(settings_.block);
    request.buffer = data_of(number);
    if (settings_.verify) busy_[slot.block] = true;
  }
  if (slot.kind == Kind::write) {
    stamp(number, settings_.verify ? versions_[slot.block] + 1 : static_cast<uint32_t>(writes_));
  }
  return firn_submit(channel_, &request) == 0 ? Result<void>() : refused("submit");
}

void Bench::completed(uint64_t number, const firn_completion& done, double now) {
  Slot& slot = slots_[number];
  latencies_.add(now - slot.begun);
  free_.push_back(number);
  if (done.result != 0) ++errors_;
  if (slot.kind == Kind::flush) {
    ++flushes_;
    return;
  }
  if (settings_.verify) busy_[slot.block] = false;
  if (slot.kind == Kind::write) {
    ++writes_;
    ++since_flush_;
    if (settings_.verify && done.result == 0) ++versions_[slot.block];
    return;
  }
  ++reads_;
  if (settings_.verify && done.result == 0) check(number);
}

Result<void> Bench::take_in() {
  std::array<firn_completion, 128> done;
  const int count = firn_wait(channel_, done.data(), static_cast<int>(done.size()), -1);
  if (count < 0) return refused("wait");
  const double now = now_seconds();
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) completed(done[i].cookie, done[i], now);
  return ok;
}

Result<void> Bench::run() {
  const double begun = now_seconds();
  bool more = true;
  while (more || free_.size() < slots_.size()) {
    while (more && !free_.empty()) {
      const uint64_t number = free_.back();
      if (!reading_back_ && now_seconds() - begun >= settings_.seconds) more = false;
      if (!more || !pick(slots_[number])) {
        more = false;
        break;
      }
      free_.pop_back();
      TRY(offer(number));
    }
    if (free_.size() < slots_.size()) TRY(take_in());
  }
  if (!reading_back_) seconds_ = now_seconds() - begun;
  return ok;
}

Result<void> Bench::read_back() {
  const uint64_t reads = reads_;
  reading_back_ = true;
  since_flush_ = next_ = 0;
  TRY(run());
  reads_ = reads;
  return ok;
}

std::string Bench::report(bool json) const {
  firn_statistics seen;
  firn_get_statistics(channel_, &seen);
  const auto operations = static_cast<double>(reads_ + writes_);
  const double rate = operations / seconds_;
  const double mib = rate * static_cast<double>(settings_.block) / static_cast<double>(kMiB);
  if (json) {
    return fmt::format(
        R"({{"rw":"{}","block":{},"depth":{},"queues":{},"seconds":{:.3f},"reads":{},"writes":{},)"
        R"("flushes":{},"iops":{:.1f},"mib_s":{:.2f},"p50_us":{:.1f},"p99_us":{:.1f},"errors":{},)"
        R"("checked":{},"wrong":{},"kicks":{},"calls":{},"reconnects":{}}})"
        "\n",
        settings_.rw, settings_.block, settings_.depth, settings_.queues, seconds_, reads_, writes_,
        flushes_, rate, mib, latencies_.us(0.5), latencies_.us(0.99), errors_, checked_, wrong_,
        seen.kicks, seen.calls, seen.reconnects);
  }
  std::string text = fmt::format(
      "{}: {:.0f} requests/s, {:.1f} MiB/s, p50 {:.1f} us, p99 {:.1f} us, {} reads, {} writes, {} "
      "flushes, {} errors\n",
      settings_.rw, rate, mib, latencies_.us(0.5), latencies_.us(0.99), reads_, writes_, flushes_,
      errors_);
  text += fmt::format("signals: {} to the server, {} from it\n", seen.kicks, seen.calls);
  if (settings_.verify) {
    text += fmt::format("verified: {} blocks read that were written before, {} wrong\n", checked_,
                        wrong_);
  }
  return text;
}

}  // namespace

Result<int> run_bench(const BenchSettings& settings, bool json) {
  Bench bench(settings);
  TRY(bench.open());
  TRY(bench.run());
  if (settings.verify) TRY(bench.read_back());
  TRY(print(bench.report(json)));
  return bench.wrong() == 0 ? kDone : kFailed;
}

}  // namespace firn::cmd
