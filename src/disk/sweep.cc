// SPDX-License-Identifier: Apache-2.0
// The sweeper: takes out the layers that have lost their name. What is to be done is read from the
// catalog alone, so that a restart goes on by itself: a layer in state dropping is dropped; a
// frozen
// layer without a name is dropped when nothing stands on it, consolidated when one layer does, and
// left alone while several do.
//
// A job that met an error is tried again after a pause (policy/job_retry.h), unless that would be
// in vain: a page that is corrupt stays so, and a fenced pool has to be opened again.
#include <ranges>
#include <set>

#include "base/log.h"
#include "disk/consolidate.h"
#include "disk/disks_impl.h"
#include "disk/drop.h"
#include "policy/job_retry.h"

namespace firn::disk {

using format::LayerRecord;
using format::LayerState;

namespace {
LayerState state_of(const LayerRecord& layer) { return static_cast<LayerState>(layer.state); }

bool may_pass(Error error) {
  return error.code == Errc::io || error.code == Errc::no_space || error.code == Errc::busy ||
         error.code == Errc::timed_out;
}
}  // namespace

// Has lost its name, and goes as soon as what stands on it allows.
bool DisksImpl::is_hidden(uint32_t layer) const {
  const LayerState state = state_of(catalog_.layers().at(layer).layer);
  if (state == LayerState::frozen) return catalog_.name_of(layer) == nullptr;
  return state == LayerState::dropping;
}

bool DisksImpl::is_due(uint32_t layer) const {
  const auto seen = catalog_.layers().find(layer);
  if (seen == catalog_.layers().end() || rests(failed_, layer)) return false;
  const auto& children = catalog_.children(layer);
  const LayerState state = state_of(seen->second.layer);
  if (state == LayerState::dropping) return children.empty();
  if (state == LayerState::live || catalog_.name_of(layer) != nullptr) return false;
  if (children.empty()) return true;
  return children.size() == 1 && !is_doomed(children[0]);
}

// Nothing that anybody has a name for rests on it: it is dropped from its end, and needs no merge.
bool DisksImpl::is_doomed(uint32_t layer) const {
  while (catalog_.name_of(layer) == nullptr) {
    const auto& children = catalog_.children(layer);
    if (children.empty()) return true;
    if (children.size() > 1) return false;
    layer = children[0];
  }
  return false;
}

// The youngest first: of a chain that goes altogether nothing is consolidated (C2: children are
// younger).
uint32_t DisksImpl::next_due() const {
  for (const uint32_t layer : std::views::reverse(catalog_.nameless())) {
    if (is_due(layer)) return layer;
  }
  return 0;
}

// `into`: the layer that stays on it, 0 when none does.
JobInfo DisksImpl::job_of(uint32_t layer, uint32_t into) const {
  const LayerRecord& record = catalog_.layers().at(layer).layer;
  JobInfo job;
  job.layer = layer;
  job.steps_total = 2 * record.own_pages + 1;
  if (into != 0) {
    job.kind = JobKind::consolidate;
    job.into = into;
    job.disk = disk_of_live_layer(job.into);
    const LayerRecord& upper = catalog_.layers().at(job.into).layer;
    job.steps_total = std::min<uint64_t>(record.own_pages, upper.own_pages) + 1;
  }
  if (layer == running_) {
    job.state = JobState::running;
    job.steps_done = running_steps_ == nullptr ? 0 : running_steps_->done();
    job.steps_total = std::max(job.steps_total, job.steps_done + 1);
  }
  const auto failed = failed_.find(layer);
  if (failed != failed_.end()) add_failure(job, failed->second);
  return job;
}

// While it is being tried again it runs, and still says why it had to.
void DisksImpl::add_failure(JobInfo& job, const Failure& failure) const {
  if (job.state != JobState::running) job.state = JobState::failed;
  job.error = failure.why;
  job.failures = failure.count;
  if (failure.again && !pool_.pages().is_fenced())
    job.again_in = std::max(*failure.again - io_.now(), Duration::zero());
}

std::vector<JobInfo> DisksImpl::jobs() const {
  std::vector<JobInfo> jobs;
  std::set<uint32_t> dropped;  // With all that stands on them.
  for (const uint32_t layer : std::views::reverse(catalog_.nameless())) {
    uint32_t into = 0;
    size_t staying = 0;
    for (const uint32_t child : catalog_.children(layer)) {
      if (dropped.contains(child)) continue;
      into = child;
      ++staying;
    }
    if (staying == 0) dropped.insert(layer);
    if (staying < 2) jobs.push_back(job_of(layer, into));
  }
  if (shrinking_ != 0) {
    JobInfo job;
    job.kind = JobKind::shrink;
    job.state = JobState::running;
    job.layer = shrinking_;
    if (running_steps_ != nullptr) job.steps_done = running_steps_->done();
    job.steps_total = std::max(shrink_steps_, job.steps_done + 1);
    jobs.push_back(job);
  }
  for (const auto& [family, failure] : shrinks_failed_) {
    if (family == shrinking_) continue;
    JobInfo job;
    job.kind = JobKind::shrink;
    job.layer = family;
    add_failure(job, failure);
    jobs.push_back(job);
  }
  return jobs;
}

// --- running

bool DisksImpl::space_is_short() const {
  return policy::space_is_short(pool_.blocks().free_blocks(), pool_.blocks().blocks());
}

void DisksImpl::run_sweeper(Io& io) {
  while (!stopping_) {
    const uint32_t layer = next_due();
    if (const uint32_t family = next_sparse(); layer == 0 && family != 0 && space_is_short()) {
      freed_in_.erase(family);
      shrink_if_it_pays(io, family);
      continue;
    }
    if (layer == 0) {
      io.park(due_);
      continue;
    }
    const Result<void> done = run_job(io, layer);
    if (!done && done.error().code == Errc::cancelled) return;
  }
}

// Says to the sweeper that a pause has passed.
void DisksImpl::run_retries(Io& io) {
  constexpr Duration kTick = std::chrono::milliseconds(100);
  const auto waits = [](const auto& one) { return one.second.again.has_value(); };
  while (!stopping_) {
    if (!space_is_short()) shrinks_failed_.clear();  // Nobody wants them any more.
    if (pool_.pages().is_fenced() ||
        (std::ranges::none_of(failed_, waits) && std::ranges::none_of(shrinks_failed_, waits))) {
      io.park(failures_);
      continue;
    }
    io.sleep(kTick);
    if (next_due() != 0 || next_sparse() != 0) io.wake(due_);
  }
}

uint32_t DisksImpl::next_sparse() const {
  for (const uint32_t family : freed_in_) {
    if (!rests(shrinks_failed_, family)) return family;
  }
  return 0;
}

bool DisksImpl::rests(const Failures& failures, uint32_t of) const {
  const auto failed = failures.find(of);
  if (failed == failures.end()) return false;
  return !failed->second.again || *failed->second.again > io_.now() || pool_.pages().is_fenced();
}

// Whoever asks does not wait for the end of a pause.
Result<void> DisksImpl::sweep(Io& io) {
  for (auto& [layer, failure] : failed_) {
    if (failure.again) failure.again = io.now();
  }
  Result<void> first;
  for (uint32_t layer = next_due(); layer != 0; layer = next_due()) {
    Result<void> done = run_job(io, layer);
    if (!done && done.error().code == Errc::cancelled) return done;
    if (!done && first) first = std::move(done);  // The others go on.
  }
  return first;
}

DisksImpl::Failure& DisksImpl::note_failure(Failures& failures, uint32_t of, Error error) {
  Failure& failure = failures[of];
  ++failure.count;
  failure.why = text_of(error);
  failure.again.reset();
  if (may_pass(error) && pool_.writable()) {
    failure.again = io_.now() + policy::JobRetry::after(failure.count);
    io_.wake(failures_);
  }
  return failure;
}

void DisksImpl::tell_failure(uint32_t layer, Error error) {
  if (error.code == Errc::cancelled) return;
  ++job_counters_.failed;
  uint32_t above = layer;  // Somebody's whom the user knows.
  while (catalog_.name_of(above) == nullptr && catalog_.children(above).size() == 1) {
    above = catalog_.children(above)[0];
  }
  const Catalog::NameSeen* const whose = catalog_.name_of(above);
  Failure& failure = note_failure(failed_, layer, error);
  failure.why = fmt::format(
      "layer {}{} stays for now: {}", layer,
      whose == nullptr ? "" : fmt::format(" under '{}'", full_name(whose->named)), failure.why);
  log(LogLevel::error, "pool '{}': {}", pool_.directory(), failure.why);
}

Result<void> DisksImpl::run_job(Io& io, uint32_t layer) {
  const auto only = sweeping_.lock(io);
  if (!is_due(layer)) return ok;  // Done, or no longer to be done.
  const uint32_t family = catalog_.layer(layer).layer.family;
  Steps steps(pool_, gate_, pace_, stopping_);
  running_ = layer;
  running_steps_ = &steps;
  const auto& children = catalog_.children(layer);
  const Result<void> done =
      children.empty() ? run_drop(io, layer, steps) : run_consolidation(io, layer, steps);
  running_ = 0;
  running_steps_ = nullptr;
  job_counters_.steps += steps.done();
  job_counters_.work_ns += static_cast<uint64_t>(steps.work().count());
  if (done) {
    failed_.erase(layer);
  } else {
    tell_failure(layer, done.error());
  }
  freed_in_.insert(family);
  return done ? Result<void>() : Result<void>(done.error());
}

Result<void> DisksImpl::run_drop(Io& io, uint32_t id, Steps& steps) {
  {
    const auto layer = TRY(open_layer(io, id));
    TRY(wait_until_left(io, layer));
    Drop drop(pool_, *layer, steps);
    TRY(drop.run(io));
  }
  TRY(erase_layer(io, id));
  ++job_counters_.dropped;
  return pool_.flush(io);
}

// A reader who began before a snapshot or a revert, or a diff, may still walk through the layer
// that the disk has left, and nobody can come to it any more. Its record and its own pages stay
// until he is through.
Result<void> DisksImpl::wait_until_left(Io& io, const std::shared_ptr<Layer>& layer) {
  while (layer.use_count() > 1) {
    if (stopping_) return fail(Errc::cancelled, "the pool is being closed");
    io.sleep(std::chrono::microseconds(200));
  }
  return ok;
}

Result<void> DisksImpl::erase_layer(Io& io, uint32_t id) {
  const auto only = changing_.lock(io);
  const auto pass = gate_.enter(io);
  const LayerRecord& gone = catalog_.layer(id).layer;
  std::shared_ptr<Layer> parent;
  if (gone.parent != 0) parent = TRY(open_layer(io, gone.parent));
  const auto admission = TRY(pool_.pages().admit(io));
  const Catalog::Slot slot = TRY(catalog_.pin(io, catalog_.layer(id).record));
  const NoWait atom;
  // It owns nothing any more. What it says that it owns beyond that came from the parent, in a
  // merge that its drop cut short (N6).
  if (parent && gone.own_grains != 0)
    parent->add_own_grains(static_cast<int64_t>(gone.own_grains.get()));
  if (parent && gone.own_pages != 0)
    parent->add_own_pages(static_cast<int64_t>(gone.own_pages.get()));
  catalog_.clear(slot);
  layers_.erase(id);
  catalog_.forget_layer(id);
  return ok;
}

Result<void> DisksImpl::run_consolidation(Io& io, uint32_t lower, Steps& steps) {
  const uint32_t upper = catalog_.children(lower)[0];
  {
    const auto lower_layer = TRY(open_layer(io, lower));
    const auto upper_layer = TRY(open_layer(io, upper));
    Consolidation consolidation(pool_, *lower_layer, *upper_layer, steps);
#ifndef FIRN_MUTANT_unlink_before_moved
    TRY(consolidation.run(io));
#endif
    TRY(wait_until_left(io, lower_layer));
  }
  TRY(unlink(io, lower, upper));
  ++job_counters_.consolidated;
  return pool_.flush(io);
}

// Both maps show the same and lower owns none of it: it leaves the chain, in one atom.
Result<void> DisksImpl::unlink(Io& io, uint32_t lower, uint32_t upper) {
  const auto only = changing_.lock(io);
  const auto pass = gate_.enter(io);
  const auto upper_layer = TRY(open_layer(io, upper));
  const auto admission = TRY(pool_.pages().admit(io));
  const Catalog::Slot slot = TRY(catalog_.pin(io, catalog_.layer(lower).record));
  const NoWait atom;
  const LayerRecord gone = catalog_.layer(lower).layer;
  catalog_.set_parent(upper, gone.parent);
  upper_layer->set_parent(gone.parent);
  upper_layer->add_own_grains(static_cast<int64_t>(gone.own_grains.get()));  // N6
  upper_layer->add_own_pages(static_cast<int64_t>(gone.own_pages.get()));
  catalog_.clear(slot);
  layers_.erase(lower);
  catalog_.forget_layer(lower);
  return ok;
}

// --- shrinking

Shrink DisksImpl::make_shrink(uint32_t family, Steps& steps) {
  Shrink::Openings openings;
  openings.layer = [this](Io& io, uint32_t layer) { return open_layer(io, layer); };
  openings.generation = [this] { return openings_; };
  openings.disks = [this, family] {
    std::vector<std::shared_ptr<ThinDisk>> disks;
    for (const auto& [uuid, open] : open_) {
      if (open.disk->layer()->family() == family) disks.push_back(open.disk);
    }
    return disks;
  };
  return Shrink(pool_, catalog_, family, std::move(openings), steps);
}

Result<ShrinkInfo> DisksImpl::shrink(Io& io, std::string_view name) {
  TRY(pool_.writable());
  const uint32_t layer = TRY(find(name))->second.named.layer;
  ShrinkInfo info = TRY(run_shrink(io, catalog_.layer(layer).layer.family, stopping_));
  const Result<uint64_t> trimmed = pool_.blocks().trim(io);
  if (trimmed) info.returned_bytes = *trimmed * kBlockBytes;
  if (!trimmed && trimmed.error().code != Errc::unsupported) return trimmed.error();
  return info;
}

Result<ShrinkInfo> DisksImpl::run_shrink(Io& io, uint32_t family, const bool& stopping) {
  const auto only = sweeping_.lock(io);
  TRY(pool_.flush(io));  // Grains that were freed are holes from here on.
  Steps steps(pool_, gate_, pace_, stopping);
  Shrink shrink = make_shrink(family, steps);
  shrinking_ = family;
  running_steps_ = &steps;
  shrink_steps_ = shrink.look().moves / 64 + 1;
  const Result<Shrink::Report> done = shrink.run(io);
  shrinking_ = 0;
  running_steps_ = nullptr;
  job_counters_.steps += steps.done();
  job_counters_.shrink_work_ns += static_cast<uint64_t>(steps.work().count());
  ++job_counters_.shrunk;
  if (!done) return done.error();
  job_counters_.moved_bytes += done->moved_grains * kGrainBytes;
  TRY(pool_.flush(io));
  return ShrinkInfo{done->moved_grains * kGrainBytes, done->skipped_grains * kGrainBytes,
                    done->emptied_blocks * kBlockBytes, 0};
}

void DisksImpl::shrink_if_it_pays(Io& io, uint32_t family) {
  {
    Steps steps(pool_, gate_, pace_, stopping_);
    Shrink shrink = make_shrink(family, steps);
    const size_t blocks = pool_.blocks().blocks_of(family).size();
    if (!policy::shrink_pays(shrink.look(), blocks)) return void(shrinks_failed_.erase(family));
  }
  giving_way_ = stopping_ || next_due() != 0;
  const auto done = run_shrink(io, family, giving_way_);
  if (done) return void(shrinks_failed_.erase(family));
  freed_in_.insert(family);
  if (done.error().code == Errc::cancelled) return;
  log(LogLevel::warning, "pool '{}': shrinking: {}", pool_.directory(), text_of(done.error()));
  note_failure(shrinks_failed_, family, done.error());
}

}  // namespace firn::disk
