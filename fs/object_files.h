// ObjectFiles: the file system over a volume's objects. Its verbs lie in ops/, a family a file; what they
// share is here.
#pragma once

#include <deque>
#include <set>
#include <unordered_map>

#include "fs/file_system.h"
#include "fs/names.h"
#include "fs/records.h"
#include "objectstore/io/sync.h"

namespace cumulus {

class ObjectFiles final : public PosixFileSystem {
 public:
  static constexpr ObjectId kRoot = 1;
  static constexpr ObjectId kOrphans = 2;  // header: the salt of names; omap: what has no name, by place

  ObjectFiles(Runtime& runtime, Volume& volume, DatasetId dataset, View view, FileSystemOptions options);
  ~ObjectFiles() override;
  Task<Status> start();
  Task<FsStatus> close() override;

  Task<FsResult<Entry>> lookup(Caller caller, NodeId parent, std::string name) override;
  Task<FsResult<Entry>> make_node(Caller caller, NodeId parent, std::string name, NewNode what) override;
  Task<FsResult<Created>> create(Caller caller, NodeId parent, std::string name, std::uint32_t mode,
                                 OpenFlags flags) override;
  Task<FsResult<Created>> create_nameless(Caller caller, NodeId parent, std::uint32_t mode,
                                          OpenFlags flags) override;
  Task<FsResult<Entry>> link(Caller caller, NodeId node, NodeId parent, std::string name) override;
  Task<FsResult<NodeId>> unlink(Caller caller, NodeId parent, std::string name) override;
  Task<FsResult<NodeId>> rmdir(Caller caller, NodeId parent, std::string name) override;
  Task<FsResult<NodeId>> rename(Caller caller, NodeId from, std::string name, NodeId to, std::string new_name,
                                RenameFlags flags) override;
  Task<FsResult<std::string>> readlink(NodeId node) override;
  void forget(NodeId node) override;
  bool changes_by_itself(NodeId directory) const override { return is_snapshot_folder(directory); }
  Task<FsResult<Attributes>> getattr(NodeId node) override;
  Task<FsResult<Attributes>> setattr(Caller caller, NodeId node, AttributeChange change) override;
  Task<FsResult<FileSystemStatus>> statfs(NodeId node) override;
  Task<FsResult<std::optional<QuotaState>>> tree_quota(NodeId directory) override;
  Task<FsStatus> set_tree_quota(NodeId directory, std::uint64_t bytes_max, std::uint64_t inodes_max) override;
  Task<FsResult<Bytes>> xattr(NodeId node, std::string name) override;
  Task<FsResult<std::vector<std::string>>> xattrs(NodeId node) override;
  Task<FsStatus> set_xattr(NodeId node, std::string name, Bytes value, XattrMode mode,
                           bool kill_set_gid) override;
  Task<FsStatus> remove_xattr(NodeId node, std::string name) override;
  Task<FsResult<HandleId>> open(NodeId node, OpenFlags flags) override;
  Task<FsStatus> release(HandleId handle) override;
  Task<FsResult<std::size_t>> read(HandleId handle, std::uint64_t offset, MutableByteView into) override;
  bool try_read(HandleId handle, std::uint64_t offset, MutableByteView into,
                FsResult<std::size_t>& answer) override;
  Task<FsResult<std::size_t>> write(Caller caller, HandleId handle, std::uint64_t offset, ByteView data,
                                    std::shared_ptr<const void> owner, bool kill_set_id) override;
  Task<FsStatus> flush(HandleId handle) override;
  Task<FsStatus> fsync(NodeId node, HandleId handle = 0) override;
  Task<FsStatus> allocate(Caller caller, HandleId handle, AllocateMode mode, std::uint64_t offset,
                          std::uint64_t length) override;
  Task<FsResult<std::uint64_t>> seek(NodeId node, std::uint64_t offset, bool data) override;
  Task<FsResult<std::uint64_t>> copy_range(Caller caller, HandleId from, std::uint64_t from_offset,
                                           HandleId to, std::uint64_t to_offset,
                                           std::uint64_t length) override;
  Task<FsResult<std::vector<DirectoryEntry>>> list(NodeId node, std::uint64_t cookie, std::size_t limit,
                                                   bool with_attributes) override;

