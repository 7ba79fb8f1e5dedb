// SPDX-License-Identifier: Apache-2.0
// DriverRing: the driver's side of a ring, split or packed, over memory that this process has made:
// for who has no guest: libfirn, and tests.
//
// Contract:
//  - Memory begins at guest address kGuestBase; all of the ring lies in the part it is given.
//  - Indirect tables have kTableParts descriptors at most.
//  - A device that gives back what it does not have makes broken() true, and nothing more is taken.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/shared.h"
#include "base/units.h"
#include "wire/virtio.h"

namespace firn {

class DriverRing {
 public:
  static constexpr uint64_t kGuestBase = 0x40000000;  // As a guest has memory: not at 0.
  static constexpr uint64_t kUserBase = 0x7f0000000000;
  static constexpr size_t kTableParts = 16;

  struct Shape {
    uint16_t size = 128;
    bool packed = false;
    bool event_index = true;
    bool indirect = true;
  };
  struct Part {
    uint64_t guest = 0;
    uint32_t length = 0;
    bool writable = false;
  };
  struct Done {
    uint16_t token = 0;
    uint32_t written = 0;
  };

  static std::unique_ptr<DriverRing> make(const Shape& shape, std::byte* memory, uint64_t offset);
  static uint64_t bytes(const Shape& shape) {
    return 64 * kKiB + size_t{shape.size} * (64 + kTableParts * 16);
  }
  virtual ~DriverRing() = default;

  // False when there is no room. `token` comes back with the answer; below Shape::size.
  virtual bool add(std::span<const Part> parts, uint16_t token) = 0;
  // Makes visible what was added; whether the device wants a kick.
  virtual bool publish() = 0;
  virtual std::optional<Done> take() = 0;
  // Whether take() has something. One load.
  virtual bool has_done() const = 0;
  // Asks to be signalled; true when something is there already.
  virtual bool arm() = 0;
  virtual void disarm() = 0;

  const Shape& shape() const { return shape_; }
  bool broken() const { return broken_; }
  // Of the used ring, when split: where a device that knows nothing else would go on.
  uint16_t used_index() const {
    return load_acquire<uint16_t>(used_here() + wire::virtio::kRingIndex);
  }
  // What SET_VRING_ADDR wants.
  uint64_t descriptors() const { return kUserBase + descriptors_; }
  uint64_t available() const { return kUserBase + available_; }
  uint64_t used() const { return kUserBase + used_; }
  std::byte* descriptors_here() const { return memory_ + descriptors_; }
  std::byte* available_here() const { return memory_ + available_; }
  std::byte* used_here() const { return memory_ + used_; }

 protected:
  DriverRing(const Shape& shape, std::byte* memory, uint64_t offset)
      : shape_(shape),
        memory_(memory),
        descriptors_(round_up(offset, 4096)),
        available_(round_up(descriptors_ + 16 * shape.size, 64)),
        used_(round_up(available_ + wire::virtio::available_bytes(shape.size), 64)),
        tables_(round_up(used_ + wire::virtio::used_bytes(shape.size), 64)) {}

  uint64_t table_of(uint16_t token) const { return tables_ + size_t{token} * kTableParts * 16; }
  static void put(std::byte* at, const Part& part, uint16_t third, uint16_t fourth) {
    store_relaxed<uint64_t>(at, part.guest);
    store_relaxed<uint32_t>(at + 8, part.length);
    store_relaxed<uint16_t>(at + 12, third);
    store_relaxed<uint16_t>(at + 14, fourth);
  }

  Shape shape_;
  std::byte* memory_;
  uint64_t descriptors_, available_, used_, tables_;
  bool broken_ = false;
};

class SplitDriver final : public DriverRing {
 public:
  SplitDriver(const Shape& shape, std::byte* memory, uint64_t offset)
      : DriverRing(shape, memory, offset), next_(shape.size), tokens_(shape.size) {
    for (uint16_t i = 0; i < shape.size; ++i) next_[i] = static_cast<uint16_t>(i + 1);
  }

  bool add(std::span<const Part> parts, uint16_t token) override {
    const bool indirect = shape_.indirect && parts.size() > 1 && parts.size() <= kTableParts;
    const size_t wanted = indirect ? 1 : parts.size();
    if (held_ + wanted > shape_.size) return false;
    const uint16_t head = free_;
    if (indirect) {
      write_table(parts, token);
      const Part whole{kGuestBase + table_of(token), static_cast<uint32_t>(parts.size() * 16),
                       false};
      put(slot(head), whole, wire::virtio::kIndirectTable, 0);
      free_ = next_[head];
    } else {
      for (size_t i = 0; i < parts.size(); ++i) {
        const bool more = i + 1 < parts.size();
        put(slot(free_), parts[i], flags_of(parts[i], more), more ? next_[free_] : uint16_t{0});
        free_ = next_[free_];
      }
    }
    held_ = static_cast<uint16_t>(held_ + wanted);
    tokens_[head] = {token, static_cast<uint16_t>(wanted)};
    store_relaxed<uint16_t>(available_here() + 4 + 2 * (offered_ & (shape_.size - 1)), head);
    ++offered_;
    return true;
  }

