// SPDX-License-Identifier: Apache-2.0
#include "engine/answer.h"

#include <nlohmann/json.hpp>

#include "engine/settings.h"

namespace firn::engine {
namespace {

// Keeps the order in which members are added: people read these documents too.
using Json = nlohmann::ordered_json;

std::string document(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// All settings that exist, with what holds; then what only a newer version knows.
Json settings_of(const Settings& settings) {
  Json json = Json::object();
  for (const SettingRow& row : all_settings()) {
    const auto found = settings.find(std::string(row.key));
    json[std::string(row.key)] = found == settings.end() ? std::string(row.initial) : found->second;
  }
  for (const auto& [key, value] : settings) json[key] = value;
  return json;
}

Json json_of(const disk::DiskInfo& info) {
  return {{"name", info.name},
          {"uuid", info.uuid},
          {"bytes", info.bytes},
          {"mapped_bytes", info.mapped_bytes},
          {"metadata_bytes", info.metadata_bytes},
          {"created", text_of_time(info.created_ns)},
          {"attached", info.attached},
          {"snapshots", info.snapshots},
          {"layers", info.layers},
          {"origin", info.origin},
          {"settings", settings_of(info.settings)}};
}

Json json_of(const disk::SnapshotInfo& info) {
  return {{"disk", info.disk},
          {"name", info.name},
          {"uuid", info.uuid},
          {"bytes", info.bytes},
          {"mapped_bytes", info.mapped_bytes},
          {"metadata_bytes", info.metadata_bytes},
          {"created", text_of_time(info.created_ns)},
          {"attached", info.attached},
          {"layer", info.layer},
          {"current", info.current},
          {"clones", info.clones}};
}

int64_t rounded_up(Duration time) { return std::chrono::ceil<std::chrono::seconds>(time).count(); }

Json json_of(const disk::JobInfo& job) {
  return {{"kind", name_of(job.kind)},
          {"layer", job.layer},
          {"into", job.into},
          {"disk", job.disk},
          {"done", job.steps_done},
          {"total", job.steps_total},
          {"state", name_of(job.state)},
          {"error", job.error},
          {"failures", job.failures},
          {"again_seconds", job.again_in ? Json(rounded_up(*job.again_in)) : Json()}};
}

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

Json json_of(const std::vector<disk::ApplicationInfo>& infos) {
  Json json = Json::array();
  for (const disk::ApplicationInfo& info : infos) {
    json.push_back(Json{{"name", info.name},
                        {"change_id", info.change_id},
                        {"previous", text_or_null(info.previous)},
                        {"began", text_of_time(info.began_ns)},
                        {"current", info.current}});
  }
  return json;
}

template <class Info>
std::string array_of(const std::vector<Info>& infos) {
  Json json = Json::array();
  for (const Info& info : infos) json.push_back(json_of(info));
  return document(json);
}

}  // namespace

std::string text_of_time(int64_t wall_clock_ns) {
  // Civil date from days since 1970 (Gregorian, years from March), without the C library's static
  // state.
  const int64_t seconds =
      wall_clock_ns / 1'000'000'000 - (wall_clock_ns % 1'000'000'000 < 0 ? 1 : 0);
  int64_t days = seconds / 86400;
  int64_t second = seconds % 86400;
  if (second < 0) {
    second += 86400;
    --days;
  }
  days += 719468;
  const int64_t era = (days >= 0 ? days : days - 146096) / 146097;
  const int64_t day_of_era = days - era * 146097;
  const int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t month_from_march = (5 * day_of_year + 2) / 153;
  const int64_t day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
  const int64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  const int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", year, month, day, second / 3600,
                     second / 60 % 60, second % 60);
}

