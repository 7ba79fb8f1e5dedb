// SPDX-License-Identifier: Apache-2.0
// The metadata of an archive: rows of the tree in the bucket, with a stage in front of it in which
// one atomic batch gathers.
//
//  M1  Reads see what is staged. Nobody else does before apply(), which makes it one batch.
//  M2  Only publish() makes it durable, and visible to others.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "io/io.h"
#include "store/lsm.h"

namespace firn::archive {

class Meta {
 public:
  explicit Meta(std::unique_ptr<store::Lsm> lsm) : lsm_(std::move(lsm)) {}
  Meta(const Meta&) = delete;
  Meta& operator=(const Meta&) = delete;

  struct Row {
    std::string key;
    std::string value;
  };
  Result<std::optional<std::string>> get(Io& io, std::string_view key);
  // The first row in [from, to).
  Result<std::optional<Row>> first(Io& io, std::string_view from, std::string_view to);
  void put(std::string key, std::string value);
  void remove(std::string key);
  bool staged() const { return !stage_.empty(); }
  // Whether it is time to apply(): batches are bounded.
  bool full() const { return stage_.size() >= kRowsMax || stage_bytes_ >= kBytesMax; }
  Result<void> apply(Io& io);
  void forget() {
    stage_.clear();
    stage_bytes_ = 0;
  }
  Result<void> publish(Io& io);

  // A walk over what was applied, not over what is staged.
  using Cursor = store::Lsm::Cursor;
  Result<std::unique_ptr<Cursor>> scan(Io& io, std::string_view from, std::string_view to) {
    return lsm_->scan(io, from, to);
  }
  store::Lsm& lsm() { return *lsm_; }
  Result<void> close(Io& io) { return lsm_->close(io); }
  uint64_t reads() const { return reads_; }

 private:
  static constexpr size_t kRowsMax = 10'000;
  static constexpr size_t kBytesMax = 4 * kMiB;

  std::unique_ptr<store::Lsm> lsm_;
  std::map<std::string, std::optional<std::string>, std::less<>> stage_;
  size_t stage_bytes_ = 0;
  uint64_t reads_ = 0;
};

// A row decoded, or the error of its decoder.
template <class Decode>
auto read_row(Io& io, Meta& meta, std::string_view key, Decode&& decode)
    -> Result<std::optional<typename decltype(decode(std::string_view()))::value_type>> {
  using Row = typename decltype(decode(std::string_view()))::value_type;
  const std::optional<std::string> bytes = TRY(meta.get(io, key));
  if (!bytes.has_value()) return std::optional<Row>();
  return std::optional<Row>(TRY(decode(std::string_view(*bytes))));
}

}  // namespace firn::archive
