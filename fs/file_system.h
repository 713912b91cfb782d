// The file system's door: a mounted view of a dataset, in POSIX's terms. Directories, attributes and data are
// objects of the volume (FORMAT.md); every verb that changes something is one transaction, all or nothing.
//
// Reactor thread of the volume. Calls may overlap: each locks the inodes that it changes while it runs. Names
// are bytes without '/' and NUL, at most 255. Permissions are the caller's business unless a verb says
// otherwise: the kernel checks them (default_permissions). Parameters are taken by value; memory that is
// handed in outlives the Task.
#pragma once

#include <array>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "objectstore/object_store.h"

namespace cumulus {

// View index (16 bits) and object id (48): st_ino too. View 0 is what was mounted, the others are its
// snapshots.
using NodeId = std::uint64_t;
using HandleId = std::uint64_t;
inline constexpr NodeId kRootNode = 1;

// The closed list of outcomes, in POSIX's terms.
enum class FsErrorKind : std::uint8_t {
  not_found,
  exists,
  not_empty,
  is_directory,
  not_directory,
  loop,        // a directory would become its own descendant
  cross_tree,  // across quota trees
  quota,
  no_space,
  name_too_long,
  denied,
  not_permitted,
  invalid,
  too_big,
  io,
  interrupted,
  read_only,
  no_data,  // no such xattr
  range,
  busy,
  stale,  // the node is gone
  unsupported,
  beyond_end,  // SEEK_DATA, SEEK_HOLE
  too_many_links,
};
struct FsError {
  FsErrorKind kind = FsErrorKind::io;
  std::string message;
};
template <class T>
using FsResult = std::expected<T, FsError>;
using FsStatus = std::expected<void, FsError>;

struct Caller {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t umask = 0;
  std::uint32_t pid = 0;
  // Whether a thread has this group besides its own. Asked seldom; without it nobody has.
  bool (*has_group)(std::uint32_t pid, std::uint32_t gid) = nullptr;

  bool in_group(std::uint32_t group) const {
    return gid == group || (has_group != nullptr && has_group(pid, group));
  }
};

struct Attributes {
  NodeId node = 0;
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t nlink = 0;
  std::uint32_t rdev = 0;
  std::uint64_t size = 0;
  std::uint64_t blocks = 0;  // of 512 bytes, allocated
  std::int64_t atime = 0;    // nanoseconds since 1970, may be negative
  std::int64_t mtime = 0;
  std::int64_t ctime = 0;
  std::int64_t btime = 0;
  bool changes_by_itself = false;
};
struct Entry {
  NodeId node = 0;
  Attributes attributes;
};
struct FileSystemStatus {
  std::uint64_t bytes = 0;
  std::uint64_t bytes_free = 0;
  std::uint64_t inodes = 0;
  std::uint64_t inodes_free = 0;
};
struct NewNode {
  std::uint32_t mode = 0;  // with its kind
  std::uint32_t rdev = 0;
  std::string symlink;
};
struct OpenFlags {
  bool read = false;
  bool write = false;
  bool sync = false;  // writes are durable when they return
};
struct Created {
  Entry entry;
  HandleId handle = 0;
};
struct AttributeChange {
  std::optional<std::uint32_t> mode;  // without its kind
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<std::int64_t> atime;
  std::optional<std::int64_t> mtime;
  std::optional<std::int64_t> ctime;
  bool atime_now = false;
  bool mtime_now = false;
  bool kill_set_id = false;       // with what else is changed
  bool kill_set_id_only = false;  // no word on whether the caller may
};
struct RenameFlags {
  bool no_replace = false;
  bool exchange = false;
};
struct AllocateMode {
  bool keep_size = false;
  bool punch_hole = false;
  bool zero_range = false;
};
struct DirectoryEntry {
  std::string name;
  NodeId node = 0;
  std::uint32_t mode = 0;  // the kind only
  std::uint64_t cookie = 0;
  std::optional<Attributes> attributes;
};

enum class AccessTimes : std::uint8_t { relative, strict, never };
struct FileSystemOptions {
  // Where a name belongs under a salt, in the place of its hash: tests have names collide. Always the same
  // one for a file system; nullptr: cookie_of (fs/records.h).
  using NameHash = std::uint64_t (*)(const std::array<std::uint8_t, 16>& salt, std::string_view name);
  NameHash name_hash = nullptr;
  bool read_only = false;
  AccessTimes access_times = AccessTimes::relative;
  bool list_snapshots = false;
  bool synchronous = false;
  // The kernel keeps the times of what is written (its write-back cache), and sets them when it writes out:
  // write() leaves them.
  bool kernel_keeps_times = false;
};

class PosixFileSystem {
 public:
  virtual ~PosixFileSystem() = default;

  // Makes the root directory of an empty dataset, owned by uid and gid.
  static Task<Status> make_empty(Runtime& runtime, Volume& volume, DatasetId dataset, std::uint32_t uid,
                                 std::uint32_t gid);
  // The head (snapshot empty), or a snapshot, which is read-only. Sweeps what a crash left without a name.
  static Task<Result<std::unique_ptr<PosixFileSystem>>> open(Runtime& runtime, Volume& volume,
                                                             DatasetId dataset, std::string snapshot,
                                                             FileSystemOptions options);
  // Releases every handle that is left, and forgets every node. Nothing else may run or be called after.
  virtual Task<FsStatus> close() = 0;

