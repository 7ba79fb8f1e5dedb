// SPDX-License-Identifier: Apache-2.0
#include "wire/s3.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>

#include "wire/s3_url.h"
#include "wire/text.h"
#include "wire/xml.h"

namespace firn::wire {
namespace {

constexpr size_t kKeyBytesMax = 1024;

Result<uint64_t> parse_number(std::string_view text) {
  uint64_t number = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || read.ec != std::errc() || read.ptr != text.data() + text.size()) {
    return fail(Errc::invalid, "'{}' is no number", printable(text, 24));
  }
  return number;
}

Result<XmlElement> parse_answer(std::string_view body, std::string_view root) {
  XmlElement document = TRY(parse_xml(body));
  if (document.name != root) {
    return fail(Errc::invalid, "the answer is a '{}', not a '{}'", printable(document.name, 40),
                root);
  }
  return document;
}

S3Error error_of(const XmlElement& element) {
  return {.code = printable(element.text_of("Code"), 64),
          .message = printable(element.text_of("Message"), 200),
          .region = printable(element.text_of("Region"), 64)};
}

// Year, month, day, hour, minute, second.
Result<int64_t> instant_of(const std::array<uint64_t, 6>& parts, std::string_view text) {
  using namespace std::chrono;
  const year_month_day date{year(static_cast<int>(std::min<uint64_t>(parts[0], 9999))),
                            month(static_cast<unsigned>(std::min<uint64_t>(parts[1], 99))),
                            day(static_cast<unsigned>(std::min<uint64_t>(parts[2], 99)))};
  if (!date.ok() || parts[0] < 1970 || parts[0] > 2200 || parts[3] > 23 || parts[4] > 59 ||
      parts[5] > 60) {
    return fail(Errc::invalid, "'{}' is no date", printable(text, 40));
  }
  const auto whole =
      sys_days(date).time_since_epoch() + hours(parts[3]) + minutes(parts[4]) + seconds(parts[5]);
  return duration_cast<nanoseconds>(whole).count();
}

// Digits at [at, at + length); a number that nothing can be when there are none.
uint64_t digits(std::string_view text, size_t at, size_t length) {
  if (at + length > text.size()) return UINT64_MAX;
  const Result<uint64_t> number = parse_number(text.substr(at, length));
  return number ? *number : UINT64_MAX;
}

Result<S3ListEntry> entry_of(const XmlElement& element) {
  S3ListEntry entry;
  entry.key = TRY(percent_decoded(element.text_of("Key"), true));
  if (entry.key.empty() || entry.key.size() > kKeyBytesMax) {
    return fail(Errc::invalid, "the list has a key of {} bytes", entry.key.size());
  }
  entry.bytes = TRY(parse_number(element.text_of("Size")));
  entry.modified_ns = TRY(parse_iso_date(element.text_of("LastModified")));
  entry.storage_class = element.text_of("StorageClass");
  return entry;
}

S3LifecycleRule rule_of(const XmlElement& element) {
  S3LifecycleRule rule;
  rule.id = printable(element.text_of("ID"), 80);
  rule.enabled = element.text_of("Status") == "Enabled";
  rule.prefix = element.text_of("Prefix");
  if (const XmlElement* filter = element.child("Filter"); filter != nullptr) {
    if (const XmlElement* all = filter->child("And"); all != nullptr) filter = all;
    if (filter->child("Prefix") != nullptr) rule.prefix = filter->text_of("Prefix");
    rule.only_tagged = filter->child("Tag") != nullptr;
  }
  if (const XmlElement* end = element.child("Expiration"); end != nullptr) {
    rule.expires = end->child("Days") != nullptr || end->child("Date") != nullptr;
  }
  if (const XmlElement* move = element.child("Transition"); move != nullptr) {
    rule.transition = printable(move->text_of("StorageClass"), 40);
    if (rule.transition.empty()) rule.transition = "another class";
  }
  return rule;
}

}  // namespace

S3Error decode_s3_error(std::string_view body) {
  const Result<XmlElement> document = parse_xml(body);
  return document && document->name == "Error" ? error_of(*document) : S3Error();
}

Result<S3List> decode_s3_list(std::string_view body) {
  const XmlElement document = TRY(parse_answer(body, "ListBucketResult"));
  S3List list;
  list.truncated = document.text_of("IsTruncated") == "true";
  for (const XmlElement& element : document.children) {
    if (element.name != "Contents") continue;
    S3ListEntry entry = TRY(entry_of(element));
    if (!list.entries.empty() && entry.key <= list.entries.back().key) {
      return fail(Errc::invalid, "the list is out of order at '{}'", printable(entry.key, 80));
    }
    list.entries.push_back(std::move(entry));
  }
  if (list.truncated && list.entries.empty()) {
    return fail(Errc::invalid, "the list is empty, and says that it goes on");
  }
  return list;
}

Result<std::string> decode_s3_upload(std::string_view body) {
  const XmlElement document = TRY(parse_answer(body, "InitiateMultipartUploadResult"));
  std::string id(document.text_of("UploadId"));
  if (id.empty() || id.size() > 1024) {
    return fail(Errc::invalid, "the answer names no upload");
  }
  return id;
}

