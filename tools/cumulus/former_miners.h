// Former miners: those that were taken off a volume's list after a drain. Repair copies and deletes nothing,
// so what they held is still there, and the end of the volume must find it:
// HOME/volumes/NAME/former_miners.toml. A recovered home does not know them. Blocking; any thread.
#pragma once

#include <string>
#include <vector>

#include "objectstore/slice_transport.h"
#include "tools/cumulus/home.h"

namespace cumulus {

// Empty when none ever left. corrupt, naming the file.
Result<std::vector<MinerEntry>> former_miners(const Home& home, const std::string& volume);
// Before the list is changed from `before` to `after`. Errors: as former_miners(), and the disk's.
Status note_former_miners(const Home& home, const std::string& volume, const std::vector<MinerEntry>& before,
                          const std::vector<MinerEntry>& after);

}  // namespace cumulus
