// SPDX-License-Identifier: Apache-2.0
// VhostServer: disks on vhost-user sockets, one socket a disk, one front end a socket.
//
// Contract:
//  V1  A second front end is refused, with a log line; one that comes while its predecessor's last
//      requests end waits for those.
//  V2  withdraw() ends the listening, not a session that runs: a guest keeps its disk.
//  V3  drain(): nobody new is accepted; what is in flight is answered, then connections close; what
//      is not over at the deadline is cut off. Requests already given to a device run to their end.
//  V4  Everything happens on one shard; counters are read there too. An idle server runs nothing.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "io/io.h"
#include "serve/exports.h"
#include "serve/log.h"
#include "serve/vhost_counters.h"

namespace firn::serve {

class VhostSession;

class VhostServer {
 public:
  VhostServer(Io& io, ExportSource& exports, Log& log);
  ~VhostServer();
  VhostServer(const VhostServer&) = delete;
  VhostServer& operator=(const VhostServer&) = delete;

  // Serves the export of this name to who connects.
  void offer(std::string name, std::unique_ptr<Socket> listener);
  void withdraw(std::string_view name);
  // Serves one connection that somebody else made, and returns when it is over.
  void converse(const std::string& name, std::unique_ptr<Socket> socket);
  // Sizes may have changed: guests are told.
  void look_at_disks();
  void drain(Duration patience);

  // By the name under which the disk was offered; entries stay.
  const std::map<std::string, VhostCounters, std::less<>>& counters() const { return counters_; }

 private:
  struct Port {
    std::string name;
    std::unique_ptr<Socket> listener;
    bool taken = false;               // A front end is there, or what it left is being finished.
    VhostSession* session = nullptr;  // Null while the disk is being attached.
    bool withdrawn = false;
    WaitList over;
  };

  void accept_from(Port& port);
  void admit(Port& port, std::unique_ptr<Socket> socket);
  void serve(Port* port, const std::string& name, std::unique_ptr<Socket> socket);

  Io& io_;
  ExportSource& exports_;
  Log& log_;
  std::map<std::string, VhostCounters, std::less<>> counters_;
  std::list<std::unique_ptr<Port>> ports_;
  std::list<VhostSession*> sessions_;
  WaitList nobody_left_;  // Woken when the last session has ended.
  bool draining_ = false;
  Group group_;  // Last: its fibers use everything above.
};

}  // namespace firn::serve