std::optional<S3Error> decode_s3_completion(std::string_view body) {
  const Result<XmlElement> document = parse_xml(body);
  if (!document) return S3Error{.code = "", .message = "the answer is no XML", .region = ""};
  if (document->name == "Error") return error_of(*document);
  return std::nullopt;
}

std::string encode_s3_completion(const std::vector<std::string>& etags) {
  std::string text = "<CompleteMultipartUpload>";
  for (size_t i = 0; i < etags.size(); ++i) {
    text += fmt::format("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", i + 1,
                        xml_escaped(etags[i]));
  }
  return text + "</CompleteMultipartUpload>";
}

std::string encode_s3_restore(uint32_t days) {
  return fmt::format(
      "<RestoreRequest><Days>{}</Days><GlacierJobParameters><Tier>Standard</Tier>"
      "</GlacierJobParameters></RestoreRequest>",
      days);
}

Result<std::string> decode_s3_versioning(std::string_view body) {
  const XmlElement document = TRY(parse_answer(body, "VersioningConfiguration"));
  return printable(document.text_of("Status"), 40);
}

Result<S3ObjectLock> decode_s3_object_lock(std::string_view body) {
  const XmlElement document = TRY(parse_answer(body, "ObjectLockConfiguration"));
  S3ObjectLock lock;
  lock.enabled = document.text_of("ObjectLockEnabled") == "Enabled";
  const XmlElement* rule = document.child("Rule");
  const XmlElement* retention = rule == nullptr ? nullptr : rule->child("DefaultRetention");
  if (retention == nullptr) return lock;
  lock.mode = printable(retention->text_of("Mode"), 40);
  for (const auto& [unit, plural] :
       {std::pair<const char*, const char*>{"Days", "days"}, {"Years", "years"}}) {
    const std::string_view count = retention->text_of(unit);
    if (!count.empty() && count != "0") lock.period = printable(count, 12) + " " + plural;
  }
  return lock;
}

Result<std::vector<S3LifecycleRule>> decode_s3_lifecycle(std::string_view body) {
  const XmlElement document = TRY(parse_answer(body, "LifecycleConfiguration"));
  std::vector<S3LifecycleRule> rules;
  for (const XmlElement& element : document.children) {
    if (element.name == "Rule") rules.push_back(rule_of(element));
  }
  return rules;
}

Result<int64_t> parse_http_date(std::string_view text) {
  static constexpr std::array<std::string_view, 12> kMonths = {
      "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const bool shaped = text.size() == 29 && text.substr(3, 2) == ", " && text.ends_with(" GMT");
  const auto month = shaped ? std::ranges::find(kMonths, text.substr(8, 3)) : kMonths.end();
  if (month == kMonths.end()) {
    return fail(Errc::invalid, "'{}' is no date", printable(text, 40));
  }
  return instant_of(
      {digits(text, 12, 4), static_cast<uint64_t>(month - kMonths.begin()) + 1, digits(text, 5, 2),
       digits(text, 17, 2), digits(text, 20, 2), digits(text, 23, 2)},
      text);
}

Result<int64_t> parse_iso_date(std::string_view text) {
  const bool shaped = text.size() >= 20 && text.size() <= 32 && text[4] == '-' && text[7] == '-' &&
                      text[10] == 'T' && text[13] == ':' && text[16] == ':' && text.ends_with("Z");
  if (!shaped) return fail(Errc::invalid, "'{}' is no date", printable(text, 40));
  const int64_t whole =
      TRY(instant_of({digits(text, 0, 4), digits(text, 5, 2), digits(text, 8, 2),
                      digits(text, 11, 2), digits(text, 14, 2), digits(text, 17, 2)},
                     text));
  if (text.size() < 24 || text[19] != '.') return whole;
  const uint64_t thousandths = digits(text, 20, 3);
  return thousandths > 999 ? whole : whole + static_cast<int64_t>(thousandths) * 1'000'000;
}

Result<S3ContentRange> parse_content_range(std::string_view text) {
  const size_t dash = text.find('-');
  const size_t slash = text.find('/');
  if (!text.starts_with("bytes ") || dash == std::string_view::npos ||
      slash == std::string_view::npos || dash > slash || dash < 6) {
    return fail(Errc::invalid, "'{}' is no range", printable(text, 40));
  }
  S3ContentRange range;
  range.first = TRY(parse_number(text.substr(6, dash - 6)));
  range.last = TRY(parse_number(text.substr(dash + 1, slash - dash - 1)));
  range.total = TRY(parse_number(text.substr(slash + 1)));
  if (range.first > range.last || range.last >= range.total) {
    return fail(Errc::invalid, "'{}' is no range", printable(text, 40));
  }
  return range;
}

std::optional<bool> parse_restore_ongoing(std::string_view text) {
  if (text.find("ongoing-request=\"true\"") != std::string_view::npos) return true;
  if (text.find("ongoing-request=\"false\"") != std::string_view::npos) return false;
  return std::nullopt;
}

}  // namespace firn::wire
