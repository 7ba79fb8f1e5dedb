// SPDX-License-Identifier: Apache-2.0
#include "workload.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bench {
namespace {

constexpr std::string_view kModes[] = {"randread", "randwrite", "seqread", "seqwrite",
                                       "first-touch"};

uint64_t mixed(uint64_t z) {
  z += 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

Mode mode_of(std::string_view text) {
  for (size_t i = 0; i < std::size(kModes); ++i) {
    if (text == kModes[i]) return static_cast<Mode>(i);
  }
  die(fmt::format("no mode '{}'; there are randread randwrite seqread seqwrite first-touch", text));
}

// Written by a signal's handler.
volatile std::sig_atomic_t told_to_stop = 0;

void stop_when_told() {
  struct sigaction action {};
  action.sa_handler = [](int) { told_to_stop = 1; };
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
}

}  // namespace

void die(const std::string& text) {
  fmt::print(stderr, "{}\n", text);
  std::exit(2);
}

std::string_view name_of(Mode mode) { return kModes[static_cast<size_t>(mode)]; }

uint64_t size_of(std::string_view text) {
  const std::string copy(text);
  char* end = nullptr;
  uint64_t value = std::strtoull(copy.c_str(), &end, 10);
  const std::string_view unit = end;
  if (unit == "K") value <<= 10;
  if (unit == "M") value <<= 20;
  if (unit == "G") value <<= 30;
  if (end == copy.c_str() || (!unit.empty() && unit != "K" && unit != "M" && unit != "G")) {
    die(fmt::format("'{}' is no number", text));
  }
  return value;
}

Arguments parse(int count, char** arguments) {
  Arguments parsed;
  Workload& workload = parsed.workload;
  for (int i = 1; i < count; ++i) {
    const std::string_view name = arguments[i];
    const auto value = [&]() -> std::string_view {
      if (i + 1 >= count) die(fmt::format("{} needs a value", name));
      return arguments[++i];
    };
    if (name == "--mode") {
      workload.mode = mode_of(value());
    } else if (name == "--block") {
      workload.block = size_of(value());
    } else if (name == "--depth") {
      workload.depth = size_of(value());
    } else if (name == "--flush-every") {
      workload.flush_every = size_of(value());
    } else if (name == "--seconds") {
      workload.seconds = std::strtod(std::string(value()).c_str(), nullptr);
    } else if (name == "--count") {
      workload.count = size_of(value());
    } else if (name == "--seed") {
      workload.seed = size_of(value());
    } else if (name == "--bytes") {
      workload.bytes = size_of(value());
    } else if (name == "--skip") {
      workload.skip = size_of(value());
    } else if (name == "--log") {
      workload.log = value();
    } else {
      parsed.rest.push_back(name);
    }
  }
  if (workload.block < 512 || workload.block > 32U << 20 || workload.depth < 1 ||
      workload.depth > 1024 || !(workload.seconds > 0)) {
    die("block must be 512 bytes to 32 MiB, depth 1 to 1024, seconds above 0");
  }
  return parsed;
}

Offsets::Offsets(const Workload& workload, uint64_t device_bytes)
    : mode_(workload.mode),
      block_(workload.block),
      blocks_((workload.bytes == 0 ? device_bytes : std::min(workload.bytes, device_bytes)) /
              workload.block),
      seed_(mixed(workload.seed)),
      issued_(workload.skip) {
  if (blocks_ == 0) die("the device is smaller than one block");
  bits_ = std::max(2U, static_cast<unsigned>(std::bit_width(blocks_ - 1)));
}

// A bijection of [0, blocks): multiply and fold on the next power of two, again until inside.
uint64_t Offsets::permuted(uint64_t index) const {
  const uint64_t mask = (bits_ == 64 ? 0 : 1ULL << bits_) - 1;
  do {
    for (unsigned round = 0; round < 3; ++round) {
      index = (index * ((mixed(seed_ + round) << 1) | 1) + seed_) & mask;
      index ^= index >> (bits_ / 2);
    }
  } while (index >= blocks_);
  return index;
}

std::optional<uint64_t> Offsets::next() {
  const uint64_t number = issued_++;
  if (mode_ == Mode::first_touch) {
    if (number >= blocks_) return std::nullopt;
    return permuted(number) * block_;
  }
  if (mode_ == Mode::seqread || mode_ == Mode::seqwrite) return number % blocks_ * block_;
  return mixed(seed_ ^ mixed(number)) % blocks_ * block_;
}

void fill(std::span<std::byte> buffer, uint64_t seed) {
  for (size_t at = 0; at + 8 <= buffer.size(); at += 8) {
    const uint64_t word = mixed(seed ^ (at << 20)) | 1;
    std::memcpy(buffer.data() + at, &word, 8);
  }
}

void restamp(std::span<std::byte> buffer, uint64_t number) {
  for (size_t at = 0; at + 8 <= buffer.size(); at += 4096) {
    const uint64_t word = mixed(number ^ at) | 1;
    std::memcpy(buffer.data() + at, &word, 8);
  }
}

size_t Histogram::bucket_of(uint64_t value) {
  if (value < kSteps) return value;
  const auto shift = static_cast<unsigned>(std::bit_width(value)) - 7;  // Leaves kSteps..2*kSteps.
  return shift * kSteps + (value >> shift);
}

uint64_t Histogram::value_of(size_t bucket) {
  if (bucket < 2 * kSteps) return bucket;
  const size_t shift = bucket / kSteps - 1;
  return (bucket - shift * kSteps) << shift;
}

void Histogram::add(Clock::duration taken) {
  const auto value = static_cast<uint64_t>(std::max<int64_t>(0, taken.count()));
  ++buckets_[std::min(bucket_of(value), buckets_.size() - 1)];
  max_ = std::max(max_, value);
  ++count_;
}

double Histogram::percentile_us(double p) const {
  if (count_ == 0) return 0;
  const auto wanted = static_cast<uint64_t>(std::ceil(p / 100 * static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= wanted) return static_cast<double>(value_of(i)) / 1000;
  }
  return max_us();
}

Run::Run(const Workload& workload, uint64_t device_bytes)
    : workload_(workload),
      offsets_(workload, device_bytes),
      begin_(Clock::now()),
      end_(begin_ + std::chrono::duration_cast<Clock::duration>(
                        std::chrono::duration<double>(workload.seconds))),
      issued_(workload.skip) {
  stop_when_told();
}

bool Run::over() {
  if (!stopped_) {
    const bool all = workload_.count != 0 && issued_ - workload_.skip >= workload_.count;
    stopped_ = all || told_to_stop != 0 || Clock::now() >= end_;
  }
  return stopped_;
}

Run::Step Run::next() {
  if (workload_.flush_every != 0 && since_flush_ >= workload_.flush_every) {
    since_flush_ -= workload_.flush_every;
    return {Step::Kind::flush, 0};
  }
  if (over()) return {Step::Kind::none, 0};
  const std::optional<uint64_t> at = offsets_.next();
  if (!at) {
    stopped_ = true;
    return {Step::Kind::none, 0};
  }
  ++issued_;
  return {Step::Kind::operation, *at};
}

void Run::completed(Step step, Clock::time_point issued, bool good) {
  if (!good) ++errors_;
  const Clock::time_point now = Clock::now();
  if (step.kind == Step::Kind::flush) {
    flushes_.add(now - issued);
    return;
  }
  operations_.add(now - issued);
  if (!workload_.log.empty()) {
    logged_.push_back({static_cast<uint64_t>(now.time_since_epoch().count()),
                       static_cast<uint64_t>((now - issued).count())});
  }
  if (workload_.flush_every != 0) ++since_flush_;
}

void Run::write_log() const {
  if (workload_.log.empty()) return;
  std::FILE* file = std::fopen(workload_.log.c_str(), "we");
  if (file == nullptr) die("no log at " + workload_.log);
  const size_t written = std::fwrite(logged_.data(), sizeof(Logged), logged_.size(), file);
  if (std::fclose(file) != 0 || written != logged_.size()) die("no log at " + workload_.log);
}

int Run::report() const {
  write_log();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  const auto operations = static_cast<double>(operations_.count());
  fmt::print(
      R"({{"mode":"{}","block":{},"depth":{},"flush_every":{},"seconds":{:.3f},)"
      R"("ops":{},"iops":{:.1f},)"
      R"("mib_s":{:.2f},"p50_us":{:.1f},"p99_us":{:.1f},"p999_us":{:.1f},"max_us":{:.1f},)"
      R"("flushes":{},"flush_p50_us":{:.1f},"flush_p99_us":{:.1f},"errors":{}}})"
      "\n",
      name_of(workload_.mode), workload_.block, workload_.depth, workload_.flush_every, seconds,
      operations_.count(), operations / seconds,
      operations * static_cast<double>(workload_.block) / seconds / (1 << 20),
      operations_.percentile_us(50), operations_.percentile_us(99), operations_.percentile_us(99.9),
      operations_.max_us(), flushes_.count(), flushes_.percentile_us(50),
      flushes_.percentile_us(99), errors_);
  return errors_ == 0 ? 0 : 1;
}

}  // namespace bench
