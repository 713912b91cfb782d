// Requests: what a volume's daemon does for each command. One function a request; the table in requests.cc
// names them. Reactor thread.
#pragma once

#include "tools/cumulus/assemble.h"
#include "tools/cumulus/mounts.h"
#include "tools/cumulus/residents.h"
#include "tools/cumulus/session.h"

namespace cumulus {

// What requests work on: the daemon's stack, and where its home is.
struct Desk {
  Reactor& reactor;
  Stack& stack;
  Residents& residents;
  Mounts& mounts;
  Home home;
  std::string name;
  std::function<void()> stop;  // asks the daemon to end
};

// The result document of the request, or its error. invalid for a request that is not known.
Task<Result<Json>> serve_request(Desk& desk, Session& session, Json request);

}  // namespace cumulus
