// SPDX-License-Identifier: Apache-2.0
// HttpClient: requests of fibers to one HTTP server, on a thread of its own that libcurl works in.
//
// Contract:
//  C1  A call belongs to the client from ask() until it returns; its buffers too.
//  C2  What a server sends is bounded: by the call's buffer or text_bytes_max, and 64 headers of
//      1 KiB. More ends the request (End::too_long).
//  C3  Nothing is followed: no redirect, no proxy of the environment, no .netrc.
//  C4  With `fresh` a request goes out at most once: libcurl sends others again by itself when a
//      kept connection has died before the answer.
// Connections are kept and used again; an idle client has nothing to do.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "io/io.h"

namespace firn {

struct HttpCall {
  enum class End : uint8_t {
    answered,
    not_sent,  // No connection came about.
    lost,      // It ended, or nothing came, before the whole answer: what happened is unknown.
    refused,   // The server is not who it should be (TLS).
    too_long,  // C2.
  };
  // --- what is asked
  std::string method;
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  Iovec body;
  bool fresh = false;        // C4.
  Duration deadline{};       // For the whole of it; none when zero.
  Bytes into;                // Where the body of a 2xx goes ...
  bool body_is_text = true;  // ... unless it is text.
  size_t text_bytes_max = 64 * 1024;
  // --- what came of it
  End end = End::lost;
  int status = 0;
  std::map<std::string, std::string> answer;  // Headers, names in lower case.
  std::string text;
  size_t got = 0;   // Bytes in `into`.
  std::string why;  // For any end but `answered`.

  const std::string& header(const std::string& name) const;
};

class HttpClient {
 public:
  struct Settings {
    std::string proxy;  // Empty: none.
    std::string ca;     // A file of certificates; empty: the system's.
    size_t connections_max = 32;
    Duration connect_deadline = std::chrono::seconds(10);
    Duration stall_deadline = std::chrono::seconds(30);  // Nothing sent or received for so long.
  };
  explicit HttpClient(Settings settings);
  ~HttpClient();  // No call may be under way.
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  void ask(Io& io, HttpCall& call);

 private:
  class Worker;
  struct Signal;
  std::vector<std::unique_ptr<Signal>> signals_;  // Those that nobody uses.
  // No more calls than connections: libcurl's deadlines would run for those that wait for one.
  const size_t calls_max_;
  size_t calls_ = 0;
  WaitList waiters_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace firn
