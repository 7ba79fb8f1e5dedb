// SPDX-License-Identifier: Apache-2.0
// Notes on the design. Each fiber of the crew takes the next grain table, 16 MiB of the disk, and
// copies what it maps, a MiB at a time. Grains and tables that were named are counted: more than
// the file has means that one is named twice, and a small file would become a large disk.
#include <algorithm>

#include "cmd/crew.h"
#include "cmd/image.h"
#include "cmd/progress.h"
#include "cmd/sesparse.h"
#include "io/mutex.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

namespace sesparse = format::sesparse;
using sesparse::Entry;
using sesparse::EntryType;
using sesparse::kTableBytes;
using sesparse::kTableEntries;

constexpr uint64_t kPieceGrains = kMiB / kGrainBytes;
constexpr uint64_t kEntriesAtOnce = 4096;  // Of the directory.
constexpr std::string_view kExtentSuffix = "-sesparse.vmdk";

// --- what a file is

Error about(const std::string& path, Error error) {
  const std::string why(text_of(error));
  return fail_text(error.code, 0, fmt::format("image {}: {}", wire::printable(path, 400), why));
}

// As much of the beginning as a descriptor could have.
Result<std::string> head_of(FiberIo& io, File& file) {
  const uint64_t bytes = TRY(io.size(file));
  std::string head(std::min<uint64_t>(bytes, sesparse::kDescriptorBytesMax), '\0');
  TRY(io.read(file, 0, std::as_writable_bytes(std::span(head))));
  return head;
}

Result<void> check_descriptor(const sesparse::Descriptor& descriptor, const std::string& path) {
  if (!descriptor.has_parent()) return ok;
  return fail(Errc::unsupported,
              "image {}: it has a parent{}, and holds only what changed since; only full disks can "
              "be imported",
              path,
              descriptor.parent.empty()
                  ? std::string()
                  : fmt::format(" (\"{}\")", wire::printable(descriptor.parent, 200)));
}

// Where the extent of a descriptor lies.
Result<std::string> extent_path(const sesparse::Descriptor& descriptor, const std::string& path,
                                bool follow_references) {
  const std::optional<std::string> near = beside(path, descriptor.extent);
  if (near.has_value()) return *near;
  if (!follow_references) return refuse_reference(path, descriptor.extent);
  if (descriptor.extent.starts_with('/')) return descriptor.extent;
  return path.substr(0, path.rfind('/') + 1) + descriptor.extent;
}

// An extent alone does not say whether it has a parent. Its descriptor does, if it lies there under
// its usual name.
Result<void> check_lone_extent(FiberIo& io, const std::string& path) {
  if (!path.ends_with(kExtentSuffix)) return ok;
  const std::string name = path.substr(0, path.size() - kExtentSuffix.size()) + ".vmdk";
  const Result<std::unique_ptr<File>> file = io.open(name, {.writable = false});
  if (!file) return ok;
  const std::string head = TRY(head_of(io, **file));
  const Result<sesparse::Descriptor> descriptor = sesparse::decode_descriptor(head);
  if (!descriptor || beside(name, descriptor->extent) != path) return ok;
  return check_descriptor(*descriptor, path);
}

Result<SesparseImage> open_extent(FiberIo& io, const std::string& path) {
  SesparseImage image;
  image.path = path;
  image.file = TRY(io.open(path, {.writable = false}));
  const uint64_t file_bytes = TRY(io.size(*image.file));
  std::array<std::byte, sesparse::kHeaderBytes> header{};
  const size_t there = std::min<uint64_t>(header.size(), file_bytes);
  TRY(io.read(*image.file, 0, Bytes(header).first(there)));
  const Result<sesparse::Layout> layout =
      sesparse::decode_header(View(header).first(there), file_bytes);
  if (!layout) return about(path, layout.error());
  image.layout = *layout;
  TRY(io.read(*image.file, layout->volatile_header, header));
  const Result<sesparse::VolatileHeader> closed = sesparse::decode_volatile_header(header);
  if (!closed) return about(path, closed.error());
  return image;
}

Result<SesparseImage> open_described(FiberIo& io, const sesparse::Descriptor& descriptor,
                                     const std::string& path, bool follow_references) {
  TRY(check_descriptor(descriptor, path));
  const std::string extent = TRY(extent_path(descriptor, path, follow_references));
  SesparseImage image = TRY(open_extent(io, extent));
  const uint64_t sectors = image.layout.bytes / sesparse::kSectorBytes;
  if (sectors == descriptor.sectors) return image;
  return fail(Errc::corrupt, "image {}: it says that its extent has {} sectors; {} has {}", path,
              descriptor.sectors, wire::printable(extent, 400), sectors);
}

// --- the copy

class Import {
 public:
  Import(FiberIo& io, const SesparseImage& image, Crew& crew, Progress& progress)
      : io_(io), file_(*image.file), layout_(image.layout), crew_(crew), progress_(progress) {}

  // What each connection does.
  Result<void> work(NbdClient& client);

 private:
  struct Job {
    uint64_t index = 0;  // In the directory.
    uint64_t table = 0;
  };
  Result<std::optional<Job>> next_job();
  Result<void> read_directory(uint64_t index);
  Result<void> copy(NbdClient& client, Job job);
  Result<std::vector<Entry>> read_table(Job job);
  Result<void> copy_run(NbdClient& client, uint64_t first, std::span<const Entry> run);

  FiberIo& io_;
  File& file_;
  const sesparse::Layout layout_;
  Crew& crew_;
  Progress& progress_;
  Mutex directory_;
  std::vector<le64> entries_;  // Of the directory: those around next_.
  uint64_t next_ = 0;
  uint64_t tables_named_ = 0;
  uint64_t grains_named_ = 0;
};

