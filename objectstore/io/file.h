// FileSystem and File: the port to the local disk. The real one is io_uring (uring_file_system.h); the
// simulated one (tests/fakes) loses unsynced writes, tears at 512 bytes, reorders, drops pages on EIO, fills
// up and rots. Both pass tests/contract/file_system_contract.
//
// Thread rule: reactor thread, except datasync_blocking(). Names are absolute or relative paths as given.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "objectstore/base/bytes.h"
#include "objectstore/base/result.h"
#include "objectstore/io/task.h"

namespace cumulus {

struct OpenOptions {
  bool write = false;      // otherwise read-only
  bool create = false;     // make it when missing
  bool exclusive = false;  // with create: fail with `exists` when it is there
  // O_DIRECT where the disk has it (silently buffered where it has not): offsets, lengths and memory must
  // then be multiples of direct_alignment().
  bool direct = false;
};

class File {
 public:
  virtual ~File() = default;  // closes; nothing is made durable by closing

  // Reads up to into.size() bytes at `offset`; fewer only at the end of the file.
  virtual Task<Result<std::size_t>> read_at(std::uint64_t offset, MutableByteView into) = 0;
  // The same by way of the kernel's page cache where there is one, also for a direct file, with the same
  // alignment; what was read stays there for try_read_warm(). For readers who verify the bytes: after direct
  // writes the page cache may be behind the disk for a moment.
  virtual Task<Result<std::size_t>> read_warm(std::uint64_t offset, MutableByteView into) {
    return read_at(offset, into);
  }
  // Only what needs no waiting for the disk, at any offset and into any memory: false when not all of it is
  // in the page cache.
  virtual bool try_read_warm([[maybe_unused]] std::uint64_t offset, [[maybe_unused]] MutableByteView into) {
    return false;
  }
  // Writes all of `data`, or fails; after a failure the range's content is unknown. `data` must stay until
  // done.
  virtual Task<Status> write_at(std::uint64_t offset, ByteView data) = 0;
  // fdatasync. A failure means that earlier writes may be lost for good: never call it again to "make sure"
  // (FORMAT.md, "Nonce").
  virtual Task<Status> datasync() = 0;
  // write_at and datasync of these bytes; others may have become durable too or not. Fails as either does.
  // One request to the disk where there is such a thing (O_DSYNC's promise).
  virtual Task<Status> write_durable_at(std::uint64_t offset, ByteView data);
  // datasync from any thread, blocking it: for the index's barrier (R1).
  virtual Status datasync_blocking() = 0;
  // Reserves [0, length) so that later overwrites allocate nothing; grows the file to at least `length`.
  // Bytes that were there stay (also stale ones of a recycled file), the others are zero.
  virtual Task<Status> allocate(std::uint64_t length) = 0;
  virtual Task<Status> truncate(std::uint64_t length) = 0;
  // The range reads as zeros afterwards; its space is given back where the file system can. The size stays.
  virtual Task<Status> punch_hole(std::uint64_t offset, std::uint64_t length) = 0;
  virtual Result<std::uint64_t> size() = 0;
};

struct DiskSpace {
  std::uint64_t total = 0;
  std::uint64_t free = 0;  // to unprivileged users
};

// Operations on names block the reactor for a moment: they are rare, and made ahead of need on hot paths.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // Regular files only; a symbolic link in the last place is refused.
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenOptions options) = 0;
  virtual Status create_directories(const std::string& path) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;  // replaces `to`
  virtual Status remove(const std::string& path) = 0;                         // a file, or an empty directory
  virtual Result<bool> exists(const std::string& path) = 0;
  // Names (not paths) in a directory, sorted.
  virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;
  // fsync of a directory: names made, renamed or removed in it before are durable after.
  virtual Task<Status> sync_directory(const std::string& path) = 0;
  virtual Result<DiskSpace> space(const std::string& path) = 0;
  // How many files this process may have open at once, other descriptors counted.
  virtual std::uint64_t open_files_max() { return ~std::uint64_t{0}; }
  // What direct I/O wants offsets, lengths and memory to be a multiple of, for files in this directory: 512
  // to 4096.
  virtual std::uint32_t direct_alignment(const std::string& directory) = 0;

  // Whole small files, for state that is replaced as one: write to a temporary name, datasync, rename, sync
  // the directory.
  Task<Status> replace_file(std::string path, Bytes content);
  Task<Result<Bytes>> read_file(std::string path, std::size_t size_max);
};

}  // namespace cumulus
