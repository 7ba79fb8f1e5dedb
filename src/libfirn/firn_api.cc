// SPDX-License-Identifier: Apache-2.0
// include/firn.h: errors become negative numbers here, and the sentence waits for firn_error().
#include <firn.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "libfirn/channel.h"

using firn::libfirn::Channel;

struct firn_channel {
  std::unique_ptr<Channel> channel;
};

namespace {

thread_local std::string last_error;

int refuse(firn::Error error) {
  last_error = firn::text_of(error);
  const int sys = error.sys != 0 ? error.sys : firn::errno_of(error.code);
  return sys > 0 ? -sys : -EIO;
}

firn_options complete(const firn_options* given) {
  firn_options options{};
  if (given != nullptr) {
    std::memcpy(&options, given, std::min<size_t>(given->size, sizeof(options)));
  }
  if (options.queues == 0) options.queues = 1;
  if (options.depth == 0) options.depth = 128;
  if (options.memory_bytes == 0) options.memory_bytes = 4 << 20;
  if (options.spin_us == 0) options.spin_us = 50;
  if (options.patience_ms == 0) options.patience_ms = 10'000;
  return options;
}

}  // namespace

extern "C" {

int firn_connect(const char* socket, const firn_options* options, firn_channel** channel) {
  const firn_options all = complete(options);
  if (socket == nullptr || channel == nullptr || all.queues > 64 || all.depth > 1024 ||
      all.memory_bytes > uint64_t{1} << 38) {
    return refuse(firn::fail(firn::Errc::invalid, "{} queues of {} requests cannot be", all.queues,
                             all.depth));
  }
  auto opened = Channel::open(socket, all);
  if (!opened) return refuse(opened.error());
  *channel = new firn_channel{opened.take()};
  return 0;
}

void firn_disconnect(firn_channel* channel) { delete channel; }

int firn_get_geometry(firn_channel* channel, struct firn_geometry* geometry) {
  const auto found = channel->channel->geometry();
  if (!found) return refuse(found.error());
  *geometry = *found;
  return 0;
}

void* firn_allocate(firn_channel* channel, size_t bytes) {
  return channel->channel->allocate(bytes);
}

int firn_register(firn_channel* channel, int fd, uint64_t offset, void* at, size_t bytes) {
  const auto shown = channel->channel->show(fd, offset, at, bytes);
  return shown ? 0 : refuse(shown.error());
}

int firn_submit(firn_channel* channel, const firn_request* request) {
  const auto taken = channel->channel->submit(*request);
  if (!taken) return refuse(taken.error());
  return *taken ? 0 : -EAGAIN;
}

int firn_commit(firn_channel* channel) {
  channel->channel->commit();
  return 0;
}

int firn_poll(firn_channel* channel, firn_completion* completions, int max) {
  if (max <= 0) return 0;
  return static_cast<int>(channel->channel->poll({completions, static_cast<size_t>(max)}));
}

int firn_wait(firn_channel* channel, firn_completion* completions, int max, int timeout_ms) {
  if (max <= 0) return 0;
  const auto count = channel->channel->wait({completions, static_cast<size_t>(max)}, timeout_ms);
  return count ? static_cast<int>(*count) : refuse(count.error());
}

int firn_event_fd(firn_channel* channel) { return channel->channel->event_fd(); }

int firn_arm(firn_channel* channel) {
  const auto there = channel->channel->arm();
  if (!there) return refuse(there.error());
  return *there ? 1 : 0;
}

void firn_get_statistics(const firn_channel* channel, struct firn_statistics* statistics) {
  *statistics = channel->channel->statistics();
}

const char* firn_error(void) { return last_error.c_str(); }

}  // extern "C"
