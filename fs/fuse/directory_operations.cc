// Operations on directories as lists. An entry's place in its directory is its cookie, so a listing needs no
// handle and goes on after any entry that came or went.
#include <cerrno>

#include "fs/fuse/operations.h"
#include "fs/fuse/translate.h"

namespace cumulus {
namespace {

// Less than any cookie of an entry: the two that every directory has, which are not among its entries.
constexpr std::uint64_t kAfterDot = 1;
constexpr std::uint64_t kAfterDotDot = 2;
// What an entry takes at least in the kernel's form, plain and with attributes: bounds how many are asked
// for.
constexpr std::size_t kPlainSize = 32;
constexpr std::size_t kFullSize = 160;

class Listing {
 public:
  Listing(fuse_req_t request, MutableByteView room, bool full, std::uint32_t name_valid)
      : request_(request), room_(room), full_(full), name_valid_(name_valid) {}

  // False: no room is left.
  bool add(const std::string& name, const Attributes& attributes, bool whole, std::uint64_t cookie) {
    char* at = reinterpret_cast<char*>(room_.data() + used_);
    const std::size_t left = room_.size() - used_;
    std::size_t size = 0;
    if (full_) {
      // Without a node the kernel takes the entry's name and kind only, as it must for "." and "..".
      fuse_entry_param param =
          whole ? entry_param({attributes.node, attributes}, name_valid_) : fuse_entry_param{};
      if (!whole) param.attr = to_stat(attributes);
      size = fuse_add_direntry_plus(request_, at, left, name.c_str(), &param, static_cast<off_t>(cookie));
    } else {
      const struct stat about = to_stat(attributes);
      size = fuse_add_direntry(request_, at, left, name.c_str(), &about, static_cast<off_t>(cookie));
    }
    if (size > left) return false;
    used_ += size;
    return true;
  }
  ByteView bytes() const { return room_.first(used_); }

 private:
  fuse_req_t request_;
  MutableByteView room_;
  std::size_t used_ = 0;
  bool full_;
  std::uint32_t name_valid_;
};

Attributes directory_like(NodeId node) {
  Attributes attributes;
  attributes.node = node;
  attributes.mode = S_IFDIR;
  return attributes;
}

Task<void> list(Call call, NodeId node, std::uint64_t cookie, std::size_t size, bool full) {
  const std::shared_ptr<Buffer> buffer = call->session().read_buffer();
  const std::uint32_t valid = name_valid(call->files().changes_by_itself(node));
  Listing listing(call->request(), buffer->view(0, std::min(size, buffer->size())), full, valid);
  if (cookie < kAfterDot) listing.add(".", directory_like(node), false, kAfterDot);
  if (cookie < kAfterDotDot) listing.add("..", directory_like(node), false, kAfterDotDot);
  const std::uint64_t after = cookie <= kAfterDotDot ? 0 : cookie;
  const auto entries =
      co_await call->files().list(node, after, size / (full ? kFullSize : kPlainSize) + 1, full);
  if (!entries) {
    call->failed(entries.error());
    co_return;
  }
  for (const DirectoryEntry& entry : *entries) {
    Attributes kind;
    kind.node = entry.node;
    kind.mode = entry.mode;
    if (!listing.add(entry.name, entry.attributes.value_or(kind), entry.attributes.has_value(), entry.cookie))
      break;
  }
  call->bytes(listing.bytes());
}

void on_readdir(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t cookie, fuse_file_info*) {
  spawn(request, [=](Call call) {
    return list(std::move(call), node, static_cast<std::uint64_t>(cookie), size, false);
  });
}

void on_readdirplus(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t cookie, fuse_file_info*) {
  spawn(request, [=](Call call) {
    return list(std::move(call), node, static_cast<std::uint64_t>(cookie), size, true);
  });
}

// The kernel stops asking, and caches listings until it changes the directory itself, or its mtime does.
void on_opendir(fuse_req_t request, fuse_ino_t node, fuse_file_info* info) {
  if (session_of(request).opens_directories()) {
    const bool keep = !session_of(request).files().changes_by_itself(node);
    info->keep_cache = keep;
    info->cache_readdir = keep;
    fuse_reply_open(request, info);
  } else {
    fuse_reply_err(request, ENOSYS);
  }
}

void on_releasedir(fuse_req_t request, fuse_ino_t, fuse_file_info*) { fuse_reply_err(request, 0); }

Task<void> sync_directory(Call call, NodeId node) {
  const FsStatus synced = co_await call->files().fsync(node, 0);
  call->finish(synced);
}

void on_fsyncdir(fuse_req_t request, fuse_ino_t node, int, fuse_file_info*) {
  spawn(request, [=](Call call) { return sync_directory(std::move(call), node); });
}

}  // namespace

void add_directory_operations(fuse_lowlevel_ops& table) {
  table.opendir = on_opendir;
  table.releasedir = on_releasedir;
  table.readdir = on_readdir;
  table.readdirplus = on_readdirplus;
  table.fsyncdir = on_fsyncdir;
}

}  // namespace cumulus