  // --- names ---
  virtual Task<FsResult<Entry>> lookup(Caller caller, NodeId parent, std::string name) = 0;
  virtual Task<FsResult<Entry>> make_node(Caller caller, NodeId parent, std::string name, NewNode what) = 0;
  virtual Task<FsResult<Created>> create(Caller caller, NodeId parent, std::string name, std::uint32_t mode,
                                         OpenFlags flags) = 0;
  // O_TMPFILE: as if its last name was gone, unless link() gives it one.
  virtual Task<FsResult<Created>> create_nameless(Caller caller, NodeId parent, std::uint32_t mode,
                                                  OpenFlags flags) = 0;
  virtual Task<FsResult<Entry>> link(Caller caller, NodeId node, NodeId parent, std::string name) = 0;
  // These say which node lost a name; 0: none. Without any left it lives until it is forgotten and its last
  // handle is released: whoever found it before may still open it and look at it.
  virtual Task<FsResult<NodeId>> unlink(Caller caller, NodeId parent, std::string name) = 0;
  virtual Task<FsResult<NodeId>> rmdir(Caller caller, NodeId parent, std::string name) = 0;
  virtual Task<FsResult<NodeId>> rename(Caller caller, NodeId from, std::string name, NodeId to,
                                        std::string new_name, RenameFlags flags) = 0;
  virtual Task<FsResult<std::string>> readlink(NodeId node) = 0;
  // Nobody will use the node again unless it is found by a name anew. Without a name it is removed, in the
  // background.
  virtual void forget(NodeId node) = 0;
  // A directory whose names and attributes change without any of these verbs: the snapshots. Its mtime moves
  // with its names.
  virtual bool changes_by_itself(NodeId directory) const = 0;

  // --- attributes ---
  virtual Task<FsResult<Attributes>> getattr(NodeId node) = 0;
  virtual Task<FsResult<Attributes>> setattr(Caller caller, NodeId node, AttributeChange change) = 0;
  // Inside a directory tree with a quota: what it leaves.
  virtual Task<FsResult<FileSystemStatus>> statfs(NodeId node) = 0;
  // The quota tree that begins at this directory; nullopt: none does.
  virtual Task<FsResult<std::optional<QuotaState>>> tree_quota(NodeId directory) = 0;
  // Limits what the directory and all below it may take (0: no limit of this kind); both 0 takes the tree
  // away. What is below becomes the tree's before the limits count, one transaction a node: interrupted, it
  // is begun again. Takes as long as listing it all; may exceed its limits from the first. Not for the root:
  // that is the dataset's quota. Errors: not_directory, invalid, quota (it does not fit into the tree around
  // it), no_space (too many trees), busy.
  virtual Task<FsStatus> set_tree_quota(NodeId directory, std::uint64_t bytes_max,
                                        std::uint64_t inodes_max) = 0;
  virtual Task<FsResult<Bytes>> xattr(NodeId node, std::string name) = 0;
  virtual Task<FsResult<std::vector<std::string>>> xattrs(NodeId node) = 0;
  enum class XattrMode : std::uint8_t { any, create, replace };
  virtual Task<FsStatus> set_xattr(NodeId node, std::string name, Bytes value, XattrMode mode,
                                   bool kill_set_gid) = 0;
  virtual Task<FsStatus> remove_xattr(NodeId node, std::string name) = 0;

  // --- data ---
  virtual Task<FsResult<HandleId>> open(NodeId node, OpenFlags flags) = 0;
  virtual Task<FsStatus> release(HandleId handle) = 0;
  virtual Task<FsResult<std::size_t>> read(HandleId handle, std::uint64_t offset, MutableByteView into) = 0;
  // False when it must wait: then call read().
  virtual bool try_read(HandleId handle, std::uint64_t offset, MutableByteView into,
                        FsResult<std::size_t>& answer) = 0;
  // `owner` keeps `data`, unchanged, for as long as it is held.
  virtual Task<FsResult<std::size_t>> write(Caller caller, HandleId handle, std::uint64_t offset,
                                            ByteView data, std::shared_ptr<const void> owner,
                                            bool kill_set_id) = 0;
  // close(2). What was written through the handle may be lost since, in the background (the local disk
  // failed, the volume was taken over): said once, here, or by the next write or fsync of the handle.
  virtual Task<FsStatus> flush(HandleId handle) = 0;
  // `handle` 0: of a directory, or of nobody who wrote.
  virtual Task<FsStatus> fsync(NodeId node, HandleId handle = 0) = 0;
  virtual Task<FsStatus> allocate(Caller caller, HandleId handle, AllocateMode mode, std::uint64_t offset,
                                  std::uint64_t length) = 0;
  virtual Task<FsResult<std::uint64_t>> seek(NodeId node, std::uint64_t offset, bool data) = 0;
  virtual Task<FsResult<std::uint64_t>> copy_range(Caller caller, HandleId from, std::uint64_t from_offset,
                                                   HandleId to, std::uint64_t to_offset,
                                                   std::uint64_t length) = 0;

  // --- directories ---
  // Entries after `cookie` (0: from the beginning), in cookies' order, without "." and "..".
  virtual Task<FsResult<std::vector<DirectoryEntry>>> list(NodeId node, std::uint64_t cookie,
                                                           std::size_t limit, bool with_attributes) = 0;
};

}  // namespace cumulus