 private:
  struct Loaded {
    Inode inode;
    std::uint64_t size = 0;
  };
  struct Handle {
    NodeId node = 0;
    OpenFlags flags;
    bool owed = false;  // written through, and not told of a loss yet
    // Whoever wrote once and synced, again and again, is expected to sync after the next write.
    unsigned writes_unsynced = 0;
    unsigned syncs_in_step = 0;
  };
  // The right to change one inode.
  struct Lock {
    std::shared_ptr<Semaphore> semaphore;
    Semaphore::Hold hold;
  };
  using Locks = std::vector<Lock>;

  static ObjectId object_of(NodeId node) { return node & kObjectIdMax; }
  static std::uint64_t index_of(NodeId node) { return node >> 48; }
  static NodeId node_of(std::uint64_t index, ObjectId object) { return index << 48 | object; }
  bool is_snapshot_folder(NodeId node) const { return node == node_of(kSnapshotFolder, kRoot); }
  ObjectRef ref(ObjectId object) const { return {dataset_, object}; }
  std::int64_t now() const { return static_cast<std::int64_t>(runtime_.wall_now()); }

  FsResult<View> view_of_node(NodeId node) const;
  FsStatus check_writable(NodeId node) const;
  static FsStatus check_name(std::string_view name);
  Task<FsResult<Loaded>> load(NodeId node);
  Task<FsResult<Loaded>> load_directory(NodeId node);  // of the head, still with a name, writable
  Attributes attributes_of(NodeId node, const Loaded& loaded) const;
  Task<FsResult<Entry>> entry_of(NodeId node);
  Task<Locks> lock(std::vector<ObjectId> objects);
  Task<FsResult<NamePlace>> find(View view, ObjectId directory, std::string name);
  Task<FsStatus> apply(Transaction transaction);
  static FsError error_from(const Error& error);