  bool publish() override {
    const uint16_t before = published_;
    store_release<uint16_t>(available_here() + wire::virtio::kRingIndex, offered_);
    published_ = offered_;
    full_fence();
    if (before == published_) return false;
    if (!shape_.event_index) {
      return (load_relaxed<uint16_t>(used_here()) & wire::virtio::kNoNotify) == 0;
    }
    const auto at = wire::virtio::available_event_at(shape_.size);
    return wire::virtio::passed(load_relaxed<uint16_t>(used_here() + at), published_, before);
  }

  bool has_done() const override { return used_index() != taken_; }
  std::optional<Done> take() override {
    if (load_acquire<uint16_t>(used_here() + wire::virtio::kRingIndex) == taken_) return {};
    const size_t at =
        wire::virtio::kRingEntries + wire::virtio::kUsedBytes * (taken_ & (shape_.size - 1));
    const auto head = load_relaxed<uint32_t>(used_here() + at);
    const auto written = load_relaxed<uint32_t>(used_here() + at + 4);
    broken_ = broken_ || head >= shape_.size || tokens_[head].places == 0;
    if (broken_) return {};
    ++taken_;
    auto last = static_cast<uint16_t>(head);
    for (uint16_t i = 1; i < tokens_[head].places; ++i) last = next_[last];
    next_[last] = free_;
    free_ = static_cast<uint16_t>(head);
    held_ = static_cast<uint16_t>(held_ - tokens_[head].places);
    tokens_[head].places = 0;
    return Done{tokens_[head].token, written};
  }

  bool arm() override {
    if (shape_.event_index) {
      store_relaxed<uint16_t>(available_here() + wire::virtio::used_event_at(shape_.size), taken_);
    } else {
      store_relaxed<uint16_t>(available_here(), 0);
    }
    full_fence();
    return load_acquire<uint16_t>(used_here() + wire::virtio::kRingIndex) != taken_;
  }
  void disarm() override {
    if (!shape_.event_index) store_relaxed<uint16_t>(available_here(), wire::virtio::kNoInterrupt);
  }

 private:
  struct Token {
    uint16_t token = 0;
    uint16_t places = 0;
  };
  std::byte* slot(uint16_t index) const { return descriptors_here() + 16 * index; }
  static uint16_t flags_of(const Part& part, bool more) {
    return static_cast<uint16_t>((part.writable ? wire::virtio::kWrite : 0) |
                                 (more ? wire::virtio::kNext : 0));
  }
  void write_table(std::span<const Part> parts, uint16_t token) {
    std::byte* at = memory_ + table_of(token);
    for (size_t i = 0; i < parts.size(); ++i, at += 16) {
      const bool more = i + 1 < parts.size();
      put(at, parts[i], flags_of(parts[i], more), static_cast<uint16_t>(more ? i + 1 : 0));
    }
  }

  std::vector<uint16_t> next_;
  std::vector<Token> tokens_;
  uint16_t free_ = 0;
  uint16_t held_ = 0;
  uint16_t offered_ = 0;
  uint16_t published_ = 0;
  uint16_t taken_ = 0;
};

class PackedDriver final : public DriverRing {
 public:
  PackedDriver(const Shape& shape, std::byte* memory, uint64_t offset)
      : DriverRing(shape, memory, offset), tokens_(shape.size) {
    for (uint16_t i = shape.size; i-- > 0;) free_ids_.push_back(i);
  }

  bool add(std::span<const Part> parts, uint16_t token) override {
    const bool indirect = shape_.indirect && parts.size() > 1 && parts.size() <= kTableParts;
    const auto wanted = static_cast<uint16_t>(indirect ? 1 : parts.size());
    if (free_ids_.empty() || held_ + wanted > shape_.size) return false;
    const uint16_t id = free_ids_.back();
    free_ids_.pop_back();
    tokens_[id] = {token, wanted};
    held_ = static_cast<uint16_t>(held_ + wanted);
    if (indirect) {
      write_table(parts, token);
      const Part whole{kGuestBase + table_of(token), static_cast<uint32_t>(parts.size() * 16),
                       false};
      place(whole, id, wire::virtio::kIndirectTable);
    } else {
      for (size_t i = 0; i < parts.size(); ++i) {
        place(parts[i], id,
              static_cast<uint16_t>((parts[i].writable ? wire::virtio::kWrite : 0) |
                                    (i + 1 < parts.size() ? wire::virtio::kNext : 0)));
      }
    }
    return true;
  }

