// What the daemon answers to the requests about NBD servers. Reactor thread.
#pragma once

#include "tools/cumulus/requests.h"

namespace cumulus {

Task<Result<Json>> serve_nbd_serve(Desk& desk, Session& session, Json request);
Task<Result<Json>> serve_nbd_wait(Desk& desk, Session& session, Json request);
Task<Result<Json>> serve_nbd_stop(Desk& desk, Session& session, Json request);

}  // namespace cumulus
