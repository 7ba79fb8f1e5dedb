// SPDX-License-Identifier: Apache-2.0
// A long change of maps, atom by atom: consolidation, drop, shrink. Between two atoms nothing is
// held, guests go first (P6), and the job may be told to stop; it goes on another time from what
// the maps say.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "disk/gate.h"
#include "policy/job_pace.h"
#include "store/pages.h"
#include "store/pool.h"

namespace firn::disk {

class Steps {
 public:
  // `stopping` is looked at before each atom, and lives as long as this. `pace` is shared by all
  // jobs of a pool: it knows the guests from one to the next.
  Steps(store::Pool& pool, Gate& gate, policy::JobPace& pace, const bool& stopping)
      : pool_(pool), gate_(gate), pace_(pace), stopping_(stopping) {
    pool_.watch(pace_);
  }
  ~Steps() { pool_.unwatch(); }
  Steps(const Steps&) = delete;
  Steps& operator=(const Steps&) = delete;

  // Runs `atom` inside the pool's gate and with an admission; then rests as long as guests need.
  // Errc::cancelled when it is time to stop.
  template <class Atom>
  Result<void> step(Io& io, Atom&& atom) {
    return step(
        io, [] { return 0; }, std::forward<Atom>(atom));
  }
  // The same, with what `lock()` returns held meanwhile: ranges come between gate and admission.
  template <class Lock, class Atom>
  Result<void> step(Io& io, Lock&& lock, Atom&& atom) {
    TRY(go_on());
    Duration took{};
    {
      const auto pass = gate_.enter(io);
      [[maybe_unused]] const auto held = lock();
      const auto admission =
          TRY(pool_.pages().admit(io, store::PageStore::kAdmissionBytes, store::Priority::job));
      const Time began = io.now();  // What came before was waiting, which nobody feels.
      pool_.disturb();
      TRY(atom());
      pool_.disturb();
      took = io.now() - began;
    }
    ++done_;
    work_ += took;
    return rest(io, pace_.rest_after(took, pool_.guests_in_flight(), pool_.guest_requests()));
  }

  uint64_t done() const { return done_; }
  Duration work() const { return work_; }  // Without the rests.

 private:
  Result<void> go_on() const {
    TRY(pool_.writable());
    if (stopping_) return fail(Errc::cancelled, "it was told to stop");
    return ok;
  }
  Result<void> rest(Io& io, Duration whole) {
    constexpr Duration kSlice = std::chrono::milliseconds(20);  // How soon a stop is noticed.
    io.yield();
    if (io.sometimes("a commit between two steps of a job")) TRY(pool_.flush(io));
    for (; whole > Duration::zero() && !stopping_; whole -= std::min(whole, kSlice)) {
      io.sleep(std::min(whole, kSlice));
    }
    return ok;
  }

  store::Pool& pool_;
  Gate& gate_;
  policy::JobPace& pace_;
  const bool& stopping_;
  uint64_t done_ = 0;
  Duration work_{};
};

}  // namespace firn::disk
