// SPDX-License-Identifier: Apache-2.0
#include "wire/aws_profile.h"

#include <algorithm>

namespace firn::wire {
namespace {

constexpr size_t kLineBytesMax = 16 * 1024;
constexpr size_t kSectionsMax = 4096;

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return result;
}

// "profile   backup" and "profile backup" are one.
std::string section_name(std::string_view text) {
  if (text.starts_with("profile ") || text.starts_with("profile\t")) {
    return "profile " + std::string(trim(text.substr(8)));
  }
  return std::string(text);
}

bool has_control(std::string_view text) {
  return std::ranges::any_of(text,
                             [](char c) { return (c >= 0 && c < 0x20 && c != '\t') || c == 0x7f; });
}

}  // namespace

Result<AwsFile> parse_aws_file(std::string_view text) {
  if (text.size() > kAwsFileBytesMax) return fail(Errc::invalid, "it is longer than 1 MiB");
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  AwsFile file;
  std::map<std::string, std::string>* section = nullptr;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const std::string_view words = trim(line);
    if (words.empty() || words.front() == '#' || words.front() == ';') continue;
    if (line.size() > kLineBytesMax || has_control(words)) {
      return fail(Errc::invalid, "line {} is too long, or has control characters", number);
    }
    if (words.front() == '[') {
      const size_t close = words.find(']');
      if (close == std::string_view::npos || file.size() >= kSectionsMax) {
        return fail(Errc::invalid, "line {} begins a section and does not end it", number);
      }
      section = &file[section_name(trim(words.substr(1, close - 1)))];
      continue;
    }
    if (line.front() == ' ' || line.front() == '\t') continue;
    const size_t equals = words.find('=');
    if (equals == std::string_view::npos || section == nullptr) {
      return fail(Errc::invalid, "line {} is neither a section nor 'name = value' in one", number);
    }
    (*section)[lower(trim(words.substr(0, equals)))] = trim(words.substr(equals + 1));
  }
  return file;
}

const std::map<std::string, std::string>* find_profile(const AwsFile& file,
                                                       const std::string& profile) {
  auto found = file.find("profile " + profile);
  if (found == file.end()) found = file.find(profile);
  return found == file.end() ? nullptr : &found->second;
}

}  // namespace firn::wire
