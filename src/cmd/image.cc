// SPDX-License-Identifier: Apache-2.0
#include "cmd/image.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cmd/child.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

using Json = nlohmann::json;

constexpr size_t kInfoBytesMax = 1 << 20;
constexpr size_t kChainMax = 32;
constexpr std::array<std::string_view, 3> kFormats{"raw", "qcow2", "vmdk"};

std::string text(const Json& json, const char* key) {
  if (!json.is_object()) return {};
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

const Json* inside(const Json& json, const char* key) {
  if (!json.is_object()) return nullptr;
  const auto found = json.find(key);
  return found == json.end() ? nullptr : &*found;
}

void take_references(const Json& specific, ImageInfo& info) {
  const Json* data = inside(specific, "data");
  if (data == nullptr) return;
  const std::string data_file = text(*data, "data-file");
  if (!data_file.empty()) info.references.push_back(data_file);
  const Json* extents = inside(*data, "extents");
  if (extents == nullptr || !extents->is_array()) return;
  for (const Json& extent : *extents) {
    const std::string name = text(extent, "filename");
    if (!name.empty()) info.references.push_back(name);
  }
}

Result<ImageInfo> look_at_one(FiberIo& io, const std::string& file, const std::string& format) {
  std::vector<std::string> command{"qemu-img", "info", "--output=json", "-U"};
  if (!format.empty()) command.insert(command.end(), {"-f", format});
  command.push_back(file);
  std::string json;
  const auto keep = [&json](std::string_view piece) {
    if (json.size() < kInfoBytesMax) json += piece;
  };
  TRY(run_child_well(io, command, {uint64_t{1} << 30, 20}, keep));
  return parse_image_info(json, file);
}

// Whether an image is whole: qemu-img reads what lies beyond the end of a truncated qcow2 as
// zeroes, and would make an empty disk of it. Lost clusters (status 3) harm nobody.
Result<void> check_structure(FiberIo& io, const std::string& path, const ImageInfo& info) {
  if (info.format == "raw") return ok;
  constexpr int kSomeLost = 3;
  constexpr int kCannotCheck = 63;
  const std::vector<std::string> command{"qemu-img", "check", "-q", "-f", info.format, path};
  const ChildLimits limits{uint64_t{4} << 30, 600};
  const ChildEnd end = TRY(run_child(io, command, limits, [](std::string_view) {}));
  if (end.status == 0 || end.status == kSomeLost || end.status == kCannotCheck) return ok;
  const std::string_view errors(end.first_errors);
  return fail(Errc::corrupt, "image {} is damaged: {}", path,
              wire::printable(errors.substr(0, errors.find('\n')), 200));
}

Result<void> check_references(const ImageInfo& info, const std::string& file) {
  std::vector<std::string> all = info.references;
  if (!info.backing.empty()) all.push_back(info.backing);
  for (const std::string& reference : all) {
    if (beside(file, reference).has_value()) continue;
    return refuse_reference(file, reference);
  }
  return ok;
}

}  // namespace

Result<ImageInfo> parse_image_info(std::string_view json, std::string_view file) {
  const Json document = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  ImageInfo info;
  info.format = text(document, "format");
  const Json* bytes = inside(document, "virtual-size");
  if (info.format.empty() || bytes == nullptr || !bytes->is_number_unsigned()) {
    return fail(Errc::io, "image {}: qemu-img says nothing that could be understood about it",
                file);
  }
  if (std::find(kFormats.begin(), kFormats.end(), info.format) == kFormats.end()) {
    return fail(Errc::unsupported,
                "image {} is of format {}; raw, qcow2, vmdk and seSparse can be imported", file,
                wire::printable(info.format));
  }
  info.bytes = bytes->get<uint64_t>();
  info.backing = text(document, "backing-filename");
  info.backing_format = text(document, "backing-filename-format");
  const Json* specific = inside(document, "format-specific");
  if (specific != nullptr) take_references(*specific, info);
  return info;
}

std::optional<std::string> beside(std::string_view file, std::string_view reference) {
  const size_t slash = file.rfind('/');
  const std::string directory(slash == std::string_view::npos ? "." : file.substr(0, slash));
  if (slash != std::string_view::npos && reference.starts_with(file.substr(0, slash + 1))) {
    reference.remove_prefix(slash + 1);
  } else if (reference.find(':') != std::string_view::npos) {
    return std::nullopt;  // "nbd://...", "json:{...}": qemu takes what stands before a colon as a
                          // protocol.
  }
  const bool plain = !reference.empty() && reference != "." && reference != ".." &&
                     reference.find('/') == std::string_view::npos &&
                     reference.find('\0') == std::string_view::npos;
  if (!plain) return std::nullopt;
  return directory + '/' + std::string(reference);
}

Result<std::string> absolute_path(const std::string& file) {
  char* path = ::realpath(file.c_str(), nullptr);
  if (path == nullptr) return fail_errno(errno, "cannot open image {}", wire::printable(file, 400));
  std::string result(path);
  std::free(path);
  return result;
}

Error refuse_reference(std::string_view file, std::string_view reference) {
  return fail(
      Errc::invalid,
      "image {} refers to \"{}\", which is not in its own directory; if you trust the image, "
      "give --follow-references",
      file, wire::printable(reference, 200));
}

Result<ImageInfo> look_at_image(FiberIo& io, const std::string& file, const std::string& format,
                                bool follow_references) {
  // An absolute path has no protocol in front of it, whatever it is called.
  std::string path = TRY(absolute_path(file));
  ImageInfo first = TRY(look_at_one(io, path, format));
  first.path = path;
  ImageInfo info = first;
  for (size_t depth = 1;; ++depth) {
    if (!follow_references) TRY(check_references(info, path));
    TRY(check_structure(io, path, info));
    if (info.backing.empty() || follow_references) break;
    if (depth == kChainMax) {
      return fail(Errc::invalid, "image {}: its chain of backing files is longer than {}", file,
                  kChainMax);
    }
    path = *beside(path, info.backing);
    info = TRY(look_at_one(io, path, info.backing_format));
  }
  return first;
}

}  // namespace firn::cmd
