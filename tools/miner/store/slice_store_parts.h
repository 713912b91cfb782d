// The inner pieces that SliceStore's source files share. Included by them alone. Reactor thread.
#pragma once

#include "tools/miner/store/slice_store.h"

namespace cumulus {

// One change on its way to the disk and the index; its key is locked until it is done.
struct SliceStore::Pending {
  explicit Pending(Runtime& runtime) : finished(runtime) {}

  bundle::RecordType type = bundle::RecordType::put;
  SliceKey key;
  std::optional<SliceLocation> old;   // where the key's slice lies now
  std::optional<SliceLocation> mark;  // set: no record, only the index row changes to this
  // put
  Digest root{};
  std::shared_ptr<const Bytes> manifest;
  std::shared_ptr<Buffer> data;
  std::size_t offset = 0;  // of the slice in `data`: 0 unless it is packed
  std::size_t length = 0;
  std::uint64_t charge = 0;
  // remove, when it is carried forward from a bundle that goes away
  BundlePosition before;
  BundlePosition victim;
  std::uint64_t victim_length = 0;
  bool carried = false;

  bool done = false;
  Status outcome;
  Signal finished;
};

// Counts a call in, so that close() can wait for it.
class SliceStore::Call {
 public:
  explicit Call(SliceStore& store) : store_(store) { ++store_.calls_; }
  ~Call() {
    if (--store_.calls_ == 0) store_.idle_.notify_all();
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  SliceStore& store_;
};

// Releases what lock_key() took.
class SliceStore::KeyLock {
 public:
  KeyLock(SliceStore& store, SliceKey key) : store_(store), key_(key) {}
  ~KeyLock() {
    store_.locked_keys_.erase(key_);
    store_.keys_changed_.notify_all();
  }
  KeyLock(const KeyLock&) = delete;
  KeyLock& operator=(const KeyLock&) = delete;

 private:
  SliceStore& store_;
  SliceKey key_;
};

// Rewrites one sealed bundle: what lives in it, and removals that older bundles still need, go to the open
// bundle; then the file is removed. What cannot be moved keeps the bundle, but not the rest from moving.
class BundleRewriter {
 public:
  BundleRewriter(SliceStore& store, std::uint32_t number) : store_(store), number_(number) {}
  Task<Status> run();

 private:
  Task<Status> move_slices(std::uint64_t size);
  Task<Status> move(const bundle::Record& record, BundlePosition at, ByteView manifest);
  bool needed(const bundle::Record& removal) const;
  Task<Status> carry_removals(std::uint64_t size);
  Task<Status> carry_together(const std::vector<bundle::Record>& removals);
  Task<Status> carry(const bundle::Record& record);

  SliceStore& store_;
  std::uint32_t number_;
  bool removals_needed_ = false;
};

}  // namespace cumulus
