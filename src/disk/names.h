// SPDX-License-Identifier: Apache-2.0
// Rules for names that the verbs of Disks share.
#pragma once

#include <string_view>

#include "format/catalog.h"

namespace firn::disk {

inline Result<void> check_name(std::string_view name) {
  if (format::name_is_valid(name)) return ok;
  return fail(
      Errc::invalid,
      "'{}' is not a name: use 1 to 128 of A-Z a-z 0-9 . _ : - and begin with none of . and -",
      name);
}

}  // namespace firn::disk
