// Quotas of directory trees: a tree is a number that every inode carries, handed down by its directory. It
// begins at the directory whose number is not its parent's.
#include <algorithm>

#include "fs/modes.h"
#include "fs/object_files.h"

namespace cumulus {
namespace {

constexpr std::size_t kTreesMax = 4096;  // of one file system: every snapshot keeps the list
constexpr int kPassesMax = 16;           // over a tree in which names move meanwhile
constexpr std::size_t kPage = 64;

std::unexpected<FsError> failure(FsErrorKind kind, const char* why) {
  return std::unexpected(FsError{kind, why});
}

bool is_limited(const QuotaState& quota) { return quota.bytes_max != 0 || quota.objects_max != 0; }

}  // namespace

QuotaState ObjectFiles::quota_of(std::uint32_t tree) const {
  const DatasetInfo* info = volume_.find_dataset(dataset_);
  if (info == nullptr) return {};
  const auto found = info->trees.find(tree);
  return found == info->trees.end() ? QuotaState{} : found->second;
}

// Bytes that the quotas around an inode still allow.
std::uint64_t ObjectFiles::quota_left(const Inode& inode) const {
  std::uint64_t left = ~std::uint64_t{0};
  for (const std::uint32_t tree : {std::uint32_t{0}, inode.tree}) {
    const QuotaState quota = quota_of(tree);
    const auto used = static_cast<std::uint64_t>(std::max<std::int64_t>(quota.bytes, 0));
    if (quota.bytes_max != 0) left = std::min(left, quota.bytes_max - std::min(quota.bytes_max, used));
  }
  return left;
}

// Whether a tree begins at this directory: its number is no other's above it. Of a tree that is being set, or
// never was to its end, directories below may still have a number from further up.
Task<FsResult<bool>> ObjectFiles::begins_tree(std::uint64_t index, Inode inode) {
  if (inode.tree == 0) co_return false;
  for (ObjectId at = inode.parent;;) {
    const auto above = co_await load(node_of(index, at));
    if (!above) co_return std::unexpected(above.error());
    if (above->inode.tree == inode.tree) co_return false;
    if (at == kRoot) co_return true;
    at = above->inode.parent;
  }
}

Task<FsResult<std::optional<QuotaState>>> ObjectFiles::tree_quota(NodeId directory) {
  const auto loaded = co_await load(directory);
  if (!loaded) co_return std::unexpected(loaded.error());
  if (!is_directory(loaded->inode.mode)) co_return failure(FsErrorKind::not_directory, "not a directory");
  const auto begins = co_await begins_tree(index_of(directory), loaded->inode);
  if (!begins) co_return std::unexpected(begins.error());
  if (!*begins) co_return std::optional<QuotaState>();
  co_return std::optional<QuotaState>(quota_of(loaded->inode.tree));
}

// A number that neither the head nor a snapshot knows.
FsResult<std::uint32_t> ObjectFiles::new_tree() const {
  const DatasetInfo* info = volume_.find_dataset(dataset_);
  if (info == nullptr) return failure(FsErrorKind::stale, "the file system was removed");
  if (info->trees.size() > kTreesMax)
    return failure(FsErrorKind::no_space, "a file system has at most 4096 directory trees with quotas");
  std::uint32_t last = info->trees.empty() ? 0 : info->trees.rbegin()->first;
  for (const SnapshotInfo& snapshot : info->snapshots)
    if (!snapshot.trees.empty()) last = std::max(last, snapshot.trees.rbegin()->first);
  return last + 1;
}

// Makes a node the tree's, with what it takes. False when nothing had to be done: it is the tree's, it was
// removed, or another tree begins there. `from`: the tree that is being left.
Task<FsResult<bool>> ObjectFiles::retag(ObjectId object, std::uint32_t tree, std::uint32_t from) {
  std::vector<ObjectId> one{object};
  const Locks locks = co_await lock(std::move(one));
  auto loaded = co_await load(node_of(0, object));
  if (!loaded && loaded.error().kind == FsErrorKind::stale) co_return false;
  if (!loaded) co_return std::unexpected(loaded.error());
  Inode& inode = loaded->inode;
  const std::uint32_t old = inode.tree;
  if (old == tree) co_return false;
  if (is_directory(inode.mode) && old != from && old != 0 && is_limited(quota_of(old))) co_return false;
  const auto bytes = static_cast<std::int64_t>(inode.allocated);
  Transaction change;
  if (old != 0) change.add_usage(dataset_, old, -bytes, -1);
  if (tree != 0) change.add_usage(dataset_, tree, bytes, 1);
  inode.tree = tree;
  put(change, object, inode);
  const FsStatus done = co_await apply(std::move(change));
  if (!done) co_return std::unexpected(done.error());
  co_return true;
}

// Goes once over what lies below a directory of the tree; says whether anything was not the tree's. A
// directory becomes the tree's before it is listed, so that what is made in it meanwhile is born right.
Task<FsResult<bool>> ObjectFiles::gather_tree(ObjectId directory, std::uint32_t tree, std::uint32_t from) {
  struct Level {
    ObjectId directory = 0;
    std::optional<Bytes> after;
  };
  std::vector<Level> way{{directory, std::nullopt}};
  bool changed = false;
  while (!way.empty()) {
    co_await runtime_.yield();
    const auto page =
        co_await volume_.omap_list(views_.front(), way.back().directory, way.back().after, kPage);
    if (!page) co_return std::unexpected(error_from(page.error()));
    if (page->empty()) {
      way.pop_back();
      continue;
    }
    for (const OmapEntry& row : *page) {
      way.back().after = row.key;
      const auto entry = EntryRecord::decode(row.value);
      if (!entry) co_return std::unexpected(error_from(entry.error()));
      if (entry->object == 0) continue;
      const auto tagged = co_await retag(entry->object, tree, from);
      if (!tagged) co_return std::unexpected(tagged.error());
      changed = changed || *tagged;
      if (!is_directory(std::uint32_t{entry->type} << 12)) continue;
      const auto below = co_await load(node_of(0, entry->object));
      if (!below || below->inode.tree != tree) continue;
      way.push_back({entry->object, std::nullopt});
      break;  // what is left of the page is listed again when this directory is done
    }
  }
  co_return changed;
}

Task<FsStatus> ObjectFiles::gather_all(ObjectId directory, std::uint32_t tree, std::uint32_t from) {
  for (int pass = 0; pass < kPassesMax; ++pass) {
    const auto changed = co_await gather_tree(directory, tree, from);
    if (!changed) co_return std::unexpected(changed.error());
    if (!*changed) co_return FsStatus();
  }
  co_return failure(FsErrorKind::busy, "the tree changes all the time: try again");
}

Task<FsStatus> ObjectFiles::set_tree_quota(NodeId directory, std::uint64_t bytes_max,
                                           std::uint64_t inodes_max) {
  const FsStatus writable = check_writable(directory);
  if (!writable) co_return writable;
  if (directory == kRootNode) co_return failure(FsErrorKind::invalid, "the root has the file system's quota");
  const Semaphore::Hold turn = co_await changing_trees_.acquire();
  const auto loaded = co_await load_directory(directory);
  if (!loaded) co_return std::unexpected(loaded.error());
  const auto around = co_await load(node_of(0, loaded->inode.parent));
  if (!around) co_return std::unexpected(around.error());
  const ObjectId object = object_of(directory);
  const std::uint32_t above = around->inode.tree;
  std::uint32_t tree = loaded->inode.tree;
  if (bytes_max == 0 && inodes_max == 0) co_return co_await take_tree_away(object, tree, above);
  if (tree == above) {
    const auto fresh = new_tree();
    if (!fresh) co_return std::unexpected(fresh.error());
    tree = *fresh;
    const auto tagged = co_await retag(object, tree, above);
    if (!tagged) co_return std::unexpected(tagged.error());
  }
  // Without limits: it was begun and never ended.
  if (!is_limited(quota_of(tree))) {
    const FsStatus gathered = co_await gather_all(object, tree, above);
    if (!gathered) co_return gathered;
  }
  const Status set = co_await volume_.set_quota(dataset_, tree, bytes_max, inodes_max);
  if (!set) co_return std::unexpected(error_from(set.error()));
  co_return FsStatus();
}

// The limits go first, then the directory becomes its parent's, then what is below it. That is gone over even
// when no tree begins here: one whose taking away was interrupted leaves its number there.
Task<FsStatus> ObjectFiles::take_tree_away(ObjectId directory, std::uint32_t tree, std::uint32_t above) {
  if (tree != above) {
    const QuotaState inside = quota_of(tree);
    const QuotaState outside = quota_of(above);
    const auto fits = [](std::int64_t used, std::int64_t more, std::uint64_t most) {
      return most == 0 || used + more <= 0 || static_cast<std::uint64_t>(used + more) <= most;
    };
    if (above != 0 && (!fits(outside.bytes, inside.bytes, outside.bytes_max) ||
                       !fits(outside.objects, inside.objects, outside.objects_max)))
      co_return failure(FsErrorKind::quota, "what it holds does not fit into the tree around it");
    const Status freed = co_await volume_.set_quota(dataset_, tree, 0, 0);
    if (!freed) co_return std::unexpected(error_from(freed.error()));
    const auto tagged = co_await retag(directory, above, tree);
    if (!tagged) co_return std::unexpected(tagged.error());
  }
  co_return co_await gather_all(directory, above, tree);
}

}  // namespace cumulus
