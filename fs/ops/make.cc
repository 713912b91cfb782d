// Making nodes: files, directories, links and the rest; with and without a name.
#include "fs/acl.h"
#include "fs/modes.h"
#include "fs/object_files.h"

namespace cumulus {

// Mode, group and ACLs as a new node of this directory gets them: set-gid directories hand down their group,
// and a default ACL takes the place of the umask.
Task<FsResult<Inode>> ObjectFiles::new_inode(Caller caller, Loaded directory, ObjectId directory_object,
                                             std::uint32_t mode, std::vector<OmapEntry>& xattrs) {
  Inode inode;
  inode.mode = mode;
  inode.uid = caller.uid;
  inode.gid = caller.gid;
  inode.nlink = is_directory(mode) ? 2 : 1;
  inode.tree = directory.inode.tree;
  inode.atime = inode.mtime = inode.ctime = inode.btime = now();
  if (is_directory(mode)) inode.parent = directory_object;
  if ((directory.inode.mode & kSetGid) != 0) {
    inode.gid = directory.inode.gid;
    if (is_directory(mode)) inode.mode |= kSetGid;
  }
  if (is_link(mode)) co_return inode;
  const auto inherited =
      co_await volume_.xattr(views_.front(), directory_object, Bytes(kDefaultAcl.begin(), kDefaultAcl.end()));
  if (!inherited) co_return std::unexpected(error_from(inherited.error()));
  if (!*inherited) {
    inode.mode &= ~(caller.umask & 0777);
    co_return inode;
  }
  auto acl = Acl::decode(**inherited);
  if (!acl) co_return std::unexpected(error_from(acl.error()));
  if (is_directory(mode)) xattrs.push_back({Bytes(kDefaultAcl.begin(), kDefaultAcl.end()), **inherited});
  inode.mode = acl->restrict_to(inode.mode);
  if (acl->is_more_than_a_mode())
    xattrs.push_back({Bytes(kAccessAcl.begin(), kAccessAcl.end()), acl->encode()});
  co_return inode;
}

Task<FsResult<Entry>> ObjectFiles::make_node(Caller caller, NodeId parent, std::string name, NewNode what) {
  const FsStatus named = check_name(name);
  if (!named) co_return std::unexpected(named.error());
  const ObjectId directory = object_of(parent);
  std::vector<ObjectId> both{directory};
  const Locks locks = co_await lock(std::move(both));
  auto above = co_await load_directory(parent);
  if (!above) co_return std::unexpected(above.error());
  const auto place = co_await find(views_.front(), directory, name);
  if (!place) co_return std::unexpected(place.error());
  if (place->entry || is_snapshots_name(parent, name))
    co_return std::unexpected(FsError{FsErrorKind::exists, "the name is taken"});
  const auto object = volume_.allocate_object(dataset_);
  if (!object) co_return std::unexpected(error_from(object.error()));

  Transaction make;
  std::vector<OmapEntry> acls;
  auto inode = co_await new_inode(caller, *above, directory, what.mode, acls);
  if (!inode) co_return std::unexpected(inode.error());
  inode->rdev = what.rdev;
  inode->allocated = 0;
  make.create(ref(*object), inode->encode());
  for (OmapEntry& acl : acls) make.set_xattr(ref(*object), std::move(acl.key), std::move(acl.value));
  if (!what.symlink.empty()) make.write(ref(*object), 0, view_of(what.symlink));
  put_entry(make, directory, place->cookie, *object, inode->mode, std::move(name));
  above->inode.mtime = above->inode.ctime = inode->btime;
  if (is_directory(inode->mode)) ++above->inode.nlink;
  put(make, directory, above->inode);
  charge(make, *inode, 0, 1);
  const FsStatus made = co_await apply(std::move(make));
  if (!made) co_return std::unexpected(made.error());
  const NodeId node = node_of(0, *object);
  const Loaded loaded{*inode, what.symlink.size()};
  co_return Entry{node, attributes_of(node, loaded)};
}

Task<FsResult<Created>> ObjectFiles::create(Caller caller, NodeId parent, std::string name,
                                            std::uint32_t mode, OpenFlags flags) {
  NewNode what;
  what.mode = kFileKind | (mode & kModeMask);
  const auto made = co_await make_node(caller, parent, std::move(name), std::move(what));
  if (!made) co_return std::unexpected(made.error());
  co_return Created{*made, add_handle(made->node, flags)};
}

Task<FsResult<Created>> ObjectFiles::create_nameless(Caller caller, NodeId parent, std::uint32_t mode,
                                                     OpenFlags flags) {
  auto above = co_await load_directory(parent);
  if (!above) co_return std::unexpected(above.error());
  const auto object = volume_.allocate_object(dataset_);
  if (!object) co_return std::unexpected(error_from(object.error()));
  Transaction make;
  std::vector<OmapEntry> acls;
  auto inode = co_await new_inode(caller, *above, object_of(parent), kFileKind | (mode & kModeMask), acls);
  if (!inode) co_return std::unexpected(inode.error());
  inode->nlink = 0;
  make.create(ref(*object), inode->encode());
  for (OmapEntry& acl : acls) make.set_xattr(ref(*object), std::move(acl.key), std::move(acl.value));
  add_orphan(make, *object);
  charge(make, *inode, 0, 1);
  const NodeId node = node_of(0, *object);
  const FsStatus made = co_await apply(std::move(make));
  if (!made) {
    drop_orphan(*object);
    co_return std::unexpected(made.error());
  }
  const HandleId handle = add_handle(node, flags);
  const Loaded loaded{*inode, 0};
  co_return Created{{node, attributes_of(node, loaded)}, handle};
}

Task<FsResult<Entry>> ObjectFiles::link(Caller, NodeId node, NodeId parent, std::string name) {
  const FsStatus named = check_name(name);
  if (!named) co_return std::unexpected(named.error());
  const FsStatus writable = check_writable(node);
  if (!writable) co_return std::unexpected(writable.error());
  const ObjectId directory = object_of(parent);
  const ObjectId object = object_of(node);
  std::vector<ObjectId> both{directory, object};
  const Locks locks = co_await lock(std::move(both));
  auto above = co_await load_directory(parent);
  if (!above) co_return std::unexpected(above.error());
  auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  if (is_directory(loaded->inode.mode))
    co_return std::unexpected(FsError{FsErrorKind::not_permitted, "directories have one name"});
  if (loaded->inode.tree != above->inode.tree)
    co_return std::unexpected(FsError{FsErrorKind::cross_tree, "the directory has another quota"});
  const auto place = co_await find(views_.front(), directory, name);
  if (!place) co_return std::unexpected(place.error());
  if (place->entry || is_snapshots_name(parent, name))
    co_return std::unexpected(FsError{FsErrorKind::exists, "the name is taken"});
  Transaction make;
  const auto orphan = orphans_.find(object);
  if (orphan != orphans_.end()) make.remove_omap(ref(kOrphans), cookie_key(orphan->second.place));
  ++loaded->inode.nlink;
  loaded->inode.ctime = now();
  put(make, object, loaded->inode);
  put_entry(make, directory, place->cookie, object, loaded->inode.mode, std::move(name));
  above->inode.mtime = above->inode.ctime = loaded->inode.ctime;
  put(make, directory, above->inode);
  const FsStatus made = co_await apply(std::move(make));
  if (!made) co_return std::unexpected(made.error());
  drop_orphan(object);
  co_return Entry{node, attributes_of(node, *loaded)};
}

}  // namespace cumulus
