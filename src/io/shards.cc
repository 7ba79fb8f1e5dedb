// SPDX-License-Identifier: Apache-2.0
#include "io/shards.h"

#include <pthread.h>
#include <signal.h>

#include <future>
#include <string>
#include <utility>

#include "base/check.h"

namespace firn {
namespace {

// An Error with its sentence, for the journey between threads.
struct Born {
  bool good = true;
  Errc code = Errc::io;
  std::string text;
};

}  // namespace

Result<std::unique_ptr<Shards>> Shards::start(size_t count, FiberIo::Settings settings) {
  if (settings.helpers == nullptr) settings.helpers = std::make_shared<HelperThreads>();
  std::unique_ptr<Shards> made(new Shards());
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  CHECK(::pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
  Born born;
  for (size_t i = 0; i < count && born.good; ++i) {
    auto shard = std::make_unique<Shard>();
    std::promise<Born> promise;
    std::future<Born> started = promise.get_future();
    shard->thread = std::thread([all_of_them = made.get(), &settings, &promise, &mine = *shard] {
      Result<std::unique_ptr<FiberIo>> io = FiberIo::make(settings);
      if (!io) {
        promise.set_value({false, io.error().code, std::string(text_of(io.error()))});
        return;
      }
      mine.io = io.take();
      ++all_of_them->running_;
      promise.set_value({});  // The caller goes on: its locals are out of reach from here.
      all_of_them->serve(mine);
    });
    born = started.get();
    if (born.good) {
      made->shards_.push_back(std::move(shard));
    } else {
      shard->thread.join();
    }
  }
  CHECK(::pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
  if (!born.good) return fail(born.code, "{}", born.text);
  return made;
}

void Shards::serve(Shard& shard) {
  shard.io->run([&shard] {
    while (!shard.stopping) shard.io->park(shard.stop);
  });
  --running_;
  running_.notify_all();
  may_die_.wait(false);
  shard.io.reset();
}

void Shards::stop() {
  if (std::exchange(stopped_, true)) return;
  for (const std::unique_ptr<Shard>& shard : shards_) {
    shard->io->post([&mine = *shard] {
      mine.stopping = true;
      mine.io->wake(mine.stop, SIZE_MAX);
    });
  }
}

Shards::~Shards() {
  stop();
  for (size_t left = running_; left > 0; left = running_) running_.wait(left);
  may_die_ = true;
  may_die_.notify_all();
  for (const std::unique_ptr<Shard>& shard : shards_) shard->thread.join();
}

}  // namespace firn
