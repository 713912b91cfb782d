// Looking names up and listing them; snapshots as directories.
#include <algorithm>

#include "fs/modes.h"
#include "fs/object_files.h"
#include "objectstore/find_snapshot.h"

namespace cumulus {
namespace {

constexpr std::size_t kListMax = 8192;
constexpr int kTriesMax = 16;  // names that go while what they name is looked at
constexpr std::uint64_t kSnapshotsCookie = ~std::uint64_t{0} >> 1;  // behind every name

}  // namespace

Task<FsResult<Entry>> ObjectFiles::lookup(Caller, NodeId parent, std::string name) {
  if (name == ".") co_return co_await entry_of(parent);
  if (is_snapshot_folder(parent)) {
    if (name == "..") co_return co_await entry_of(kRootNode);
    co_return co_await snapshot_root(std::move(name));
  }
  auto view = view_of_node(parent);
  if (!view) co_return std::unexpected(view.error());
  if (name == "..") {
    const auto loaded = co_await load(parent);
    if (!loaded) co_return std::unexpected(loaded.error());
    co_return co_await entry_of(node_of(index_of(parent), loaded->inode.parent));
  }
  if (is_snapshots_name(parent, name)) co_return Entry{node_of(kSnapshotFolder, kRoot), snapshot_folder()};
  if (name.size() > kNameMax)
    co_return std::unexpected(FsError{FsErrorKind::name_too_long, "at most 255 bytes"});
  for (int attempt = 0; attempt < kTriesMax; ++attempt) {
    const auto place = co_await find(*view, object_of(parent), name);
    if (!place) co_return std::unexpected(place.error());
    if (!place->entry) co_return std::unexpected(FsError{FsErrorKind::not_found, "there is no such name"});
    auto found = co_await entry_of(node_of(index_of(parent), place->entry->object));
    const bool went = found ? found->attributes.nlink == 0 : found.error().kind == FsErrorKind::stale;
    if (!went) co_return found;
  }
  co_return std::unexpected(FsError{FsErrorKind::busy, "the name changes all the time"});
}

// Its mtime is when it was first seen to hold other snapshots than before.
Attributes ObjectFiles::snapshot_folder() {
  std::vector<Version> versions;
  if (const DatasetInfo* info = volume_.find_dataset(dataset_); info != nullptr)
    for (const SnapshotInfo& one : info->snapshots) versions.push_back(one.version);
  if (snapshots_changed_ == 0 || versions != snapshots_seen_) {
    snapshots_seen_ = std::move(versions);
    snapshots_changed_ = std::max(now(), snapshots_changed_ + 1);
  }
  Attributes folder;
  folder.node = node_of(kSnapshotFolder, kRoot);
  folder.mode = kDirectoryKind | 0555;
  folder.nlink = 2;
  folder.atime = folder.mtime = folder.ctime = snapshots_changed_;
  folder.changes_by_itself = true;
  return folder;
}

// Each snapshot that somebody looks into gets a view of its own for as long as the file system is open.
Task<FsResult<Entry>> ObjectFiles::snapshot_root(std::string name) {
  const DatasetInfo* info = volume_.find_dataset(dataset_);
  const SnapshotInfo* found = info == nullptr ? nullptr : find_snapshot(*info, name);
  if (found == nullptr)
    co_return std::unexpected(FsError{FsErrorKind::not_found, "there is no such snapshot"});
  std::uint64_t index = 1;
  while (index < views_.size() && views_[index] != found->view) ++index;
  if (index >= kSnapshotFolder)
    co_return std::unexpected(FsError{FsErrorKind::no_space, "too many snapshots looked at"});
  if (index == views_.size()) views_.push_back(found->view);
  co_return co_await entry_of(node_of(index, kRoot));
}

Task<FsResult<std::vector<DirectoryEntry>>> ObjectFiles::list(NodeId node, std::uint64_t cookie,
                                                              std::size_t limit, bool with_attributes) {
  std::vector<DirectoryEntry> entries;
  if (is_snapshot_folder(node)) co_return co_await list_snapshots(cookie, with_attributes);
  auto view = view_of_node(node);
  if (!view) co_return std::unexpected(view.error());
  std::optional<Bytes> after;
  if (cookie != 0) after = cookie_key(cookie);
  const auto rows = co_await volume_.omap_list(*view, object_of(node), after, std::min(limit, kListMax));
  if (!rows) co_return std::unexpected(error_from(rows.error()));
  for (const OmapEntry& row : *rows) {
    auto record = EntryRecord::decode(row.value);
    const auto at = cookie_of_key(row.key);
    if (!record || !at)
      co_return std::unexpected(FsError{FsErrorKind::io, "a directory's entry does not parse"});
    DirectoryEntry entry;
    entry.cookie = *at;
    entry.mode = std::uint32_t{record->type} << 12;
    entry.name = std::move(record->name);
    if (record->object != 0) {
      entry.node = node_of(index_of(node), record->object);
      if (with_attributes) {
        const auto loaded = co_await load(entry.node);
        if (loaded) entry.attributes = attributes_of(entry.node, *loaded);
      }
      entries.push_back(std::move(entry));
    }
  }
  if (node == kRootNode && options_.list_snapshots && rows->size() < std::min(limit, kListMax) &&
      cookie < kSnapshotsCookie) {
    DirectoryEntry folder;
    folder.name = kSnapshotsName;
    folder.node = node_of(kSnapshotFolder, kRoot);
    folder.mode = kDirectoryKind;
    folder.cookie = kSnapshotsCookie;
    if (with_attributes) folder.attributes = snapshot_folder();
    entries.push_back(std::move(folder));
  }
  // Only places of removed names: there may be more behind them.
  if (entries.empty() && !rows->empty()) {
    const auto last = cookie_of_key(rows->back().key);
    co_return co_await list(node, last.value_or(~std::uint64_t{0}), limit, with_attributes);
  }
  co_return entries;
}

Task<FsResult<std::vector<DirectoryEntry>>> ObjectFiles::list_snapshots(std::uint64_t cookie,
                                                                        bool with_attributes) {
  std::vector<DirectoryEntry> entries;
  const DatasetInfo* info = volume_.find_dataset(dataset_);
  std::vector<SnapshotInfo> all;
  if (info != nullptr) all = info->snapshots;
  for (const SnapshotInfo& one : all) {
    DirectoryEntry entry;
    entry.cookie = kCookieMin + one.version;
    if (entry.cookie <= cookie) continue;
    const auto root = co_await snapshot_root(one.name);
    if (!root) continue;
    entry.name = one.name;
    entry.node = root->node;
    entry.mode = kDirectoryKind;
    if (with_attributes) entry.attributes = root->attributes;
    entries.push_back(std::move(entry));
  }
  co_return entries;
}

Task<FsResult<std::string>> ObjectFiles::readlink(NodeId node) {
  auto view = view_of_node(node);
  if (!view) co_return std::unexpected(view.error());
  const auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  if (!is_link(loaded->inode.mode))
    co_return std::unexpected(FsError{FsErrorKind::invalid, "not a symbolic link"});
  Bytes target(loaded->size);
  const auto got = co_await volume_.read(std::move(*view), object_of(node), 0, target);
  if (!got) co_return std::unexpected(error_from(got.error()));
  co_return std::string(text_of(target));
}

}  // namespace cumulus
