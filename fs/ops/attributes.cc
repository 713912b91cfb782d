// Attributes and extended attributes.
#include <algorithm>
#include <array>

#include "fs/acl.h"
#include "fs/modes.h"
#include "fs/object_files.h"

namespace cumulus {
namespace {

constexpr std::size_t kValueMax = 64u << 10;
constexpr std::size_t kNamesMax = 64u << 10;  // of one node, each with its end: what listxattr(2) can tell
constexpr std::size_t kAllMax = 1u << 20;     // of one node, names and values: listing them reads both
constexpr std::string_view kCapability = "security.capability";
constexpr std::array<std::string_view, 3> kNamespaces = {"user.", "trusted.", "security."};

Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }
std::unexpected<FsError> failure(FsErrorKind kind, const char* why) {
  return std::unexpected(FsError{kind, why});
}

FsStatus check_xattr(std::string_view name, std::uint32_t mode) {
  if (name.size() > 255) return failure(FsErrorKind::range, "at most 255 bytes");
  if (name == kAccessAcl || (name == kDefaultAcl && is_directory(mode))) return {};
  if (name == kDefaultAcl) return failure(FsErrorKind::denied, "only directories have default ACLs");
  for (const std::string_view space : kNamespaces) {
    if (name == space) return failure(FsErrorKind::invalid, "a namespace alone is no name");
    if (name.starts_with(space)) return {};
  }
  return failure(FsErrorKind::unsupported, "no such namespace of extended attributes");
}

FsStatus check_xattrs_room(const std::vector<OmapEntry>& before, std::string_view name, std::size_t value) {
  std::size_t names = name.size() + 1;
  std::size_t values = value;
  for (const OmapEntry& row : before) {
    if (text_of(row.key) == name) continue;
    names += row.key.size() + 1;
    values += row.value.size();
  }
  if (names > kNamesMax) return failure(FsErrorKind::no_space, "the names take more than 64 KiB");
  if (names + values > kAllMax) return failure(FsErrorKind::no_space, "they take more than 1 MiB");
  return {};
}

}  // namespace

Task<FsResult<Attributes>> ObjectFiles::getattr(NodeId node) {
  if (is_snapshot_folder(node)) co_return snapshot_folder();
  const auto loaded = co_await load(node);
  if (loaded) co_return attributes_of(node, *loaded);
  co_return std::unexpected(loaded.error());
}

// A write or a change of owner by somebody who may not give the bits away. Set-gid without execution by the
// group is another thing (mandatory locks, once), and stays for root and for the group's members, as on
// Linux's own file systems.
void ObjectFiles::clear_set_ids(Inode& inode, const Caller& caller) {
  if (is_directory(inode.mode)) return;
  inode.mode &= ~kSetUid;
  if ((inode.mode & kSetGid) == 0) return;
  const bool stays = (inode.mode & kGroupExecute) == 0 && (caller.uid == 0 || caller.in_group(inode.gid));
  if (!stays) inode.mode &= ~kSetGid;
}

namespace {
// Of whom the kernel did not ask it: the owner, or whoever may be writing.
bool may_kill_set_ids(const Inode& inode, const Caller& caller) {
  return caller.uid == 0 || caller.uid == inode.uid || (inode.mode & (kGroupWrite | kOthersWrite)) != 0;
}
}  // namespace

