// SPDX-License-Identifier: Apache-2.0
#include "store/pool_files.h"

#include <algorithm>
#include <vector>

#include "base/aligned.h"
#include "base/log.h"
#include "store/blocks.h"
#include "store/pages.h"

namespace firn::store {

using format::Superblock;

Result<std::unique_ptr<File>> lock_pool(Io& io, const std::string& pool, bool exclusive) {
  auto opened = io.open(lock_path(pool), {.writable = exclusive, .create = exclusive});
  if (!opened)
    return fail(Errc::not_found, "'{}' is not a pool: {}", pool, text_of(opened.error()));
  std::unique_ptr<File> file = opened.take();
  const Result<void> locked = io.lock(*file, exclusive);
  if (locked && exclusive) {
    const std::string who = io.identity();
    TRY(io.resize(*file, 0));
    TRY(io.write(*file, 0, std::as_bytes(std::span(who))));
  }
  if (locked) return file;
  if (locked.error().code != Errc::busy) return locked.error();
  std::string holder(std::min<uint64_t>(TRY(io.size(*file)), 300), '\0');
  TRY(io.read(*file, 0, std::as_writable_bytes(std::span(holder))));
  return fail(Errc::busy, "pool '{}' is in use by host and pid {}; stop it, or talk to its socket",
              pool, holder.empty() ? "unknown" : holder);
}

Result<SuperblockState> read_superblock(Io& io, File& file, const std::string& pool) {
  AlignedBuffer bytes(format::kSuperblockStride * format::kSuperblockCopies);
  const uint64_t size = TRY(io.size(file));
  std::memset(bytes.data(), 0, bytes.size());
  TRY(io.read(file, 0, bytes.bytes().first(std::min<uint64_t>(size, bytes.size()))));
  SuperblockState state;
  int good = 0;
  Error worst{};
  for (uint16_t slot = 0; slot < format::kSuperblockCopies; ++slot) {
    const auto copy = format::decode_superblock(
        View(bytes.bytes()).subspan(slot * format::kSuperblockStride, sizeof(Superblock)), slot);
    if (copy) {
      if (good++ == 0 || copy->sequence > state.best.sequence) state.best = *copy;
      continue;
    }
    if (copy.error().code == Errc::too_new || copy.error().code == Errc::unsupported) {
      return fail(copy.error().code, "pool '{}': {}", pool, text_of(copy.error()));
    }
    if (worst.note == 0 || copy.error().code == Errc::corrupt) worst = copy.error();
  }
  if (good == 0) return fail(worst.code, "pool '{}': {}", pool, text_of(worst));
  state.both_good = good == format::kSuperblockCopies;
  if (!state.both_good) {
    log(LogLevel::warning, "pool '{}': one copy of the superblock is bad, the other serves: {}",
        pool, text_of(worst));
  }
  return state;
}

Result<void> write_superblock(Io& io, File& file, Superblock superblock) {
  superblock.sequence = superblock.sequence + 1;
  for (uint16_t slot = 0; slot < format::kSuperblockCopies; ++slot) {
    const auto bytes = format::encode(superblock, slot);
    TRY(io.write(file, slot * format::kSuperblockStride, View(bytes)));
#ifndef FIRN_MUTANT_no_superblock_flush
    TRY(io.flush(file));
#endif
  }
  return ok;
}

Result<std::unique_ptr<Region>> open_journal(Io& io, const std::string& pool,
                                             const Superblock& superblock, bool writable) {
  const uint64_t bytes = superblock.journal_slot_bytes * superblock.journal_slots;
  const std::string path = journal_path(pool);
  if (static_cast<format::JournalMedium>(superblock.journal_medium) ==
      format::JournalMedium::pmem) {
    return std::unique_ptr<Region>(
        std::make_unique<PmemRegion>(TRY(PmemMapping::open(path, bytes, false))));
  }
  auto file = TRY(io.open(path, {.writable = writable, .direct = true}));
  const uint64_t size = TRY(io.size(*file));
  if (size < bytes) {
    return fail(Errc::corrupt, "journal '{}' has {} bytes, the superblock says {}", path, size,
                bytes);
  }
  return std::unique_ptr<Region>(std::make_unique<FileRegion>(std::move(file), bytes));
}

Result<void> check_label(Io& io, File& data, const format::Uuid& uuid) {
  const uint64_t size = TRY(io.size(data));
  if (size < format::kLabelAreaBytes) {
    return fail(Errc::corrupt, "its data file '{}' has {} bytes, less than its label area of {}",
                data.name(), size, format::kLabelAreaBytes);
  }
  AlignedBuffer page(kPageBytes);
  TRY(io.read(data, 0, page.bytes()));
  const auto label = format::decode_data_label(page.bytes());
  if (!label && label.error().code == Errc::not_found) {
    return fail(Errc::corrupt,
                "its data file '{}' has no label: it was overwritten, or is not "
                "the data of a pool",
                data.name());
  }
  if (!label) return fail(label.error().code, "'{}': {}", data.name(), text_of(label.error()));
  if (label->uuid == uuid) return ok;
  return fail(Errc::corrupt,
              "the data file '{}' belongs to another pool: its label says {}, this pool is {}",
              data.name(), format::uuid_text(label->uuid), format::uuid_text(uuid));
}

namespace {

// Removes what a failed creation made, so that it can be tried again.
class Undo {
 public:
  explicit Undo(Io& io) : io_(io) {}
  ~Undo() {
    for (auto path = made_.rbegin(); path != made_.rend(); ++path) {
      if (!io_.remove(*path)) log(LogLevel::warning, "'{}' is left over", *path);
    }
  }
  Result<void> keep(const std::string& path, Result<void> made) {
    if (made) made_.push_back(path);
    return made;
  }
  void done() { made_.clear(); }

