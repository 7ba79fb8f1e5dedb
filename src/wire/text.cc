// SPDX-License-Identifier: Apache-2.0
#include "wire/text.h"

#include <array>

#include "base/units.h"

namespace firn::wire {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::string_view kUnits = "BKMGTPE";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// The shift that a unit stands for ("", "K", "KiB", "KB", ...), or -1.
int shift_of(std::string_view unit) {
  if (unit.empty()) return 0;
  const char letter = static_cast<char>(unit[0] >= 'a' && unit[0] <= 'z' ? unit[0] - 32 : unit[0]);
  const size_t index = kUnits.find(letter);
  if (index == std::string_view::npos) return -1;
  const std::string_view rest = unit.substr(1);
  const bool spelled = rest.empty() || (index > 0 && (rest == "iB" || rest == "B" || rest == "ib"));
  return spelled ? static_cast<int>(index) * 10 : -1;
}

}  // namespace

std::string printable(std::string_view text, size_t bytes_max) {
  std::string line;
  for (const char c : text.substr(0, bytes_max)) line += (c >= ' ' && c <= '~') ? c : '?';
  if (text.size() > bytes_max) line += "...";
  return line;
}

Result<uint64_t> parse_size(std::string_view text) {
  const auto bad = [&](std::string_view why) {
    return fail(Errc::invalid, "size \"{}\": {}; give a number and a unit, like 10G, 512M or 4096",
                printable(text), why);
  };
  size_t at = 0;
  Wide whole = 0;
  while (at < text.size() && is_digit(text[at])) {
    whole = whole * 10 + static_cast<unsigned>(text[at++] - '0');
    if (whole > UINT64_MAX) return bad("too large");
  }
  if (at == 0) return bad("does not begin with a number");
  Wide fraction = 0;
  Wide scale = 1;
  if (at < text.size() && text[at] == '.') {
    const size_t first = ++at;
    while (at < text.size() && is_digit(text[at])) {
      if (at - first >= 12) return bad("too many digits after the point");
      fraction = fraction * 10 + static_cast<unsigned>(text[at++] - '0');
      scale *= 10;
    }
    if (at == first) return bad("no digit after the point");
  }
  const int shift = shift_of(text.substr(at));
  if (shift < 0) return bad("unknown unit");
  if (shift == 0 && fraction != 0) return bad("a part of a byte");
  const Wide bytes = (whole << shift) + (fraction << shift) / scale;
  if (bytes > UINT64_MAX) return bad("too large");
  return static_cast<uint64_t>(bytes);
}

std::string text_of_size(uint64_t bytes) {
  constexpr std::array<std::string_view, 7> kNames{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  size_t unit = 0;
  while (unit + 1 < kNames.size() && (bytes >> (10 * (unit + 1))) != 0) ++unit;
  const uint64_t one = uint64_t{1} << (10 * unit);
  const uint64_t tenths = static_cast<uint64_t>(static_cast<Wide>(bytes % one) * 10 / one);
  if (tenths == 0) return fmt::format("{} {}", bytes / one, kNames[unit]);
  return fmt::format("{}.{} {}", bytes / one, tenths, kNames[unit]);
}

std::string text_of_size_exact(uint64_t bytes) {
  size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{}", bytes) : fmt::format("{}{}", bytes, kUnits[unit]);
}

Result<bool> parse_switch(std::string_view text) {
  for (const std::string_view yes : {"on", "yes", "true", "1"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"off", "no", "false", "0"}) {
    if (text == no) return false;
  }
  return fail(Errc::invalid, "\"{}\" is neither on nor off", printable(text));
}

namespace {

Result<void> check_name(const char* noun, std::string_view name) {
  if (name.empty()) return fail(Errc::invalid, "a {}'s name is empty; give it a name", noun);
  if (name.size() > kDiskNameBytesMax) {
    return fail(Errc::invalid, "{} name \"{}\" has {} bytes; at most {} are allowed", noun,
                printable(name, 40), name.size(), kDiskNameBytesMax);
  }
  if (name[0] == '.' || name[0] == '-') {
    return fail(Errc::invalid, "{} name \"{}\" begins with '{}'; begin with a letter or a digit",
                noun, printable(name), name[0]);
  }
  for (const char c : name) {
    if (is_letter(c) || is_digit(c) || std::string_view("._:-").find(c) != std::string_view::npos) {
      continue;
    }
    return fail(Errc::invalid, "{} name \"{}\" holds '{}'; letters, digits and . _ : - are allowed",
                noun, printable(name), printable(std::string_view(&c, 1)));
  }
  return ok;
}

}  // namespace

Result<void> check_disk_name(std::string_view name) { return check_name("disk", name); }

NameParts split_name(std::string_view name) {
  const size_t at = name.find('@');
  if (at == std::string_view::npos) return {name, {}};
  return {name.substr(0, at), name.substr(at + 1)};
}

Result<void> check_snapshot_name(std::string_view name) {
  if (name.find('@') == std::string_view::npos) {
    return fail(Errc::invalid, "\"{}\" names no snapshot; say DISK@SNAPSHOT", printable(name));
  }
  const NameParts parts = split_name(name);
  TRY(check_name("disk", parts.disk));
  return check_name("snapshot", parts.snapshot);
}

Result<void> check_any_name(std::string_view name) {
  return name.find('@') == std::string_view::npos ? check_disk_name(name)
                                                  : check_snapshot_name(name);
}

}  // namespace firn::wire
