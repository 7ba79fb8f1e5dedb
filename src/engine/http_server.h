// SPDX-License-Identifier: Apache-2.0
// HttpServer: the control plane's connections. One fiber each: read a request, answer it, close.
//
// Contract:
//  V1  A connection holds at most kHeadBytesMax + kControlBodyBytesMax bytes of what its peer sent,
//      and no longer than Limits::patience in each of receiving and sending; then it is cut.
//  V2  Beyond Limits::connections_max a new connection is closed at once, and counted.
//  V3  stop() ends the listeners and whoever is still sending a request; answers under way are
//      finished, by V1.
//  V4  Idle costs nothing: no timer runs while there is no connection.
//
// Does not know what is asked: the handler does.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "io/io.h"
#include "wire/http.h"

namespace firn::engine {

struct HttpAnswer {
  int status = 200;
  std::string type;
  std::string body;
};

class HttpServer {
 public:
  struct Limits {
    size_t connections_max = 64;
    Duration patience = std::chrono::seconds(10);
  };
  using Handler =
      std::function<HttpAnswer(Io&, const wire::HttpRequest& request, std::string_view body)>;

  HttpServer(Limits limits, Handler handler) : limits_(limits), handler_(std::move(handler)) {}
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Starts accepting, in fibers of `group`, which must end before this does. `where` is for the
  // log.
  void listen(Io& io, Group& group, std::unique_ptr<Socket> listener, std::string where);
  void stop(Io& io);

  uint64_t requests() const { return requests_; }
  uint64_t refused() const { return refused_; }

 private:
  struct Connection {
    std::unique_ptr<Socket> socket;
    Time deadline{};
    bool waiting = true;  // For the peer, not for the handler.
  };
  struct Listener {
    std::unique_ptr<Socket> socket;
    std::string where;
  };
  using Place = std::list<Connection>::iterator;

  void accept_all(Io& io, Group& group, Listener& listener);
  void serve(Io& io, Place place);
  // Errors here are the peer's: they end the connection and are not logged.
  Result<void> converse(Io& io, Connection& connection);
  Result<void> refuse(Io& io, Connection& connection, int status, Error error);
  Result<void> reply(Io& io, Connection& connection, const HttpAnswer& answer);
  void watch(Io& io);
  void expect_peer(Io& io, Connection& connection);

  Limits limits_;
  Handler handler_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::list<Connection> connections_;
  WaitList watcher_;
  bool watching_ = false;
  bool stopping_ = false;
  uint64_t requests_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace firn::engine
