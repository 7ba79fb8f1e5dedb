// SPDX-License-Identifier: Apache-2.0
// TestDir: a directory of a test's own on the file system of the build tree, removed with all it
// holds.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "base/check.h"

namespace firn {

class TestDir {
 public:
  TestDir() {
    std::string form = (std::filesystem::current_path() / "firn-test-XXXXXX").string();
    CHECK(::mkdtemp(form.data()) != nullptr, "no directory for the test at {}", form);
    path_ = form;
  }
  ~TestDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestDir(const TestDir&) = delete;
  TestDir& operator=(const TestDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace firn
