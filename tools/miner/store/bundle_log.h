// BundleLog: the writing end of the bundles. write() makes one batch durable: packed head and large extents
// go out together, then one fdatasync. A batch is begun only when the one before is durable, so only the
// newest batch of a bundle can be torn, and nothing acknowledged lies behind a torn one.
//
// After a failed write or sync the bundle is left as it is and never written again: the batch goes to a new
// bundle; when that fails too the caller gets the error. A bundle is never appended to after a restart. One
// write() at a time. Reactor thread.
#pragma once

#include <optional>
#include <vector>

#include "objectstore/io/sync.h"
#include "tools/miner/store/bundle_files.h"
#include "tools/miner/store/bundle_format.h"

namespace cumulus {

// What one batch is made of. `data` longer than bundle::kPackedMax begins on a Buffer's alignment, and the
// memory goes on to the next multiple of bundle::kBlock, zeroed there by write().
struct LogEntry {
  bundle::RecordType type = bundle::RecordType::put;
  SliceKey key;
  Digest root{};
  ByteView manifest;
  MutableByteView data;
  BundlePosition before;  // remove; {0,0}: everything written up to now
  BundlePosition victim;
  std::uint64_t victim_length = 0;
};

class BundleLog {
 public:
  BundleLog(Runtime& runtime, BundleFiles& files, const bundle::StoreSecret& secret,
            std::uint64_t bundle_size, std::uint32_t next_number)
      : files_(files),
        secret_(secret),
        bundle_size_(bundle_size),
        next_number_(next_number),
        background_(runtime),
        runtime_(runtime) {}

  Task<Result<bundle::Batch>> write(const std::vector<LogEntry>& entries);
  // The bundle that is being written; 0: none yet.
  std::uint32_t open_number() const { return open_ ? open_->made.number : 0; }
  // Where the next batch would go, if it went to the open bundle.
  BundlePosition position() const;
  // Cuts the open bundle to its length, drops the spare. Nothing may be in flight.
  Task<void> close();

 private:
  struct Open {
    BundleFiles::Made made;
    std::uint64_t end = bundle::kBlock;
  };
  Task<Status> ensure_room(std::uint64_t length, bool only_removes);
  Task<Status> write_parts(const bundle::Batch& batch, const Buffer& head,
                           const std::vector<LogEntry>& entries);
  void leave_open_bundle();
  void make_spare();

  BundleFiles& files_;
  const bundle::StoreSecret& secret_;
  std::uint64_t bundle_size_;
  std::uint32_t next_number_;
  std::optional<Open> open_;
  std::optional<BundleFiles::Made> spare_;
  bool making_spare_ = false;
  TaskGroup background_;
  Runtime& runtime_;
};

}  // namespace cumulus
