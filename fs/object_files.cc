#include "fs/object_files.h"

#include <algorithm>

#include "fs/modes.h"
#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {
namespace {

constexpr std::size_t kOrphansAtOnce = 256;
constexpr Duration kSpaceFresh = std::chrono::seconds(1);
constexpr Duration kSpacePatience = std::chrono::seconds(2);

// What is left inside a tree is never more than what is left around it.
void narrow(FileSystemStatus& about, const QuotaState& quota) {
  const auto used = [](std::int64_t counted) {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(counted, 0));
  };
  if (quota.bytes_max != 0) {
    about.bytes = quota.bytes_max;
    about.bytes_free =
        std::min(quota.bytes_max - std::min(quota.bytes_max, used(quota.bytes)), about.bytes_free);
  }
  if (quota.objects_max != 0) about.inodes = quota.objects_max;
  about.inodes_free = std::min(about.inodes - std::min(about.inodes, used(quota.objects)), about.inodes_free);
}

}  // namespace

Task<Status> PosixFileSystem::make_empty(Runtime& runtime, Volume& volume, DatasetId dataset,
                                         std::uint32_t uid, std::uint32_t gid) {
  // The first two objects of a dataset are these two.
  for (const ObjectId expected : {ObjectFiles::kRoot, ObjectFiles::kOrphans}) {
    CO_TRY(const ObjectId id, volume.allocate_object(dataset));
    if (id != expected)
      co_return fail(ErrorKind::exists,
                     format("dataset {} is not empty: it cannot become a file system", dataset));
  }
  Inode root;
  root.mode = kDirectoryKind | 0755;
  root.uid = uid;
  root.gid = gid;
  root.nlink = 2;
  root.parent = ObjectFiles::kRoot;
  root.atime = root.mtime = root.ctime = root.btime = static_cast<std::int64_t>(runtime.wall_now());
  Bytes salt(sizeof(NameSalt));
  runtime.random().fill(salt);
  Transaction make;
  make.create({dataset, ObjectFiles::kRoot}, root.encode());
  make.create({dataset, ObjectFiles::kOrphans}, std::move(salt));
  make.add_usage(dataset, 0, 0, 1);
  CO_TRY(const Commit done, co_await volume.commit(std::move(make)));
  static_cast<void>(done);
  co_return Status();
}

Task<Result<std::unique_ptr<PosixFileSystem>>> PosixFileSystem::open(Runtime& runtime, Volume& volume,
                                                                     DatasetId dataset, std::string snapshot,
                                                                     FileSystemOptions options) {
  const DatasetInfo* info = volume.find_dataset(dataset);
  if (info == nullptr) co_return fail(ErrorKind::not_found, format("there is no dataset {}", dataset));
  View view = info->head;
  if (!snapshot.empty()) {
    const auto found = std::find_if(info->snapshots.begin(), info->snapshots.end(),
                                    [&](const SnapshotInfo& one) { return one.name == snapshot; });
    if (found == info->snapshots.end())
      co_return fail(ErrorKind::not_found, format("'{}' has no snapshot '{}'", info->name, snapshot));
    view = found->view;
    options.read_only = true;
  }
  auto files = std::make_unique<ObjectFiles>(runtime, volume, dataset, std::move(view), options);
  const Status started = co_await files->start();
  if (!started) {
    static_cast<void>(co_await files->close());
    co_return fail(started.error());
  }
  co_return files;
}

ObjectFiles::ObjectFiles(Runtime& runtime, Volume& volume, DatasetId dataset, View view,
                         FileSystemOptions options)
    : runtime_(runtime),
      volume_(volume),
      dataset_(dataset),
      options_(options),
      moving_directories_(runtime, 1),
      changing_trees_(runtime, 1),
      space_changed_(runtime),
      background_(runtime) {
  views_.push_back(std::move(view));
  if (options_.name_hash == nullptr) options_.name_hash = cookie_of;
}

ObjectFiles::~ObjectFiles() { CHECK(background_.running() == 0); }

Task<Status> ObjectFiles::start() {
  CO_TRY(const auto salt, co_await volume_.stat(views_.front(), kOrphans));
  if (!salt || salt->header.size() != salt_.size())
    co_return fail(ErrorKind::corrupt, format("dataset {} holds no file system", dataset_));
  std::copy(salt->header.begin(), salt->header.end(), salt_.begin());
  const auto root = co_await load(kRootNode);
  if (!root) co_return fail(ErrorKind::corrupt, "the root directory: " + root.error().message);
  if (options_.read_only) co_return Status();
  auto orphans = co_await find_orphans();
  if (!orphans)
    co_return fail(ErrorKind::corrupt, "the list of what has no name: " + orphans.error().message);
  background_.spawn(bury_all(std::move(*orphans)));
  co_return Status();
}

