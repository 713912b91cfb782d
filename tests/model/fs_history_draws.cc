// What FsHistory does next: few names, so that calls meet; sizes around the borders of cells and chunks.
#include <algorithm>

#include "fs/modes.h"
#include "objectstore/base/format.h"
#include "tests/model/fs_history.h"

namespace cumulus {
namespace {

using Kind = FsOperation::Kind;

constexpr std::size_t kNodesMost = 40;
constexpr std::size_t kSnapshotsMost = 3;
constexpr std::uint64_t kSizeMost = 400'000;
constexpr const char* kShortNames[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "\xff\x01", " ."};
constexpr const char* kXattrs[] = {"user.a", "user.b", "trusted.c", "security.capability"};

}  // namespace

ModelId FsHistory::any_directory() {
  std::vector<ModelId> all;
  for (const auto& [id, node] : now().nodes())
    if (is_directory(node->mode)) all.push_back(id);
  return all[below(all.size())];
}

std::optional<ModelId> FsHistory::any_file() {
  std::vector<ModelId> all;
  for (const auto& [id, node] : now().nodes())
    if (is_file(node->mode)) all.push_back(id);
  if (all.empty()) return std::nullopt;
  return all[below(all.size())];
}

ModelId FsHistory::any_node() {
  return std::next(now().nodes().begin(), static_cast<std::ptrdiff_t>(below(now().nodes().size())))->first;
}

std::string FsHistory::any_name(ModelId directory, bool likely_there) {
  const auto& entries = now().node(directory).entries;
  if (likely_there && !entries.empty() && !random_.once_in(8))
    return std::next(entries.begin(), static_cast<std::ptrdiff_t>(below(entries.size())))->first;
  if (random_.once_in(12)) return std::string(255, static_cast<char>('x' + below(3)));
  return kShortNames[below(std::size(kShortNames))];
}

std::shared_ptr<const Bytes> FsHistory::some_bytes(std::uint64_t most) {
  const std::uint64_t longest = random_.once_in(6) ? most : std::min<std::uint64_t>(most, 6'000);
  Bytes bytes(1 + below(longest));
  if (random_.once_in(10))
    std::ranges::fill(bytes, std::uint8_t{0});
  else
    random_.fill(bytes);
  return std::make_shared<const Bytes>(std::move(bytes));
}

FsOperation FsHistory::draw() {
  FsOperation operation;
  operation.caller.uid = static_cast<std::uint32_t>(below(3));
  operation.caller.gid = static_cast<std::uint32_t>(below(3));
  operation.caller.umask = random_.once_in(2) ? 022 : 0;
  const std::uint64_t what = below(100);
  if (what < 30 && now().nodes().size() < kNodesMost)
    draw_node(operation);
  else if (what < 56)
    draw_name(operation);
  else if (what < 68)
    draw_attributes(operation);
  else if (what < 97)
    draw_data(operation);
  else
    draw_snapshot(operation);
  return operation;
}

void FsHistory::draw_node(FsOperation& operation) {
  operation.parent = any_directory();
  operation.name = any_name(operation.parent, false);
  operation.node = next_id_++;
  NewNode& what = operation.what;
  const std::uint64_t chosen = below(20);
  operation.kind = chosen < 9 ? Kind::create : chosen < 12 ? Kind::create_nameless : Kind::make_node;
  what.mode = static_cast<std::uint32_t>(below(kModeMask + 1));
  if (chosen < 12) {
    what.mode |= kFileKind;
    if (operation.kind == Kind::create_nameless) operation.name.clear();
  } else if (chosen < 16) {
    what.mode |= kDirectoryKind;
  } else if (chosen < 18) {
    what.mode = kLinkKind | 0777;
    what.symlink = std::string(1 + below(200), 'l');
  } else if (chosen < 19) {
    what.mode |= 0020000;  // a character device
    what.rdev = static_cast<std::uint32_t>(1 + below(1u << 20));
  } else {
    what.mode |= kFileKind;
    if (random_.once_in(2)) operation.name = std::string(256, 'n');
  }
}

void FsHistory::draw_name(FsOperation& operation) {
  operation.parent = any_directory();
  operation.name = any_name(operation.parent, true);
  const std::uint64_t chosen = below(20);
  if (chosen < 4) {
    operation.kind = Kind::link;
    operation.node = any_node();
    operation.name = any_name(operation.parent, random_.once_in(4));
  } else if (chosen < 10) {
    operation.kind = Kind::unlink;
  } else if (chosen < 12) {
    operation.kind = Kind::rmdir;
  } else {
    operation.kind = Kind::rename;
    operation.other_parent = random_.once_in(2) ? operation.parent : any_directory();
    operation.other_name = any_name(operation.other_parent, random_.once_in(2));
    operation.flags.no_replace = random_.once_in(5);
    operation.flags.exchange = !operation.flags.no_replace && random_.once_in(4);
  }
}

void FsHistory::draw_attributes(FsOperation& operation) {
  operation.node = any_node();
  if (random_.once_in(2)) {
    const bool removes = random_.once_in(3);
    operation.kind = removes ? Kind::remove_xattr : Kind::set_xattr;
    operation.name = kXattrs[below(std::size(kXattrs))];
    operation.xattr_mode = static_cast<PosixFileSystem::XattrMode>(below(3));
    if (!removes) operation.data = some_bytes(std::min<std::uint64_t>(9'000, write_most_));
    return;
  }
  operation.kind = Kind::setattr;
  AttributeChange& change = operation.change;
  if (random_.once_in(2)) change.mode = static_cast<std::uint32_t>(below(kModeMask + 1));
  if (random_.once_in(3)) change.uid = static_cast<std::uint32_t>(below(3));
  if (random_.once_in(3)) change.gid = static_cast<std::uint32_t>(below(3));
  if (random_.once_in(2)) change.mtime = static_cast<std::int64_t>(below(1ull << 62)) - (1ll << 61);
  if (is_file(now().node(operation.node).mode) && random_.once_in(2)) change.size = below(kSizeMost);
  change.kill_set_id = change.size && random_.once_in(2);
  change.kill_set_id_only = !change.mode && !change.uid && !change.gid && !change.mtime && !change.size;
}

// Without a file to work on: a new one.
void FsHistory::draw_data(FsOperation& operation) {
  const auto file = any_file();
  if (!file) return draw_node(operation);
  operation.node = *file;
  const std::uint64_t size = now().node(*file).data.size();
  // Inside, at the end, and sometimes beyond it.
  operation.offset = random_.once_in(3) ? size : below(size + (random_.once_in(3) ? 100'000 : 1));
  const std::uint64_t room = kSizeMost - std::min(kSizeMost - 1, operation.offset);
  operation.kill_set_id = random_.once_in(4);
  const std::uint64_t chosen = below(20);
  if (chosen < 12) {
    operation.kind = Kind::write;
    operation.data = some_bytes(std::min(room, write_most_));
  } else if (chosen < 13) {  // as of open with O_TRUNC
    operation.kind = Kind::setattr;
    operation.change.size = 0;
    operation.change.kill_set_id = operation.kill_set_id;
  } else if (chosen < 17) {
    operation.kind = Kind::allocate;
    operation.length = 1 + below(std::min<std::uint64_t>(room, 150'000));
    operation.mode.punch_hole = random_.once_in(2);
    operation.mode.zero_range = !operation.mode.punch_hole && random_.once_in(2);
    operation.mode.keep_size = operation.mode.punch_hole || random_.once_in(2);
  } else {
    operation.kind = Kind::copy_range;
    operation.other = *any_file();
    operation.other_offset = below(now().node(operation.other).data.size() + 1);
    operation.length = 1 + below(std::min<std::uint64_t>(room, 150'000));
    // The kernel refuses ranges of one file that overlap.
    if (operation.other == operation.node)
      operation.offset = std::max(operation.offset, operation.other_offset + operation.length);
  }
}

void FsHistory::draw_snapshot(FsOperation& operation) {
  const auto& snapshots = now().snapshots();
  const bool creates = snapshots.empty() || (snapshots.size() < kSnapshotsMost && random_.once_in(2));
  operation.kind = creates              ? Kind::create_snapshot
                   : random_.once_in(2) ? Kind::remove_snapshot
                                        : Kind::rollback;
  if (creates)
    operation.name = format("s{}", next_snapshot_++);
  else
    operation.name =
        std::next(snapshots.begin(), static_cast<std::ptrdiff_t>(below(snapshots.size())))->first;
}

}  // namespace cumulus
