// SPDX-License-Identifier: Apache-2.0
// Answers of the engine, for people: tables and lists; or, with --json, the document itself,
// indented.
//
// Contract: takes JSON that an engine made (perhaps a newer one). What is missing or of another
// type prints as "-", never as a crash.
#pragma once

#include <string>
#include <string_view>

namespace firn::cmd {

std::string indented(std::string_view json);

std::string table_of_disks(std::string_view json);
std::string text_of_changes(std::string_view json);  // "OFFSET LENGTH" lines: for scripts.
std::string table_of_applications(std::string_view json);
std::string text_of_disk(std::string_view json);
std::string text_of_pool(std::string_view json);
std::string text_of_check(std::string_view json);

// Members that commands decide by.
bool is_clean(std::string_view check_json);
std::string text_member(std::string_view json, const char* key);
uint64_t number_member(std::string_view json, const char* key);

}  // namespace firn::cmd
