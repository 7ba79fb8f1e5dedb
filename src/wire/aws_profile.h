// SPDX-License-Identifier: Apache-2.0
// The files ~/.aws/credentials and ~/.aws/config: sections of "name = value", as the AWS CLI and
// its relatives read them.
//
// Contract:
//  F1  Takes any bytes. What is malformed is named by its line; values are never repeated.
//  F2  Comments are lines that begin with # or ;. Indented lines belong to a setting above, which
//      has sub-settings ("s3 ="): they are skipped.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace firn::wire {

inline constexpr size_t kAwsFileBytesMax = size_t{1} * 1024 * 1024;

// By section, "default" or "profile backup", and name in lower case.
using AwsFile = std::map<std::string, std::map<std::string, std::string>, std::less<>>;
Result<AwsFile> parse_aws_file(std::string_view text);

// The settings of a profile: its section is [NAME] in credentials, [profile NAME] in config.
const std::map<std::string, std::string>* find_profile(const AwsFile& file,
                                                       const std::string& profile);

}  // namespace firn::wire
