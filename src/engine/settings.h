// SPDX-License-Identifier: Apache-2.0
// The settings that a disk can have: which exist, what they may be, what they are when nobody set
// them.
//
// Contract:
//  G1  check_setting accepts exactly what settings.def allows, and returns the one spelling that is
//      stored ("yes" becomes "on"). An empty value is always allowed: it restores the default.
//  G2  Typed getters return the default when the value is missing, and also when it was stored by a
//      newer version in a way that this one does not understand.
//
// Does not store anything: disk::Disks does.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace firn::engine {

using Settings = std::map<std::string, std::string>;

enum class SettingType : uint8_t { text, flag, count, size, seconds, choice };

struct SettingRow {
  std::string_view key;
  SettingType type;
  std::string_view unit;
  uint64_t min;
  uint64_t max;
  std::string_view initial;
  std::string_view sentence;
};

std::span<const SettingRow> all_settings();

Result<std::string> check_setting(std::string_view key, std::string_view value);

std::string text_setting(const Settings& settings, std::string_view key);
bool flag_setting(const Settings& settings, std::string_view key);
// Of a size, bytes; of seconds, milliseconds.
uint64_t count_setting(const Settings& settings, std::string_view key);

// For --help: one line for each.
std::string describe_settings();

}  // namespace firn::engine
