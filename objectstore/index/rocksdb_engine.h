// RocksDbEngine: the real Engine, on RocksDB 7.8. RocksDB's own write-ahead log is off: the volume's log is
// the log.
//
// Two layers stand between RocksDB and its files (rocksdb_files.cc): one encrypts them at rest; one is R1's
// barrier, which makes the volume's log durable, in the calling thread, before any append to or sync of a
// MANIFEST and before CURRENT is renamed, so that no index byte counts before the log that it was made from.
// Reactor thread; work runs on workers.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "objectstore/crypto/secret.h"
#include "objectstore/index/engine.h"
#include "objectstore/io/runtime.h"

namespace rocksdb {
class FileSystem;
}

namespace cumulus {

struct RocksDbOptions {
  std::size_t block_cache_bytes = 128u << 20;
  std::size_t write_buffer_bytes = 32u << 20;  // twice at most: one filling, one being flushed
  // Under the two layers; null: the system's. For tests that lose what was not synced.
  std::shared_ptr<rocksdb::FileSystem> disk;
};

// `barrier` makes every written log group durable; any thread. `fresh`: what is in the directory is discarded
// first. Errors: corrupt (discard it and rebuild from the log), io, no_space, denied.
Task<Result<std::unique_ptr<Engine>>> open_rocksdb_engine(Runtime& runtime, std::string directory,
                                                          SecretKey key, std::function<Status()> barrier,
                                                          bool fresh, RocksDbOptions options);

}  // namespace cumulus
