// What the daemon answers about snapshots: taking, removing, going back, comparing, sending and receiving
// differences; and about clones. Reactor thread.
#pragma once

#include "tools/cumulus/requests.h"

namespace cumulus {

Task<Result<Json>> serve_snapshot_create(Desk& desk, Session& session, Json request);
Task<Result<Json>> serve_snapshot_remove(Desk& desk, Session& session, Json request);
// Of an image's snapshot: what tells it from all others, also from a later one of its name.
Task<Result<Json>> serve_snapshot_identity(Desk& desk, Session& session, Json request);
// Refused while the dataset is mounted or attached.
Task<Result<Json>> serve_snapshot_rollback(Desk& desk, Session& session, Json request);
// One page of what differs: ranges of an image, names of a bucket. The paths of a file system all at once, as
// data frames of lines, or of elements of a JSON array (`json`).
Task<Result<Json>> serve_snapshot_diff(Desk& desk, Session& session, Json request);
// The stream of differences goes out, and comes in, as data frames (blockdev/FORMAT.md).
Task<Result<Json>> serve_snapshot_export(Desk& desk, Session& session, Json request);
Task<Result<Json>> serve_snapshot_import(Desk& desk, Session& session, Json request);
Task<Result<Json>> serve_clone(Desk& desk, Session& session, Json request);

}  // namespace cumulus
