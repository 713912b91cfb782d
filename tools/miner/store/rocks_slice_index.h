// RocksSliceIndex: the slice index on RocksDB, without its write-ahead log: the bundles are that log, and the
// open replays what the last memtable flush did not cover. Its memory is bounded (about 48 MiB) whatever it
// holds.
#pragma once

#include <memory>
#include <string>

#include "tools/miner/store/slice_index.h"

namespace cumulus {

// Opens or makes the database in `directory`. A database that cannot be opened because it is damaged is
// `corrupt`: remove it and open again; the bundles rebuild it.
Result<std::unique_ptr<SliceIndex>> open_rocks_slice_index(const std::string& directory);
// Removes the database, so that the next open begins empty.
Status discard_rocks_slice_index(const std::string& directory);

}  // namespace cumulus
