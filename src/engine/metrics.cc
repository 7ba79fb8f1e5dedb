// SPDX-License-Identifier: Apache-2.0
#include "engine/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

#include "base/check.h"
#include "engine/answer.h"
#include "engine/version.h"
#include "wire/nbd.h"

namespace firn::engine {
namespace {

bool is_name(std::string_view text) {
  if (text.empty() || (text[0] >= '0' && text[0] <= '9')) return false;
  for (const char c : text) {
    if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_') return false;
  }
  return true;
}

// HELP lines escape backslash and line end; label values the quote too.
std::string escaped(std::string_view text, bool in_quotes) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || (in_quotes && c == '"')) out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

double seconds_of(const ::timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

uint64_t resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  unsigned long long total = 0;
  unsigned long long resident = 0;
  const int fields = std::fscanf(file, "%llu %llu", &total, &resident);
  std::fclose(file);
  return fields == 2 ? resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace

void MetricsText::family(std::string_view name, MetricType type, std::string_view help) {
  CHECK(is_name(name) && name.starts_with("firn_"), "{}", name);
  CHECK(name.ends_with("_total") == (type == MetricType::counter), "{}", name);
  CHECK(std::find(names_.begin(), names_.end(), name) == names_.end(), "{} came before", name);
  CHECK(!help.empty());
  name_ = name;
  names_.push_back(name_);
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, escaped(help, false), name,
                       type == MetricType::counter ? "counter" : "gauge");
}

void MetricsText::sample_text(std::initializer_list<Label> labels, std::string_view value) {
  CHECK(!name_.empty(), "a sample belongs to a family");
  text_ += name_;
  char before = '{';
  for (const auto& [key, label] : labels) {
    CHECK(is_name(key), "{}", key);
    text_ += fmt::format("{}{}=\"{}\"", before, key, escaped(label, true));
    before = ',';
  }
  if (labels.size() > 0) text_ += '}';
  text_ += fmt::format(" {}\n", value);
}

void MetricsText::sample(std::initializer_list<Label> labels, uint64_t value) {
  sample_text(labels, fmt::format("{}", value));
}
void MetricsText::sample(std::initializer_list<Label> labels, double value) {
  sample_text(labels, fmt::format("{}", value));
}

void MetricsText::one(std::string_view name, MetricType type, std::string_view help,
                      uint64_t value) {
  family(name, type, help);
  sample({}, value);
}

void add_build(MetricsText& text) {
  text.family("firn_build_info", MetricType::gauge, "Always 1; the labels say what is running.");
  text.sample({{"version", version()}, {"compiler", compiler()}}, uint64_t{1});
}

void add_process(MetricsText& text) {
  ::rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  text.family("firn_process_cpu_seconds_total", MetricType::counter,
              "CPU time used by the daemon.");
  text.sample({{"mode", "user"}}, seconds_of(usage.ru_utime));
  text.sample({{"mode", "system"}}, seconds_of(usage.ru_stime));
  text.one("firn_process_resident_bytes", MetricType::gauge,
           "Memory of the daemon that is resident.", resident_bytes());
}

namespace {

void add_queues(MetricsText& text, const store::PoolInfo& info) {
  using enum MetricType;
  const auto each = [&](std::string_view name, MetricType type, std::string_view help,
                        uint64_t (*value)(const store::QueueInfo&)) {
    text.family(name, type, help);
    for (const store::QueueInfo& queue : info.queues) {
      text.sample({{"resource", queue.resource}}, value(queue));
    }
  };
  using Info = store::QueueInfo;
  each("firn_queue_waiting", gauge, "Requests that wait for a contended thing now.",
       [](const Info& queue) -> uint64_t { return queue.waiting; });
  each("firn_queue_direct_total", counter, "Requests that found the thing free.",
       [](const Info& queue) { return queue.direct; });
  each("firn_queue_queued_total", counter, "Requests that waited for it.",
       [](const Info& queue) { return queue.queued; });
  each("firn_queue_inherited_total", counter, "Times that a holder got a waiter's priority.",
       [](const Info& queue) { return queue.inherited; });
  each("firn_queue_waiting_max", gauge, "Most that waited at once.",
       [](const Info& queue) { return queue.depth_max; });
}

}  // namespace

void add_pool(MetricsText& text, const store::PoolInfo& info) {
  using enum MetricType;
  text.family("firn_pool_info", gauge, "Always 1; the labels say which pool is served.");
  text.sample({{"directory", info.directory}, {"uuid", info.uuid}}, uint64_t{1});
  text.one("firn_pool_capacity_bytes", gauge, "Size of the pool.", info.capacity_bytes);
  text.family("firn_pool_space_bytes", gauge,
              "Storage blocks by state; the states add up to the capacity.");
  text.sample({{"state", "allocated"}}, info.allocated_bytes);
  text.sample({{"state", "freeing"}}, info.freeing_bytes);
  text.sample({{"state", "raw"}}, info.raw_bytes);
  text.sample({{"state", "ready"}}, info.ready_bytes);
  text.sample({{"state", "bad"}}, info.bad_bytes);
  text.one("firn_pool_used_bytes", gauge, "Grains in use inside allocated storage blocks.",
           info.used_bytes);
  text.one("firn_pool_metadata_pages", gauge, "Metadata pages in use, of 4 KiB.",
           info.metadata_pages);
  text.one("firn_pool_metadata_capacity_pages", gauge, "Metadata pages that there are.",
           info.metadata_capacity_pages);
  text.one("firn_pool_cache_pages", gauge, "Metadata pages in memory.", info.cache_pages);
  text.one("firn_pool_fenced", gauge,
           "1 when a failed flush or journal write made the pool refuse writes.",
           info.fenced ? 1 : 0);
  text.one("firn_pool_epoch", gauge, "How often the pool has been opened for writing.", info.epoch);
  text.one("firn_pool_journal_commits_total", counter, "Commits of the journal.", info.commits);
  text.one("firn_pool_transactions_total", counter, "Transactions committed.", info.transactions);
  text.one("firn_pool_journal_written_bytes_total", counter, "Bytes written to the journal.",
           info.journal_bytes_written);
  text.one("firn_pool_replayed_transactions", gauge, "Transactions that the last open replayed.",
           info.replayed_transactions);
  text.one("firn_pool_taken_over_bytes", gauge,
           "Changes that the last open took over from a killed process.", info.taken_over_bytes);
  text.one("firn_pool_page_reads_total", counter, "Metadata pages read.", info.page_reads);
  text.one("firn_pool_page_writes_total", counter, "Metadata pages written home.",
           info.page_writes);
  text.one("firn_pool_data_flushes_total", counter, "Flushes of the data file.", info.data_flushes);
  constexpr std::array<std::string_view, store::kDataBys> kBys{"guest", "shrink", "consolidate"};
  text.family("firn_pool_data_read_bytes_total", counter,
              "Guest data read from the data file, by whose reason.");
  for (size_t i = 0; i < kBys.size(); ++i) {
    text.sample({{"by", kBys[i]}}, info.data_moved[i].read_bytes);
  }
  text.family("firn_pool_data_written_bytes_total", counter,
              "Guest data written to the data file, by whose reason.");
  for (size_t i = 0; i < kBys.size(); ++i) {
    text.sample({{"by", kBys[i]}}, info.data_moved[i].written_bytes);
  }
  text.family("firn_pool_formatted_bytes_total", counter,
              "Space made ready: inline, while a guest waited, or in the background.");
  text.sample({{"by", "inline"}}, info.inline_formatted_bytes);
  text.sample({{"by", "background"}}, info.background_formatted_bytes);
  text.one("firn_pool_inline_format_writes_total", counter,
           "Guest writes that had to format first.", info.inline_format_writes);
  add_queues(text, info);
}

void add_disks(MetricsText& text, const std::vector<disk::DiskInfo>& disks) {
  using enum MetricType;
  const auto each = [&](std::string_view name, std::string_view help, auto value) {
    text.family(name, gauge, help);
    for (const disk::DiskInfo& info : disks)
      text.sample({{"disk", info.name}}, uint64_t{value(info)});
  };
  text.one("firn_disks", gauge, "Disks in the pool.", disks.size());
  each("firn_disk_bytes", "Size of the disk as the guest sees it.",
       [](const disk::DiskInfo& info) { return info.bytes; });
  each("firn_disk_mapped_bytes", "Data that the disk holds in the pool.",
       [](const disk::DiskInfo& info) { return info.mapped_bytes; });
  each("firn_disk_metadata_bytes", "Map pages of the disk.",
       [](const disk::DiskInfo& info) { return info.metadata_bytes; });
  each("firn_disk_attached", "Users that hold the disk open now.",
       [](const disk::DiskInfo& info) { return info.attached; });
  each("firn_disk_snapshots", "Snapshots of the disk.",
       [](const disk::DiskInfo& info) { return info.snapshots; });
  each("firn_disk_layers", "Layers of the disk's chain, its own included.",
       [](const disk::DiskInfo& info) { return info.layers; });
}

namespace {

// A sample for each kind and state of which there is a job.
void each_job(MetricsText& text, const std::vector<disk::JobInfo>& jobs, std::string_view name,
              std::string_view help, uint64_t (*value)(const disk::JobInfo&)) {
  std::map<std::pair<disk::JobKind, disk::JobState>, uint64_t> sums;
  for (const disk::JobInfo& job : jobs) sums[{job.kind, job.state}] += value(job);
  text.family(name, MetricType::gauge, help);
  for (const auto& [of, sum] : sums) {
    text.sample({{"kind", name_of(of.first)}, {"state", name_of(of.second)}}, sum);
  }
}

}  // namespace

void add_jobs(MetricsText& text, const std::vector<disk::JobInfo>& jobs,
              const disk::JobCounters& counters) {
  using enum MetricType;
  each_job(text, jobs, "firn_jobs", "Layers that are to go.",
           [](const disk::JobInfo&) { return uint64_t{1}; });
  each_job(text, jobs, "firn_job_steps_done", "Steps that these jobs have done.",
           [](const disk::JobInfo& job) { return job.steps_done; });
  each_job(text, jobs, "firn_job_steps_planned", "Steps that these jobs have in all, about.",
           [](const disk::JobInfo& job) { return job.steps_total; });
  text.family("firn_jobs_ended_total", counter, "Jobs that have ended, and how.");
  text.sample({{"how", "consolidated"}}, counters.consolidated);
  text.sample({{"how", "dropped"}}, counters.dropped);
  text.sample({{"how", "shrunk"}}, counters.shrunk);
  text.sample({{"how", "failed"}}, counters.failed);
  text.one("firn_job_steps_total", counter, "Steps of all jobs that have ended; each is one atom.",
           counters.steps);
  text.family("firn_job_work_seconds_total", counter, "Time in these steps, without the rests.");
  text.sample({{"kind", "layer"}}, static_cast<double>(counters.work_ns) / 1e9);
  text.sample({{"kind", "shrink"}}, static_cast<double>(counters.shrink_work_ns) / 1e9);
}

void add_fetched(MetricsText& text, const disk::Fetched& fetched) {
  text.family("firn_restore_fetched_bytes_total", MetricType::counter,
              "Content that instant restores fetched.");
  text.sample({{"by", "guest"}}, fetched.waited_for);
  text.sample({{"by", "background"}}, fetched.background);
}

void add_tracking(MetricsText& text, const std::vector<disk::TrackingInfo>& disks) {
  using enum MetricType;
  const auto each = [&](std::string_view name, MetricType type, std::string_view help, auto value) {
    text.family(name, type, help);
    for (const disk::TrackingInfo& info : disks) {
      text.sample({{"disk", info.disk}}, uint64_t{value(info)});
    }
  };
  using Info = disk::TrackingInfo;
  each("firn_changes_tracked", gauge, "1 while changes of the disk are tracked.",
       [](const Info& info) { return info.active ? uint64_t{1} : uint64_t{0}; });
  each("firn_changes_memory_bytes", gauge, "Memory that the tracking takes.",
       [](const Info& info) { return info.memory_bytes; });
  each("firn_changes_applications", gauge, "Applications that back the disk up.",
       [](const Info& info) { return info.applications; });
  each("firn_changes_events_total", counter, "Events: begun backups and snapshots.",
       [](const Info& info) { return info.events; });
  each("firn_changes_flushes_total", counter, "Flushes of the bitmap to the log.",
       [](const Info& info) { return info.flushes; });
  each("firn_changes_marks_total", counter, "Writes and discards that were marked.",
       [](const Info& info) { return info.marks; });
  each("firn_changes_intent_misses_total", counter,
       "Writes that waited for a commit because their region had no intent.",
       [](const Info& info) { return info.intent_misses; });
  each("firn_changes_log_pages_total", counter, "Pages of the log written.",
       [](const Info& info) { return info.log_pages; });
  each("firn_changes_recovered_bytes", gauge,
       "Bytes that count as changed because the last stop was a crash.",
       [](const Info& info) { return info.recovered_bytes; });
  each("firn_changes_lost_log_pages_total", counter,
       "Pages of the log that could not be read: their blocks count as changed.",
       [](const Info& info) { return info.lost_log_pages; });
}

void add_instant(MetricsText& text, const std::map<std::string, Instant::Progress>& disks) {
  const auto each = [&](std::string_view name, std::string_view help, auto value) {
    text.family(name, MetricType::gauge, help);
    for (const auto& [disk, progress] : disks) {
      text.sample({{"disk", disk}}, uint64_t{value(progress)});
    }
  };
  using Progress = Instant::Progress;
  each("firn_restoring_bytes", "Size of a disk that is being fetched from an archive.",
       [](const Progress& progress) { return progress.disk.total_bytes; });
  each("firn_restoring_done_bytes", "What of it is here.",
       [](const Progress& progress) { return progress.disk.done_bytes; });
  each("firn_restoring_stalled", "1 while it cannot be fetched; the log says why.",
       [](const Progress& progress) { return progress.error.empty() ? uint64_t{0} : uint64_t{1}; });
}

namespace {

using Paths = std::map<std::string, DiskPaths::Parts>;

void each_coalesce(MetricsText& text, const Paths& paths, std::string_view name,
                   std::string_view help, uint64_t policy::IoCoalesce::Counters::*member) {
  text.family(name, MetricType::counter, help);
  for (const auto& [disk, parts] : paths) {
    if (parts.coalesce == nullptr) continue;
    text.sample({{"disk", disk}}, parts.coalesce->decided().*member);
  }
}

}  // namespace

void add_paths(MetricsText& text, const Paths& paths) {
  using enum MetricType;
  using Decided = policy::IoCoalesce::Counters;
  text.family("firn_disk_limit_waits_total", counter,
              "Requests that waited for the disk's limits.");
  for (const auto& [disk, parts] : paths) {
    if (parts.limits != nullptr) {
      text.sample({{"disk", disk}}, parts.limits->counters().waits);
    }
  }
  text.family("firn_disk_limit_wait_seconds_total", counter, "How long they waited, in sum.");
  for (const auto& [disk, parts] : paths) {
    if (parts.limits == nullptr) continue;
    text.sample({{"disk", disk}}, static_cast<double>(parts.limits->counters().wait_ns) / 1e9);
  }
  each_coalesce(text, paths, "firn_disk_coalesce_requests_total",
                "Reads and writes that coalescing saw.", &Decided::requests);
  each_coalesce(text, paths, "firn_disk_coalesce_batches_total", "Batches that it sent.",
                &Decided::batches);
  each_coalesce(text, paths, "firn_disk_coalesce_extents_total",
                "Requests that it made of them: neighbours of a batch are one.", &Decided::extents);
  each_coalesce(text, paths, "firn_disk_coalesce_held_total", "Requests that it held back.",
                &Decided::held);
  text.family("firn_disk_coalesce_sent_total", counter, "Why what was held was sent.");
  for (const auto& [disk, parts] : paths) {
    if (parts.coalesce == nullptr) continue;
    const Decided& decided = parts.coalesce->decided();
    text.sample({{"disk", disk}, {"cause", "depth"}}, decided.by_depth);
    text.sample({{"disk", disk}, {"cause", "full"}}, decided.by_full);
    text.sample({{"disk", disk}, {"cause", "deadline"}}, decided.by_deadline);
    text.sample({{"disk", disk}, {"cause", "drain"}}, decided.by_drain);
  }
  each_coalesce(text, paths, "firn_disk_coalesce_probes_total",
                "Bursts of a random load that were held to look.", &Decided::probes);
  each_coalesce(text, paths, "firn_disk_coalesce_overlaps_total",
                "Requests that waited for one that they overlap.", &Decided::overlaps);
  text.family("firn_disk_coalesce_retried_total", counter,
              "Requests tried again by themselves, after they had failed together.");
  for (const auto& [disk, parts] : paths) {
    if (parts.coalesce == nullptr) continue;
    text.sample({{"disk", disk}}, parts.coalesce->counters().retried);
  }
}

namespace {

constexpr std::array<std::string_view, wire::nbd::kCommands + 1> kOps{
    "read",  "write",        "disconnect",   "flush",  "trim",
    "cache", "write_zeroes", "block_status", "unknown"};

using Servers = std::span<const NbdMetrics>;

void each_server(MetricsText& text, Servers servers, std::string_view name, MetricType type,
                 std::string_view help, uint64_t serve::NbdServerCounters::*member) {
  text.family(name, type, help);
  for (const NbdMetrics& each : servers) {
    text.sample({{"transport", each.transport}}, each.server->counters().*member);
  }
}

void each_export(MetricsText& text, Servers servers, std::string_view name, MetricType type,
                 std::string_view help, uint64_t serve::NbdExportCounters::*member) {
  text.family(name, type, help);
  for (const NbdMetrics& each : servers) {
    for (const auto& [disk, counters] : each.server->exports()) {
      text.sample({{"transport", each.transport}, {"disk", disk}}, counters.*member);
    }
  }
}

// Commands that never came have no sample: a disk has ten of them otherwise.
void each_command(MetricsText& text, Servers servers, std::string_view name, std::string_view help,
                  decltype(serve::NbdExportCounters::requests) serve::NbdExportCounters::*member) {
  text.family(name, MetricType::counter, help);
  for (const NbdMetrics& each : servers) {
    for (const auto& [disk, counters] : each.server->exports()) {
      for (size_t i = 0; i < kOps.size(); ++i) {
        if (counters.requests[i] == 0) continue;
        text.sample({{"transport", each.transport}, {"disk", disk}, {"op", kOps[i]}},
                    (counters.*member)[i]);
      }
    }
  }
}

}  // namespace

void add_nbd(MetricsText& text, Servers servers) {
  using enum MetricType;
  using Server = serve::NbdServerCounters;
  using Export = serve::NbdExportCounters;
  each_server(text, servers, "firn_nbd_connections", gauge, "NBD connections now.",
              &Server::connections);
  each_server(text, servers, "firn_nbd_connections_total", counter, "NBD connections accepted.",
              &Server::connections_total);
  each_server(text, servers, "firn_nbd_connections_refused_total", counter,
              "Connections closed at once because there were too many.",
              &Server::connections_refused);
  each_server(text, servers, "firn_nbd_handshakes_failed_total", counter,
              "Handshakes broken off, refused, or too slow.", &Server::handshakes_failed);
  each_server(text, servers, "firn_nbd_tls_connections_total", counter, "Connections that use TLS.",
              &Server::tls_connections_total);
  each_server(text, servers, "firn_nbd_protocol_errors_total", counter,
              "Connections dropped for what they sent.", &Server::protocol_errors);
  each_server(text, servers, "firn_nbd_receives_total", counter, "Receive operations.",
              &Server::receives);
  each_server(text, servers, "firn_nbd_sends_total", counter, "Send operations.", &Server::sends);
  each_server(text, servers, "firn_nbd_replies_total", counter, "Replies sent.", &Server::replies);
  each_server(text, servers, "firn_nbd_replies_held_total", counter,
              "Replies that waited so that more go with one send.", &Server::replies_held);
  each_server(text, servers, "firn_nbd_sends_late_total", counter,
              "Sends because a reply had waited as long as any may.", &Server::sends_late);
  each_command(text, servers, "firn_nbd_requests_total", "Requests by command.", &Export::requests);
  each_command(text, servers, "firn_nbd_errors_total", "Requests answered with an error.",
               &Export::errors);
  each_export(text, servers, "firn_nbd_read_bytes_total", counter, "Bytes that clients read.",
              &Export::bytes_read);
  each_export(text, servers, "firn_nbd_written_bytes_total", counter, "Bytes that clients wrote.",
              &Export::bytes_written);
  each_export(text, servers, "firn_nbd_requests_in_flight", gauge, "Requests being worked on.",
              &Export::in_flight);
  each_export(text, servers, "firn_nbd_disk_connections", gauge,
              "Connections that use the disk now.", &Export::connections);
}

namespace {

using Disks = std::map<std::string, serve::VhostCounters, std::less<>>;

void each_disk(MetricsText& text, const Disks& disks, std::string_view name, MetricType type,
               std::string_view help, uint64_t serve::VhostCounters::*member) {
  text.family(name, type, help);
  for (const auto& [disk, counters] : disks) text.sample({{"disk", disk}}, counters.*member);
}

void each_op(MetricsText& text, const Disks& disks, std::string_view name, std::string_view help,
             std::array<uint64_t, serve::kVhostOps> serve::VhostCounters::*member) {
  constexpr std::array<std::string_view, serve::kVhostOps> kVhostNames{
      "read", "write", "flush", "get_id", "discard", "write_zeroes", "unknown"};
  text.family(name, MetricType::counter, help);
  for (const auto& [disk, counters] : disks) {
    for (size_t i = 0; i < kVhostNames.size(); ++i) {
      const uint64_t value = (counters.*member)[i];
      if (value != 0) text.sample({{"disk", disk}, {"op", kVhostNames[i]}}, value);
    }
  }
}

}  // namespace

void add_vhost(MetricsText& text, const serve::VhostServer& server) {
  using enum MetricType;
  using Counters = serve::VhostCounters;
  const Disks& disks = server.counters();
  each_disk(text, disks, "firn_vhost_connections", gauge,
            "vhost-user front ends that use the disk now.", &Counters::connections);
  each_disk(text, disks, "firn_vhost_connections_total", counter, "vhost-user front ends accepted.",
            &Counters::connections_total);
  each_disk(text, disks, "firn_vhost_connections_refused_total", counter,
            "Front ends refused because the disk had one.", &Counters::connections_refused);
  each_disk(text, disks, "firn_vhost_protocol_errors_total", counter,
            "Front ends dropped, and rings broken, for what they said.",
            &Counters::protocol_errors);
  each_op(text, disks, "firn_vhost_requests_total", "Requests of guests by kind.",
          &Counters::requests);
  each_op(text, disks, "firn_vhost_errors_total", "Requests of guests answered with an error.",
          &Counters::errors);
  each_disk(text, disks, "firn_vhost_read_bytes_total", counter, "Bytes that guests read.",
            &Counters::bytes_read);
  each_disk(text, disks, "firn_vhost_written_bytes_total", counter, "Bytes that guests wrote.",
            &Counters::bytes_written);
  each_disk(text, disks, "firn_vhost_requests_in_flight", gauge, "Requests being worked on.",
            &Counters::in_flight);
  each_disk(text, disks, "firn_vhost_kicks_total", counter, "Signals that guests gave.",
            &Counters::kicks);
  each_disk(text, disks, "firn_vhost_polls_total", counter,
            "Batches of requests found without a signal.", &Counters::polls);
  each_disk(text, disks, "firn_vhost_calls_total", counter, "Signals given to guests.",
            &Counters::calls);
  each_disk(text, disks, "firn_vhost_calls_spared_total", counter,
            "Batches of answers for which the guest wanted no signal.", &Counters::calls_spared);
  each_disk(text, disks, "firn_vhost_calls_held_total", counter,
            "Batches of answers whose signal waited for more of them.", &Counters::calls_held);
  each_disk(text, disks, "firn_vhost_calls_late_total", counter,
            "Signals given because one had waited as long as any may.", &Counters::calls_late);
  each_disk(text, disks, "firn_pace_held", gauge,
            "Requests of guests that have ended and are held back.", &Counters::paced);
  text.family("firn_pace_released_total", counter, "Why what was held back was let go.");
  for (const auto& [disk, counters] : disks) {
    text.sample({{"disk", disk}, {"cause", "safepoint"}}, counters.paced_by_safepoint);
    text.sample({{"disk", disk}, {"cause", "maturity"}}, counters.paced_by_maturity);
  }
  each_disk(text, disks, "firn_vhost_resubmitted_total", counter,
            "Requests in flight taken over from a server that died.", &Counters::resubmitted);
}

void add_io(MetricsText& text, const FiberIoCounters& counters) {
  using enum MetricType;
  text.one("firn_io_turns_total", counter, "Turns of the shard.", counters.turns);
  text.one("firn_io_ring_enters_total", counter, "System calls into the ring.", counters.enters);
  text.one("firn_io_operations_total", counter, "Operations given to the ring.",
           counters.operations);
  text.one("firn_io_completions_total", counter, "Operations that the ring completed.",
           counters.completions);
  text.one("firn_io_fibers_spawned_total", counter, "Fibers started.", counters.fibers_spawned);
  text.one("firn_io_fiber_switches_total", counter, "Switches to a fiber.",
           counters.fiber_switches);
  text.one("firn_io_fibers", gauge, "Fibers now.", counters.fibers_alive);
  text.one("firn_io_fiber_stacks", gauge, "Stacks that exist, in use or not.", counters.stacks);
  text.one("firn_io_fiber_stack_high_water_bytes", gauge, "The largest part of a stack ever used.",
           counters.stack_high_water_bytes);
  text.one("firn_io_buffer_waits_total", counter, "Times a fiber waited for a registered buffer.",
           counters.buffer_waits);
  text.one("firn_io_buffer_bytes", gauge, "Registered buffers in use.",
           counters.buffer_bytes_in_use);
  text.one("firn_io_buffer_high_water_bytes", gauge, "The most of them ever in use.",
           counters.buffer_bytes_in_use_max);
}

}  // namespace firn::engine