  void put(Transaction& to, ObjectId object, const Inode& inode) {
    to.set_header(ref(object), inode.encode());
  }
  void put_entry(Transaction& to, ObjectId directory, std::uint64_t cookie, ObjectId object,
                 std::uint32_t mode, std::string name);
  void mark_place(Transaction& to, ObjectId directory, std::uint64_t cookie) {
    to.set_omap(ref(directory), cookie_key(cookie), EntryRecord().encode());
  }
  Task<FsStatus> remove_entry(Transaction& to, ObjectId directory, std::uint64_t cookie);
  // Counts for the file system (tree 0), and for the tree that the node belongs to.
  void charge(Transaction& to, const Inode& inode, std::int64_t bytes, std::int64_t objects) {
    if (bytes == 0 && objects == 0) return;
    to.add_usage(dataset_, 0, bytes, objects);
    if (inode.tree != 0) to.add_usage(dataset_, inode.tree, bytes, objects);
  }
  Task<FsResult<Inode>> new_inode(Caller caller, Loaded directory, ObjectId directory_object,
                                  std::uint32_t mode, std::vector<OmapEntry>& xattrs);
  // One name less; without any it becomes an orphan. Once the change was tried, name_is_gone().
  void drop_name(Transaction& to, ObjectId object, Loaded& loaded);
  FsResult<NodeId> name_is_gone(ObjectId object, const FsStatus& done);
  void add_orphan(Transaction& to, ObjectId object);
  void drop_orphan(ObjectId object);
  Task<FsResult<std::vector<ObjectId>>> find_orphans();
  Task<FsStatus> bury(ObjectId object);
  Task<void> bury_all(std::vector<ObjectId> objects);
  Task<FsStatus> check_empty(ObjectId directory);
  struct Renaming {
    NodeId from = 0;
    NodeId to = 0;
    std::string name;
    std::string new_name;
    RenameFlags flags;
    NamePlace source;
    NamePlace target;
  };
  Task<FsResult<NodeId>> remove_name(NodeId parent, std::string name, bool directory);
  Task<FsStatus> take_name_away(Transaction& to, ObjectId object, Loaded& loaded);
  Task<FsResult<NodeId>> rename_locked(Renaming names);
  Task<FsResult<NodeId>> move_name(Renaming names, Loaded above, Loaded below, Loaded loaded,
                                   std::optional<Loaded> replaced);
  Task<FsStatus> exchange_names(Renaming names, Loaded above, Loaded below, Loaded loaded, Loaded other);
  void put_parents(Transaction& to, const Renaming& names, Loaded& above, Loaded& below, int above_links,
                   int below_links);
  Task<FsStatus> check_loop(ObjectId moved, ObjectId into);
  QuotaState quota_of(std::uint32_t tree) const;
  std::uint64_t quota_left(const Inode& inode) const;
  FsResult<std::uint32_t> new_tree() const;
  Task<FsResult<bool>> begins_tree(std::uint64_t index, Inode inode);
  Task<FsResult<bool>> retag(ObjectId object, std::uint32_t tree, std::uint32_t from);
  Task<FsResult<bool>> gather_tree(ObjectId directory, std::uint32_t tree, std::uint32_t from);
  Task<FsStatus> gather_all(ObjectId directory, std::uint32_t tree, std::uint32_t from);
  Task<FsStatus> take_tree_away(ObjectId directory, std::uint32_t tree, std::uint32_t above);
  Attributes snapshot_folder();
  Task<FsResult<Entry>> snapshot_root(std::string name);
  Task<FsResult<std::vector<DirectoryEntry>>> list_snapshots(std::uint64_t cookie, bool with_attributes);
  HandleId add_handle(NodeId node, OpenFlags flags);
  FsResult<Handle> handle_of(HandleId handle) const;
  void expect_sync(HandleId id, std::size_t written);
  void note_sync(HandleId id);
  void note_written(HandleId handle, bool owed);
  Task<FsStatus> check_room(ObjectId object, std::uint64_t offset, std::uint64_t length);
  Task<FsStatus> touch(Caller caller, NodeId node);
  Task<FsStatus> allocate_step(Caller caller, NodeId node, AllocateMode mode, std::uint64_t offset,
                               std::uint64_t length);
  Task<FsResult<std::uint64_t>> allocated_in(ObjectId object, std::uint64_t offset, std::uint64_t length);
  Task<FsStatus> resize(Transaction& to, ObjectId object, Loaded& loaded, std::uint64_t size);
  // Bytes that one change gives back, about: a row of the index for each chunk of them.
  static constexpr std::uint64_t kFreeStep = 4ull << 30;
  Task<FsStatus> shorten(ObjectId object, Loaded& loaded, std::uint64_t size);
  static void clear_set_ids(Inode& inode, const Caller& caller);
  void note_read(NodeId node, const Inode& inode);
  Task<void> update_access_time(NodeId node);
  Task<void> ask_space();

  static constexpr std::uint64_t kSnapshotFolder = 0xffff;
  static constexpr std::string_view kSnapshotsName = ".snapshots";
  static bool is_snapshots_name(NodeId parent, std::string_view name) {
    return parent == kRootNode && name == kSnapshotsName;
  }

  Runtime& runtime_;
  Volume& volume_;
  DatasetId dataset_;
  FileSystemOptions options_;
  std::vector<View> views_;  // by index; 0 is what was mounted
  std::vector<Version> snapshots_seen_;
  std::int64_t snapshots_changed_ = 0;
  NameSalt salt_{};
  std::unordered_map<ObjectId, std::shared_ptr<Semaphore>> locks_;
  std::unordered_map<ObjectId, unsigned> opened_;  // how many handles
  // What has no name. Places are used again, the lowest first, so that the list is never longer than it had
  // to be: what was removed from it stays in the index as a mark.
  struct Orphan {
    std::uint64_t place = 0;
    bool forgotten = false;
  };
  std::unordered_map<ObjectId, Orphan> orphans_;
  std::set<std::uint64_t> free_places_;  // below the next one
  std::uint64_t next_place_ = 0;
  std::unordered_map<HandleId, Handle> handles_;
  HandleId next_handle_ = 1;
  Semaphore moving_directories_;
  Semaphore changing_trees_;
  std::unordered_map<NodeId, std::int64_t> accessed_;  // access times on their way
  // What the miners said last of their room: asked again after a second, in the background, for they may be
  // slow.
  VolumeStatus space_;
  std::optional<TimePoint> space_at_;
  bool asking_ = false;
  Signal space_changed_;
  TaskGroup background_;
};

}  // namespace cumulus