std::string quoted(std::string_view text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string answer_pool(const store::PoolInfo& info, const Service& service) {
  const Json json = {{"directory", info.directory},
                     {"uuid", info.uuid},
                     {"format_version", info.format_version},
                     {"capacity_bytes", info.capacity_bytes},
                     {"allocated_bytes", info.allocated_bytes},
                     {"used_bytes", info.used_bytes},
                     {"freeing_bytes", info.freeing_bytes},
                     {"raw_bytes", info.raw_bytes},
                     {"ready_bytes", info.ready_bytes},
                     {"bad_bytes", info.bad_bytes},
                     {"metadata_pages", info.metadata_pages},
                     {"metadata_capacity_pages", info.metadata_capacity_pages},
                     {"cache_pages", info.cache_pages},
                     {"epoch", info.epoch},
                     {"replayed_transactions", info.replayed_transactions},
                     {"fenced", info.fenced},
                     {"served", !service.listeners.empty()},
                     {"listeners", service.listeners},
                     {"connections", service.connections}};
  return document(json);
}

std::string answer_check(const disk::CheckReport& report) {
  const Json json = {{"clean", report.clean()},
                     {"disks", report.disks},
                     {"snapshots", report.snapshots},
                     {"layers", report.layers},
                     {"pages", report.pages},
                     {"grains", report.grains},
                     {"leaked_blocks", report.leaked_blocks},
                     {"leaked_grains", report.leaked_grains},
                     {"leaked_pages", report.leaked_pages},
                     {"double_owned", report.double_owned},
                     {"unmarked", report.unmarked},
                     {"corrupt_pages", report.corrupt_pages},
                     {"repaired", report.repaired},
                     {"findings", report.findings}};
  return document(json);
}

std::string answer_disk(const disk::DiskInfo& info, const disk::TrackingInfo& tracking,
                        const std::vector<disk::ApplicationInfo>& applications,
                        const std::optional<Instant::Progress>& arriving) {
  Json json = json_of(info);
  json["tracking"] = {{"active", tracking.active},
                      {"change_id", tracking.active ? Json(tracking.change_id) : Json()},
                      {"block_bytes", tracking.active ? Json(tracking.block_bytes) : Json()},
                      {"applications", json_of(applications)}};
  if (arriving.has_value()) {
    json["restoring"] = {{"done_bytes", arriving->disk.done_bytes},
                         {"total_bytes", arriving->disk.total_bytes},
                         {"error", arriving->error}};
  }
  return document(json);
}

std::string answer_disks(const std::vector<disk::DiskInfo>& infos) { return array_of(infos); }

std::string_view name_of(disk::JobKind kind) {
  switch (kind) {
    case disk::JobKind::consolidate:
      return "consolidate";
    case disk::JobKind::drop:
      return "drop";
    case disk::JobKind::shrink:
      break;
  }
  return "shrink";
}

std::string_view name_of(disk::JobState state) {
  switch (state) {
    case disk::JobState::waiting:
      return "waiting";
    case disk::JobState::running:
      return "running";
    case disk::JobState::failed:
      break;
  }
  return "failed";
}

std::string answer_snapshot(const disk::SnapshotInfo& info) { return document(json_of(info)); }

std::string answer_snapshots(const std::vector<disk::SnapshotInfo>& infos) {
  return array_of(infos);
}

std::string answer_made(const disk::SnapshotInfo& info, const Kept& kept,
                        const std::vector<uint32_t>& layers) {
  Json json = json_of(info);
  json["deleted"] = kept.deleted;
  json["layers"] = layers;
  return document(json);
}

std::string answer_begun(const disk::BegunInfo& info) {
  return document({{"change_id", info.change_id},
                   {"previous", text_or_null(info.previous)},
                   {"snapshot", text_or_null(info.snapshot)}});
}

std::string answer_changes(const disk::ChangeList& list) {
  Json extents = Json::array();
  for (const Range& run : list.extents) {
    extents.push_back(Json{{"offset", run.at}, {"length", run.length}});
  }
  return document({{"since", list.since},
                   {"now", list.now},
                   {"block_bytes", list.block_bytes},
                   {"disk_bytes", list.disk_bytes},
                   {"changed_bytes", list.bytes},
                   {"next_offset", list.next_offset == 0 ? Json() : Json(list.next_offset)},
                   {"extents", std::move(extents)}});
}

std::string answer_applications(const std::vector<disk::ApplicationInfo>& infos) {
  return document(json_of(infos));
}

std::string answer_kept(const Kept& kept, const std::vector<uint32_t>& layers) {
  Json in_use = Json::array();
  for (const disk::SnapshotInfo& each : kept.in_use) {
    in_use.push_back({{"name", each.name}, {"attached", each.attached}});
  }
  return document({{"deleted", kept.deleted}, {"in_use", in_use}, {"layers", layers}});
}

std::string answer_layers(const std::vector<uint32_t>& layers) {
  return document(Json{{"layers", layers}});
}

std::string answer_shrunk(const disk::ShrinkInfo& info) {
  return document(Json{{"moved_bytes", info.moved_bytes},
                       {"skipped_bytes", info.skipped_bytes},
                       {"emptied_bytes", info.emptied_bytes},
                       {"returned_bytes", info.returned_bytes}});
}

std::string answer_jobs(const std::vector<disk::JobInfo>& jobs) { return array_of(jobs); }

std::string answer_extents(std::string_view name, std::string_view base, uint64_t offset,
                           const ExtentPage& page) {
  Json extents = Json::array();
  for (const disk::DiffRun& run : page.extents) {
    extents.push_back({{"offset", run.at},
                       {"length", run.length},
                       {"kind", run.kind == Extent::data ? "data" : "zero"}});
  }
  return document({{"name", name},
                   {"base", base},
                   {"bytes", page.bytes},
                   {"offset", offset},
                   {"extents", std::move(extents)},
                   {"next", page.next},
                   {"complete", page.complete}});
}

std::string answer_socket(const std::string& path) { return document(Json{{"socket", path}}); }

}  // namespace firn::engine
