// The file systems under RocksDB. Internal to this room; includes RocksDB.
#pragma once

#include <functional>
#include <memory>
#include <rocksdb/file_system.h>

#include "objectstore/base/result.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

// R1: every append to and sync of a MANIFEST, and every rename to CURRENT, waits for the barrier; its error
// is theirs.
std::shared_ptr<rocksdb::FileSystem> make_barrier_file_system(std::shared_ptr<rocksdb::FileSystem> base,
                                                              std::function<Status()> barrier);
// Encryption at rest: AES-256-CTR with a random start counter in a clear 4096-byte prefix of each file.
std::shared_ptr<rocksdb::FileSystem> make_encrypted_file_system(std::shared_ptr<rocksdb::FileSystem> base,
                                                                SecretKey key);

}  // namespace cumulus
