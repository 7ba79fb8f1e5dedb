// SPDX-License-Identifier: Apache-2.0
// What systemd is told and what it hands over. Without systemd every call does nothing and says so.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/io.h"

namespace firn::engine {

// READY=1, STOPPING=1, STATUS=..., one or several lines.
void tell_systemd(const std::string& state);

// A listening socket that systemd made for us (LISTEN_FDS), with its name from FileDescriptorName=.
struct HandedOver {
  std::unique_ptr<Socket> socket;
  std::string name;
};
// Takes them once: the environment variables are gone afterwards. Errc::invalid when one is no
// listening stream socket.
Result<std::vector<HandedOver>> take_handed_over();

}  // namespace firn::engine
