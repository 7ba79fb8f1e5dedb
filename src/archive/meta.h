// SPDX-License-Identifier: Apache-2.0
// The metadata of an archive: rows of the tree in the bucket, with a stage in front of it in which
// one atomic batch gathers.
//
//  M1  Reads see what is staged. Nobody else does before apply(), which makes it one batch.
//  M2  Only publish() makes it durable, and visible to others.
//  M3  Rows that were read are kept, with their neighbours: nobody else writes them (Archive A3),
//      and who looks at one row looks at the next one soon. At most 8 MiB, besides what is staged.
//  M4  Any number of fibers may read; while they do, one may stage, and none apply.
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
  // Whether it is time to apply(): batches are bounded.
  bool full() const { return staged_ >= kRowsMax || staged_bytes_ >= kBytesMax; }
  Result<void> apply(Io& io);
  // Drops what is staged, and what is known.
  void forget();
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
  static constexpr size_t kPageRows = 64;
  static constexpr size_t kKnownBytesMax = 8 * kMiB;

  struct Entry {
    std::optional<std::string> value;  // Nothing: there is no such row.
    bool staged = false;
  };
  void stage(std::string key, std::optional<std::string> value);
  void learn(std::string_view key, std::optional<std::string> value);
  // The end of the known stretch that `key` lies in; nothing: it lies in none.
  const std::string* known_until(std::string_view key) const;
  Result<void> read_page(Io& io, std::string_view from, std::string_view to);
  void trim();

  std::unique_ptr<store::Lsm> lsm_;
  std::map<std::string, Entry, std::less<>> entries_;
  // Stretches [key, value) of which entries_ has every row.
  std::map<std::string, std::string, std::less<>> known_;
  size_t known_bytes_ = 0;
  size_t staged_ = 0;
  size_t staged_bytes_ = 0;
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
