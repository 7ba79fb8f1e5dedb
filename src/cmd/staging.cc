// SPDX-License-Identifier: Apache-2.0
#include "cmd/staging.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "base/check.h"

namespace firn::cmd {
namespace {

std::string name_in(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

Staging::Staging(const std::string& target) : target_(target) {
  const size_t slash = target.rfind('/');
  parent_ = slash == std::string::npos ? "." : target.substr(0, slash + 1);
  directory_ = parent_ + "/.firn-export-XXXXXX";
}

Staging::~Staging() {
  if (!made_) return;
  ::unlink(path().c_str());
  for (const std::string& other : others_) ::unlink(staged(other).c_str());
  ::rmdir(directory_.c_str());
}

std::string Staging::staged(const std::string& path) const {
  return directory_ + "/" + name_in(path);
}

Result<void> Staging::make() {
  if (name_in(target_).empty()) {
    return fail(Errc::invalid, "{} is a directory; give the name of a file", target_);
  }
  if (::mkdtemp(directory_.data()) == nullptr) {
    return fail_errno(errno, "cannot write into the directory of {}", target_);
  }
  made_ = true;
  char* real = ::realpath(directory_.c_str(), nullptr);  // No colon of it is a protocol's.
  if (real == nullptr) return fail_errno(errno, "cannot write into the directory of {}", target_);
  directory_ = real;
  std::free(real);
  return ok;
}

void Staging::add(const std::string& path) {
  CHECK(name_in(path) != name_in(target_), "two files of one name");
  others_.push_back(path);
}

Result<void> Staging::publish(FiberIo& io) {
  std::vector<std::string> all = others_;
  all.push_back(target_);
  for (const std::string& each : all) {
    const std::unique_ptr<File> file = TRY(io.open(staged(each), {}));
    TRY(io.flush(*file));
  }
  for (const std::string& each : all) {
    if (::rename(staged(each).c_str(), each.c_str()) != 0) {
      return fail_errno(errno, "cannot rename {} to {}", staged(each), each);
    }
  }
  return io.flush_directory(parent_);
}

}  // namespace firn::cmd
