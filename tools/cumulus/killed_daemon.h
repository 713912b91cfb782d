// A daemon that was killed while it waited for the kernel to write a mount's pages out: the kernel waits for
// the daemon's answers, the daemon's last thread for the kernel, and who uses the mount for both. Whatever
// command comes next ends that. Blocking; the command's thread.
#pragma once

#include <string>

#include "tools/cumulus/home.h"

namespace cumulus {

// Ends the mounts of the volume's daemon when it was killed and its threads are not gone; no thing else. What
// still waits for them fails as on any mount whose daemon is dead.
void end_mounts_of_killed(const Home& home, const std::string& volume);
// The same for every volume of the home: before a mount point is looked at, which would wait.
void end_mounts_of_killed(const Home& home);

}  // namespace cumulus