Result<void> Import::read_directory(uint64_t index) {
  entries_.resize(std::min(kEntriesAtOnce, layout_.directory_entries() - index));
  return io_.read(file_, layout_.directory + index * 8,
                  std::as_writable_bytes(std::span(entries_)));
}

Result<std::optional<Import::Job>> Import::next_job() {
  const Mutex::Hold hold = directory_.lock(io_);
  while (next_ < layout_.directory_entries() && !crew_.stopped()) {
    const uint64_t index = next_++;
    if (index % kEntriesAtOnce == 0) {
      TRY(read_directory(index));
      io_.yield();
    }
    const std::optional<uint64_t> table = TRY(sesparse::decode_directory_entry(
        entries_[index % kEntriesAtOnce], index, layout_.table_count));
    if (!table.has_value()) continue;
    if (++tables_named_ > layout_.table_count) {
      return fail(Errc::corrupt,
                  "seSparse grain directory: more entries than there are tables ({}): one is named "
                  "twice",
                  layout_.table_count);
    }
    return std::optional<Job>(Job{index, *table});
  }
  return std::optional<Job>();
}

Result<std::vector<Entry>> Import::read_table(Job job) {
  std::vector<le64> raw(kTableEntries);
  TRY(io_.read(file_, layout_.tables + job.table * kTableBytes,
               std::as_writable_bytes(std::span(raw))));
  const uint64_t first = job.index * kTableEntries;
  // What lies behind the end of the disk says nothing.
  raw.resize(std::min(kTableEntries, layout_.grains_mapped() - first));
  std::vector<Entry> entries;
  entries.reserve(raw.size());
  for (const uint64_t each : raw) {
    entries.push_back(
        TRY(sesparse::decode_entry(each, first + entries.size(), layout_.grain_count)));
    if (entries.back().type == EntryType::data) ++grains_named_;
  }
  if (grains_named_ <= layout_.grain_count) return entries;
  return fail(Errc::corrupt,
              "seSparse map: more grains hold data than the extent has ({}): one is named twice",
              layout_.grain_count);
}

Result<void> Import::copy_run(NbdClient& client, uint64_t first, std::span<const Entry> run) {
  std::vector<std::byte> data(run.size() * kGrainBytes);
  for (size_t at = 0; at < run.size();) {
    size_t end = at + 1;
    while (end < run.size() && run[end].grain == run[end - 1].grain + 1) ++end;
    TRY(io_.read(file_, layout_.grains + run[at].grain * kGrainBytes,
                 Bytes(data).subspan(at * kGrainBytes, (end - at) * kGrainBytes)));
    at = end;
  }
  // The last grain may reach over the end of the disk.
  const uint64_t begin = first * kGrainBytes;
  return client.write(begin, View(data).first(std::min(data.size(), layout_.bytes - begin)));
}

Result<void> Import::copy(NbdClient& client, Job job) {
  const std::vector<Entry> entries = TRY(read_table(job));
  for (size_t at = 0; at < entries.size() && !crew_.stopped();) {
    size_t end = at;
    while (end < entries.size() && end - at < kPieceGrains &&
           entries[end].type == EntryType::data) {
      ++end;
    }
    if (end == at) {
      ++at;
      continue;
    }
    TRY(copy_run(client, job.index * kTableEntries + at, std::span(entries).subspan(at, end - at)));
    at = end;
  }
  return ok;
}

Result<void> Import::work(NbdClient& client) {
  if (client.bytes() != layout_.bytes) {
    return fail(Errc::invalid, "the disk has {} bytes, the image {}", client.bytes(),
                layout_.bytes);
  }
  while (!crew_.stopped()) {
    const std::optional<Job> job = TRY(next_job());
    if (!job.has_value()) break;
    TRY(copy(client, *job));
    progress_.show(100.0 * static_cast<double>(job->index + 1) /
                   static_cast<double>(layout_.directory_entries()));
  }
  return ok;
}

}  // namespace

Result<std::optional<SesparseImage>> look_at_sesparse(FiberIo& io, const std::string& file,
                                                      const std::string& format,
                                                      bool follow_references) {
  std::optional<SesparseImage> found;
  if (!format.empty() && format != "vmdk" && format != "sesparse") return found;
  const bool must = format == "sesparse";
  const std::string path = TRY(absolute_path(file));
  const Result<std::unique_ptr<File>> opened = io.open(path, {.writable = false});
  if (!opened && must) return opened.error();
  if (!opened) return found;
  const std::string head = TRY(head_of(io, **opened));
  if (sesparse::is_extent(std::as_bytes(std::span(head)))) {
    TRY(check_lone_extent(io, path));
    found = TRY(open_extent(io, path));
    return found;
  }
  const Result<sesparse::Descriptor> descriptor = sesparse::decode_descriptor(head);
  if (descriptor) {
    found = TRY(open_described(io, *descriptor, path, follow_references));
    return found;
  }
  if (descriptor.error().code != Errc::not_found) return about(path, descriptor.error());
  if (!must) return found;
  return fail(Errc::invalid,
              "image {}: it is no seSparse image, neither an extent nor its descriptor", path);
}

Result<void> import_sesparse(FiberIo& io, const SesparseImage& image, const std::string& socket,
                             const std::string& disk, const std::string& title) {
  Progress progress(title);
  Crew crew(io, socket, disk);
  Import import(io, image, crew, progress);
  return crew.run([&import](NbdClient& client) { return import.work(client); });
}

}  // namespace firn::cmd
