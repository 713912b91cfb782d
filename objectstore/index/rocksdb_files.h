// The file systems under RocksDB. Internal to this room; includes RocksDB.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <rocksdb/file_system.h>

#include "objectstore/base/result.h"
#include "objectstore/crypto/secret.h"

namespace cumulus {

// R1: every append to and sync of a MANIFEST, and every rename to CURRENT, waits for the barrier; its error
// is theirs.
std::shared_ptr<rocksdb::FileSystem> make_barrier_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base, std::function<Status()> barrier);
// What writes do while their disk is full. Any thread.
struct RoomWait {
  std::atomic<bool> patient{false};  // they wait until there is room; else they fail
  std::atomic<int> waiting{0};       // writes that wait now
};
// RocksDB never comes to know that the disk is full, but in compactions, which it tries again by itself:
// after a flush that failed it needs DB::Resume(), and that waits for ever when anything else, such as a
// compaction, fails at the same time (7.8: the flush which Resume() began is forgotten).
std::shared_ptr<rocksdb::FileSystem> make_patient_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base, std::shared_ptr<RoomWait> room);
// Tables can be read without waiting for the disk: while a NoWaiting lives, this thread's reads give what is
// in the page cache and fail with Busy for anything else.
std::shared_ptr<rocksdb::FileSystem> make_prompt_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base);
class NoWaiting {
 public:
  NoWaiting();
  ~NoWaiting();
  NoWaiting(const NoWaiting&) = delete;
  NoWaiting& operator=(const NoWaiting&) = delete;
};
// Encryption at rest: AES-256-CTR with a random start counter in a clear 4096-byte prefix of each file.
std::shared_ptr<rocksdb::FileSystem> make_encrypted_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base, SecretKey key);

}  // namespace cumulus
