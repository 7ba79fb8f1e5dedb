// SPDX-License-Identifier: Apache-2.0
// seSparse images: read and written here, because qemu-img only reads them, and takes a lone extent
// for a raw disk. docs/format/sesparse.md
//
// Contract:
//  E1  What a descriptor names is followed by the rule of image.h (J1); nothing else is opened.
//  E2  An image is checked to its last entry while it is copied: whatever is wrong, the import
//      fails, and what was made of it is for the caller to remove.
//  E3  An export that fails leaves files behind that are for the caller to remove.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "format/sesparse.h"
#include "io/fiber_io.h"

namespace firn::cmd {

struct SesparseImage {
  std::string path;  // Of the extent, absolute.
  std::unique_ptr<File> file;
  format::sesparse::Layout layout;
};

// Whether FILE, an extent or its descriptor, is a seSparse image. Nothing: look elsewhere, which
// is an error when `format` is "sesparse". Only "", "vmdk" and "sesparse" are looked at.
Result<std::optional<SesparseImage>> look_at_sesparse(FiberIo& io, const std::string& file,
                                                      const std::string& format,
                                                      bool follow_references);

// Copies its data to a disk of the same size that reads as zero, which NBD clients find as `disk`
// at `socket`. Not flushed.
Result<void> import_sesparse(FiberIo& io, const SesparseImage& image, const std::string& socket,
                             const std::string& disk, const std::string& title);

// "web-sesparse.vmdk" for "web.vmdk".
std::string sesparse_extent_of(const std::string& descriptor);
// Writes a descriptor at `path`, and the extent beside it. Not flushed.
Result<void> export_sesparse(FiberIo& io, const std::string& socket, const std::string& disk,
                             const std::string& path, const std::string& title);

}  // namespace firn::cmd
