// Operations on names: lookup, making, removing, renaming.
#include <cerrno>
#include <cstring>
#include <fcntl.h>

#include "fs/fuse/operations.h"
#include "fs/fuse/translate.h"

namespace cumulus {
namespace {

Task<void> lookup(Call call, NodeId parent, std::string name) {
  const std::uint32_t valid = name_valid(call->files().changes_by_itself(parent));
  const auto found = co_await call->files().lookup(call->caller(), parent, std::move(name));
  if (found)
    call->entry(*found, valid);
  else if (found.error().kind == FsErrorKind::not_found)
    call->no_entry(valid);
  else
    call->failed(found.error());
}

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  spawn(request, [=](Call call) { return lookup(std::move(call), parent, name); });
}

// Look-ups are not counted: a node's id is its object's, and finds it again.
void on_forget(fuse_req_t request, fuse_ino_t node, std::uint64_t) {
  session_of(request).files().forget(node);
  fuse_reply_none(request);
}

void on_forget_many(fuse_req_t request, std::size_t count, fuse_forget_data* nodes) {
  for (std::size_t i = 0; i < count; ++i) session_of(request).files().forget(nodes[i].ino);
  fuse_reply_none(request);
}

Task<void> make_node(Call call, NodeId parent, std::string name, NewNode what) {
  call->changes(parent, name);
  const auto made =
      co_await call->files().make_node(call->caller(), parent, std::move(name), std::move(what));
  if (made)
    call->entry(*made, kValidForGood);
  else
    call->failed(made.error());
}

void on_mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  NewNode what;
  what.mode = mode;
  what.rdev = static_cast<std::uint32_t>(device);
  spawn(request, [&](Call call) { return make_node(std::move(call), parent, name, std::move(what)); });
}

void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  NewNode what;
  what.mode = S_IFDIR | (mode & 07777);
  spawn(request, [&](Call call) { return make_node(std::move(call), parent, name, std::move(what)); });
}

void on_symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  NewNode what;
  what.mode = S_IFLNK | 0777;
  what.symlink = target;
  spawn(request, [&](Call call) { return make_node(std::move(call), parent, name, std::move(what)); });
}

// Without a name: an unlinked file, which a link may give one later.
Task<void> create(Call call, NodeId parent, std::optional<std::string> name, std::uint32_t mode,
                  OpenFlags flags) {
  FsResult<Created> made;
  if (name) call->changes(parent, *name);
  if (name)
    made = co_await call->files().create(call->caller(), parent, std::move(*name), mode, flags);
  else
    made = co_await call->files().create_nameless(call->caller(), parent, mode, flags);
  if (!made) {
    call->failed(made.error());
    co_return;
  }
  const HandleId handle = made->handle;
  const NodeId node = made->entry.node;
  if (flags.write) call->session().writer_opened(node);
  if (call->created(made->entry, handle)) co_return;
  // Nobody took it: nothing was written through it.
  if (flags.write) call->session().writer_closed(node);
  call->files().forget(node);
  static_cast<void>(co_await call->files().release(handle));
}

void on_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
  const OpenFlags flags = to_open_flags(info->flags);
  std::optional<std::string> called;
  if (session_of(request).opcode() != fuse_kernel::kTmpFile) called = name;
  spawn(request, [&](Call call) {
    return create(std::move(call), parent, std::move(called), S_IFREG | (mode & 07777), flags);
  });
}

Task<void> link(Call call, NodeId node, NodeId parent, std::string name) {
  call->changes(parent, name);
  call->changes(node, false);
  const auto made = co_await call->files().link(call->caller(), node, parent, std::move(name));
  if (made)
    call->entry(*made, kValidForGood);
  else
    call->failed(made.error());
}

void on_link(fuse_req_t request, fuse_ino_t node, fuse_ino_t parent, const char* name) {
  spawn(request, [=](Call call) { return link(std::move(call), node, parent, name); });
}

// A kernel that was not told still counts the name that went, and may never forget the node.
void finish_removal(FuseCall& call, const FsResult<NodeId>& lost_name) {
  if (!lost_name) {
    call.failed(lost_name.error());
    return;
  }
  if (call.done() || *lost_name == 0) return;
  call.files().forget(*lost_name);
  call.session().forget_in_kernel({{*lost_name, {}, false}});
}

Task<void> remove(Call call, NodeId parent, std::string name, bool directory) {
  call->changes(parent, name);
  FsResult<NodeId> removed;
  if (directory)
    removed = co_await call->files().rmdir(call->caller(), parent, std::move(name));
  else
    removed = co_await call->files().unlink(call->caller(), parent, std::move(name));
  finish_removal(*call, removed);
}

void on_unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  spawn(request, [=](Call call) { return remove(std::move(call), parent, name, false); });
}

void on_rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
  spawn(request, [=](Call call) { return remove(std::move(call), parent, name, true); });
}

Task<void> rename(Call call, NodeId from, std::string name, NodeId to, std::string new_name,
                  RenameFlags flags) {
  call->changes(from, name);
  call->changes(to, new_name);
  const auto renamed =
      co_await call->files().rename(call->caller(), from, std::move(name), to, std::move(new_name), flags);
  finish_removal(*call, renamed);
}

void on_rename(fuse_req_t request, fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
               unsigned bits) {
  constexpr unsigned kNoReplace = 1;  // RENAME_NOREPLACE, RENAME_EXCHANGE
  constexpr unsigned kExchange = 2;
  if ((bits & ~(kNoReplace | kExchange)) != 0) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  const RenameFlags flags{(bits & kNoReplace) != 0, (bits & kExchange) != 0};
  spawn(request, [=](Call call) { return rename(std::move(call), from, name, to, new_name, flags); });
}

Task<void> readlink(Call call, NodeId node) {
  const auto target = co_await call->files().readlink(node);
  if (target)
    call->bytes(view_of(*target));
  else
    call->failed(target.error());
}

void on_readlink(fuse_req_t request, fuse_ino_t node) {
  spawn(request, [=](Call call) { return readlink(std::move(call), node); });
}

}  // namespace

void add_name_operations(fuse_lowlevel_ops& table) {
  table.lookup = on_lookup;
  table.forget = on_forget;
  table.forget_multi = on_forget_many;
  table.mknod = on_mknod;
  table.mkdir = on_mkdir;
  table.symlink = on_symlink;
  table.create = on_create;
  table.link = on_link;
  table.unlink = on_unlink;
  table.rmdir = on_rmdir;
  table.rename = on_rename;
  table.readlink = on_readlink;
}

}  // namespace cumulus
