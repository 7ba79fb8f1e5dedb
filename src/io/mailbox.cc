// SPDX-License-Identifier: Apache-2.0
#include "io/mailbox.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace firn {

Mailbox::Mailbox() : signal_fd_(::eventfd(0, EFD_CLOEXEC)) {
  CHECK(signal_fd_ >= 0, "no eventfd: {}", std::strerror(errno));
}

Mailbox::~Mailbox() { ::close(signal_fd_); }

void Mailbox::signal() {
  if (std::exchange(signalled_, true)) return;
  const uint64_t one = 1;
  CHECK(::write(signal_fd_, &one, sizeof(one)) == sizeof(one), "eventfd: {}", std::strerror(errno));
}

void Mailbox::post(Task task) {
  const std::lock_guard hold(mutex_);
  tasks_.push_back(std::move(task));
  signal();
}

void Mailbox::resume(Fiber& fiber) {
  const std::lock_guard hold(mutex_);
  fibers_.push_back(&fiber);
  signal();
}

void Mailbox::take(std::vector<Task>& tasks, std::vector<Fiber*>& fibers) {
  const std::lock_guard hold(mutex_);
  tasks.swap(tasks_);
  fibers.swap(fibers_);
  signalled_ = false;
}

HelperThreads::HelperThreads(size_t count) {
  // Signals are the daemon's business, and arrive on its own threads: helpers block them all.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  CHECK(::pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
  threads_.reserve(count);
  for (size_t i = 0; i < count; ++i) threads_.emplace_back([this] { work(); });
  CHECK(::pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
}

HelperThreads::~HelperThreads() {
  {
    const std::lock_guard hold(mutex_);
    ending_ = true;
  }
  something_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void HelperThreads::give(Job& job) {
  {
    const std::lock_guard hold(mutex_);
    job.next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = &job;
    last_ = &job;
  }
  something_.notify_one();
}

void HelperThreads::work() {
  std::unique_lock hold(mutex_);
  for (;;) {
    something_.wait(hold, [this] { return first_ != nullptr || ending_; });
    if (first_ == nullptr) return;
    Job& job = *first_;
    first_ = job.next;
    hold.unlock();
    job.task();
    job.task.clear();
    job.home->resume(*job.fiber);  // The job may be gone now.
    hold.lock();
  }
}

}  // namespace firn