Task<FsStatus> ObjectFiles::close() {
  std::vector<HandleId> left;
  left.reserve(handles_.size());
  for (const auto& [id, handle] : handles_) left.push_back(id);
  FsStatus first;
  for (const HandleId id : left) {
    const FsStatus released = co_await release(id);
    if (!released && first) first = released;
  }
  co_await background_.join();
  std::vector<ObjectId> orphans;
  orphans.reserve(orphans_.size());
  for (auto& [object, orphan] : orphans_) {
    orphan.forgotten = true;
    orphans.push_back(object);
  }
  co_await bury_all(std::move(orphans));
  co_return first;
}

// What had no name when the machine went down.
Task<FsResult<std::vector<ObjectId>>> ObjectFiles::find_orphans() {
  std::vector<ObjectId> found;
  std::optional<Bytes> after;
  for (;;) {
    const auto page = co_await volume_.omap_list(views_.front(), kOrphans, after, kOrphansAtOnce);
    if (!page) co_return std::unexpected(error_from(page.error()));
    if (page->empty()) break;
    after = page->back().key;
    for (const OmapEntry& row : *page) {
      const auto place = cookie_of_key(row.key);
      const bool first_form = row.value.empty();
      const auto object = first_form ? place : cookie_of_key(row.value);
      if (!place || !object) co_return std::unexpected(FsError{FsErrorKind::io, "an entry does not parse"});
      if (!first_form) {
        for (; next_place_ < *place; ++next_place_) free_places_.insert(next_place_);
        next_place_ = *place + 1;
      }
      orphans_.emplace(*object, Orphan{*place, true});
      found.push_back(*object);
    }
  }
  co_return found;
}

FsError ObjectFiles::error_from(const Error& error) {
  const bool quota =
      error.kind() == ErrorKind::no_space && error.message().find("quota") != std::string::npos;
  switch (error.kind()) {
    case ErrorKind::not_found:
      return {FsErrorKind::stale, error.message()};
    case ErrorKind::exists:
      return {FsErrorKind::exists, error.message()};
    case ErrorKind::no_space:
      return {quota ? FsErrorKind::quota : FsErrorKind::no_space, error.message()};
    case ErrorKind::fenced:
      return {FsErrorKind::read_only, error.message()};
    case ErrorKind::invalid:
      return {FsErrorKind::invalid, error.message()};
    default:
      return {FsErrorKind::io, error.message()};
  }
}

FsResult<View> ObjectFiles::view_of_node(NodeId node) const {
  if (index_of(node) >= views_.size())
    return std::unexpected(FsError{FsErrorKind::stale, "no such snapshot"});
  return views_[index_of(node)];
}

FsStatus ObjectFiles::check_writable(NodeId node) const {
  if (options_.read_only || index_of(node) != 0)
    return std::unexpected(FsError{FsErrorKind::read_only, "a snapshot, or mounted read-only"});
  return {};
}

FsStatus ObjectFiles::check_name(std::string_view name) {
  if (name.size() > kNameMax)
    return std::unexpected(FsError{FsErrorKind::name_too_long, "at most 255 bytes"});
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos)
    return std::unexpected(FsError{FsErrorKind::invalid, "not a name"});
  return {};
}

Task<FsResult<ObjectFiles::Loaded>> ObjectFiles::load(NodeId node) {
  auto view = view_of_node(node);
  if (!view) co_return std::unexpected(view.error());
  const auto stat = co_await volume_.stat(std::move(*view), object_of(node));
  if (!stat) co_return std::unexpected(error_from(stat.error()));
  if (!*stat) co_return std::unexpected(FsError{FsErrorKind::stale, "it was removed"});
  const auto inode = Inode::decode((*stat)->header);
  if (!inode) co_return std::unexpected(error_from(inode.error()));
  co_return Loaded{*inode, (*stat)->size};
}

Task<FsResult<ObjectFiles::Loaded>> ObjectFiles::load_directory(NodeId node) {
  const FsStatus writable = check_writable(node);
  if (!writable) co_return std::unexpected(writable.error());
  auto loaded = co_await load(node);
  if (loaded && !is_directory(loaded->inode.mode))
    co_return std::unexpected(FsError{FsErrorKind::not_directory, "its parent is no directory"});
  const bool removed = loaded ? loaded->inode.nlink == 0 : loaded.error().kind == FsErrorKind::stale;
  if (removed) co_return std::unexpected(FsError{FsErrorKind::not_found, "the directory was removed"});
  co_return loaded;
}

Attributes ObjectFiles::attributes_of(NodeId node, const Loaded& loaded) const {
  const Inode& inode = loaded.inode;
  Attributes now;
  now.node = node;
  now.mode = inode.mode;
  now.uid = inode.uid;
  now.gid = inode.gid;
  now.nlink = inode.nlink;
  now.rdev = inode.rdev;
  now.size = loaded.size;
  now.blocks = (inode.allocated + 511) / 512;
  now.atime = inode.atime;
  now.mtime = inode.mtime;
  now.ctime = inode.ctime;
  now.btime = inode.btime;
  const auto accessed = accessed_.find(node);
  if (accessed != accessed_.end()) now.atime = std::max(now.atime, accessed->second);
  return now;
}

