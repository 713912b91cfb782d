// A dataset's snapshot by its name. Pure; any thread.
#pragma once

#include <algorithm>
#include <string_view>

#include "objectstore/dataset.h"

namespace cumulus {

// nullptr: it has none of that name. Valid until `info` changes.
inline const SnapshotInfo* find_snapshot(const DatasetInfo& info, std::string_view name) {
  const auto found = std::ranges::find(info.snapshots, name, &SnapshotInfo::name);
  return found == info.snapshots.end() ? nullptr : &*found;
}

}  // namespace cumulus
