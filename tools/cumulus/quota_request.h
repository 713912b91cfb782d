// fs.quota: what a file system, or a directory tree of it, may take. Reactor thread.
#pragma once

#include "tools/cumulus/requests.h"

namespace cumulus {

// `file_system`, `path` (of a directory, from the root; empty or "/": the whole file system), `bytes` and
// `inodes` (null: as they are; 0: no limit). The answer says what is counted and allowed after it.
Task<Result<Json>> serve_fs_quota(Desk& desk, Session& session, Json request);

}  // namespace cumulus
