// Operations on what is known about a file: attributes, extended attributes, and of the file system as a
// whole.
#include <cerrno>
#include <fcntl.h>
#include <sys/xattr.h>

#include "fs/fuse/operations.h"
#include "fs/fuse/translate.h"

namespace cumulus {
namespace {

Task<void> getattr(Call call, NodeId node) {
  const auto now = co_await call->files().getattr(node);
  if (now)
    call->attributes(*now);
  else
    call->failed(now.error());
}

Task<void> statx(Call call, NodeId node) {
  const auto now = co_await call->files().getattr(node);
  if (!now) {
    call->failed(now.error());
    co_return;
  }
  fuse_kernel::StatxOut answer{};
  answer.valid_seconds = attributes_valid(*now);
  answer.stat = to_statx(*now);
  call->bytes({reinterpret_cast<const std::uint8_t*>(&answer), sizeof answer});
}

void on_getattr(fuse_req_t request, fuse_ino_t node, fuse_file_info*) {
  const bool extended = session_of(request).opcode() == fuse_kernel::kStatx;
  spawn(request,
        [=](Call call) { return extended ? statx(std::move(call), node) : getattr(std::move(call), node); });
}

Task<void> setattr(Call call, NodeId node, AttributeChange change) {
  call->changes(node, true);
  const auto now = co_await call->files().setattr(call->caller(), node, change);
  if (now)
    call->attributes(*now);
  else
    call->failed(now.error());
}

// Times are kept from 1677 to 2262: what lies beyond becomes the first or the last of them.
std::int64_t to_time(const timespec& time) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  if (time.tv_sec >= INT64_MAX / kSecond) return INT64_MAX;
  if (time.tv_sec <= INT64_MIN / kSecond) return INT64_MIN;
  return time.tv_sec * kSecond + time.tv_nsec;
}

void on_setattr(fuse_req_t request, fuse_ino_t node, struct stat* wanted, int set, fuse_file_info*) {
  constexpr int kKillSetId = 1 << 11;  // FATTR_KILL_SUIDGID, which libfuse calls by half of it
  AttributeChange change;
  if (set & FUSE_SET_ATTR_MODE) change.mode = wanted->st_mode & 07777;
  if (set & FUSE_SET_ATTR_UID) change.uid = wanted->st_uid;
  if (set & FUSE_SET_ATTR_GID) change.gid = wanted->st_gid;
  if (set & FUSE_SET_ATTR_SIZE) change.size = static_cast<std::uint64_t>(wanted->st_size);
  if (set & FUSE_SET_ATTR_ATIME_NOW)
    change.atime_now = true;
  else if (set & FUSE_SET_ATTR_ATIME)
    change.atime = to_time(wanted->st_atim);
  if (set & FUSE_SET_ATTR_MTIME_NOW)
    change.mtime_now = true;
  else if (set & FUSE_SET_ATTR_MTIME)
    change.mtime = to_time(wanted->st_mtim);
  if (set & FUSE_SET_ATTR_CTIME) change.ctime = to_time(wanted->st_ctim);
  change.kill_set_id = (set & kKillSetId) != 0;
  // Without anything to set it is the kernel's order to take privileges away: a change of the file's bytes by
  // another than a write, or chown to nobody new, which the kernel lets everybody do.
  change.kill_set_id_only = (set & ~FUSE_SET_ATTR_CTIME) == 0;
  spawn(request, [&](Call call) { return setattr(std::move(call), node, change); });
}

Task<void> statfs(Call call, NodeId node) {
  const auto status = co_await call->files().statfs(node);
  if (status)
    call->statfs(*status);
  else
    call->failed(status.error());
}

void on_statfs(fuse_req_t request, fuse_ino_t node) {
  spawn(request, [=](Call call) { return statfs(std::move(call), node); });
}

// Both kinds of xattr answers: with room for nothing the size is asked for.
void answer_sized(FuseCall& call, ByteView value, std::size_t room) {
  if (room == 0)
    call.size(value.size());
  else if (value.size() > room)
    call.error(ERANGE);
  else
    call.bytes(value);
}

Task<void> get_xattr(Call call, NodeId node, std::string name, std::size_t room) {
  const auto value = co_await call->files().xattr(node, std::move(name));
  if (value)
    answer_sized(*call, *value, room);
  else
    call->failed(value.error());
}

void on_getxattr(fuse_req_t request, fuse_ino_t node, const char* name, std::size_t room) {
  spawn(request, [=](Call call) { return get_xattr(std::move(call), node, name, room); });
}

Task<void> list_xattr(Call call, NodeId node, std::size_t room) {
  const auto names = co_await call->files().xattrs(node);
  if (!names) {
    call->failed(names.error());
    co_return;
  }
  std::string all;
  for (const std::string& name : *names) all.append(name.c_str(), name.size() + 1);
  answer_sized(*call, view_of(all), room);
}

void on_listxattr(fuse_req_t request, fuse_ino_t node, std::size_t room) {
  spawn(request, [=](Call call) { return list_xattr(std::move(call), node, room); });
}

Task<void> set_xattr(Call call, NodeId node, std::string name, Bytes value, std::uint32_t flags,
                     bool kill_set_gid) {
  call->changes(node, false);
  const bool acl = name.starts_with("system.posix_acl_");
  PosixFileSystem::XattrMode mode = PosixFileSystem::XattrMode::any;
  if ((flags & XATTR_CREATE) != 0) mode = PosixFileSystem::XattrMode::create;
  if ((flags & XATTR_REPLACE) != 0) mode = PosixFileSystem::XattrMode::replace;
  const FsStatus set =
      co_await call->files().set_xattr(node, std::move(name), std::move(value), mode, kill_set_gid);
  call->finish(set);
  // The kernel's view of the mode may be an answer from before.
  if (set && acl) call->session().forget_in_kernel({{node, {}, false}});
}

// Decoded from the request itself: libfuse versions differ in which of the two forms they take it for.
void on_setxattr(fuse_req_t request, fuse_ino_t node, const char*, const char*, std::size_t, int) {
  FuseSession& session = session_of(request);
  auto about = body_of<fuse_kernel::SetXattrIn>(session);
  if (!session.long_setxattr()) about.extension_flags = 0;
  const std::size_t fixed =
      session.long_setxattr() ? sizeof about : offsetof(fuse_kernel::SetXattrIn, extension_flags);
  const ByteView whole = session.request();
  const ByteView rest = whole.subspan(std::min(whole.size(), sizeof(fuse_kernel::InHeader) + fixed));
  const auto end = std::find(rest.begin(), rest.end(), 0);
  const std::size_t name_size = static_cast<std::size_t>(end - rest.begin());
  if (end == rest.end() || rest.size() - name_size - 1 < about.size) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  std::string name(text_of(rest.first(name_size)));
  const ByteView value = rest.subspan(name_size + 1, about.size);
  const bool kill = (about.extension_flags & fuse_kernel::kSetXattrAclKillSetGid) != 0;
  spawn(request, [&](Call call) {
    return set_xattr(std::move(call), node, std::move(name), Bytes(value.begin(), value.end()), about.flags,
                     kill);
  });
}

Task<void> remove_xattr(Call call, NodeId node, std::string name) {
  call->changes(node, false);
  const FsStatus removed = co_await call->files().remove_xattr(node, std::move(name));
  call->finish(removed);
}

void on_removexattr(fuse_req_t request, fuse_ino_t node, const char* name) {
  spawn(request, [=](Call call) { return remove_xattr(std::move(call), node, name); });
}

}  // namespace

void add_attribute_operations(fuse_lowlevel_ops& table) {
  table.getattr = on_getattr;
  table.setattr = on_setattr;
  table.statfs = on_statfs;
  table.getxattr = on_getxattr;
  table.listxattr = on_listxattr;
  table.setxattr = on_setxattr;
  table.removexattr = on_removexattr;
}

}  // namespace cumulus