  bool publish() override {
    if (first_ == nullptr) return false;
    const uint16_t moved = std::exchange(moved_, uint16_t{0});
    store_release<uint16_t>(std::exchange(first_, nullptr) + 14, first_flags_);
    full_fence();
    const auto how = load_acquire<uint16_t>(used_here() + wire::virtio::kEventFlags);
    if (how == static_cast<uint16_t>(wire::virtio::EventFlags::disable)) return false;
    if (how != static_cast<uint16_t>(wire::virtio::EventFlags::at_index)) return true;
    const auto wanted = load_relaxed<uint16_t>(used_here() + wire::virtio::kEventOffset);
    const bool same_lap = ((wanted & wire::virtio::kWrapBit) != 0) == wrap_;
    const auto event = static_cast<uint16_t>((wanted & 0x7fff) - (same_lap ? 0 : shape_.size));
    return wire::virtio::passed(event, next_, static_cast<uint16_t>(next_ - moved));
  }

  bool has_done() const override { return is_used(); }
  std::optional<Done> take() override {
    if (!is_used()) return {};
    const std::byte* const at = slot(taken_);
    const auto id = load_relaxed<uint16_t>(at + 12);
    const auto written = load_relaxed<uint32_t>(at + 8);
    broken_ = broken_ || id >= shape_.size || tokens_[id].places == 0;
    if (broken_) return {};
    const Token token = tokens_[id];
    tokens_[id].places = 0;
    free_ids_.push_back(id);
    held_ = static_cast<uint16_t>(held_ - token.places);
    taken_ = static_cast<uint16_t>(taken_ + token.places);
    if (taken_ >= shape_.size) {
      taken_ = static_cast<uint16_t>(taken_ - shape_.size);
      taken_wrap_ = !taken_wrap_;
    }
    return Done{token.token, written};
  }

  bool arm() override {
    using wire::virtio::EventFlags;
    if (shape_.event_index) {
      store_relaxed<uint16_t>(
          available_here() + wire::virtio::kEventOffset,
          static_cast<uint16_t>(taken_ | (taken_wrap_ ? wire::virtio::kWrapBit : 0)));
    }
    const auto how = shape_.event_index ? EventFlags::at_index : EventFlags::enable;
    store_release<uint16_t>(available_here() + wire::virtio::kEventFlags,
                            static_cast<uint16_t>(how));
    full_fence();
    return is_used();
  }
  void disarm() override {
    store_relaxed<uint16_t>(available_here() + wire::virtio::kEventFlags,
                            static_cast<uint16_t>(wire::virtio::EventFlags::disable));
  }

 private:
  struct Token {
    uint16_t token = 0;
    uint16_t places = 0;
  };
  std::byte* slot(uint16_t index) const { return descriptors_here() + 16 * index; }
  bool is_used() const {
    const auto flags = load_acquire<uint16_t>(slot(taken_) + 14);
    const bool available = (flags & wire::virtio::kPackedAvailable) != 0;
    const bool used = (flags & wire::virtio::kPackedUsed) != 0;
    return available == taken_wrap_ && used == taken_wrap_;
  }
  void place(const Part& part, uint16_t id, uint16_t flags) {
    flags = static_cast<uint16_t>(
        flags | (wrap_ ? wire::virtio::kPackedAvailable : wire::virtio::kPackedUsed));
    std::byte* const at = slot(next_);
    store_relaxed<uint64_t>(at, part.guest);
    store_relaxed<uint32_t>(at + 8, part.length);
    store_relaxed<uint16_t>(at + 12, id);
    if (first_ == nullptr) {
      first_ = at;
      first_flags_ = flags;
    } else {
      store_release<uint16_t>(at + 14, flags);
    }
    ++moved_;
    if (++next_ == shape_.size) {
      next_ = 0;
      wrap_ = !wrap_;
    }
  }
  void write_table(std::span<const Part> parts, uint16_t token) {
    std::byte* at = memory_ + table_of(token);
    for (const Part& part : parts) {
      put(at, part, 0, part.writable ? wire::virtio::kWrite : uint16_t{0});
      at += 16;
    }
  }

  std::vector<Token> tokens_;
  std::vector<uint16_t> free_ids_;
  uint16_t held_ = 0;
  uint16_t next_ = 0;
  bool wrap_ = true;
  uint16_t moved_ = 0;
  uint16_t taken_ = 0;
  bool taken_wrap_ = true;
  std::byte* first_ = nullptr;
  uint16_t first_flags_ = 0;
};

inline std::unique_ptr<DriverRing> DriverRing::make(const Shape& shape, std::byte* memory,
                                                    uint64_t offset) {
  if (shape.packed) return std::make_unique<PackedDriver>(shape, memory, offset);
  return std::make_unique<SplitDriver>(shape, memory, offset);
}

}  // namespace firn
