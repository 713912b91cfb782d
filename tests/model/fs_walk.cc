#include "tests/model/fs_walk.h"

#include <set>

#include "fs/modes.h"
#include "fs/records.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr ObjectId kRootObject = 1;
constexpr ObjectId kOrphansObject = 2;
const Caller kNobody;

Task<FsResult<Bytes>> content_of(PosixFileSystem& files, const Attributes& about) {
  Bytes data(about.size);
  if (is_link(about.mode)) {
    const auto target = co_await files.readlink(about.node);
    if (!target) co_return std::unexpected(target.error());
    data.assign(target->begin(), target->end());
    co_return data;
  }
  OpenFlags flags;
  flags.read = true;
  const auto handle = co_await files.open(about.node, flags);
  if (!handle) co_return std::unexpected(handle.error());
  const auto got = co_await files.read(*handle, 0, data);
  const FsStatus released = co_await files.release(*handle);
  if (!got) co_return std::unexpected(got.error());
  if (!released) co_return std::unexpected(released.error());
  data.resize(*got);
  co_return data;
}

Task<FsResult<std::map<std::string, Bytes>>> xattrs_of(PosixFileSystem& files, NodeId node) {
  std::map<std::string, Bytes> found;
  const auto names = co_await files.xattrs(node);
  if (!names) co_return std::unexpected(names.error());
  for (const std::string& name : *names) {
    const auto value = co_await files.xattr(node, name);
    if (!value) co_return std::unexpected(value.error());
    found[name] = *value;
  }
  co_return found;
}

Task<FsResult<std::vector<DirectoryEntry>>> list_all(PosixFileSystem& files, NodeId node, std::size_t page) {
  std::vector<DirectoryEntry> all;
  std::uint64_t cookie = 0;
  for (;;) {
    auto entries = co_await files.list(node, cookie, page, true);
    if (!entries) co_return std::unexpected(entries.error());
    if (entries->empty()) co_return all;
    cookie = entries->back().cookie;
    for (DirectoryEntry& entry : *entries) all.push_back(std::move(entry));
  }
}

}  // namespace

Task<FsWalk> walk(PosixFileSystem& files, std::size_t page) {
  FsWalk found;
  std::map<std::string, Attributes> all;
  const auto root = co_await files.getattr(kRootNode);
  if (!root) {
    found.trouble = "the root: " + root.error().message;
    co_return found;
  }
  all[""] = *root;
  std::vector<std::string> left{""};
  while (!left.empty() && found.trouble.empty()) {
    const std::string path = std::move(left.back());
    left.pop_back();
    const NodeId above = all[path].node;
    const auto entries = co_await list_all(files, above, page);
    if (!entries) {
      found.trouble = format("/{}: list: {}", path, entries.error().message);
      co_return found;
    }
    for (const DirectoryEntry& entry : *entries) {
      const std::string below = path.empty() ? entry.name : path + "/" + entry.name;
      const auto seen = co_await files.lookup(kNobody, above, entry.name);
      if (!seen)
        found.trouble = format("/{} is listed and not found: {}", below, seen.error().message);
      else if (seen->node != entry.node || (seen->attributes.mode & kKindMask) != entry.mode)
        found.trouble = format("/{}: the listing and the look-up differ", below);
      else if (!all.try_emplace(below, seen->attributes).second)
        found.trouble = format("/{} is listed twice", below);
      else if (is_directory(seen->attributes.mode))
        left.push_back(below);
    }
  }
  std::map<NodeId, std::string> first;
  for (const auto& [path, about] : all) {
    Bytes data;
    if (is_file(about.mode) || is_link(about.mode)) {
      const auto content = co_await content_of(files, about);
      if (!content || content->size() != about.size)
        found.trouble =
            format("/{}: {}", path, content ? "it is shorter than its size" : content.error().message);
      else
        data = *content;
    }
    const auto xattrs = co_await xattrs_of(files, about.node);
    if (!xattrs) {
      found.trouble = format("/{}: xattrs: {}", path, xattrs.error().message);
      co_return found;
    }
    const std::string& first_path = first.try_emplace(about.node, path).first->second;
    found.picture.lines[path] = {picture_text(about, data, *xattrs, first_path), about.mtime};
    found.nodes[path] = about.node;
  }
  co_return found;
}

