// SPDX-License-Identifier: Apache-2.0
// The files under a directory in the order of an object store: by the bytes of the whole path, in
// which "a-b" comes before "a/b" and "a0" after it. Plain system calls; errnos, no sentences.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace firn {

struct DirectoryEntry {
  std::string name;
  bool directory = false;
};
// Regular files and directories in `path` under `root`, unordered; none when it is not there.
std::vector<DirectoryEntry> entries_of(int root, const std::string& path);

// Calls `each` with every path that begins with `prefix`, is beyond `after` and could be a key, in
// ascending order, until it does not return 0. Returns that, or an errno, or 0.
int walk_directory(int root, const std::string& prefix, const std::string& after,
                   const std::function<int(const std::string& path)>& each);

}  // namespace firn