 private:
  Io& io_;
  std::vector<std::string> made_;
};

Result<std::unique_ptr<File>> make_file(Io& io, Undo& undo, const std::string& path, bool direct) {
  auto file = TRY(io.open(path, {.create = true, .exclusive = true, .direct = direct}));
  TRY(undo.keep(path, ok));
  return file;
}

// The data file; its size decides the capacity when it is there already (a block device).
Result<uint64_t> make_data(Io& io, Undo& undo, const std::string& pool, const PoolShape& shape) {
  std::unique_ptr<File> file;
  if (shape.data_path.empty()) {
    file = TRY(make_file(io, undo, data_path(pool), true));
  } else {
    file = TRY(io.open(shape.data_path, {.create = true, .direct = true}));
    TRY(undo.keep(data_path(pool), io.link_symbolically(shape.data_path, data_path(pool))));
  }
  uint64_t bytes = TRY(io.size(*file));
  if (bytes == 0) {
    bytes = data_byte_of_block(shape.bytes / kBlockBytes);
    TRY(io.resize(*file, bytes));
  }
  const uint64_t behind = bytes > format::kLabelAreaBytes ? bytes - format::kLabelAreaBytes : 0;
  const uint64_t blocks = std::min(behind, shape.bytes) / kBlockBytes;
  if (blocks == 0) {
    return fail(Errc::invalid,
                "pool '{}': {} of {} bytes leave less than one storage block of 1 MiB behind a "
                "label area of 1 MiB",
                pool, shape.bytes, bytes);
  }
  TRY(io.flush(*file));
  return blocks;
}

Result<void> write_label(Io& io, const std::string& pool, const Superblock& superblock,
                         uint64_t blocks) {
  const auto file = TRY(io.open(data_path(pool), {.direct = true}));
  format::DataLabel label;
  label.uuid = superblock.uuid;
  label.blocks = blocks;
  label.created_ns = superblock.created_ns;
  const auto bytes = format::encode(label);
  AlignedBuffer page(kPageBytes);
  std::memset(page.data(), 0, page.size());
  std::memcpy(page.data(), bytes.data(), bytes.size());
  TRY(io.write(*file, 0, View(page.bytes())));
  return io.flush(*file);
}

Result<void> make_journal(Io& io, Undo& undo, const std::string& pool, const PoolShape& shape,
                          Superblock& superblock) {
  const std::string here = journal_path(pool);
  const uint64_t bytes = superblock.journal_slot_bytes * superblock.journal_slots;
  std::string path = here;
  const bool pmem = shape.journal.starts_with("pmem:");
  if (pmem || shape.journal.starts_with("file:")) {
    path = shape.journal.substr(5);
    TRY(undo.keep(here, io.link_symbolically(path, here)));
  } else if (!shape.journal.empty()) {
    return fail(Errc::invalid, "journal '{}': give file:PATH or pmem:PATH", shape.journal);
  }
  if (pmem) {
    superblock.journal_medium = static_cast<std::byte>(format::JournalMedium::pmem);
    const auto mapping = TRY(PmemMapping::open(path, bytes, true));
    return undo.keep(path, mapping->commit());
  }
  superblock.journal_medium = static_cast<std::byte>(format::JournalMedium::file);
  const auto file = TRY(make_file(io, undo, path, true));
  // Written, not merely allocated: a commit must change no file metadata.
  AlignedBuffer zeroes(kMiB);
  std::memset(zeroes.data(), 0, zeroes.size());
  for (uint64_t at = 0; at < bytes; at += zeroes.size()) {
    TRY(io.write(*file, at,
                 View(zeroes.bytes()).first(std::min<uint64_t>(zeroes.size(), bytes - at))));
  }
  return io.flush(*file);
}

Result<void> make_meta(Io& io, Undo& undo, const std::string& pool, const Superblock& superblock,
                       uint64_t blocks) {
  const auto file = TRY(make_file(io, undo, meta_path(pool), true));
  format::PoolRoot root;
  root.magic = format::kPoolRootMagic;
  root.blocks = blocks;
  root.groups = 1;
  root.next_family = 1;
  root.next_layer = 1;
  // A page store without a journal: the first group is written home directly.
  class NoRegion final : public Region {
   public:
    uint64_t size() const override { return UINT64_MAX; }
    Result<void> read(Io&, uint64_t, Bytes) override { return ok; }
    Result<void> write(Io&, uint64_t, View) override { return ok; }
    Result<void> commit(Io&) override { return ok; }
  } region;
  CommitIds ids;
  Journal journal(region, {}, superblock.uuid, 1, ids);
  PageStore pages(*file, journal, ids, superblock.uuid, {}, [](Io&) -> Result<void> { return ok; });
  return pages.format_first_group(io, root);
}

}  // namespace

Result<void> make_files(Io& io, const std::string& pool, const PoolShape& shape) {
  if (io.open(superblock_path(pool), {.writable = false})) {
    return fail(Errc::exists, "'{}' is a pool already", pool);
  }
  Undo undo(io);
  const Result<void> made = io.make_directory(pool);
  if (made) {
    TRY(undo.keep(pool, ok));
  } else if (made.error().code != Errc::exists) {
    return made.error();
  } else if (!TRY(io.directory_is_empty(pool))) {
    return fail(Errc::invalid, "'{}' is a directory that holds something else; name a new one",
                pool);
  }
  TRY(make_file(io, undo, lock_path(pool), false));
  const auto lock = TRY(lock_pool(io, pool, true));
  Superblock superblock;
  for (size_t i = 0; i < superblock.uuid.size(); i += 8) {
    const le64 word(io.random());
    std::memcpy(superblock.uuid.data() + i, &word, sizeof word);
  }
  superblock.epoch = 1;
  superblock.created_ns = static_cast<uint64_t>(io.wall_clock_ns());
  superblock.journal_slot_bytes = shape.journal_slot_bytes;
  superblock.journal_slots = std::max<uint64_t>(2, shape.journal_bytes / shape.journal_slot_bytes);
  const uint64_t blocks = TRY(make_data(io, undo, pool, shape));
  TRY(make_journal(io, undo, pool, shape, superblock));
  TRY(make_meta(io, undo, pool, superblock, blocks));
  TRY(write_label(io, pool, superblock, blocks));
  const auto file = TRY(make_file(io, undo, superblock_path(pool), false));
  TRY(write_superblock(io, *file, superblock));
  TRY(io.flush_directory(pool));
  undo.done();
  return ok;
}

}  // namespace firn::store