Task<FsResult<Attributes>> ObjectFiles::setattr(Caller caller, NodeId node, AttributeChange change) {
  const FsStatus writable = check_writable(node);
  if (!writable) co_return std::unexpected(writable.error());
  const ObjectId object = object_of(node);
  std::vector<ObjectId> one{object};
  const Locks locks = co_await lock(std::move(one));
  auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  Inode& inode = loaded->inode;
  if (change.size && is_file(inode.mode)) {
    const FsStatus shorter = co_await shorten(object, *loaded, *change.size);
    if (!shorter) co_return std::unexpected(shorter.error());
  }
  const std::int64_t time = now();
  Transaction set;
  const bool kill = change.kill_set_id || (change.kill_set_id_only && may_kill_set_ids(inode, caller));
  if (change.uid || change.gid || kill) {
    clear_set_ids(inode, caller);
    if (is_file(inode.mode)) set.remove_xattr(ref(object), bytes_of(kCapability));
  }
  if (change.uid) inode.uid = *change.uid;
  if (change.gid) inode.gid = *change.gid;
  if (change.mode) {
    inode.mode = (inode.mode & kKindMask) | (*change.mode & kModeMask);
    const auto value = co_await volume_.xattr(views_.front(), object, bytes_of(kAccessAcl));
    if (!value) co_return std::unexpected(error_from(value.error()));
    if (*value) {
      auto acl = Acl::decode(**value);
      if (!acl) co_return std::unexpected(error_from(acl.error()));
      acl->set_mode(inode.mode);
      set.set_xattr(ref(object), bytes_of(kAccessAcl), acl->encode());
    }
  }
  if (change.size) {
    if (!is_file(inode.mode)) co_return failure(FsErrorKind::invalid, "not a file");
    const FsStatus resized = co_await resize(set, object, *loaded, *change.size);
    if (!resized) co_return std::unexpected(resized.error());
    inode.mtime = time;
  }
  if (change.atime_now || change.atime) {
    inode.atime = change.atime_now ? time : *change.atime;
    accessed_.erase(node);
  }
  if (change.mtime_now || change.mtime) inode.mtime = change.mtime_now ? time : *change.mtime;
  inode.ctime = change.ctime.value_or(time);
  put(set, object, inode);
  const FsStatus done = co_await apply(std::move(set));
  if (!done) co_return std::unexpected(done.error());
  co_return attributes_of(node, *loaded);
}

// Most of a long way down, so that no change takes away more than so many rows of the index at once.
Task<FsStatus> ObjectFiles::shorten(ObjectId object, Loaded& loaded, std::uint64_t size) {
  const std::uint64_t steps = loaded.size > size ? loaded.inode.allocated / kFreeStep : 0;
  const std::uint64_t length = steps == 0 ? 0 : (loaded.size - size) / (steps + 1);
  for (std::uint64_t done = 0; done < steps; ++done) {
    Transaction part;
    const FsStatus resized = co_await resize(part, object, loaded, loaded.size - length);
    if (!resized) co_return resized;
    loaded.inode.mtime = loaded.inode.ctime = now();
    put(part, object, loaded.inode);
    const FsStatus applied = co_await apply(std::move(part));
    if (!applied) co_return applied;
  }
  co_return FsStatus();
}

Task<FsStatus> ObjectFiles::resize(Transaction& to, ObjectId object, Loaded& loaded, std::uint64_t size) {
  if (size > static_cast<std::uint64_t>(INT64_MAX))
    co_return failure(FsErrorKind::too_big, "files have at most 2^63-1 bytes");
  if (size < loaded.size) {
    std::int64_t freed = 0;
    if (size == 0 || !loaded.inode.holes) {
      freed = static_cast<std::int64_t>(loaded.inode.allocated - std::min(loaded.inode.allocated, size));
      if (size == 0) loaded.inode.holes = false;
    } else {
      const auto kept = co_await allocated_in(object, 0, size);
      if (!kept) co_return std::unexpected(kept.error());
      freed = static_cast<std::int64_t>(loaded.inode.allocated - std::min(loaded.inode.allocated, *kept));
    }
    loaded.inode.allocated -= static_cast<std::uint64_t>(freed);
    charge(to, loaded.inode, -freed, 0);
  } else if (size > loaded.size) {
    loaded.inode.holes = true;
  }
  loaded.size = size;
  to.truncate(ref(object), size);
  co_return FsStatus();
}

