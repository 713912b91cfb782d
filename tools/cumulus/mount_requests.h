// What the daemon answers to the commands of mounts and file systems. Reactor thread.
#pragma once

#include "tools/cumulus/requests.h"

namespace cumulus {

using ServeRequest = Task<Result<Json>> (*)(Desk&, Session&, Json);

// The request of this name, or nullptr.
ServeRequest find_mount_request(std::string_view name);

}  // namespace cumulus
