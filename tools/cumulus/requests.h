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

// For long work: the command is told how far it has come, and the work ends when the command is gone.
inline Progress progress_of(Session& session) {
  return [&session](std::uint64_t done, std::uint64_t total) { return session.progress(done, total); };
}
// The same, while bytes go to the miners: with what they wait for when they do not.
inline Progress sending_progress(Desk& desk, Session& session) {
  return [&desk, &session](std::uint64_t done, std::uint64_t total) {
    return session.progress(done, total, desk.stack.volume().obstacle());
  };
}

// The result document of the request, or its error. invalid for a request that is not known.
Task<Result<Json>> serve_request(Desk& desk, Session& session, Json request);

}  // namespace cumulus
