// SPDX-License-Identifier: Apache-2.0
// What an image file is, as `qemu-img info` sees it, and whether it may be read.
//
// Contract:
//  J1  An image is hostile. It may name other files (a backing file, a data file, extents), and
//      reading it reads them. By default only files in the image's own directory are followed;
//      anything else, among it every URL and "json:" name, is refused with the name of the file.
//      Each file of a chain is looked at before the next one is opened.
//  J2  Nothing is probed twice: the format found here is the format that qemu-img is told.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/fiber_io.h"

namespace firn::cmd {

struct ImageInfo {
  std::string path;    // Absolute: no colon in it is a protocol's.
  std::string format;  // As qemu-img names it.
  uint64_t bytes = 0;  // What a guest would see.
  std::vector<std::string>
      references;       // Other files that are read with it, except the backing file.
  std::string backing;  // The backing file as the image names it, or empty.
  std::string backing_format;
};

// Pure: the output of `qemu-img info --output=json`.
Result<ImageInfo> parse_image_info(std::string_view json, std::string_view file);
// Pure: where a reference leads, when that is beside `file`; both are paths as given.
std::optional<std::string> beside(std::string_view file, std::string_view reference);

// Absolute, without symbolic links: no colon in it is a protocol's.
Result<std::string> absolute_path(const std::string& file);
// The error for an image that refers to a file elsewhere.
Error refuse_reference(std::string_view file, std::string_view reference);

// Looks at FILE and at everything it refers to. `format` empty: found out.
Result<ImageInfo> look_at_image(FiberIo& io, const std::string& file, const std::string& format,
                                bool follow_references);

}  // namespace firn::cmd
