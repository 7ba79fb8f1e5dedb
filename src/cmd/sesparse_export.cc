// SPDX-License-Identifier: Apache-2.0
// Notes on the design. Each fiber of the crew takes the next 16 MiB of the disk and asks what is
// there, under a lock: so grain tables and grains are given out in the order of the disk, whoever
// copies faster, and the same content makes the same extent. The headers come last. What a guest
// writes meanwhile may or may not be in it; what was a hole when it was looked at stays one.
#include <algorithm>
#include <cstdio>

#include "cmd/crew.h"
#include "cmd/progress.h"
#include "cmd/sesparse.h"
#include "io/mutex.h"

namespace firn::cmd {
namespace {

namespace sesparse = format::sesparse;
using sesparse::Entry;
using sesparse::EntryType;
using sesparse::kTableBytes;
using sesparse::kTableEntries;
using sesparse::kTableReach;

constexpr uint64_t kPieceGrains = kMiB / kGrainBytes;

class Export {
 public:
  Export(FiberIo& io, File& file, const sesparse::ConstHeader& header,
         const sesparse::Layout& layout, Crew& crew, Progress& progress)
      : io_(io), file_(file), header_(header), layout_(layout), crew_(crew), progress_(progress) {}

  // What each connection does.
  Result<void> work(NbdClient& client);
  // When all have done it: what tells that the extent is whole.
  Result<void> finish();

 private:
  // What 16 MiB of the disk become.
  struct Plan {
    uint64_t index = 0;  // In the directory.
    uint64_t table = 0;
    bool has_table = false;
    std::vector<Entry> entries;
  };
  Result<std::optional<Plan>> next_plan(NbdClient& client);
  Result<void> write_map(const Plan& plan);
  Result<void> copy_data(NbdClient& client, const Plan& plan);
  Result<void> copy_run(NbdClient& client, uint64_t first, std::span<const Entry> run);
  Result<void> write_bitmap();

