// SPDX-License-Identifier: Apache-2.0
#include "io/ring.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "io/host_file.h"

namespace firn {
namespace {

constexpr unsigned kLooksAfterVain = 32;

bool look(const Pollers& pollers) {
  bool found = false;
  for (Poller* each = pollers.front(); each != nullptr; each = Pollers::after(each)) {
    found |= each->look();
  }
  return found;
}

// All of them, also when one has something: the next sleep finds the others armed.
bool arm(const Pollers& pollers) {
  bool found = false;
  for (Poller* each = pollers.front(); each != nullptr;) {
    Poller* const next = Pollers::after(each);
    found |= each->arm();
    each = next;
  }
  return found;
}

// EBUSY and EAGAIN: completions must be consumed, or memory found, before more is taken; the
// entries stay in the queue for the next turn.
void check_entered(int done) {
  CHECK(done >= 0 || done == -EINTR || done == -ETIME || done == -EAGAIN || done == -EBUSY,
        "io_uring_enter: {}", std::strerror(-done));
}

}  // namespace

Result<std::unique_ptr<Ring>> Ring::make(const Settings& settings, Bytes arena) {
  std::unique_ptr<Ring> made(new Ring());
  TRY(made->set_up(settings));
  made->set_up_slots(settings.plain ? 0 : settings.file_slots);
  if (!settings.plain && !arena.empty()) {
    // May be refused by RLIMIT_MEMLOCK; then transfers pin their pages one by one.
    const ::iovec all = slice_of(arena);
    made->arena_registered_ = ::io_uring_register_buffers(&made->ring_, &all, 1) == 0;
  }
  return made;
}

Result<void> Ring::set_up(const Settings& settings) {
  // From the best to what every kernel with io_uring takes.
  constexpr unsigned kAlways = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  constexpr std::array<unsigned, 3> kChoices{
      kAlways | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
          IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
      kAlways | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
      kAlways};
  int sys = 0;
  for (size_t i = settings.plain ? kChoices.size() - 1 : 0; i < kChoices.size(); ++i) {
    io_uring_params wanted{};
    wanted.flags = kChoices[i];
    wanted.cq_entries = settings.entries * 8;
    sys = ::io_uring_queue_init_params(settings.entries, &ring_, &wanted);
    if (sys == 0) break;
  }
  if (sys != 0) {
    return fail_errno(-sys,
                      "cannot make an io_uring (kernel.io_uring_disabled? a container's seccomp?)");
  }
  made_ = true;
  constexpr unsigned kNeeded = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP;
  if ((ring_.features & kNeeded) != kNeeded) {
    return fail(Errc::unsupported, "io_uring of this kernel is too old: Linux 5.11 is needed");
  }
  if (!settings.plain) (void)::io_uring_register_ring_fd(&ring_);  // Only saves time.
  return ok;
}

void Ring::set_up_slots(uint32_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    wanted = static_cast<uint32_t>(std::min<uint64_t>(wanted, limit.rlim_cur));
  }
  const bool sparse = wanted > 0 && ::io_uring_register_files_sparse(&ring_, wanted) == 0;
  slots_ = std::make_shared<FdSlots>(sparse ? &ring_ : nullptr, wanted);
}

Ring::~Ring() {
  if (slots_ != nullptr) slots_->close();
  if (made_) ::io_uring_queue_exit(&ring_);
}

io_uring_sqe& Ring::entry() {
  io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
  while (sqe == nullptr) {
    enter(false, std::nullopt, Pollers());
    sqe = ::io_uring_get_sqe(&ring_);
  }
  ++entries_used_;
  return *sqe;
}

bool Ring::must_enter() const {
  if (::io_uring_sq_ready(&ring_) > 0) return true;
  if ((ring_.flags & IORING_SETUP_TASKRUN_FLAG) == 0) return false;  // The kernel posts by itself.
  return (__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) &
          (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

// Submits without waiting, and then looks at the completion queue for a while: no system call
// meanwhile. True when something came. Submits before it looks: a ring in which there is always one
// more request must not keep from the device what was asked of it before.
bool Ring::spin(Time begun, const Pollers& pollers) {
  if (!pollers.empty() && must_enter()) {
    ++enters_;
    if (::io_uring_submit_and_get_events(&ring_) < 0) return false;
    if (::io_uring_cq_ready(&ring_) > 0) return true;
  }
  if (look(pollers)) return true;
  const Duration allowance = spin_.allowance(!pollers.empty());
  if (allowance == Duration::zero()) return false;
  if (must_enter()) {
    ++enters_;
    const int done = ::io_uring_submit_and_get_events(&ring_);
    if (done < 0) return false;
  }
  // The kernel's flag says that there is work for us; now and then it stays when the work is done.
  // So it is no reason to do nothing but ask, and one call in vain is enough for a while.
  unsigned ask_again = 0;
  for (unsigned looks = 0; ::io_uring_cq_ready(&ring_) == 0; ++looks) {
    if (looks >= ask_again && must_enter()) {
      ++enters_;
      if (::io_uring_get_events(&ring_) < 0) return false;
      ask_again = looks + kLooksAfterVain;
      continue;
    }
    if (look(pollers)) return true;
    __builtin_ia32_pause();
    if (looks % 8 == 7 && host_now() - begun > allowance) return false;
  }
  return true;
}

int Ring::sleep(std::optional<Duration> timeout, uint32_t count) {
  ++enters_;
  if (!timeout) return ::io_uring_submit_and_wait(&ring_, count);
  io_uring_cqe* first = nullptr;
  const int64_t ns = std::max<int64_t>(timeout->count(), 0);
  __kernel_timespec limit{};
  limit.tv_sec = ns / 1'000'000'000;
  limit.tv_nsec = ns % 1'000'000'000;
  return ::io_uring_submit_and_wait_timeout(&ring_, &first, count, &limit, nullptr);
}

void Ring::gather(uint32_t batch, Duration limit, const Pollers& pollers) {
  int done = 0;
  if (::io_uring_cq_ready(&ring_) == 0 && !look(pollers)) {
    done = sleep(limit, batch);
  } else if (pending() >= DeepLoad::kPushAt) {
    ++enters_;
    done = ::io_uring_submit_and_get_events(&ring_);
  }
  check_entered(done);
}

void Ring::push() {
  ++enters_;
  check_entered(::io_uring_submit(&ring_));
}

void Ring::enter(bool wait, std::optional<Duration> timeout, const Pollers& pollers) {
  int done = 0;
  if (wait && ::io_uring_cq_ready(&ring_) == 0) {
    const Time begun = host_now();
    if (!spin(begun, pollers) && !arm(pollers)) done = sleep(timeout);
    spin_.waited(host_now() - begun);
  } else {
    look(pollers);  // Fibers that are never done waiting must not hide a ring.
    if (must_enter()) {
      ++enters_;
      done = ::io_uring_submit_and_get_events(&ring_);
    }
  }
  check_entered(done);
}

}  // namespace firn
