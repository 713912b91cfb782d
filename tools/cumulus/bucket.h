// Bucket: named objects of a dataset. Object 1 is the directory: its omap maps a name to the object that
// holds the bytes. A put writes a new object and then sets the name in one transaction, so a name is replaced
// whole or not at all. Reactor thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/object_store.h"

namespace cumulus {

inline constexpr std::size_t kObjectNameMax = 1024;  // bytes

struct BucketEntry {
  std::string name;
  ObjectId object = 0;
  std::uint64_t size = 0;
  WallTime modified_at = 0;

  Bytes encode() const;
  static Result<BucketEntry> decode(std::string name, ByteView bytes);
};

class Bucket {
 public:
  // not_found unless `make`.
  static Task<Result<Bucket>> open(Volume& volume, std::string name, bool make);
  // At a snapshot.
  static Result<Bucket> at_snapshot(Volume& volume, std::string name, std::string snapshot);

  // Gives up to `into.size()` bytes at `offset`; fewer only at the end. Concurrent calls are made for
  // different offsets.
  using Source = std::function<Task<Result<std::size_t>>(std::uint64_t offset, MutableByteView into)>;
  // Takes bytes at an offset. In order of offset when `in_order`.
  using Sink = std::function<Task<Status>(std::uint64_t offset, ByteView bytes)>;

  // `size` unknown: read until the source ends, one call after the other.
  struct Put {
    Commit commit;
    BucketEntry entry;
  };
  // Errors besides the volume's: invalid, at a snapshot.
  Task<Result<Put>> put(Runtime& runtime, std::string name, std::optional<std::uint64_t> size, Source source,
                        Progress progress);
  Task<Result<std::uint64_t>> get(Runtime& runtime, std::string name, bool in_order, Sink sink,
                                  Progress progress);
  Task<Result<BucketEntry>> stat(std::string name);
  Task<Result<std::vector<BucketEntry>>> list(std::string prefix, std::string after, std::size_t limit);
  // invalid, at a snapshot.
  Task<Status> remove(std::string name);

  // Objects of puts that were cut off by the end of a daemon, in all buckets: nothing names them, and nothing
  // ever will. To be asked for before the first put, for those under way look the same.
  static Task<Result<std::vector<ObjectRef>>> unfinished(Volume& volume);
  // Removes them; what cannot be removed now stays for the next time.
  static Task<Status> drop_unfinished(Volume& volume, std::vector<ObjectRef> objects);

 private:
  Bucket(Volume& volume, std::string name, DatasetId dataset, View view)
      : volume_(volume), name_(std::move(name)), dataset_(dataset), view_(std::move(view)) {}
  // `finish` adds to the transaction that names the object; called for each attempt. Both outlive the task.
  Task<Result<Commit>> set_name(const BucketEntry& entry, const std::function<void(Transaction&)>& finish);
  Status check_head() const;
  // After a put that failed; its first error is the one to tell.
  Task<void> give_up(ObjectId object, const Error& why);

  Volume& volume_;
  std::string name_;
  DatasetId dataset_;
  View view_;
  std::string snapshot_;  // at which it is; empty: the head
};

}  // namespace cumulus