namespace {

// What lies in a dataset, read without the file system.
struct Records {
  std::map<ObjectId, Inode> inodes;
  std::map<ObjectId, std::uint64_t> names;    // how many entries lead to it
  std::map<ObjectId, std::uint64_t> folders;  // entries of it that lead to directories
  std::set<ObjectId> orphans;
  std::vector<std::string> problems;
};

Task<Status> read_entries(Volume& volume, View view, ObjectId directory, NameSalt salt, Records& into,
                          std::vector<std::pair<ObjectId, EntryRecord>>& entries) {
  const auto rows = co_await volume.omap_list(view, directory, std::nullopt, 1u << 20);
  if (!rows) co_return fail(rows.error());
  std::optional<std::uint64_t> before;
  for (const OmapEntry& row : *rows) {
    CO_TRY(const std::uint64_t cookie, cookie_of_key(row.key));
    CO_TRY(EntryRecord entry, EntryRecord::decode(row.value));
    if (before && cookie <= *before)
      into.problems.push_back(format("directory {}: cookies out of order", directory));
    before = cookie;
    if (entry.object == 0) continue;
    const std::uint64_t home = cookie_of(salt, entry.name);
    if (cookie < home || cookie > home + 63)
      into.problems.push_back(format("directory {}: '{}' is not where it belongs", directory, entry.name));
    entries.emplace_back(directory, std::move(entry));
  }
  co_return Status();
}

Task<Status> check_extents(Volume& volume, View view, ObjectId object, std::uint64_t size, Records& found) {
  const Inode& inode = found.inodes[object];
  std::uint64_t allocated = 0;
  if (size > 0 && is_file(inode.mode)) {
    const auto stretches = co_await volume.stretches(view, object, 0, size);
    if (!stretches) co_return fail(stretches.error());
    for (const Volume::Stretch& one : *stretches)
      if (one.kind != Volume::Stretch::Kind::hole) allocated += one.length;
  }
  if (allocated != inode.allocated)
    found.problems.push_back(
        format("object {}: {} bytes are allocated, its header says {}", object, allocated, inode.allocated));
  if (allocated != size && is_file(inode.mode) && !inode.holes)
    found.problems.push_back(format("object {} has holes and does not know", object));
  co_return Status();
}

void check_links(Records& found) {
  for (const auto& [object, inode] : found.inodes) {
    const std::uint64_t names = found.names[object];
    const bool removed = inode.nlink == 0 && found.folders[object] == 0;
    if (is_directory(inode.mode) && !removed) {
      if (names != (object == kRootObject ? 0u : 1u))
        found.problems.push_back(format("directory {} has {} names", object, names));
      if (inode.nlink != 2 + found.folders[object])
        found.problems.push_back(format("directory {}: {} links, {} directories in it", object, inode.nlink,
                                        found.folders[object]));
    } else if (inode.nlink != names) {
      found.problems.push_back(format("object {}: {} links, {} names", object, inode.nlink, names));
    }
    if ((inode.nlink == 0) != found.orphans.contains(object))
      found.problems.push_back(
          format("object {}: {} links, {}", object, inode.nlink,
                 found.orphans.contains(object) ? "listed as orphan" : "not listed as orphan"));
  }
  for (const ObjectId orphan : found.orphans)
    if (!found.inodes.contains(orphan)) found.problems.push_back(format("orphan {} does not exist", orphan));
}

void check_usage(Records& found, const DatasetInfo& info) {
  std::uint64_t bytes = 0;
  for (const auto& [object, inode] : found.inodes) bytes += inode.allocated;
  const auto whole = info.trees.find(0);
  const QuotaState counted = whole == info.trees.end() ? QuotaState{} : whole->second;
  if (static_cast<std::uint64_t>(counted.bytes) != bytes)
    found.problems.push_back(format("{} bytes are allocated, the dataset counts {}", bytes, counted.bytes));
  if (static_cast<std::uint64_t>(counted.objects) != found.inodes.size())
    found.problems.push_back(
        format("{} inodes, the dataset counts {}", found.inodes.size(), counted.objects));
}

Task<Status> read_records(Volume& volume, const DatasetInfo& info, Records& found) {
  std::vector<std::pair<ObjectId, EntryRecord>> entries;
  std::map<ObjectId, std::uint64_t> sizes;
  NameSalt salt{};
  for (ObjectId object = 1; object < info.next_object; ++object) {
    CO_TRY(const auto stat, co_await volume.stat(info.head, object));
    if (!stat) continue;
    if (object == kOrphansObject) {
      std::copy_n(stat->header.begin(), std::min(stat->header.size(), salt.size()), salt.begin());
      continue;
    }
    CO_TRY(found.inodes[object], Inode::decode(stat->header));
    sizes[object] = stat->size;
  }
  for (const auto& [object, inode] : found.inodes)
    if (is_directory(inode.mode))
      CO_TRY_OK(co_await read_entries(volume, info.head, object, salt, found, entries));
  for (const auto& [directory, entry] : entries) {
    ++found.names[entry.object];
    const auto there = found.inodes.find(entry.object);
    if (there == found.inodes.end()) {
      found.problems.push_back(format("'{}' of directory {} leads to nothing", entry.name, directory));
      continue;
    }
    if (there->second.mode >> 12 != entry.type)
      found.problems.push_back(format("'{}' of directory {} says another kind", entry.name, directory));
    if (!is_directory(there->second.mode)) continue;
    ++found.folders[directory];
    if (there->second.parent != directory)
      found.problems.push_back(format("directory {} says its parent is {}, it lies in {}", entry.object,
                                      there->second.parent, directory));
  }
  for (const auto& [object, size] : sizes)
    CO_TRY_OK(co_await check_extents(volume, info.head, object, size, found));
  CO_TRY(const auto orphans, co_await volume.omap_list(info.head, kOrphansObject, std::nullopt, 1u << 20));
  for (const OmapEntry& row : orphans) {
    CO_TRY(const std::uint64_t object, cookie_of_key(row.value));
    found.orphans.insert(object);
  }
  co_return Status();
}

}  // namespace

Task<FsCheck> check_file_system(Volume& volume, DatasetId dataset, std::string snapshot) {
  DatasetInfo info = *volume.find_dataset(dataset);
  for (const SnapshotInfo& one : info.snapshots)
    if (one.name == snapshot) info.head = one.view;
  Records found;
  const Status read = co_await read_records(volume, info, found);
  if (!read) found.problems.push_back(read.error().message());
  check_links(found);
  if (snapshot.empty()) check_usage(found, info);
  co_return FsCheck{std::move(found.problems), found.inodes.size(), found.orphans.size()};
}

}  // namespace cumulus