Task<FsResult<Entry>> ObjectFiles::entry_of(NodeId node) {
  const auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  co_return Entry{node, attributes_of(node, *loaded)};
}

// In the order of their numbers, so that nobody waits in a circle.
Task<ObjectFiles::Locks> ObjectFiles::lock(std::vector<ObjectId> objects) {
  std::sort(objects.begin(), objects.end());
  objects.erase(std::unique(objects.begin(), objects.end()), objects.end());
  Locks held;
  for (const ObjectId object : objects) {
    auto& semaphore = locks_[object];
    if (!semaphore) semaphore = std::make_shared<Semaphore>(runtime_, 1);
    Lock one;
    one.semaphore = semaphore;
    if (!one.semaphore->try_acquire(one.hold)) one.hold = co_await one.semaphore->acquire();
    held.push_back(std::move(one));
  }
  // Locks that nobody holds or waits for are let go now and then.
  if (locks_.size() > 4096)
    std::erase_if(locks_, [](const auto& entry) { return entry.second.use_count() == 1; });
  co_return held;
}

Task<FsResult<NamePlace>> ObjectFiles::find(View view, ObjectId directory, std::string name) {
  auto place =
      co_await find_name(volume_, std::move(view), directory, salt_, std::move(name), options_.name_hash);
  if (!place) co_return std::unexpected(error_from(place.error()));
  if (!*place)
    co_return std::unexpected(
        FsError{FsErrorKind::no_space, "too many names of this directory have one hash"});
  co_return std::move(**place);
}

Task<FsStatus> ObjectFiles::apply(Transaction transaction) {
  const auto done = co_await volume_.commit(std::move(transaction));
  if (!done) co_return std::unexpected(error_from(done.error()));
  if (options_.synchronous) {
    const Status flushed = co_await volume_.flush();
    if (!flushed) co_return std::unexpected(error_from(flushed.error()));
  }
  co_return FsStatus();
}

void ObjectFiles::put_entry(Transaction& to, ObjectId directory, std::uint64_t cookie, ObjectId object,
                            std::uint32_t mode, std::string name) {
  EntryRecord entry;
  entry.object = object;
  entry.type = static_cast<std::uint8_t>((mode & kKindMask) >> 12);
  entry.name = std::move(name);
  to.set_omap(ref(directory), cookie_key(cookie), entry.encode());
}

// A place that names behind it were displaced over stays marked, so that they are still found: any name up to
// the next place that is empty.
Task<FsStatus> ObjectFiles::remove_entry(Transaction& to, ObjectId directory, std::uint64_t cookie) {
  for (std::uint64_t at = cookie + 1;; ++at) {
    const auto behind = co_await volume_.omap(views_.front(), directory, cookie_key(at));
    if (!behind) co_return std::unexpected(error_from(behind.error()));
    if (!*behind) break;
    const auto entry = EntryRecord::decode(**behind);
    if (!entry) co_return std::unexpected(error_from(entry.error()));
    if (entry->object == 0 || options_.name_hash(salt_, entry->name) > cookie) continue;
    mark_place(to, directory, cookie);
    co_return FsStatus();
  }
  to.remove_omap(ref(directory), cookie_key(cookie));
  co_return FsStatus();
}

void ObjectFiles::drop_name(Transaction& to, ObjectId object, Loaded& loaded) {
  Inode& inode = loaded.inode;
  inode.nlink = inode.nlink > 0 ? inode.nlink - 1 : 0;
  inode.ctime = now();
  put(to, object, inode);
  if (inode.nlink == 0) add_orphan(to, object);
}

Task<void> ObjectFiles::ask_space() {
  const auto status = co_await volume_.status(true);
  if (status) space_ = *status;
  space_at_ = runtime_.now();
  asking_ = false;
  space_changed_.notify_all();
}

Task<FsResult<FileSystemStatus>> ObjectFiles::statfs(NodeId node) {
  if (!asking_ && (!space_at_ || runtime_.now() > *space_at_ + kSpaceFresh)) {
    asking_ = true;
    background_.spawn(ask_space());
  }
  const TimePoint until = runtime_.now() + kSpacePatience;
  while (!space_at_ && runtime_.now() < until) static_cast<void>(co_await space_changed_.wait_until(until));
  std::uint32_t tree = 0;
  if (!is_snapshot_folder(node)) {
    const auto loaded = co_await load(node);
    if (loaded) tree = loaded->inode.tree;
  }
  constexpr std::uint64_t kManyInodes = 1ull << 40;
  FileSystemStatus about;
  about.bytes = space_.capacity;
  about.bytes_free = std::min(space_.free, space_.capacity);
  about.inodes = about.inodes_free = kManyInodes;
  narrow(about, quota_of(0));
  if (tree != 0) narrow(about, quota_of(tree));
  co_return about;
}

}  // namespace cumulus
