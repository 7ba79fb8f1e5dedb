// SPDX-License-Identifier: Apache-2.0
#include "engine/settings.h"

#include <algorithm>
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

std::optional<uint64_t> parse_count(std::string_view value) {
  uint64_t count = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), count);
  if (error != std::errc() || end != value.data() + value.size()) return std::nullopt;
  return count;
}

// "2", "0.25": milliseconds.
std::optional<uint64_t> parse_seconds(std::string_view value) {
  const size_t point = value.find('.');
  const std::optional<uint64_t> whole = parse_count(value.substr(0, point));
  if (!whole || *whole > UINT32_MAX) return std::nullopt;
  if (point == std::string_view::npos) return *whole * 1000;
  std::string digits(value.substr(point + 1));
  if (digits.empty() || digits.size() > 3) return std::nullopt;
  digits.resize(3, '0');
  const std::optional<uint64_t> part = parse_count(digits);
  if (!part) return std::nullopt;
  return *whole * 1000 + *part;
}

std::optional<uint64_t> parse_number(const SettingRow& row, std::string_view value) {
  std::optional<uint64_t> number;
  if (row.type == SettingType::size) {
    if (const Result<uint64_t> bytes = wire::parse_size(value)) number = *bytes;
  } else {
    number = row.type == SettingType::seconds ? parse_seconds(value) : parse_count(value);
  }
  if (!number) return std::nullopt;
  if (*number == 0 && row.type != SettingType::seconds) return number;
  if (*number < row.min || *number > row.max) return std::nullopt;
  return number;
}

std::string text_of_number(SettingType type, uint64_t number) {
  if (type == SettingType::size) return wire::text_of_size_exact(number);
  if (type == SettingType::count) return fmt::format("{}", number);
  std::string text = fmt::format("{}.{:03}", number / 1000, number % 1000);
  text.resize(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

Result<std::string> check_number(const SettingRow& row, std::string_view value) {
  const std::optional<uint64_t> number = parse_number(row, value);
  if (number) return text_of_number(row.type, *number);
  return fail(Errc::invalid, "setting {}: \"{}\" is no {} from {} to {}", row.key,
              wire::printable(value),
              row.type == SettingType::size      ? "size"
              : row.type == SettingType::seconds ? "number of seconds"
                                                 : "number",
              text_of_number(row.type, row.min), text_of_number(row.type, row.max));
}

// One of the words in `unit`.
bool is_choice(const SettingRow& row, std::string_view value) {
  for (std::string_view words = row.unit; !value.empty() && !words.empty();) {
    const size_t end = std::min(words.find(' '), words.size());
    if (words.substr(0, end) == value) return true;
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return false;
}

Result<std::string> check_choice(const SettingRow& row, std::string_view value) {
  if (is_choice(row, value)) return std::string(value);
  return fail(Errc::invalid, "setting {}: \"{}\" is none of: {}", row.key, wire::printable(value),
              row.unit);
}

bool is_number(SettingType type) {
  return type == SettingType::count || type == SettingType::size || type == SettingType::seconds;
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
  if (row->type == SettingType::choice) return check_choice(*row, value);
  if (is_number(row->type)) return check_number(*row, value);
  const Result<bool> flag = wire::parse_switch(value);
  if (!flag) {
    return fail(Errc::invalid, "setting {}: \"{}\" is neither on nor off", key,
                wire::printable(value));
  }
  return std::string(*flag ? "on" : "off");
}

std::string text_setting(const Settings& settings, std::string_view key) {
  const SettingRow* row = find_row(key);
  CHECK(row != nullptr, "{}", key);
  const auto found = settings.find(std::string(key));
  if (found == settings.end()) return std::string(row->initial);
  if (row->type == SettingType::choice && !is_choice(*row, found->second)) {
    return std::string(row->initial);
  }
  CHECK(row->type == SettingType::text || row->type == SettingType::choice, "{}", key);
  return found->second;
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
  CHECK(row != nullptr && is_number(row->type), "{}", key);
  const auto found = settings.find(std::string(key));
  if (found != settings.end()) {
    if (const std::optional<uint64_t> number = parse_number(*row, found->second)) return *number;
  }
  return *parse_number(*row, row->initial);
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
