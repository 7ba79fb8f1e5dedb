// SPDX-License-Identifier: Apache-2.0
// Answers of the engine, for people: tables and lists; or, with --json, the document itself,
// indented.
//
// Contract: takes JSON that an engine made (perhaps a newer one). What is missing or of another
// type prints as "-", never as a crash.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace firn::cmd {

std::string indented(std::string_view json);

std::string table_of_disks(std::string_view json);
std::string text_of_changes(std::string_view json);  // "OFFSET LENGTH" lines: for scripts.
std::string table_of_applications(std::string_view json);
std::string text_of_disk(std::string_view json);
std::string text_of_pool(std::string_view json);
std::string text_of_check(std::string_view json);
std::string table_of_snapshots(std::string_view json);
std::string table_of_jobs(std::string_view json);

// Members that commands decide by.
bool is_clean(std::string_view check_json);
std::string text_member(std::string_view json, const char* key);
uint64_t number_member(std::string_view json, const char* key);
bool flag_member(std::string_view json, const char* key);
std::vector<std::string> texts_member(std::string_view json, const char* key);
std::vector<uint64_t> numbers_member(std::string_view json, const char* key);

struct Job {
  std::string kind;
  uint64_t layer = 0;
  uint64_t done = 0;
  uint64_t total = 0;
  std::string state;
  std::string error;
};
std::vector<Job> jobs_of(std::string_view json);

struct ExtentLine {
  uint64_t offset = 0;
  uint64_t length = 0;
  std::string kind;
};
std::vector<ExtentLine> extents_of(std::string_view json);
struct SnapshotLine {
  std::string name;
  std::string uuid;
};
std::vector<SnapshotLine> snapshots_of(std::string_view json);
// "2026-11-20T11:33:15Z" as nanoseconds since 1970; 0 when it is none.
int64_t time_of_text(std::string_view text);
// Snapshots that could not be deleted: "'web@a' (2 clients)".
std::vector<std::string> in_use_of(std::string_view json, std::string_view disk);

}  // namespace firn::cmd
