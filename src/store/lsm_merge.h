// SPDX-License-Identifier: Apache-2.0
// Many sorted sources as one: of entries with the same key the newest source's is given.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "format/lsm_table.h"
#include "io/io.h"

namespace firn::store {

// Entries in strictly ascending order of keys.
class LsmSource {
 public:
  virtual ~LsmSource() = default;
  virtual Result<bool> next(Io& io) = 0;  // False behind the last one.
  virtual format::LsmEntry entry() const = 0;
};

class LsmMerge {
 public:
  explicit LsmMerge(std::vector<std::unique_ptr<LsmSource>> newest_first) {
    for (auto& source : newest_first) heads_.push_back({std::move(source)});
  }
  // Removals are given, too.
  Result<bool> next(Io& io) {
    for (Head& head : heads_) {
      if (!head.taken) continue;
      head.taken = false;
      head.there = TRY(head.source->next(io));
      if (head.there) head.key = head.source->entry().key;
    }
    winner_ = nullptr;
    for (Head& head : heads_) {
      if (head.there && (winner_ == nullptr || head.key < winner_->key)) winner_ = &head;
    }
    if (winner_ == nullptr) return false;
    for (Head& head : heads_) head.taken = head.there && head.key == winner_->key;
    return true;
  }
  // Until the next call.
  format::LsmEntry entry() const { return winner_->source->entry(); }

 private:
  struct Head {
    std::unique_ptr<LsmSource> source;
    bool taken = true;  // Its entry was given, or is older than one that was.
    bool there = false;
    std::string_view key{};
  };
  std::vector<Head> heads_;
  Head* winner_ = nullptr;
};

}  // namespace firn::store
