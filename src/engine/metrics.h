// SPDX-License-Identifier: Apache-2.0
// Metrics in Prometheus' text format 0.0.4.
//
// Contract:
//  M1  Every family has one HELP and one TYPE line before its samples, and appears once; its
//      samples are adjacent. Names begin with firn_; counters end in _total; units are bytes and
//      seconds.
//  M2  Label values are escaped; a name or label key that is malformed is a programmer's error
//      (CHECK).
//
// docs/reference/metrics.md lists every family; tools compare the two. No averages: rates are for
// the reader to compute.
#pragma once

#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "disk/backed.h"
#include "disk/disks.h"
#include "engine/disk_paths.h"
#include "engine/instant.h"
#include "io/fiber_io.h"
#include "serve/nbd_server.h"
#include "serve/vhost_server.h"
#include "store/pool.h"

namespace firn::engine {

enum class MetricType : uint8_t { gauge, counter };

using Label = std::pair<std::string_view, std::string_view>;

class MetricsText {
 public:
  // Begins a family; samples that follow belong to it.
  void family(std::string_view name, MetricType type, std::string_view help);
  void sample(std::initializer_list<Label> labels, uint64_t value);
  void sample(std::initializer_list<Label> labels, double value);
  // A family of one sample without labels.
  void one(std::string_view name, MetricType type, std::string_view help, uint64_t value);
  std::string take() { return std::move(text_); }

 private:
  void sample_text(std::initializer_list<Label> labels, std::string_view value);
  std::string text_;
  std::string name_;
  std::vector<std::string> names_;  // Of all families so far: M1.
};

void add_build(MetricsText& text);
void add_pool(MetricsText& text, const store::PoolInfo& info);
// Of the disks that are open.
void add_tracking(MetricsText& text, const std::vector<disk::TrackingInfo>& disks);
void add_fetched(MetricsText& text, const disk::Fetched& fetched);
void add_disks(MetricsText& text, const std::vector<disk::DiskInfo>& disks);
void add_jobs(MetricsText& text, const std::vector<disk::JobInfo>& jobs,
              const disk::JobCounters& counters);
// Disks that are being fetched from an archive.
void add_instant(MetricsText& text, const std::map<std::string, Instant::Progress>& disks);
// Limits and coalescing, of the disks that have them in their path now.
void add_paths(MetricsText& text, const std::map<std::string, DiskPaths::Parts>& paths);
// The NBD servers, by the transport of their listeners.
struct NbdMetrics {
  std::string_view transport;  // "unix", "tcp"
  const serve::NbdServer* server = nullptr;
};
void add_nbd(MetricsText& text, std::span<const NbdMetrics> servers);
void add_vhost(MetricsText& text, const serve::VhostServer& server);
void add_io(MetricsText& text, const FiberIoCounters& counters);
// What the kernel counts for this process: CPU seconds, resident bytes, open descriptors.
void add_process(MetricsText& text);

}  // namespace firn::engine
