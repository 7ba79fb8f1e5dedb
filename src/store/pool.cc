// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// The order of durability, cited in the code below and in store/pages.cc:
//   W1  guest data is written to its grain
//   W2  the data file is flushed
//   W3  the transaction that maps the grain is written to the journal
//   W4  the journal is flushed: the guest's flush may be acknowledged
//   W5  changed pages are written home, later and together
//   W6  `meta` is flushed before a later W3, which says so; after its W4 the journal slots are used
//       again
// A grain is mapped in memory after W1, so W3 never names a grain whose data is not covered by the
// W2 before it. Opening runs: replay, home writes, flush, new epoch in both superblocks, and only
// then work.
#include "store/pool.h"

#include "base/log.h"
#include "io/barrier.h"
#include "policy/format_pace.h"
#include "store/blocks.h"
#include "store/pages.h"
#include "store/pool_files.h"
#include "store/shadow.h"

namespace firn::store {

struct Pool::Impl {
  Impl(std::string path, const PoolSettings& wanted)
      : directory(std::move(path)), settings(wanted) {}

  std::string directory;
  PoolSettings settings;
  format::Superblock superblock;
  std::unique_ptr<File> lock;
  std::unique_ptr<File> superblock_file;
  std::unique_ptr<File> meta;
  std::unique_ptr<File> data;
  std::unique_ptr<Region> journal_region;
  CommitIds ids;
  std::unique_ptr<Journal> journal;
  std::unique_ptr<Shadow> shadow;
  std::unique_ptr<PageStore> pages;
  PageRef root;
  Queue device{kDeviceDepth};
  std::unique_ptr<Blocks> blocks;
  uint64_t replayed = 0;
  uint64_t taken_over = 0;

  Barrier data_flushes;
  uint64_t data_written = 0;  // Writes completed, ever.
  uint64_t data_durable = 0;  // Of them, covered by a flush.
  uint64_t data_flush_count = 0;
  std::array<DataMoved, kDataBys> data_moved{};
  bool data_flush_failed = false;

  uint64_t guest_requests = 0;
  uint64_t guests_in_flight = 0;
  policy::JobPace* watching = nullptr;
  size_t watchers = 0;
  uint64_t disturbances = 0;  // Steps and commits of jobs that began or ended ...
  size_t disturbing = 0;      // ... and commits that are under way.

  bool stopping = false;
  std::unique_ptr<Group> background;

