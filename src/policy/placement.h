// SPDX-License-Identifier: Apache-2.0
// Where an overwrite goes: in place, or appended to the open block with the old grain freed. Random
// small writes at depth are several times faster appended, but scatter what was sequential, need
// READY blocks and have to be cleaned up after. Ours. It decides for a whole look (a batch, a
// turn), from counters; what is appended, and what is cleaned, others decide.
//
//  L1  Never append with fewer than `ready_min` READY blocks, in any mode.
//  L2  Adaptive: append begins when every input is on the good side of its `begin` mark, looked at
//      with a running mean of depth and sequential share, and ends when one is beyond its `end`
//      mark.
//  L3  Between the marks the choice stays; between two changes lie at least `dwell` looks, but for
//      L1. The first `dwell` looks only watch.
//  L4  A guest of depth 1, and one that writes sequentially, is served in place once `dwell` looks
//      and the means have passed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

namespace firn::policy {

class Placement {
 public:
  enum class Mode : uint8_t { in_place, append, adaptive };
  // As people write it: "in-place", "append", "adaptive". Nothing when it is none of them.
  static std::optional<Mode> mode_of(std::string_view text) {
    if (text == "in-place") return Mode::in_place;
    if (text == "append") return Mode::append;
    if (text == "adaptive") return Mode::adaptive;
    return std::nullopt;
  }
  enum class Choice : uint8_t { in_place, append };
  // What decided last.
  enum class Reason : uint8_t { mode, good, space, depth, sequential, fragmentation, cost };

  struct Marks {
    uint32_t begin = 0, end = 0;
  };
  struct Limits {
    Mode mode = Mode::in_place;
    uint64_t ready_min = 16;                 // Storage blocks.
    Marks ready = {64, 32};                  // At least.
    Marks depth = {16, 8};                   // Writes in flight, at least.
    Marks sequential_permille = {250, 500};  // At most; so are those that follow.
    Marks fragmentation_permille = {300, 500};
    Marks amplification_permille = {1500, 2000};
    uint32_t dwell = 64;  // Looks.
  };
  struct Inputs {
    uint32_t depth = 0;                // Writes in flight now.
    uint32_t sequential_permille = 0;  // Of recent writes, those that continue another.
    uint64_t ready_blocks = 0;         // Storage blocks that can be filled at once.
    uint32_t fragmentation_permille =
        0;  // Of mapped neighbours, those that are not adjacent below.
    uint32_t amplification_permille = 1000;  // Bytes written below for 1,000 written by guests.
  };

  explicit Placement(Limits limits) : limits_(limits) {}
  void set_mode(Mode mode) { limits_.mode = mode; }

  Choice look(const Inputs& now) {
    // Running means, in sixteenths: one idle moment of a deep guest is none.
    depth_ += std::min(now.depth, kDepthMax) - depth_ / 16;
    sequential_ += std::min(now.sequential_permille, 1000U) - sequential_ / 16;
    since_change_ = std::min(since_change_ + 1, limits_.dwell);
    if (now.ready_blocks < limits_.ready_min) return change(Choice::in_place, Reason::space);
    if (limits_.mode == Mode::in_place) return change(Choice::in_place, Reason::mode);
    if (limits_.mode == Mode::append) return change(Choice::append, Reason::mode);
    if (since_change_ < limits_.dwell) return choice_;
    const Reason reason = judge(now);
    return change(reason == Reason::good ? Choice::append : Choice::in_place, reason);
  }
  Choice choice() const { return choice_; }
  Reason reason() const { return reason_; }
  uint64_t changes() const { return changes_; }

 private:
  static constexpr uint32_t kDepthMax = 1 << 20;

  // What speaks against appending, by the marks of what is done now.
  Reason judge(const Inputs& now) const {
    const bool ends = choice_ == Choice::append;
    const auto mark = [&](Marks marks) { return ends ? marks.end : marks.begin; };
    if (now.ready_blocks < mark(limits_.ready)) return Reason::space;
    if (depth_ / 16 < mark(limits_.depth)) return Reason::depth;
    if (sequential_ / 16 > mark(limits_.sequential_permille)) return Reason::sequential;
    if (now.fragmentation_permille > mark(limits_.fragmentation_permille)) {
      return Reason::fragmentation;
    }
    if (now.amplification_permille > mark(limits_.amplification_permille)) return Reason::cost;
    return Reason::good;
  }
  Choice change(Choice choice, Reason reason) {
    reason_ = reason;
    if (choice != choice_) {
      choice_ = choice;
      since_change_ = 0;
      ++changes_;
    }
    return choice_;
  }

  Limits limits_;
  Choice choice_ = Choice::in_place;
  Reason reason_ = Reason::mode;
  uint32_t depth_ = 0, sequential_ = 0;
  uint32_t since_change_ = 0;
  uint64_t changes_ = 0;
};

}  // namespace firn::policy