Task<FsResult<Bytes>> ObjectFiles::xattr(NodeId node, std::string name) {
  if (is_snapshot_folder(node)) co_return failure(FsErrorKind::no_data, "no such attribute");
  auto view = view_of_node(node);
  if (!view) co_return std::unexpected(view.error());
  auto value = co_await volume_.xattr(std::move(*view), object_of(node), bytes_of(name));
  if (!value) co_return std::unexpected(error_from(value.error()));
  if (*value) co_return std::move(**value);
  const FsStatus known = check_xattr(name, kDirectoryKind);
  if (!known) co_return std::unexpected(known.error());
  co_return failure(FsErrorKind::no_data, "no such attribute");
}

Task<FsResult<std::vector<std::string>>> ObjectFiles::xattrs(NodeId node) {
  std::vector<std::string> names;
  if (is_snapshot_folder(node)) co_return names;
  auto view = view_of_node(node);
  if (!view) co_return std::unexpected(view.error());
  const auto all = co_await volume_.xattrs(std::move(*view), object_of(node));
  if (!all) co_return std::unexpected(error_from(all.error()));
  for (const OmapEntry& one : *all) names.emplace_back(text_of(one.key));
  co_return names;
}

Task<FsStatus> ObjectFiles::set_xattr(NodeId node, std::string name, Bytes value, XattrMode mode,
                                      bool kill_set_gid) {
  const FsStatus writable = check_writable(node);
  if (!writable) co_return writable;
  const ObjectId object = object_of(node);
  std::vector<ObjectId> one{object};
  const Locks locks = co_await lock(std::move(one));
  auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  const FsStatus allowed = check_xattr(name, loaded->inode.mode);
  if (!allowed) co_return allowed;
  if (value.size() > kValueMax) co_return failure(FsErrorKind::no_space, "at most 64 KiB");
  const auto all = co_await volume_.xattrs(views_.front(), object);
  if (!all) co_return std::unexpected(error_from(all.error()));
  const bool exists =
      std::ranges::any_of(*all, [&](const OmapEntry& row) { return text_of(row.key) == name; });
  if (mode == XattrMode::create && exists) co_return failure(FsErrorKind::exists, "the attribute exists");
  if (mode == XattrMode::replace && !exists) co_return failure(FsErrorKind::no_data, "no such attribute");
  const FsStatus room = check_xattrs_room(*all, name, value.size());
  if (!room) co_return room;
  Transaction set;
  bool keep = true;
  if (name == kAccessAcl || name == kDefaultAcl) {
    const auto acl = Acl::decode(value);
    if (!acl) co_return std::unexpected(error_from(acl.error()));
    if (name == kAccessAcl) {
      loaded->inode.mode = acl->mode_with(loaded->inode.mode);
      if (kill_set_gid) loaded->inode.mode &= ~kSetGid;
      keep = acl->is_more_than_a_mode();
    }
  }
  if (keep)
    set.set_xattr(ref(object), bytes_of(name), std::move(value));
  else if (exists)
    set.remove_xattr(ref(object), bytes_of(name));
  loaded->inode.ctime = now();
  put(set, object, loaded->inode);
  co_return co_await apply(std::move(set));
}

Task<FsStatus> ObjectFiles::remove_xattr(NodeId node, std::string name) {
  const FsStatus writable = check_writable(node);
  if (!writable) co_return writable;
  const ObjectId object = object_of(node);
  std::vector<ObjectId> one{object};
  const Locks locks = co_await lock(std::move(one));
  auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  const auto before = co_await volume_.xattr(views_.front(), object, bytes_of(name));
  if (!before) co_return std::unexpected(error_from(before.error()));
  if (!*before) {
    if (name == kAccessAcl || name == kDefaultAcl) co_return FsStatus();  // the mode alone is left, as wanted
    const FsStatus known = check_xattr(name, kDirectoryKind);
    co_return known ? FsStatus(failure(FsErrorKind::no_data, "no such attribute")) : known;
  }
  Transaction remove;
  remove.remove_xattr(ref(object), bytes_of(name));
  loaded->inode.ctime = now();
  put(remove, object, loaded->inode);
  co_return co_await apply(std::move(remove));
}

}  // namespace cumulus
