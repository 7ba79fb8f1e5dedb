// SPDX-License-Identifier: Apache-2.0
#include "engine/settings.h"

#include <charconv>
#include <optional>

#include "base/check.h"
#include "wire/text.h"

namespace firn::engine {
namespace {

constexpr SettingRow kRows[] = {
#define FIRN_SETTING(key, type, unit, min, max, initial, sentence) \
  {key, SettingType::type, unit, min, max, initial, sentence},
#include "engine/settings.def"
#undef FIRN_SETTING
};

const SettingRow* find_row(std::string_view key) {
  for (const SettingRow& row : kRows) {
    if (row.key == key) return &row;
  }
  return nullptr;
}

std::string list_of_keys() {
  std::string list;
  for (const SettingRow& row : kRows)
    list += fmt::format("{}{}", list.empty() ? "" : ", ", row.key);
  return list;
}

Result<std::string> check_text(const SettingRow& row, std::string_view value) {
  if (value.size() < row.min || value.size() > row.max) {
    return fail(Errc::invalid, "setting {}: {} bytes are given, {} to {} are allowed", row.key,
                value.size(), row.min, row.max);
  }
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ' || byte == 0x7f) {
      return fail(Errc::invalid, "setting {}: \"{}\" holds a control character", row.key,
                  wire::printable(value));
    }
  }
  return std::string(value);
}

std::optional<uint64_t> parse_count(const SettingRow& row, std::string_view value) {
  uint64_t count = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), count);
  if (error != std::errc() || end != value.data() + value.size()) return std::nullopt;
  if (count < row.min || count > row.max) return std::nullopt;
  return count;
}

Result<std::string> check_count(const SettingRow& row, std::string_view value) {
  const std::optional<uint64_t> count = parse_count(row, value);
  if (count.has_value()) return fmt::format("{}", *count);
  return fail(Errc::invalid, "setting {}: \"{}\" is no number from {} to {}", row.key,
              wire::printable(value), row.min, row.max);
}

}  // namespace

std::span<const SettingRow> all_settings() { return kRows; }

Result<std::string> check_setting(std::string_view key, std::string_view value) {
  const SettingRow* row = find_row(key);
  if (row == nullptr) {
    return fail(Errc::invalid, "there is no setting \"{}\"; there are {}", wire::printable(key),
                list_of_keys());
  }
  if (value.empty()) return std::string();
  if (row->type == SettingType::text) return check_text(*row, value);
  if (row->type == SettingType::count) return check_count(*row, value);
  const Result<bool> flag = wire::parse_switch(value);
  if (!flag) {
    return fail(Errc::invalid, "setting {}: \"{}\" is neither on nor off", key,
                wire::printable(value));
  }
  return std::string(*flag ? "on" : "off");
}

std::string text_setting(const Settings& settings, std::string_view key) {
  const SettingRow* row = find_row(key);
  CHECK(row != nullptr && row->type == SettingType::text, "{}", key);
  const auto found = settings.find(std::string(key));
  return found == settings.end() ? std::string(row->initial) : found->second;
}

bool flag_setting(const Settings& settings, std::string_view key) {
  const SettingRow* row = find_row(key);
  CHECK(row != nullptr && row->type == SettingType::flag, "{}", key);
  const auto found = settings.find(std::string(key));
  if (found != settings.end()) {
    const Result<bool> flag = wire::parse_switch(found->second);
    if (flag) return *flag;
  }
  return row->initial == "on";
}

uint64_t count_setting(const Settings& settings, std::string_view key) {
  const SettingRow* row = find_row(key);
  CHECK(row != nullptr && row->type == SettingType::count, "{}", key);
  const auto found = settings.find(std::string(key));
  if (found != settings.end()) {
    const std::optional<uint64_t> count = parse_count(*row, found->second);
    if (count.has_value()) return *count;
  }
  return *parse_count(*row, row->initial);
}

std::string describe_settings() {
  std::string text;
  for (const SettingRow& row : kRows) {
    text += fmt::format("  {:<14}{}{}\n", row.key, row.sentence,
                        row.initial.empty() ? "" : fmt::format(" Default: {}.", row.initial));
  }
  return text;
}

}  // namespace firn::engine
