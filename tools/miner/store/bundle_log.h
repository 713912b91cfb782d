// BundleLog: the writing end of the bundles. write() makes one batch durable: packed head and large extents
// go out together, then one fdatasync. A batch is begun only when the one before is durable, so only the
// newest batch of a bundle can be torn, and nothing acknowledged lies behind a torn one.
//
// After a failed write or sync the bundle is never appended to again: it is cut to where the batch began, so
// that no replay finds a batch whose caller was told that it failed (a removal would take away what was
// promised since), and the batch goes to a new bundle; when that fails too the caller gets the error. While
// the cut fails nothing else is written. A bundle is never appended to after a restart. One write() at a
// time. Reactor thread.
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
  // A batch failed and could not be cut off yet: what it removes might be gone after the next start.
  bool holds_failed_batch() const { return failed_.has_value(); }
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
  Task<Status> cut_failed_batch();
  void make_spare();

  BundleFiles& files_;
  const bundle::StoreSecret& secret_;
  std::uint64_t bundle_size_;
  std::uint32_t next_number_;
  std::optional<Open> open_;
  std::optional<Open> failed_;  // holds a failed batch behind its end
  std::optional<BundleFiles::Made> spare_;
  bool making_spare_ = false;
  TaskGroup background_;
  Runtime& runtime_;
};

}  // namespace cumulus
