// SPDX-License-Identifier: Apache-2.0
// vhostload: loads a vhost-user-blk server through libfirn: firn's, and qemu-storage-daemon's.
//
//   vhostload unix:PATH [--queues N] [--packed] [--no-event] [--no-indirect] [--spin | --poll]
//             [workload options, see workload.h]
//
// One thread drives all queues; --depth is spread over them. A turn offers everything that fits,
// then takes in what is there; with nothing there it sleeps at once, as a guest's driver does. With
// --spin it looks a little longer, as libfirn does by itself, with --poll for ever. Prints the
// workload's line of JSON, then one with kicks and calls. Does not verify what it reads: `firn
// bench --verify` does.
#include <firn.h>
#include <fmt/core.h>

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "workload.h"

namespace {

using bench::Clock;
using bench::die;
using Step = bench::Run::Step;

class Client {
 public:
  Client(const std::string& where, const bench::Workload& workload, firn_options options, bool poll)
      : workload_(workload), poll_(poll), slots_(workload.depth) {
    if (!where.starts_with("unix:")) die("expected unix:PATH");
    options.size = sizeof(options);
    const auto queues = options.queues;
    options.depth = static_cast<uint32_t>((workload.depth + queues - 1) / queues);
    slot_bytes_ = (workload.block + 4095) / 4096 * 4096;
    options.memory_bytes = slot_bytes_ * workload.depth;
    if (firn_connect(where.substr(5).c_str(), &options, &channel_) != 0) die(firn_error());
    if (firn_get_geometry(channel_, &geometry_) != 0) die(firn_error());
    memory_ = static_cast<std::byte*>(firn_allocate(channel_, options.memory_bytes));
    for (size_t i = slots_.size(); i-- > 0;) {
      slots_[i].queue = static_cast<uint16_t>(i % queues);
      free_.push_back(i);
      if (workload.writes()) bench::fill(data_of(i), workload.seed * 7919 + i);
    }
  }
  ~Client() { firn_disconnect(channel_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  int go() {
    bench::Run run(workload_, geometry_.bytes);
    offer(run);
    std::array<firn_completion, 128> done;
    while (free_.size() < slots_.size()) {
      const int count = poll_ ? firn_poll(channel_, done.data(), done.size())
                              : firn_wait(channel_, done.data(), done.size(), 10'000);
      if (count < 0) die(firn_error());
      if (count == 0 && !poll_) die("the server does not answer");
      for (int i = 0; i < count; ++i) {
        const firn_completion& each = done[static_cast<size_t>(i)];
        const Slot& slot = slots_[each.cookie];
        run.completed(slot.step, slot.issued, each.result == 0);
        free_.push_back(each.cookie);
      }
      if (count > 0) offer(run);
    }
    const int status = run.report();
    firn_statistics seen;
    firn_get_statistics(channel_, &seen);
    fmt::print("{{\"kicks\": {}, \"calls\": {}, \"sleeps\": {}, \"operations\": {}}}\n", seen.kicks,
               seen.calls, seen.sleeps, run.issued());
    return status;
  }

 private:
  struct Slot {
    Step step{};
    Clock::time_point issued;
    uint16_t queue = 0;
  };
  std::span<std::byte> data_of(size_t slot) const {
    return {memory_ + slot * slot_bytes_, workload_.block};
  }

  void offer(bench::Run& run) {
    const Clock::time_point now = Clock::now();
    while (!free_.empty()) {
      const Step step = run.next();
      if (step.kind == Step::Kind::none) break;
      const size_t number = free_.back();
      free_.pop_back();
      Slot& slot = slots_[number];
      slot.step = step;
      slot.issued = now;
      const bool flush = step.kind == Step::Kind::flush;
      if (!flush && workload_.writes()) bench::restamp(data_of(number), run.issued());
      firn_request request{};
      request.cookie = number;
      request.offset = step.at;
      request.buffer = data_of(number).data();
      request.length = static_cast<uint32_t>(workload_.block);
      request.op = flush ? FIRN_FLUSH : (workload_.writes() ? FIRN_WRITE : FIRN_READ);
      request.queue = slot.queue;
      const int taken = firn_submit(channel_, &request);
      if (taken != 0) die(taken == -11 ? "a ring is full" : firn_error());
    }
    firn_commit(channel_);
  }

  bench::Workload workload_;
  bool poll_;
  std::vector<Slot> slots_;
  std::vector<size_t> free_;
  firn_channel* channel_ = nullptr;
  struct firn_geometry geometry_ {};
  std::byte* memory_ = nullptr;
  uint64_t slot_bytes_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  bench::Arguments parsed = bench::parse(count, arguments);
  firn_options options{};
  options.queues = 1;
  options.spin_us = FIRN_NO_SPIN;
  bool poll = false;
  std::string place;
  for (size_t i = 0; i < parsed.rest.size(); ++i) {
    const std::string_view word = parsed.rest[i];
    if (word == "--packed") {
      options.flags |= FIRN_PACKED;
    } else if (word == "--no-event") {
      options.flags |= FIRN_NO_EVENT;
    } else if (word == "--no-indirect") {
      options.flags |= FIRN_NO_INDIRECT;
    } else if (word == "--poll") {
      poll = true;
    } else if (word == "--spin") {
      options.spin_us = 0;
    } else if (word == "--queues" && i + 1 < parsed.rest.size()) {
      options.queues = static_cast<uint32_t>(bench::size_of(parsed.rest[++i]));
    } else {
      place = word;
    }
  }
  if (place.empty() || options.queues == 0 || options.queues > 64) {
    die("usage: vhostload unix:PATH [--queues N] [--packed] [--spin|--poll] [--mode M ...]");
  }
  return Client(place, parsed.workload, options, poll).go();
}
