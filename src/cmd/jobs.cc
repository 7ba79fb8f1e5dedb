// SPDX-License-Identifier: Apache-2.0
// firn jobs, and waiting for them.
#include "cmd/jobs.h"

#include <algorithm>

#include "cmd/commands.h"
#include "cmd/progress.h"

namespace firn::cmd {
namespace {

using wire::ControlVerb;

constexpr Duration kPollMin = std::chrono::milliseconds(2);
constexpr Duration kPollMax = std::chrono::milliseconds(200);

Result<void> poll(FiberIo& io, Session& session, JobWatch& watch, Progress& progress,
                  const bool& ended) {
  for (Duration pause = kPollMin; !ended; pause = std::min(pause * 2, kPollMax)) {
    const Result<std::string> jobs = session.ask({.verb = ControlVerb::job_list});
    if (!jobs) {
      return fail(Errc::io,
                  "the daemon no longer answers; the name is gone, and the rest goes on "
                  "when the pool is opened again");
    }
    const bool more = TRY(watch.look(jobs_of(*jobs)));
    if (!more) return ok;
    progress.show(watch.percent());
    io.sleep(pause);
  }
  return ok;
}

}  // namespace

JobWatch::JobWatch(const std::vector<uint64_t>& layers) {
  for (const uint64_t layer : layers) layers_[layer] = {};
}

Result<bool> JobWatch::look(const std::vector<Job>& jobs) {
  for (auto& [layer, seen] : layers_) seen.gone = true;
  bool more = false;
  for (const Job& job : jobs) {
    const auto found = layers_.find(job.layer);
    if (found == layers_.end() || job.kind == "shrink") continue;  // That one names a family.
    if (job.state == "failed") {
      return fail(Errc::corrupt, "the name is gone, but layer {} stays for now: {}", job.layer,
                  job.error);
    }
    found->second = {job.done, std::max<uint64_t>(job.total, 1), false};
    more = true;
  }
  return more;
}

double JobWatch::percent() const {
  uint64_t done = 0;
  uint64_t total = 0;
  for (const auto& [layer, seen] : layers_) {
    done += seen.gone ? seen.total : std::min(seen.done, seen.total);
    total += seen.total;
  }
  return total == 0 ? 100.0 : 100.0 * static_cast<double>(done) / static_cast<double>(total);
}

Result<void> wait_for_jobs(FiberIo& io, Session& session, const std::vector<uint64_t>& layers,
                           const std::string& what) {
  if (layers.empty()) return ok;
  Progress progress(what);
  JobWatch watch(layers);
  bool ended = false;
  if (session.has_daemon()) return poll(io, session, watch, progress, ended);
  Result<void> swept;
  Result<void> polled;
  {
    Group worker(io);
    io.spawn(worker, [&] {
      swept = session.sweep();
      ended = true;
    });
    polled = poll(io, session, watch, progress, ended);
  }
  return swept ? std::move(polled) : std::move(swept);
}

Result<int> run_jobs(FiberIo& io, const Arguments& arguments) {
  std::unique_ptr<Session> session = TRY(Session::open(io, arguments.pool, Session::Purpose::look));
  const std::string answer = TRY(session->ask({.verb = ControlVerb::job_list}));
  TRY(session->close());
  TRY(print(arguments.json ? indented(answer) : table_of_jobs(answer)));
  return kDone;
}

}  // namespace firn::cmd
