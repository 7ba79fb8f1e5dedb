// SPDX-License-Identifier: Apache-2.0
#include "archive/meta.h"

namespace firn::archive {

Result<std::optional<std::string>> Meta::get(Io& io, std::string_view key) {
  const auto staged = stage_.find(key);
  if (staged != stage_.end()) return staged->second;
  ++reads_;
  return lsm_->get(io, key);
}

Result<std::optional<Meta::Row>> Meta::first(Io& io, std::string_view from, std::string_view to) {
  auto staged = stage_.lower_bound(from);
  while (staged != stage_.end() && !staged->second.has_value()) ++staged;
  const bool has_staged = staged != stage_.end() && (to.empty() || staged->first < to);
  // Nothing behind the staged row matters.
  const std::string end(has_staged ? std::string_view(staged->first) : to);
  ++reads_;
  if (!has_staged || from < end) {
    const std::unique_ptr<Cursor> cursor = TRY(lsm_->scan(io, from, end));
    while (TRY(cursor->next(io))) {
      if (stage_.contains(cursor->key())) continue;  // Removed in the stage.
      return std::optional<Row>(Row{std::string(cursor->key()), std::string(cursor->value())});
    }
  }
  if (!has_staged) return std::optional<Row>();
  return std::optional<Row>(Row{staged->first, *staged->second});
}

void Meta::put(std::string key, std::string value) {
  stage_bytes_ += key.size() + value.size();
  stage_.insert_or_assign(std::move(key), std::move(value));
}

void Meta::remove(std::string key) {
  stage_bytes_ += key.size();
  stage_.insert_or_assign(std::move(key), std::nullopt);
}

Result<void> Meta::apply(Io& io) {
  if (stage_.empty()) return ok;
  store::LsmBatch batch;
  for (const auto& [key, value] : stage_) {
    if (value.has_value()) {
      batch.put(std::string_view(key), std::string_view(*value));
    } else {
      batch.remove(std::string_view(key));
    }
  }
  TRY(lsm_->write(io, std::move(batch)));
  stage_.clear();
  stage_bytes_ = 0;
  return ok;
}

Result<void> Meta::publish(Io& io) {
  TRY(apply(io));
  TRY(lsm_->transfer(io));
  return ok;
}

}  // namespace firn::archive
