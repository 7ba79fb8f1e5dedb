// SPDX-License-Identifier: Apache-2.0
// MemoryDevice: a BlockDevice in memory for tests and for measuring front ends, obeying D1 to D6.
//
// A test can look at what was asked, make a verb or a range fail, hold requests in flight, and pull
// the plug: crash() takes back what no flush had covered. Not for data that anybody wants to keep.
#pragma once

#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/check.h"
#include "disk/device.h"

namespace firn::serve {

class MemoryDevice final : public BlockDevice {
 public:
  enum class Verb : uint8_t { read, write, zero, discard, flush, map };
  static constexpr size_t kVerbs = 6;
  struct Call {
    Verb verb{};
    Range range;
    bool fua = false;
    bool keep_space = false;
    bool fast_only = false;
    size_t slices = 0;
    bool aligned = true;  // All buffers on multiples of 4096.
  };
  struct Settings {
    bool read_only = false;
    bool fast_zero = true;  // Otherwise fast_only is Errc::unsupported.
    bool remember = true;   // Calls and undo; off for speed.
  };

  explicit MemoryDevice(uint64_t bytes) : MemoryDevice(bytes, Settings()) {}
  MemoryDevice(uint64_t bytes, Settings settings)
      : settings_(settings),
        bytes_(bytes),
        room_(static_cast<std::byte*>(std::calloc(1, round_up(bytes, kGrainBytes)))),
        kinds_(round_up(bytes, kGrainBytes) / kGrainBytes, Extent::hole) {
    CHECK(room_ != nullptr);
  }

  // --- for tests
  View content() const { return {room_.get(), static_cast<size_t>(bytes_)}; }
  const std::vector<Call>& calls() const { return calls_; }
  size_t count(Verb verb) const { return counts_[static_cast<size_t>(verb)]; }
  void fail(Verb verb, Errc code) { failing_[static_cast<size_t>(verb)] = code; }
  void fail_at(uint64_t at, Errc code) {
    bad_.emplace(at, code);
  }  // Reads and writes that cover it.
  void heal() {
    failing_ = {};
    bad_.clear();
  }
  void hold() { held_ = true; }  // Requests wait ...
  size_t waiting() const { return waiting_; }
  void let_go(Io& io) {  // ... until here.
    held_ = false;
    io.wake(gate_);
  }
  void crash() {
    for (const auto& [grain, old] : undo_) {
      std::memcpy(room_.get() + grain * kGrainBytes, old.data(), kGrainBytes);
    }
    undo_.clear();
  }
  void grow(uint64_t bytes) {
    CHECK(round_up(bytes, kGrainBytes) / kGrainBytes <= kinds_.size(),
          "within the last grain only");
    bytes_ = bytes;
  }

  // --- the six verbs
  Geometry geometry() const override { return {.bytes = bytes_, .read_only = settings_.read_only}; }
  Result<void> read(Io& io, Range range, Iovec into) override {
    if (auto wrong = begin(io, {.verb = Verb::read, .range = range}, into); !wrong) return wrong;
    const std::byte* from = room_.get() + range.at;
    for (const ::iovec& slice : into) {
      std::memcpy(slice.iov_base, from, slice.iov_len);
      from += slice.iov_len;
    }
    return ok;
  }
  Result<void> write(Io& io, Range range, Iovec from, WriteFlags flags) override {
    if (auto wrong = begin(io, {.verb = Verb::write, .range = range, .fua = flags.fua}, from);
        !wrong) {
      return wrong;
    }
    before_change(range);
    std::byte* into = room_.get() + range.at;
    for (const ::iovec& slice : from) {
      std::memcpy(into, slice.iov_base, slice.iov_len);
      into += slice.iov_len;
    }
    mark(range, Extent::data, true);
    if (flags.fua) after_fua(range);
    return ok;
  }
  Result<void> zero(Io& io, Range range, ZeroFlags flags) override {
    const Call call{.verb = Verb::zero,
                    .range = range,
                    .fua = flags.fua,
                    .keep_space = flags.keep_space,
                    .fast_only = flags.fast_only};
    if (auto wrong = begin(io, call, {}); !wrong) return wrong;
    if (flags.fast_only && !settings_.fast_zero) {
      return firn::fail(Errc::unsupported, "zeroing here is not faster than writing");
    }
    wipe(range);
    mark(range, flags.keep_space ? Extent::data : Extent::zero, flags.keep_space);
    if (flags.fua) after_fua(range);
    return ok;
  }
  Result<void> discard(Io& io, Range range) override {
    if (auto wrong = begin(io, {.verb = Verb::discard, .range = range}, {}); !wrong) return wrong;
    wipe(range);
    mark(range, Extent::hole, false);
    return ok;
  }
  Result<void> flush(Io& io) override {
    if (auto wrong = begin(io, {.verb = Verb::flush}, {}); !wrong) {
      fenced_ = true;
      return wrong;
    }
    undo_.clear();
    return ok;
  }
  Result<void> map(Io& io, Range range, ExtentSink& sink) override {
    if (auto wrong = begin(io, {.verb = Verb::map, .range = range}, {}); !wrong) return wrong;
    for (uint64_t at = range.at; at < range.end();) {
      const Extent kind = kinds_[at / kGrainBytes];
      uint64_t end = at;
      while (end < range.end() && kinds_[end / kGrainBytes] == kind) {
        end = std::min(range.end(), round_down(end, kGrainBytes) + kGrainBytes);
      }
      if (!sink.add({end - at, kind, kind == Extent::hole ? 0U : 1U})) return ok;
      at = end;
    }
    return ok;
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };

