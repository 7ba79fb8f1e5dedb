// SPDX-License-Identifier: Apache-2.0
#include "cmd/lanes.h"

namespace firn::cmd {

Result<void> with_lanes(FiberIo& io, const std::string& socket, const std::string& disk,
                        const std::function<Result<void>(std::vector<NbdClient*>&)>& work) {
  Crew crew(io, socket, disk);
  std::vector<NbdClient*> clients;
  WaitList waiting;
  bool over = false;
  Result<void> outcome;
  bool led = false;
  const Result<void> ran = crew.run([&](NbdClient& client) -> Result<void> {
    clients.push_back(&client);
    io.yield();  // Everybody is here now.
    if (led) {
      while (!over) io.park(waiting);
      return ok;
    }
    led = true;
    outcome = work(clients);
    over = true;
    static_cast<Io&>(io).wake(waiting);
    return outcome;
  });
  return ran;
}

}  // namespace firn::cmd
