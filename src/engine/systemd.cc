// SPDX-License-Identifier: Apache-2.0
#include "engine/systemd.h"

#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include <cstdlib>

#include "io/socket.h"

namespace firn::engine {

void tell_systemd(const std::string& state) {
  // Nobody listening is the ordinary case; a failure to tell changes nothing that we do.
  static_cast<void>(::sd_notify(0, state.c_str()));
}

Result<std::vector<HandedOver>> take_handed_over() {
  char** names = nullptr;
  const int count = ::sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  if (count < 0) return fail_errno(-count, "cannot take the sockets in LISTEN_FDS");
  std::vector<std::string> copies;
  for (int i = 0; i < count && names != nullptr; ++i) {
    copies.emplace_back(names[i]);
    std::free(names[i]);
  }
  std::free(names);
  copies.resize(static_cast<size_t>(count));
  std::vector<HandedOver> sockets;
  for (int i = 0; i < count; ++i) {
    const int fd = SD_LISTEN_FDS_START + i;
    if (::sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, /*listening=*/1) <= 0) {
      return fail(Errc::invalid, "descriptor {} in LISTEN_FDS is not a listening stream socket",
                  fd);
    }
    sockets.push_back({TRY(adopt_socket(fd)), copies[static_cast<size_t>(i)]});
  }
  return sockets;
}

}  // namespace firn::engine