  Result<void> begin(Io& io, Call call, Iovec slices) {
    CHECK(call.range.within(bytes_), "D6");
    const bool moves = call.verb == Verb::read || call.verb == Verb::write;
    CHECK(!moves || total_of(slices) == call.range.length, "D6");
    ++counts_[static_cast<size_t>(call.verb)];
    if (settings_.remember) {
      call.slices = slices.size();
      for (const ::iovec& slice : slices) {
        call.aligned &= std::bit_cast<uintptr_t>(slice.iov_base) % 4096 == 0;
      }
      calls_.push_back(call);
    }
    if (held_) {
      ++waiting_;
      while (held_) io.park(gate_);
      --waiting_;
    }
    if (const auto& code = failing_[static_cast<size_t>(call.verb)]) {
      return firn::fail(*code, "a test wanted this to fail");
    }
    const auto bad = bad_.lower_bound(call.range.at);
    if (moves && bad != bad_.end() && bad->first < call.range.end()) {
      return firn::fail(bad->second, "a test wanted byte {} to be bad", bad->first);
    }
    const bool changes = call.verb != Verb::read && call.verb != Verb::map;
    if (fenced_ && changes) return firn::fail(Errc::fenced, "an earlier flush failed");
    return ok;
  }
  void before_change(Range range) {
    if (!settings_.remember) return;
    for (uint64_t grain = range.at / kGrainBytes; grain * kGrainBytes < range.end(); ++grain) {
      const std::byte* at = room_.get() + grain * kGrainBytes;
      undo_.try_emplace(grain, at, at + kGrainBytes);
    }
  }
  // Touches only what holds data, so that a huge disk costs no memory.
  void wipe(Range range) {
    for (uint64_t at = range.at; at < range.end();) {
      const uint64_t end = std::min(range.end(), round_down(at, kGrainBytes) + kGrainBytes);
      if (kinds_[at / kGrainBytes] == Extent::data) {
        before_change({at, end - at});
        std::memset(room_.get() + at, 0, static_cast<size_t>(end - at));
      }
      at = end;
    }
  }
  void after_fua(Range range) {
    for (uint64_t grain = range.at / kGrainBytes; grain * kGrainBytes < range.end(); ++grain) {
      undo_.erase(grain);
    }
  }
  // `partly`: grains at the ends that are only touched change, too.
  void mark(Range range, Extent kind, bool partly) {
    for (uint64_t grain = range.at / kGrainBytes; grain * kGrainBytes < range.end(); ++grain) {
      const Range whole{grain * kGrainBytes, kGrainBytes};
      const bool covered =
          whole.at >= range.at && (whole.end() <= range.end() || range.end() == bytes_);
      if (covered || partly) kinds_[grain] = kind;
    }
  }

  Settings settings_;
  uint64_t bytes_;
  std::unique_ptr<std::byte, Free> room_;
  std::vector<Extent> kinds_;
  std::vector<Call> calls_;
  std::array<size_t, kVerbs> counts_{};
  std::array<std::optional<Errc>, kVerbs> failing_{};
  std::map<uint64_t, Errc> bad_;
  std::map<uint64_t, std::vector<std::byte>> undo_;  // Grains as they are on the medium.
  bool fenced_ = false;
  bool held_ = false;
  size_t waiting_ = 0;
  WaitList gate_;
};

}  // namespace firn::serve
