// The volume's daemon: one process for each volume, started by whichever command first needs it and shared by
// all. It stays until nothing has used it for a minute and everything is Remote.
#pragma once

#include <string>

#include "tools/cumulus/assemble.h"

namespace cumulus {

// Runs the daemon in this process. `ready` is a descriptor that gets one JSON line: {"ready":true}, or
// {"error":...}, with
// {"progress":[done,total]} lines before it. Returns the exit code.
int run_daemon(const Home& home, const std::string& name, OpenRequest request, int ready);

}  // namespace cumulus
