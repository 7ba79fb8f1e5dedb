// SPDX-License-Identifier: Apache-2.0
#include "cmd/print.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/settings.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kTextMax = 512;

Json parsed(std::string_view json) {
  return Json::parse(json, nullptr, /*allow_exceptions=*/false);
}

const Json* member(const Json& json, const char* key) {
  if (!json.is_object()) return nullptr;
  const auto found = json.find(key);
  return found == json.end() ? nullptr : &*found;
}

std::string text(const Json& json, const char* key) {
  const Json* value = member(json, key);
  if (value == nullptr) return "-";
  if (value->is_string()) return wire::printable(value->get_ref<const std::string&>(), kTextMax);
  if (value->is_number_unsigned()) return fmt::format("{}", value->get<uint64_t>());
  if (value->is_boolean()) return value->get<bool>() ? "yes" : "no";
  return "-";
}

uint64_t number(const Json& json, const char* key) {
  const Json* value = member(json, key);
  return value != nullptr && value->is_number_unsigned() ? value->get<uint64_t>() : 0;
}

std::string size(const Json& json, const char* key) {
  const Json* value = member(json, key);
  if (value == nullptr || !value->is_number_unsigned()) return "-";
  return wire::text_of_size(value->get<uint64_t>());
}

bool is_default(std::string_view key, std::string_view value) {
  for (const engine::SettingRow& row : engine::all_settings()) {
    if (row.key == key) return row.initial == value;
  }
  return value.empty();
}

// Settings that somebody changed, as key=value.
std::string settings(const Json& json) {
  const Json* all = member(json, "settings");
  std::string list;
  if (all == nullptr || !all->is_object()) return list;
  for (const auto& [key, value] : all->items()) {
    if (!value.is_string()) continue;
    const std::string& setting = value.get_ref<const std::string&>();
    if (is_default(key, setting)) continue;
    list += fmt::format("{}{}={}", list.empty() ? "" : " ", wire::printable(key),
                        setting.find(' ') == std::string::npos
                            ? wire::printable(setting, kTextMax)
                            : "\"" + wire::printable(setting, kTextMax) + "\"");
  }
  return list;
}

using Row = std::vector<std::string>;

// Columns as wide as their widest cell; numbers to the right.
std::string table(const std::vector<Row>& rows, const std::vector<bool>& to_the_right) {
  std::vector<size_t> widths(to_the_right.size(), 0);
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - row[i].size(), ' ');
      line += (i == 0 ? "" : "  ") + (to_the_right[i] ? gap + row[i] : row[i] + gap);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string or_dash(std::string text) { return text.empty() ? "-" : text; }

std::string joined(const std::vector<std::string>& texts) {
  std::string line;
  for (const std::string& each : texts) line += (line.empty() ? "" : ", ") + each;
  return line;
}

// Elements of an array that is a member; none when it is something else.
const Json& array_member(const Json& json, const char* key) {
  static const Json kNone = Json::array();
  const Json* const value = member(json, key);
  return value != nullptr && value->is_array() ? *value : kNone;
}

std::string list_of(const std::vector<Row>& rows) { return table(rows, {false, false}); }

}  // namespace

