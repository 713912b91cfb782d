// What the daemon answers to the requests about disk images. Reactor thread.
#pragma once

#include "tools/cumulus/requests.h"

namespace cumulus {

Task<Result<Json>> serve_image_create(Desk& desk, Session& session, Json request);
Task<Result<Json>> serve_image_list(Desk& desk, Session& session, Json request);
Task<Result<Json>> serve_image_remove(Desk& desk, Session& session, Json request);
Task<Result<Json>> serve_image_resize(Desk& desk, Session& session, Json request);
// Goes on when the command is gone, until it is done or the daemon ends.
Task<Result<Json>> serve_image_flatten(Desk& desk, Session& session, Json request);
// Notes how far an import is; what was written before is durable first.
Task<Result<Json>> serve_image_mark(Desk& desk, Session& session, Json request);
// Serves the image to the command itself, over the socket that came with the request, until the command ends.
Task<Result<Json>> serve_image_attach(Desk& desk, Session& session, Json request);

}  // namespace cumulus
