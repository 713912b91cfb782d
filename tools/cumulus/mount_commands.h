// The program as mount(8)'s helper: called by the name mount.cumulus, mount.fuse.cumulus, umount.cumulus or
// umount.fuse.cumulus. Blocking.
#pragma once

#include <optional>

#include "tools/cumulus/commands.h"

namespace cumulus {

// The exit code, when the program was called by such a name. -o home=DIR and passphrase_file=FILE say what
// the command line says otherwise.
std::optional<int> run_as_mount_helper(Invocation& invocation, int argc, char** argv);

}  // namespace cumulus
