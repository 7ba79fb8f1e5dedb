// SPDX-License-Identifier: Apache-2.0
// Staging: files under construction, in a hidden directory of our own beside their target. They
// have their final names there, which some formats record.
//
// Contract:
//  G1  Until publish() nothing is where the target will be. Destruction removes what was not
//      published.
//  G2  publish() makes all files durable, then renames them: those that were added first, the
//      target last.
#pragma once

#include <string>
#include <vector>

#include "io/fiber_io.h"

namespace firn::cmd {

class Staging {
 public:
  explicit Staging(const std::string& target);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  Result<void> make();
  // Another file beside the target, which refers to it.
  void add(const std::string& path);
  // Where the target is made.
  std::string path() const { return staged(target_); }
  Result<void> publish(FiberIo& io);

 private:
  std::string staged(const std::string& path) const;

  std::string parent_;
  std::string directory_;
  std::string target_;
  std::vector<std::string> others_;
  bool made_ = false;
};

}  // namespace firn::cmd