  Result<void> flush_data(Io& io);
  Result<void> open_files(Io& io);
  Result<void> recover(Io& io);
  Result<void> enter_epoch(Io& io, uint64_t epoch, uint64_t last_id);
  Result<void> take_over(Io& io, const Shadow::Left& left);
  Result<void> check_capacity(Io& io, uint64_t wanted);
  void start_background(Io& io);
  void run_home_writer(Io& io);
  void run_committer(Io& io);
  void run_ticker(Io& io);
  void run_formatter(Io& io);
};

Pool::Pool() = default;
Pool::~Pool() = default;

Result<void> Pool::create(Io& io, const std::string& directory, const PoolShape& shape) {
  const uint64_t slot = shape.journal_slot_bytes;
  if (slot < 512 || slot > 65536 || (slot & (slot - 1)) != 0) {
    return fail(Errc::invalid, "pool '{}': journal slots of {} bytes cannot be", directory, slot);
  }
  if (shape.bytes / kBlockBytes > format::kBlocksMax) {
    return fail(Errc::invalid, "pool '{}' cannot have {} bytes: a pool has at most 64 PiB",
                directory, shape.bytes);
  }
  if (shape.journal_bytes / slot > (uint64_t{1} << 32)) {
    return fail(Errc::invalid, "pool '{}': a journal of {} bytes has more than 2^32 slots of {}",
                directory, shape.journal_bytes, slot);
  }
  if (shape.journal_bytes < kJournalBytesMin) {
    return fail(Errc::invalid, "pool '{}': a journal of {} bytes is too small; give {} or more",
                directory, shape.journal_bytes, kJournalBytesMin);
  }
  return make_files(io, directory, shape);
}

// --- opening

Result<void> Pool::Impl::open_files(Io& io) {
  auto found = io.open(superblock_path(directory), {.writable = !settings.read_only});
  if (!found && found.error().code == Errc::not_found) {
    return fail(Errc::not_found,
                "'{}' is not a pool: it has no superblock; make one with "
                "'firn pool create'",
                directory);
  }
  if (!found) return found.error();
  superblock_file = found.take();
  lock = TRY(lock_pool(io, directory, !settings.read_only));
  superblock = TRY(read_superblock(io, *superblock_file, directory)).best;
  if ((superblock.ro_compat & ~format::kKnownReadOnlyCompat) != 0 && !settings.read_only) {
    return fail(Errc::too_new, "pool '{}' has features {:#x} that this version may only read",
                directory, superblock.ro_compat.get());
  }
  const OpenHow how{.writable = !settings.read_only, .direct = true};
  meta = TRY(io.open(meta_path(directory), how));
  data = TRY(io.open(data_path(directory), how));
  journal_region = TRY(open_journal(io, directory, superblock, !settings.read_only));
  return ok;
}

Result<void> Pool::Impl::recover(Io& io) {
  TRY(check_label(io, *data, superblock.uuid));
  const JournalShape shape{superblock.journal_slot_bytes, superblock.journal_slots, 0, true};
  const auto transactions =
      TRY(find_transactions(io, *journal_region, shape, superblock.uuid, superblock.epoch));
  replayed = transactions.size();
  const uint64_t epoch = superblock.epoch + 1;
  journal = std::make_unique<Journal>(*journal_region, shape, superblock.uuid, epoch, ids);
  PageStore::Config config;
  config.cache_pages = std::max<uint64_t>(settings.cache_bytes / kPageBytes, 64);
  config.read_only = settings.read_only;
  pages = std::make_unique<PageStore>(*meta, *journal, ids, superblock.uuid, config,
                                      [this](Io& world) { return flush_data(world); });
  TRY(pages->replay(io, transactions));
  TRY(check_capacity(io, TRY(pages->load_info(io)).blocks));
  if (!settings.read_only) {
    TRY(enter_epoch(io, epoch, transactions.empty() ? 0 : transactions.back().id));
  }
  root = TRY(pages->get(io, format::kRootPage, PageKind::pool_root));
  blocks = std::make_unique<Blocks>(*pages, root.again(), *data, device);
  return blocks->load(io);
}

// The journal's transactions go home and are void; what a killed process left behind them is
// carried into the new epoch, whose first commit it is.
Result<void> Pool::Impl::enter_epoch(Io& io, uint64_t epoch, uint64_t last_id) {
  TRY(pages->settle_replay(io));
  auto opened = Shadow::open(io, shadow_path(directory), superblock.uuid);
  if (opened) {
    shadow = opened.take();
  } else {
    log(LogLevel::warning,
        "pool '{}': what is answered and not flushed is lost with the process: {}", directory,
        text_of(opened.error()));
  }
  Shadow::Left left;
  if (shadow != nullptr) left = shadow->left(superblock.epoch, last_id);
  if (!left.records.empty()) shadow->carry(epoch, left.after);
#ifndef FIRN_MUTANT_same_epoch
  superblock.epoch = epoch;
#endif
  TRY(write_superblock(io, *superblock_file, superblock));
  superblock.sequence = superblock.sequence + 1;
  if (shadow == nullptr) return ok;
  if (!left.records.empty()) TRY(take_over(io, left));
  shadow->start(epoch, ids.peek());
  pages->attach(shadow.get());
  return ok;
}

Result<void> Pool::Impl::take_over(Io& io, const Shadow::Left& left) {
  const Result<void> taken = pages->take_over(io, left.records);
  if (!taken) {  // Unflushed, so nobody was promised more; what was flushed is there.
    log(LogLevel::error, "pool '{}': what a killed process had answered is lost: {}", directory,
        text_of(taken.error()));
    return ok;
  }
  ++data_written;  // W2: the data that these changes map was written by the other process.
  TRY(pages->commit(io));
  taken_over = left.records.size();
  log(LogLevel::info, "pool '{}': {} bytes of changes of a killed process taken over", directory,
      taken_over);
  return ok;
}

// As long as its storage blocks need: before anything is allocated for them.
Result<void> Pool::Impl::check_capacity(Io& io, uint64_t wanted) {
  const uint64_t bytes = TRY(io.size(*data));
  if (bytes >= data_byte_of_block(wanted)) return ok;
  return fail(Errc::corrupt, "its data file has {} bytes, {} storage blocks need {}", bytes, wanted,
              data_byte_of_block(wanted));
}

Result<std::unique_ptr<Pool>> Pool::open(Io& io, const std::string& directory,
                                         const PoolSettings& settings) {
  std::unique_ptr<Pool> pool(new Pool);
  pool->impl_ = std::make_unique<Impl>(directory, settings);
  Impl& impl = *pool->impl_;
  TRY(impl.open_files(io));
  const Result<void> recovered = impl.recover(io);
  if (!recovered) {
    return fail(recovered.error().code, "pool '{}': {}", directory, text_of(recovered.error()));
  }
  if (impl.replayed > 0) {
    log(LogLevel::info, "pool '{}': {} transactions replayed", directory, impl.replayed);
  }
  if (settings.background && !settings.read_only) impl.start_background(io);
  return pool;
}

Result<void> Pool::close(Io& io) {
  Impl& impl = *impl_;
  impl.stopping = true;
  if (impl.background != nullptr) {
    io.wake(impl.pages->urgent());
    io.wake(impl.pages->work());
    io.wake(impl.pages->pressing());
    io.wake(impl.blocks->taken());
    impl.background->wait();
    impl.background.reset();
  }
  if (impl.settings.read_only) return ok;
  TRY(impl.pages->write_all_home(io));
  // Everything is home: a new epoch makes the ring void, and the next open has nothing to replay.
  impl.superblock.epoch = impl.superblock.epoch + 1;
  TRY(write_superblock(io, *impl.superblock_file, impl.superblock));
  return ok;
}

// --- flushing

Result<void> Pool::Impl::flush_data(Io& io) {
  return data_flushes.pass(io, [&]() -> Result<void> {
    if (data_flush_failed) return fail(Errc::fenced, "'{}': an earlier flush failed", data->name());
    const uint64_t covered = data_written;
    if (covered == data_durable) return ok;
    ++data_flush_count;
#ifndef FIRN_MUTANT_no_data_flush
    const Result<void> flushed = io.flush(*data);
    if (!flushed) {
      data_flush_failed =
          true;  // Never retried: the kernel may have dropped what it could not write.
      pages->fence(flushed.error());
      return flushed.error();
    }
#endif
    data_durable = covered;
    return ok;
  });
}

Result<void> Pool::flush_data(Io& io) { return impl_->flush_data(io); }
Result<void> Pool::flush(Io& io) { return impl_->pages->commit(io); }
Result<void> Pool::preserve(Io& io) { return impl_->pages->preserve(io); }
Result<void> Pool::writable() const {
  if (impl_->settings.read_only) {
    return fail(Errc::invalid, "pool '{}' is open read-only", impl_->directory);
  }
  return impl_->pages->fenced();
}

Result<void> Pool::repairable() const {
  TRY(writable());
  const format::Superblock& superblock = impl_->superblock;
  const uint64_t unknown = (superblock.compat & ~format::kKnownCompat) |
                           (superblock.ro_compat & ~format::kKnownReadOnlyCompat);
  if (unknown == 0) return ok;
  return fail(Errc::too_new,
              "pool '{}' has features {:#x} that this version does not know; it cannot tell a leak "
              "from what they keep, and repairs nothing",
              impl_->directory, unknown);
}

void Pool::guest_began() {
  ++impl_->guest_requests;
  ++impl_->guests_in_flight;
}
void Pool::guest_ended() { --impl_->guests_in_flight; }

Pool::GuestMark Pool::guest_began(Io& io) {
  guest_began();
  if (impl_->watching == nullptr) return {};
  return {io.now(), impl_->disturbances};
}

void Pool::guest_ended(Io& io, const GuestMark& mark) {
  guest_ended();
  if (impl_->watching == nullptr || mark.began == Time{}) return;
  const bool beside = impl_->disturbing > 0 || impl_->disturbances != mark.disturbances;
  impl_->watching->guest_saw(io.now() - mark.began, beside);
}

void Pool::watch(policy::JobPace& pace) {
  CHECK(impl_->watching == nullptr || impl_->watching == &pace, "jobs share one pace");
  impl_->watching = &pace;
  ++impl_->watchers;
}

void Pool::unwatch() {
  CHECK(impl_->watchers > 0);
  if (--impl_->watchers == 0) impl_->watching = nullptr;
}

void Pool::disturb() { ++impl_->disturbances; }

size_t Pool::guests_in_flight() const { return impl_->guests_in_flight; }
uint64_t Pool::guest_requests() const { return impl_->guest_requests; }
bool Pool::background() const { return impl_->settings.background && !impl_->settings.read_only; }

// --- background

void Pool::Impl::start_background(Io& io) {
  background = std::make_unique<Group>(io);
  io.spawn(*background, [this, &io] { run_home_writer(io); });
  io.spawn(*background, [this, &io] { run_committer(io); });
  io.spawn(*background, [this, &io] { run_ticker(io); });
  io.spawn(*background, [this, &io] { run_formatter(io); });
}

// Keeps half of the ring free, so that no guest waits for home writes.
void Pool::Impl::run_home_writer(Io& io) {
  while (!stopping) {
    if (!pages->wants_write_home() && !pages->wants_group()) {
      io.park(pages->urgent());
      continue;
    }
    Result<void> done = pages->wants_group() ? Result<void>() : pages->write_home(io);
    if (done && pages->wants_group()) {
      auto admission = pages->admit(io);
      done = admission ? pages->grow(io) : Result<void>(admission.error());
    }
    if (done) continue;
    log(LogLevel::error, "pool '{}': {}", directory, text_of(done.error()));
    io.park(pages->urgent());
  }
}

// Keeps what the next flush has to carry small.
void Pool::Impl::run_committer(Io& io) {
  while (!stopping) {
    if (!pages->wants_commit() || pages->is_fenced()) {
      io.park(pages->pressing());
      continue;
    }
    ++disturbances;
    ++disturbing;
    const Result<void> done = pages->commit(io);
    --disturbing;
    ++disturbances;
    if (!done) log(LogLevel::error, "pool '{}': {}", directory, text_of(done.error()));
  }
}

// Commits what guests left without a flush, and brings an idle pool to rest: everything home,
// nothing to replay. Sleeps only while there is something to do.
void Pool::Impl::run_ticker(Io& io) {
  constexpr Duration kTick = std::chrono::milliseconds(100);
  uint64_t seen_id = 0;
  int idle_ticks = 0;
  while (!stopping) {
    if (pages->quiet() || pages->is_fenced()) {
      io.park(pages->work());
      idle_ticks = 0;
    }
    if (stopping) break;
    io.sleep(kTick);
    const bool idle = pages->durable_id() == seen_id && !pages->has_pending();
    seen_id = pages->durable_id();
    idle_ticks = idle ? idle_ticks + 1 : 0;
    Result<void> done;
    if (idle_ticks >= 2) {
      done = pages->write_home(io);
    } else if (pages->has_pending()) {
      done = pages->commit(io);
    }
    seen_id = idle_ticks >= 2 ? pages->durable_id() : seen_id;
    if (!done) log(LogLevel::error, "pool '{}': {}", directory, text_of(done.error()));
  }
}

void Pool::Impl::run_formatter(Io& io) {
  constexpr Duration kPause = std::chrono::milliseconds(20);
  const uint64_t four_percent = std::max<uint64_t>(blocks->blocks() / 25, 1);
  policy::FormatPace pace({std::min(settings.ready_low_bytes / kBlockBytes, four_percent),
                           std::min(settings.ready_high_bytes / kBlockBytes, four_percent)});
  using Verdict = policy::FormatPace::Verdict;
  while (!stopping) {
    blocks->settle();
    const BlockCounters& now = blocks->counters();
    const Verdict verdict = pages->is_fenced()
                                ? Verdict::rest
                                : pace.step(now.ready, now.raw, guest_requests, guests_in_flight);
    if (verdict == Verdict::rest) {
      io.park(blocks->taken());
    } else if (verdict == Verdict::wait) {
      io.sleep(kPause);
    } else {
      const Result<bool> formatted = blocks->format_one(io);
      ++data_written;
      if (formatted && *formatted) continue;
      if (!formatted) {
        log(LogLevel::warning, "pool '{}': formatting: {}", directory, text_of(formatted.error()));
      }
      io.park(blocks->taken());
    }
  }
}

// --- looking

namespace {

Priority priority_of(DataBy by) { return by == DataBy::guest ? Priority::guest : Priority::job; }

QueueInfo describe(const char* resource, const Queue& queue) {
  const Queue::Counters& counted = queue.counters();
  return {resource,       queue.waiting(),   counted.direct,
          counted.queued, counted.inherited, counted.depth_max};
}

}  // namespace

Result<void> Pool::grow(Io& io, uint64_t bytes) {
  Impl& impl = *impl_;
  TRY(writable());
  const uint64_t blocks = bytes / kBlockBytes;
  if (blocks < impl.blocks->blocks()) {
    return fail(Errc::invalid, "pool '{}' has {} bytes; it cannot shrink to {}", impl.directory,
                impl.blocks->blocks() * kBlockBytes, bytes);
  }
  if (blocks > format::kBlocksMax) {
    return fail(Errc::invalid, "pool '{}' cannot grow to {} bytes: a pool has at most 64 PiB",
                impl.directory, bytes);
  }
  if (TRY(io.size(*impl.data)) < data_byte_of_block(blocks)) {
    TRY(io.resize(*impl.data, data_byte_of_block(blocks)));
    TRY(io.flush(*impl.data));
  }
  TRY(impl.blocks->extend(io, blocks));
  TRY(flush(io));
  io.wake(impl.blocks->taken());
  return ok;
}

PoolInfo Pool::info() const {
  const Impl& impl = *impl_;
  const BlockCounters& blocks = impl.blocks->counters();
  const PageCounters& pages = impl.pages->counters();
  PoolInfo info;
  info.directory = impl.directory;
  info.uuid = format::uuid_text(impl.superblock.uuid);
  info.format_version = impl.superblock.version;
  info.capacity_bytes = impl.blocks->blocks() * kBlockBytes;
  info.allocated_bytes = blocks.allocated * kBlockBytes;
  info.used_bytes = blocks.used_grains * kGrainBytes;
  info.freeing_bytes = blocks.freeing * kBlockBytes;
  info.raw_bytes = blocks.raw * kBlockBytes;
  info.ready_bytes = blocks.ready * kBlockBytes;
  info.bad_bytes = blocks.bad * kBlockBytes;
  info.metadata_pages = impl.pages->used_pages();
  info.metadata_capacity_pages = impl.pages->capacity_pages();
  info.cache_pages = impl.pages->cached_pages();
  info.epoch = impl.superblock.epoch;
  info.commits = impl.journal->commits();
  info.transactions = impl.journal->transactions();
  info.journal_bytes_written = impl.journal->bytes_written();
  info.replayed_transactions = impl.replayed;
  info.taken_over_bytes = impl.taken_over;
  info.page_writes = pages.page_writes;
  info.page_reads = pages.page_reads;
  info.inline_formatted_bytes = blocks.inline_formatted_bytes;
  info.background_formatted_bytes = blocks.background_formatted_bytes;
  info.inline_format_writes = blocks.inline_format_writes;
  info.data_flushes = impl.data_flush_count;
  info.data_moved = impl.data_moved;
  info.queues = {describe("device", impl.device), describe("journal", impl.pages->admissions())};
  info.fenced = impl.pages->is_fenced();
  return info;
}

const std::string& Pool::directory() const { return impl_->directory; }
const std::array<std::byte, 16>& Pool::uuid() const { return impl_->superblock.uuid; }
PageStore& Pool::pages() { return *impl_->pages; }
Blocks& Pool::blocks() { return *impl_->blocks; }
uint32_t Pool::data_alignment() const { return impl_->data->alignment(); }

Result<void> Pool::read_data(Io& io, DataBy by, uint64_t at, Iovec into) {
  const auto turn = impl_->device.enter(io, priority_of(by));
  TRY(io.read(*impl_->data, at, into));
  impl_->data_moved[static_cast<size_t>(by)].read_bytes += total_of(into);
  return ok;
}

Result<void> Pool::write_data(Io& io, DataBy by, uint64_t at, Iovec from) {
  const auto turn = impl_->device.enter(io, priority_of(by));
  TRY(io.write(*impl_->data, at, from));
  ++impl_->data_written;  // The next flush has something to do.
  impl_->data_moved[static_cast<size_t>(by)].written_bytes += total_of(from);
  return ok;
}
PageRef Pool::root() { return impl_->root.again(); }

}  // namespace firn::store
