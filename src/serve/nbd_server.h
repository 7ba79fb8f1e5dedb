// SPDX-License-Identifier: Apache-2.0
// NbdServer: listeners, the connections that came through them, and their orderly end.
//
// Contract:
//  V1  listen() returns at once; everything it started has ended when drain() returns. An idle
//      server has no timer and runs nothing.
//  V2  At most NbdLimits::connections at once; the next one is closed before a word is said, and
//      counted.
//  V3  drain(): nobody new is accepted, what is in flight is answered, then connections close;
//      what is not over at the deadline is cut off. Requests already given to a device always
//      run to their end, and drain() waits for them, whoever runs the session.
//  V4  Everything happens on one shard; counters are read there too.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "io/io.h"
#include "serve/nbd_session.h"

namespace firn::serve {

class NbdServer {
 public:
  struct Settings {
    TlsMode tls_mode = TlsMode::off;
    const TlsContext* tls = nullptr;
    std::string default_export;
    NbdLimits limits;
  };
  NbdServer(Io& io, ExportSource& exports, Log& log, Settings settings);
  ~NbdServer();
  NbdServer(const NbdServer&) = delete;
  NbdServer& operator=(const NbdServer&) = delete;

  // Accepts from `listener` until drain(). `name` is for the log.
  void listen(std::unique_ptr<Socket> listener, std::string name);
  // Serves a connection that somebody else made, and returns when it is over: --stdio.
  void converse(std::unique_ptr<Socket> socket);
  void drain(Duration patience);

  const NbdServerCounters& counters() const { return world_.numbers; }
  // By export name; entries stay when the last client has left.
  const std::map<std::string, NbdExportCounters, std::less<>>& exports() const {
    return world_.by_export;
  }

 private:
  struct World final : NbdWorld {
    World(Io& world, ExportSource& source, Log& sink)
        : NbdWorld(source, sink, numbers), io(world) {}
    NbdExportCounters& counters_of(const std::string& name) override { return by_export[name]; }
    void deadline_set() override { io.wake(watcher); }
    Io& io;
    WaitList watcher;
    NbdServerCounters numbers;
    std::map<std::string, NbdExportCounters, std::less<>> by_export;
  };
  struct Listener {
    std::unique_ptr<Socket> socket;
    std::string name;
  };

  void accept_from(Listener& listener);
  void admit(std::unique_ptr<Socket> socket);
  void run_session(NbdSession& session);
  void watch_deadlines();

  Io& io_;
  World world_;
  std::list<Listener> listeners_;
  std::list<NbdSession*> sessions_;
  WaitList nobody_left_;  // Woken when the last session has ended.
  bool draining_ = false;
  Group group_;  // Last: its fibers use everything above.
};

// "unix:PATH" or "tcp:HOST:PORT" as a listening socket; `mode` is the path's permission.
Result<std::unique_ptr<Socket>> listen_at(std::string_view address, uint32_t mode);

}  // namespace firn::serve
