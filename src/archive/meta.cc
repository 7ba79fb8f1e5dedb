// SPDX-License-Identifier: Apache-2.0
#include "archive/meta.h"

#include <algorithm>

namespace firn::archive {

const std::string* Meta::known_until(std::string_view key) const {
  auto stretch = known_.upper_bound(key);
  if (stretch == known_.begin()) return nullptr;
  --stretch;
  return key < stretch->second ? &stretch->second : nullptr;
}

// What is staged, or known already, counts.
void Meta::learn(std::string_view key, std::optional<std::string> value) {
  const auto found = entries_.find(key);
  if (found != entries_.end()) return;
  known_bytes_ += key.size() + (value.has_value() ? value->size() : 0);
  entries_.emplace(std::string(key), Entry{std::move(value), false});
}

void Meta::trim() {
  if (known_bytes_ < kKnownBytesMax) return;
  known_.clear();
  std::erase_if(entries_, [](const auto& entry) { return !entry.second.staged; });
  known_bytes_ = 0;
}

Result<void> Meta::read_page(Io& io, std::string_view from, std::string_view to) {
  trim();
  ++reads_;
  const std::unique_ptr<Cursor> cursor = TRY(lsm_->scan(io, from, to));
  std::string end(to);
  // Learned all at once: others trim while this waits.
  std::vector<Row> rows;
  while (rows.size() < kPageRows && TRY(cursor->next(io))) {
    rows.push_back({std::string(cursor->key()), std::string(cursor->value())});
  }
  if (rows.size() == kPageRows) end = rows.back().key + '\0';
  for (Row& row : rows) learn(row.key, std::move(row.value));
  std::string& known = known_[std::string(from)];
  known = std::max(known, end);
  return ok;
}

Result<std::optional<std::string>> Meta::get(Io& io, std::string_view key) {
  const auto found = entries_.find(key);
  if (found != entries_.end()) return found->second.value;
  if (known_until(key) != nullptr) return std::optional<std::string>();
  trim();
  ++reads_;
  std::optional<std::string> value = TRY(lsm_->get(io, key));
  learn(key, value);
  return value;
}

Result<std::optional<Meta::Row>> Meta::first(Io& io, std::string_view from, std::string_view to) {
  std::string at(from);
  while (at < to) {
    const std::string* const known = known_until(at);
    if (known == nullptr) {
      TRY(read_page(io, at, to));
      continue;
    }
    const std::string end = std::min(*known, std::string(to));
    for (auto entry = entries_.lower_bound(at); entry != entries_.end() && entry->first < end;
         ++entry) {
      if (!entry->second.value.has_value()) continue;
      return std::optional<Row>(Row{entry->first, *entry->second.value});
    }
    at = end;
  }
  return std::optional<Row>();
}

void Meta::stage(std::string key, std::optional<std::string> value) {
  staged_bytes_ += key.size() + (value.has_value() ? value->size() : 0);
  Entry& entry = entries_[std::move(key)];
  if (!entry.staged) ++staged_;
  entry = {std::move(value), true};
}
void Meta::put(std::string key, std::string value) { stage(std::move(key), std::move(value)); }
void Meta::remove(std::string key) { stage(std::move(key), std::nullopt); }

void Meta::forget() {
  entries_.clear();
  known_.clear();
  known_bytes_ = staged_ = staged_bytes_ = 0;
}

Result<void> Meta::apply(Io& io) {
  if (staged_ == 0) return ok;
  store::LsmBatch batch;
  for (const auto& [key, entry] : entries_) {
    if (!entry.staged) continue;
    if (entry.value.has_value()) {
      batch.put(std::string_view(key), std::string_view(*entry.value));
    } else {
      batch.remove(std::string_view(key));
    }
  }
  TRY(lsm_->write(io, std::move(batch)));
  for (auto& [key, entry] : entries_) entry.staged = false;
  known_bytes_ += staged_bytes_;
  staged_ = staged_bytes_ = 0;
  trim();
  return ok;
}

Result<void> Meta::publish(Io& io) {
  TRY(apply(io));
  TRY(lsm_->transfer(io));
  return ok;
}

}  // namespace firn::archive
