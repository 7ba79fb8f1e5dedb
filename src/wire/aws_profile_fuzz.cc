// SPDX-License-Identifier: Apache-2.0
// Any bytes as a file of credentials. F1.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "wire/aws_profile.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(data, data + size);
  const firn::Result<firn::wire::AwsFile> file = firn::wire::parse_aws_file(text);
  if (!file) return 0;
  for (const auto& [section, settings] : *file) {
    CHECK(firn::wire::find_profile(*file, section) != nullptr || section.starts_with("profile"));
    for (const auto& [name, value] : settings) {
      // They become headers: nothing in them may end one.
      CHECK((name + value).find_first_of("\r\n") == std::string::npos);
    }
  }
  return 0;
}
