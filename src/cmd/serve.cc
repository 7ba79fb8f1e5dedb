// SPDX-License-Identifier: Apache-2.0
// firn serve DIR
#include "cmd/commands.h"
#include "engine/daemon.h"

namespace firn::cmd {

Result<int> run_serve(FiberIo& io, const Arguments& arguments) {
  TRY(engine::serve_pool(io, arguments.daemon));
  return kDone;
}

}  // namespace firn::cmd
