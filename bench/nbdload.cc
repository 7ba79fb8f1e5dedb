// SPDX-License-Identifier: Apache-2.0
// nbdload: a pipelined NBD client that costs little enough to measure fast servers.
//
//   nbdload unix:PATH|tcp:HOST:PORT EXPORT [--structured] [workload options, see workload.h]
//
// One connection, one thread. A turn sends everything that fits the queue depth in one system call,
// then takes in whatever replies are there. Prints one line of JSON. Does not verify what it reads:
// other tools do.
#include <arpa/inet.h>
#include <fmt/core.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "workload.h"

namespace {

using bench::Clock;
using bench::die;

constexpr uint64_t kInitMagic = 0x4e42444d41474943;
constexpr uint64_t kOptionMagic = 0x49484156454f5054;
constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;
constexpr uint32_t kRequestMagic = 0x25609513;
constexpr uint32_t kSimpleReplyMagic = 0x67446698;
constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;
constexpr uint32_t kOptionStructured = 8;
constexpr uint32_t kOptionGo = 7;
constexpr uint32_t kReplyAck = 1;
constexpr uint32_t kReplyInfo = 3;
constexpr uint16_t kCommandRead = 0;
constexpr uint16_t kCommandWrite = 1;
constexpr uint16_t kCommandDisconnect = 2;
constexpr uint16_t kCommandFlush = 3;
constexpr uint16_t kTransmissionFlush = 1U << 2;
constexpr uint16_t kChunkDone = 1;
constexpr uint16_t kChunkErrorBit = 1U << 15;
constexpr size_t kRequestBytes = 28;
constexpr size_t kSimpleBytes = 16;
constexpr size_t kStructuredBytes = 20;

template <class T>
T swapped(T value) {
  if constexpr (sizeof(T) == 2) return htobe16(value);
  if constexpr (sizeof(T) == 4) return htobe32(value);
  if constexpr (sizeof(T) == 8) return htobe64(value);
}
template <class T>
char* put(char* at, T value) {
  value = swapped(value);
  std::memcpy(at, &value, sizeof(T));
  return at + sizeof(T);
}
template <class T>
T get(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return swapped(value);
}

int connect_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) die("the socket's path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    die(fmt::format("connecting to {}: {}", path, std::strerror(errno)));
  }
  return fd;
}

int connect_tcp(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) die("no such host: " + host);
  const int fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
    die(fmt::format("connecting to {}:{}: {}", host, port, std::strerror(errno)));
  }
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::freeaddrinfo(found);
  return fd;
}

int connect_to(const std::string& where) {
  if (where.starts_with("unix:")) return connect_unix(where.substr(5));
  const size_t colon = where.rfind(':');
  if (!where.starts_with("tcp:") || colon <= 3) die("expected unix:PATH or tcp:HOST:PORT");
  return connect_tcp(where.substr(4, colon - 4), where.substr(colon + 1));
}

void receive_all(int fd, char* into, size_t count) {
  while (count > 0) {
    const ssize_t got = ::recv(fd, into, count, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) die("the server hung up");
    into += got;
    count -= static_cast<size_t>(got);
  }
}

void send_all(int fd, std::vector<iovec>& slices) {
  size_t first = 0;
  while (first < slices.size()) {
    msghdr message{};
    message.msg_iov = slices.data() + first;
    message.msg_iovlen = std::min<size_t>(slices.size() - first, 1024);
    ssize_t sent = ::sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) die(fmt::format("sending: {}", std::strerror(errno)));
    while (sent > 0) {
      iovec& slice = slices[first];
      const size_t part = std::min(static_cast<size_t>(sent), slice.iov_len);
      slice.iov_base = static_cast<char*>(slice.iov_base) + part;
      slice.iov_len -= part;
      sent -= static_cast<ssize_t>(part);
      if (slice.iov_len == 0) ++first;
    }
  }
  slices.clear();
}

struct Export {
  int fd = -1;
  uint64_t bytes = 0;
  uint16_t flags = 0;
};