std::string indented(std::string_view json) {
  const Json document = parsed(json);
  if (document.is_discarded()) return std::string(json) + '\n';
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

std::string text_of_changes(std::string_view json) {
  std::string lines;
  const Json document = parsed(json);
  const Json* const extents = member(document, "extents");
  if (extents == nullptr || !extents->is_array()) return lines;
  for (const Json& extent : *extents) {
    lines += fmt::format("{} {}\n", number(extent, "offset"), number(extent, "length"));
  }
  return lines;
}

std::string table_of_applications(std::string_view json) {
  std::vector<Row> rows{{"APP", "BEGAN", "CURRENT", "CHANGE-ID"}};
  const Json apps = parsed(json);
  if (apps.is_array()) {
    for (const Json& app : apps) {
      rows.push_back(
          {text(app, "name"), text(app, "began"), text(app, "current"), text(app, "change_id")});
    }
  }
  return table(rows, {false, false, false, false});
}

std::string table_of_disks(std::string_view json) {
  std::vector<Row> rows{{"NAME", "SIZE", "MAPPED", "ATTACHED", "SNAPSHOTS", "SETTINGS"}};
  const Json disks = parsed(json);
  if (disks.is_array()) {
    for (const Json& disk : disks) {
      rows.push_back({text(disk, "name"), size(disk, "bytes"), size(disk, "mapped_bytes"),
                      text(disk, "attached"), text(disk, "snapshots"), settings(disk)});
    }
  }
  return table(rows, {false, true, true, true, true, false});
}

std::string table_of_snapshots(std::string_view json) {
  std::vector<Row> rows{{"NAME", "CREATED", "SIZE", "MAPPED", "ATTACHED", "CLONES"}};
  const Json snapshots = parsed(json);
  if (snapshots.is_array()) {
    for (const Json& each : snapshots) {
      const Json* const current = member(each, "current");
      const bool beside = current != nullptr && current->is_boolean() && !current->get<bool>();
      rows.push_back(
          {text(each, "name"), text(each, "created"), size(each, "bytes"),
           size(each, "mapped_bytes"), text(each, "attached"),
           joined(texts_member(each.dump(), "clones")) + (beside ? " (not below the disk)" : "")});
    }
  }
  return table(rows, {false, false, true, true, true, false});
}

namespace {

// "failed, again in 4 s"
std::string state_of_job(const Json& job) {
  const Json* const again = member(job, "again_seconds");
  const std::string state = text(job, "state");
  if (state != "failed" || again == nullptr || !again->is_number_unsigned()) return state;
  return fmt::format("{}, again in {} s", state, again->get<uint64_t>());
}

// "on, last event ID" or "off".
std::string tracking_of(const Json& disk) {
  const Json* const tracking = member(disk, "tracking");
  if (tracking == nullptr || !tracking->is_object()) return "-";
  const Json* const active = member(*tracking, "active");
  const bool on = active != nullptr && active->is_boolean() && active->get<bool>();
  return on ? fmt::format("on, last event {}", text(*tracking, "change_id")) : "off";
}

// A row for each application; the first one has the title.
void add_applications(std::vector<Row>& rows, const Json& disk) {
  const Json* const tracking = member(disk, "tracking");
  if (tracking == nullptr || !tracking->is_object()) return;
  std::string title = "applications";
  for (const Json& app : array_member(*tracking, "applications")) {
    const Json* const current = member(app, "current");
    const bool full = current == nullptr || !current->is_boolean() || !current->get<bool>();
    rows.push_back({std::exchange(title, ""),
                    fmt::format("{}: {}, {}{}", text(app, "name"), text(app, "began"),
                                text(app, "change_id"), full ? " (next copy is a full one)" : "")});
  }
}

}  // namespace

std::string table_of_jobs(std::string_view json) {
  std::vector<Row> rows{{"KIND", "LAYER", "INTO", "DISK", "STEPS", "STATE", "ERROR"}};
  const Json jobs = parsed(json);
  if (jobs.is_array()) {
    for (const Json& job : jobs) {
      const uint64_t into = number(job, "into");
      rows.push_back({text(job, "kind"), text(job, "layer"),
                      into == 0 ? "-" : fmt::format("{}", into), or_dash(text(job, "disk")),
                      fmt::format("{}/{}", text(job, "done"), text(job, "total")),
                      state_of_job(job), text(job, "error")});
    }
  }
  return table(rows, {false, true, true, false, true, false, false});
}

std::string text_of_disk(std::string_view json) {
  const Json disk = parsed(json);
  std::vector<Row> rows{{"name", text(disk, "name")},
                        {"uuid", text(disk, "uuid")},
                        {"size", size(disk, "bytes")},
                        {"mapped", size(disk, "mapped_bytes")},
                        {"metadata", size(disk, "metadata_bytes")},
                        {"created", text(disk, "created")},
                        {"attached", text(disk, "attached")},
                        {"snapshots", text(disk, "snapshots")},
                        {"layers", text(disk, "layers")},
                        {"origin", or_dash(text(disk, "origin"))},
                        {"settings", settings(disk)},
                        {"tracking", tracking_of(disk)}};
  add_applications(rows, disk);
  return list_of(rows);
}

std::string text_of_pool(std::string_view json) {
  const Json pool = parsed(json);
  std::vector<Row> rows{{"pool", text(pool, "directory")},
                        {"uuid", text(pool, "uuid")},
                        {"format", text(pool, "format_version")},
                        {"capacity", size(pool, "capacity_bytes")},
                        {"used", size(pool, "used_bytes")},
                        {"allocated", size(pool, "allocated_bytes")},
                        {"freeing", size(pool, "freeing_bytes")},
                        {"raw", size(pool, "raw_bytes")},
                        {"ready", size(pool, "ready_bytes")},
                        {"bad", size(pool, "bad_bytes")},
                        {"metadata", fmt::format("{} of {} pages", text(pool, "metadata_pages"),
                                                 text(pool, "metadata_capacity_pages"))},
                        {"fenced", text(pool, "fenced")},
                        {"served", text(pool, "served")}};
  const Json* listeners = member(pool, "listeners");
  if (listeners != nullptr && listeners->is_array()) {
    for (const Json& each : *listeners) {
      if (each.is_string()) {
        rows.push_back({"listens", wire::printable(each.get_ref<const std::string&>(), kTextMax)});
      }
    }
  }
  return list_of(rows);
}

std::string text_of_check(std::string_view json) {
  const Json report = parsed(json);
  std::string text_out;
  const Json* findings = member(report, "findings");
  if (findings != nullptr && findings->is_array()) {
    for (const Json& each : *findings) {
      if (each.is_string()) {
        text_out += wire::printable(each.get_ref<const std::string&>(), kTextMax) + '\n';
      }
    }
  }
  text_out += fmt::format("{}: {} disks, {} snapshots, {} layers, {} metadata pages, {} grains\n",
                          is_clean(json) ? "clean" : "not clean", text(report, "disks"),
                          text(report, "snapshots"), text(report, "layers"), text(report, "pages"),
                          text(report, "grains"));
  if (is_clean(json) && number(report, "repaired") == 0) return text_out;
  text_out += fmt::format(
      "leaked: {} blocks, {} grains, {} pages; double owned: {}; unmarked: {}; corrupt pages: {}; "
      "repaired: {}\n",
      text(report, "leaked_blocks"), text(report, "leaked_grains"), text(report, "leaked_pages"),
      text(report, "double_owned"), text(report, "unmarked"), text(report, "corrupt_pages"),
      text(report, "repaired"));
  return text_out;
}

bool is_clean(std::string_view check_json) {
  const Json report = parsed(check_json);
  const Json* clean = member(report, "clean");
  return clean != nullptr && clean->is_boolean() && clean->get<bool>();
}

std::string text_member(std::string_view json, const char* key) {
  const Json document = parsed(json);
  const Json* value = member(document, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
}

uint64_t number_member(std::string_view json, const char* key) { return number(parsed(json), key); }

bool flag_member(std::string_view json, const char* key) {
  const Json document = parsed(json);
  const Json* value = member(document, key);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

std::vector<std::string> texts_member(std::string_view json, const char* key) {
  const Json document = parsed(json);
  std::vector<std::string> texts;
  for (const Json& each : array_member(document, key)) {
    if (each.is_string()) texts.push_back(wire::printable(each.get<std::string>(), kTextMax));
  }
  return texts;
}

std::vector<SnapshotLine> snapshots_of(std::string_view json) {
  const Json list = parsed(json);
  std::vector<SnapshotLine> lines;
  if (!list.is_array()) return lines;
  for (const Json& each : list) lines.push_back({text(each, "name"), text(each, "uuid")});
  return lines;
}

int64_t time_of_text(std::string_view text) {
  constexpr std::string_view kForm = "0000-00-00T00:00:00Z";
  if (text.size() != kForm.size()) return 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kForm[i] == '0' ? !digit : text[i] != kForm[i]) return 0;
  }
  const auto field = [&](size_t at, size_t count) {
    int value = 0;
    for (const char c : text.substr(at, count)) value = value * 10 + (c - '0');
    return value;
  };
  using std::chrono::sys_days;
  const std::chrono::year_month_day date{std::chrono::year{field(0, 4)},
                                         std::chrono::month{static_cast<unsigned>(field(5, 2))},
                                         std::chrono::day{static_cast<unsigned>(field(8, 2))}};
  if (!date.ok()) return 0;
  const auto instant = sys_days{date} + std::chrono::hours{field(11, 2)} +
                       std::chrono::minutes{field(14, 2)} + std::chrono::seconds{field(17, 2)};
  return std::chrono::nanoseconds(instant.time_since_epoch()).count();
}

std::vector<uint64_t> numbers_member(std::string_view json, const char* key) {
  const Json document = parsed(json);
  std::vector<uint64_t> numbers;
  for (const Json& each : array_member(document, key)) {
    if (each.is_number_unsigned()) numbers.push_back(each.get<uint64_t>());
  }
  return numbers;
}

std::vector<Job> jobs_of(std::string_view json) {
  const Json document = parsed(json);
  std::vector<Job> jobs;
  if (!document.is_array()) return jobs;
  for (const Json& each : document) {
    jobs.push_back({text(each, "kind"), number(each, "layer"), number(each, "done"),
                    number(each, "total"), text(each, "state"), text(each, "error")});
  }
  return jobs;
}

std::vector<ExtentLine> extents_of(std::string_view json) {
  const Json document = parsed(json);
  std::vector<ExtentLine> lines;
  for (const Json& each : array_member(document, "extents")) {
    lines.push_back({number(each, "offset"), number(each, "length"), text(each, "kind")});
  }
  return lines;
}

std::vector<std::string> in_use_of(std::string_view json, std::string_view disk) {
  const Json document = parsed(json);
  std::vector<std::string> names;
  for (const Json& each : array_member(document, "in_use")) {
    const uint64_t clients = number(each, "attached");
    names.push_back(fmt::format("'{}@{}' ({} client{})", disk, text(each, "name"), clients,
                                clients == 1 ? "" : "s"));
  }
  return names;
}

}  // namespace firn::cmd