  FiberIo& io_;
  File& file_;
  const sesparse::ConstHeader& header_;
  const sesparse::Layout layout_;
  Crew& crew_;
  Progress& progress_;
  Mutex order_;
  uint64_t next_ = 0;
  uint64_t tables_ = 0;  // Given out.
  uint64_t grains_ = 0;
};

// A grain is data when any of it is, and a hole when all of it is.
std::vector<Entry> entries_of(const std::vector<NbdClient::Run>& runs, uint64_t grains) {
  std::vector<Entry> entries(grains);
  uint64_t at = 0;
  for (const NbdClient::Run& run : runs) {
    const uint64_t end = at + run.length;
    const EntryType type = run.kind == NbdClient::Kind::data   ? EntryType::data
                           : run.kind == NbdClient::Kind::zero ? EntryType::zero
                                                               : EntryType::unallocated;
    const uint64_t last = std::min(grains, (end + kGrainBytes - 1) / kGrainBytes);
    for (uint64_t grain = at / kGrainBytes; grain < last; ++grain) {
      entries[grain].type = std::max(entries[grain].type, type);
    }
    at = end;
  }
  return entries;
}

Result<std::optional<Export::Plan>> Export::next_plan(NbdClient& client) {
  const Mutex::Hold hold = order_.lock(io_);
  if (next_ == layout_.directory_entries() || crew_.stopped()) return std::optional<Plan>();
  Plan plan;
  plan.index = next_++;
  const uint64_t begin = plan.index * kTableReach;
  const uint64_t length = std::min(kTableReach, layout_.bytes - begin);
  std::vector<NbdClient::Run> runs;
  TRY(client.map({begin, length}, runs));
  plan.entries = entries_of(runs, (length + kGrainBytes - 1) / kGrainBytes);
  for (Entry& entry : plan.entries) {
    if (entry.type == EntryType::data) entry.grain = grains_++;
    plan.has_table = plan.has_table || entry.type != EntryType::unallocated;
  }
  if (plan.has_table) plan.table = tables_++;
  return std::optional<Plan>(std::move(plan));
}

Result<void> Export::write_map(const Plan& plan) {
  std::vector<le64> table;
  std::vector<le64> back;  // The grains of a table follow each other.
  uint64_t first = 0;
  for (size_t i = 0; i < plan.entries.size(); ++i) {
    const Entry& entry = plan.entries[i];
    table.emplace_back(encode(entry));
    if (entry.type != EntryType::data) continue;
    if (back.empty()) first = entry.grain;
    back.emplace_back(plan.table * kTableEntries + i);
  }
  TRY(io_.write(file_, layout_.tables + plan.table * kTableBytes, std::as_bytes(std::span(table))));
  if (!back.empty()) {
    TRY(io_.write(file_, layout_.back_map + first * 8, std::as_bytes(std::span(back))));
  }
  const le64 entry = sesparse::encode_directory_entry(plan.table);
  return io_.write(file_, layout_.directory + plan.index * 8, view_of(entry));
}

Result<void> Export::copy_run(NbdClient& client, uint64_t first, std::span<const Entry> run) {
  // The last grain may reach over the end of the disk: zeroes there.
  std::vector<std::byte> data(run.size() * kGrainBytes);
  const uint64_t begin = first * kGrainBytes;
  TRY(client.read(begin, Bytes(data).first(std::min(data.size(), layout_.bytes - begin))));
  return io_.write(file_, layout_.grains + run.front().grain * kGrainBytes, View(data));
}

Result<void> Export::copy_data(NbdClient& client, const Plan& plan) {
  for (size_t at = 0; at < plan.entries.size() && !crew_.stopped();) {
    size_t end = at;
    while (end < plan.entries.size() && end - at < kPieceGrains &&
           plan.entries[end].type == EntryType::data) {
      ++end;
    }
    if (end == at) {
      ++at;
      continue;
    }
    TRY(copy_run(client, plan.index * kTableEntries + at,
                 std::span(plan.entries).subspan(at, end - at)));
    at = end;
  }
  return ok;
}

Result<void> Export::work(NbdClient& client) {
  while (!crew_.stopped()) {
    const std::optional<Plan> plan = TRY(next_plan(client));
    if (!plan.has_value()) break;
    if (plan->has_table) {
      TRY(copy_data(client, *plan));
      TRY(write_map(*plan));
    }
    progress_.show(100.0 * static_cast<double>(plan->index + 1) /
                   static_cast<double>(layout_.directory_entries()));
  }
  return ok;
}

// A bit for each grain that holds data: the first ones, without a gap.
Result<void> Export::write_bitmap() {
  const std::vector<std::byte> ones(64 * kKiB, std::byte{0xff});
  const uint64_t full = grains_ / 8;
  for (uint64_t at = 0; at < full; at += ones.size()) {
    TRY(io_.write(file_, layout_.free_bitmap + at,
                  View(ones).first(std::min<uint64_t>(ones.size(), full - at))));
  }
  const std::byte last{static_cast<uint8_t>((1U << (grains_ % 8)) - 1)};
  if (last == std::byte{}) return ok;
  return io_.write(file_, layout_.free_bitmap + full, View(&last, 1));
}

Result<void> Export::finish() {
  TRY(write_bitmap());
  sesparse::VolatileHeader closed;
  closed.free_table = tables_;
  TRY(io_.write(file_, layout_.volatile_header, view_of(closed)));
  return io_.write(file_, 0, view_of(header_));
}

Result<void> write_descriptor(FiberIo& io, const std::string& path, const std::string& extent,
                              uint64_t bytes) {
  sesparse::Descriptor descriptor;
  descriptor.extent = extent.substr(extent.rfind('/') + 1);
  descriptor.sectors = bytes / sesparse::kSectorBytes;
  // Any number but the one that means "none", and its neighbour, which some readers take for it.
  descriptor.content_id = static_cast<uint32_t>(io.random() % 0xfffffffe);
  const std::string text = encode(descriptor);
  const std::unique_ptr<File> file = TRY(io.open(path, {.create = true, .exclusive = true}));
  return io.write(*file, 0, std::as_bytes(std::span(text)));
}

}  // namespace

std::string sesparse_extent_of(const std::string& descriptor) {
  constexpr std::string_view kSuffix = ".vmdk";
  const bool usual = descriptor.ends_with(kSuffix) &&
                     descriptor.rfind('/') + 1 + kSuffix.size() != descriptor.size();
  return (usual ? descriptor.substr(0, descriptor.size() - kSuffix.size()) : descriptor) +
         "-sesparse.vmdk";
}

Result<void> export_sesparse(FiberIo& io, const std::string& socket, const std::string& disk,
                             const std::string& path, const std::string& title) {
  const std::string extent = sesparse_extent_of(path);
  const std::string name = extent.substr(extent.rfind('/') + 1);
  if (!sesparse::can_be_named(name)) {
    return fail(Errc::invalid,
                "a descriptor cannot name its extent \"{}\"; choose a name without quotes and "
                "colons",
                name);
  }
  uint64_t bytes = 0;
  {
    const std::unique_ptr<NbdClient> client = TRY(NbdClient::connect(io, socket, disk));
    bytes = client->bytes();
    client->end();
  }
  if (!aligned(bytes, sesparse::kSectorBytes)) {
    return fail(Errc::invalid, "disk {}: {} bytes are no whole sectors", disk, bytes);
  }
  const sesparse::ConstHeader header = sesparse::header_for(bytes);
  const uint64_t metadata = header.grains.offset * sesparse::kSectorBytes;
  const sesparse::Layout layout =
      TRY(sesparse::decode_header(view_of(header), metadata + round_up(bytes, kGrainBytes)));
  const std::unique_ptr<File> file = TRY(io.open(extent, {.create = true, .exclusive = true}));
  TRY(io.resize(*file, metadata));
  {
    Progress progress(title);
    Crew crew(io, socket, disk);
    Export work(io, *file, header, layout, crew, progress);
    TRY(crew.run([&work](NbdClient& client) { return work.work(client); }));
    TRY(work.finish());
  }
  return write_descriptor(io, path, extent, bytes);
}

}  // namespace firn::cmd
