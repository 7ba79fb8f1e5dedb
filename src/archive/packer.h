// SPDX-License-Identifier: Apache-2.0
// Packing and unpacking of groups: compression, sealing, checksum. CPU only, for helper threads;
// one thread at a time uses a packer.
#pragma once

#include <memory>
#include <vector>

#include "archive/secrets.h"
#include "format/segment.h"

namespace firn::archive {

class Packer {
 public:
  explicit Packer(int level);
  ~Packer();
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;

  // Appends the stored form to `to` and says what it is.
  format::GroupEntry pack(const Seal& seal, uint32_t number, View plain,
                          std::vector<std::byte>& to);
  // Room for whoever packs; what is in it means nothing later.
  std::vector<std::byte>& scratch();
  // Fills `to`, whose size is the plain one. Errc::corrupt for what is not what was packed.
  Result<void> unpack(const Seal& seal, uint32_t number, const format::GroupEntry& entry,
                      View stored, Bytes to);

 private:
  struct State;
  std::unique_ptr<State> state_;
  int level_;
};

// Packers for whoever needs one: as many as are used at the same time, made when first needed. And
// rooms of one size for what goes in and what comes out: memory that is used again costs no page
// faults, and leaves no holes between allocations of all sizes.
class PackerPool {
 public:
  explicit PackerPool(int level) : level_(level) {}
  class Use {
   public:
    Use(PackerPool& pool, std::unique_ptr<Packer> packer)
        : pool_(pool), packer_(std::move(packer)) {}
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    ~Use() { pool_.idle_.push_back(std::move(packer_)); }
    Packer* operator->() const { return packer_.get(); }
    Packer& operator*() const { return *packer_; }

   private:
    PackerPool& pool_;
    std::unique_ptr<Packer> packer_;
  };
  Use take() {
    if (idle_.empty()) return {*this, std::make_unique<Packer>(level_)};
    std::unique_ptr<Packer> packer = std::move(idle_.back());
    idle_.pop_back();
    return {*this, std::move(packer)};
  }
  // An empty vector with a capacity of kRoomBytes.
  std::vector<std::byte> take_room() {
    std::vector<std::byte> room;
    if (rooms_.empty()) {
      room.reserve(kRoomBytes);
    } else {
      room = std::move(rooms_.back());
      rooms_.pop_back();
    }
    return room;
  }
  void give_room(std::vector<std::byte> room) {
    room.clear();
    rooms_.push_back(std::move(room));
  }
  static constexpr size_t kRoomBytes = 512 * kKiB;

 private:
  int level_;
  std::vector<std::unique_ptr<Packer>> idle_;
  std::vector<std::vector<std::byte>> rooms_;
};

}  // namespace firn::archive