void send_option(int fd, uint32_t option, const std::string& payload) {
  std::string message(16, '\0');
  char* at = put(message.data(), kOptionMagic);
  put(put(at, option), static_cast<uint32_t>(payload.size()));
  message += payload;
  std::vector<iovec> slices{{message.data(), message.size()}};
  send_all(fd, slices);
}

// The type of the next reply to an option; its payload goes to `payload`.
uint32_t receive_option_reply(int fd, std::string& payload) {
  char head[20];
  receive_all(fd, head, sizeof(head));
  if (get<uint64_t>(head) != kOptionReplyMagic) die("the server's option reply has a wrong magic");
  payload.resize(get<uint32_t>(head + 16));
  receive_all(fd, payload.data(), payload.size());
  return get<uint32_t>(head + 12);
}

Export negotiate(const std::string& where, const std::string& name, bool structured) {
  Export peer;
  peer.fd = connect_to(where);
  char hello[18];
  receive_all(peer.fd, hello, sizeof(hello));
  if (get<uint64_t>(hello) != kInitMagic || get<uint64_t>(hello + 8) != kOptionMagic) {
    die("the server does not speak newstyle NBD");
  }
  char flags[4];
  put(flags, get<uint16_t>(hello + 16) & 3U);  // Fixed newstyle, no zeroes: whatever is offered.
  std::vector<iovec> slices{{flags, sizeof(flags)}};
  send_all(peer.fd, slices);

  std::string payload;
  if (structured) {
    send_option(peer.fd, kOptionStructured, "");
    if (receive_option_reply(peer.fd, payload) != kReplyAck) die("no structured replies here");
  }
  std::string wanted(4, '\0');
  put(wanted.data(), static_cast<uint32_t>(name.size()));
  wanted += name;
  wanted += std::string(2, '\0');
  send_option(peer.fd, kOptionGo, wanted);
  for (;;) {
    const uint32_t type = receive_option_reply(peer.fd, payload);
    if (type == kReplyAck) return peer;
    if (type != kReplyInfo) die(fmt::format("the server refuses '{}': {}", name, payload));
    if (payload.size() >= 12 && get<uint16_t>(payload.data()) == 0) {
      peer.bytes = get<uint64_t>(payload.data() + 2);
      peer.flags = get<uint16_t>(payload.data() + 10);
    }
  }
}

// The connection in its transmission phase: `depth` slots, a handle is the number of its slot.
class Client {
 public:
  Client(const Export& peer, const bench::Workload& workload)
      : peer_(peer), workload_(workload), run_(workload, peer.bytes), slots_(workload.depth) {
    for (size_t i = 0; i < slots_.size(); ++i) {
      free_.push_back(slots_.size() - 1 - i);
      if (!workload.writes()) continue;
      slots_[i].payload.resize(workload.block);
      bench::fill(std::as_writable_bytes(std::span(slots_[i].payload)), workload.seed * 7919 + i);
    }
    inbox_.resize(2U << 20);
  }

  int go() {
    issue();
    while (free_.size() < slots_.size()) {
      take_in();
      issue();
    }
    const int status = run_.report();
    char request[kRequestBytes]{};
    put(put(put(request, kRequestMagic), uint16_t{0}), kCommandDisconnect);
    std::vector<iovec> slices{{request, sizeof(request)}};
    send_all(peer_.fd, slices);
    ::close(peer_.fd);
    return status;
  }

 private:
  struct Slot {
    bench::Run::Step step{};
    Clock::time_point issued;
    char request[kRequestBytes];
    std::vector<char> payload;
    bool good = true;
  };

  void issue() {
    const Clock::time_point now = Clock::now();
    while (!free_.empty()) {
      const bench::Run::Step step = run_.next();
      if (step.kind == bench::Run::Step::Kind::none) break;
      const size_t number = free_.back();
      free_.pop_back();
      Slot& slot = slots_[number];
      slot.step = step;
      slot.issued = now;
      slot.good = true;
      encode(slot, number);
      outbox_.push_back({slot.request, kRequestBytes});
      if (step.kind == bench::Run::Step::Kind::operation && workload_.writes()) {
        bench::restamp(std::as_writable_bytes(std::span(slot.payload)), run_.issued());
        outbox_.push_back({slot.payload.data(), slot.payload.size()});
      }
    }
    if (!outbox_.empty()) send_all(peer_.fd, outbox_);
  }

  void encode(Slot& slot, size_t number) const {
    const bool flush = slot.step.kind == bench::Run::Step::Kind::flush;
    const uint16_t command =
        flush ? kCommandFlush : (workload_.writes() ? kCommandWrite : kCommandRead);
    char* at = put(slot.request, kRequestMagic);
    at = put(put(at, uint16_t{0}), command);
    at = put(put(at, static_cast<uint64_t>(number)), slot.step.at);
    put(at, static_cast<uint32_t>(flush ? 0 : workload_.block));
  }

  // One receive, then every whole reply in it. Payloads are passed over, not copied again.
  void take_in() {
    const ssize_t got = ::recv(peer_.fd, inbox_.data() + held_, inbox_.size() - held_, 0);
    if (got < 0 && errno == EINTR) return;
    if (got <= 0) die("the server hung up");
    held_ += static_cast<size_t>(got);
    size_t at = 0;
    for (;;) {
      if (passing_ > 0) {
        const size_t part = std::min(passing_, held_ - at);
        at += part;
        passing_ -= part;
        if (passing_ > 0) break;
        if (ending_) finish(current_);
      }
      const size_t used = parse(inbox_.data() + at, held_ - at);
      if (used == 0) break;
      at += used;
    }
    std::memmove(inbox_.data(), inbox_.data() + at, held_ - at);
    held_ -= at;
  }

  // The header of one reply: its length, or 0 when it is not all there.
  size_t parse(const char* at, size_t count) {
    if (count < kSimpleBytes) return 0;
    const auto magic = get<uint32_t>(at);
    if (magic == kSimpleReplyMagic) {
      begin(get<uint64_t>(at + 8), get<uint32_t>(at + 4) == 0);
      const bool data = slots_[current_].good && !workload_.writes() &&
                        slots_[current_].step.kind == bench::Run::Step::Kind::operation;
      pass(data ? workload_.block : 0, true);
      return kSimpleBytes;
    }
    if (magic != kStructuredReplyMagic) die(fmt::format("a reply with magic {:08x}", magic));
    if (count < kStructuredBytes) return 0;
    begin(get<uint64_t>(at + 8), (get<uint16_t>(at + 6) & kChunkErrorBit) == 0);
    pass(get<uint32_t>(at + 16), (get<uint16_t>(at + 4) & kChunkDone) != 0);
    return kStructuredBytes;
  }

  void begin(uint64_t handle, bool good) {
    if (handle >= slots_.size()) die(fmt::format("a reply to request {}, never sent", handle));
    current_ = handle;
    if (!good) slots_[current_].good = false;
  }

  void pass(size_t bytes, bool last) {
    passing_ = bytes;
    ending_ = last;
    if (bytes == 0 && last) finish(current_);
  }

  void finish(size_t number) {
    ending_ = false;
    const Slot& slot = slots_[number];
    run_.completed(slot.step, slot.issued, slot.good);
    free_.push_back(number);
  }

  Export peer_;
  bench::Workload workload_;
  bench::Run run_;
  std::vector<Slot> slots_;
  std::vector<size_t> free_;
  std::vector<iovec> outbox_;
  std::vector<char> inbox_;
  size_t held_ = 0;
  size_t passing_ = 0;  // Payload bytes of the current reply still to come.
  size_t current_ = 0;
  bool ending_ = false;
};

}  // namespace

int main(int count, char** arguments) {
  bench::Arguments parsed = bench::parse(count, arguments);
  bool structured = false;
  std::vector<std::string> places;
  for (const std::string_view word : parsed.rest) {
    if (word == "--structured") {
      structured = true;
    } else {
      places.emplace_back(word);
    }
  }
  if (places.size() != 2) {
    die("usage: nbdload unix:PATH|tcp:HOST:PORT EXPORT [--structured] [--mode M --block B ...]");
  }
  const Export peer = negotiate(places[0], places[1], structured);
  if (parsed.workload.flush_every != 0 && (peer.flags & kTransmissionFlush) == 0) {
    die("this server offers no flush");
  }
  return Client(peer, parsed.workload).go();
}
