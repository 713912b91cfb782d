// Names that go or move: unlink, rmdir, rename; and the end of what has no name.
#include "fs/modes.h"
#include "fs/object_files.h"

namespace cumulus {
namespace {

constexpr int kTriesMax = 16;  // names that change while we wait for their locks

std::unexpected<FsError> failure(FsErrorKind kind, const char* why) {
  return std::unexpected(FsError{kind, why});
}

}  // namespace

Task<FsStatus> ObjectFiles::check_empty(ObjectId directory) {
  std::optional<Bytes> after;
  for (;;) {
    const auto page = co_await volume_.omap_list(views_.front(), directory, after, 64);
    if (!page) co_return std::unexpected(error_from(page.error()));
    if (page->empty()) co_return FsStatus();
    for (const OmapEntry& row : *page) {
      const auto entry = EntryRecord::decode(row.value);
      if (!entry) co_return std::unexpected(error_from(entry.error()));
      if (entry->object != 0) co_return failure(FsErrorKind::not_empty, "the directory is not empty");
    }
    after = page->back().key;
  }
}

Task<FsResult<NodeId>> ObjectFiles::unlink(Caller, NodeId parent, std::string name) {
  co_return co_await remove_name(parent, std::move(name), false);
}

Task<FsResult<NodeId>> ObjectFiles::rmdir(Caller, NodeId parent, std::string name) {
  co_return co_await remove_name(parent, std::move(name), true);
}

Task<FsResult<NodeId>> ObjectFiles::remove_name(NodeId parent, std::string name, bool directory) {
  const FsStatus named = check_name(name);
  if (!named) co_return std::unexpected(named.error());
  const ObjectId above_object = object_of(parent);
  for (int attempt = 0; attempt < kTriesMax; ++attempt) {
    const auto seen = co_await find(views_.front(), above_object, name);
    if (!seen) co_return std::unexpected(seen.error());
    if (!seen->entry) co_return failure(FsErrorKind::not_found, "there is no such name");
    const ObjectId object = seen->entry->object;
    std::vector<ObjectId> both{above_object, object};
    const Locks locks = co_await lock(std::move(both));
    auto above = co_await load_directory(parent);
    if (!above) co_return std::unexpected(above.error());
    const auto place = co_await find(views_.front(), above_object, name);
    if (!place) co_return std::unexpected(place.error());
    if (!place->entry || place->entry->object != object) continue;
    auto loaded = co_await load(node_of(0, object));
    if (!loaded) co_return std::unexpected(loaded.error());
    if (directory && !is_directory(loaded->inode.mode))
      co_return failure(FsErrorKind::not_directory, "not a directory");
    if (!directory && is_directory(loaded->inode.mode))
      co_return failure(FsErrorKind::is_directory, "a directory");
    if (directory) {
      const FsStatus empty = co_await check_empty(object);
      if (!empty) co_return std::unexpected(empty.error());
    }
    Transaction remove;
    const FsStatus gone = co_await remove_entry(remove, above_object, place->cookie);
    if (!gone) co_return std::unexpected(gone.error());
    const FsStatus taken = co_await take_name_away(remove, object, *loaded);
    if (!taken) co_return std::unexpected(taken.error());
    if (directory) --above->inode.nlink;
    above->inode.mtime = above->inode.ctime = now();
    put(remove, above_object, above->inode);
    const FsStatus removed = co_await apply(std::move(remove));
    co_return name_is_gone(object, removed);
  }
  co_return failure(FsErrorKind::busy, "the name changes all the time");
}

// The node that a name showed loses it.
Task<FsStatus> ObjectFiles::take_name_away(Transaction& to, ObjectId object, Loaded& loaded) {
  if (is_directory(loaded.inode.mode)) {
    loaded.inode.nlink = 1;
    const auto begins = co_await begins_tree(0, loaded.inode);
    if (!begins) co_return std::unexpected(begins.error());
    if (*begins) {
      // The quota tree that began here ends with it; until it goes, it counts for the file system alone.
      to.set_quota(dataset_, loaded.inode.tree, 0, 0);
      to.add_usage(dataset_, loaded.inode.tree, -static_cast<std::int64_t>(loaded.inode.allocated), -1);
      loaded.inode.tree = 0;
    }
  }
  drop_name(to, object, loaded);
  co_return FsStatus();
}

FsResult<NodeId> ObjectFiles::name_is_gone(ObjectId object, const FsStatus& done) {
  if (done) return node_of(0, object);
  drop_orphan(object);
  return std::unexpected(done.error());
}

void ObjectFiles::add_orphan(Transaction& to, ObjectId object) {
  std::uint64_t place = next_place_;
  if (free_places_.empty())
    ++next_place_;
  else
    place = free_places_.extract(free_places_.begin()).value();
  orphans_.emplace(object, Orphan{place, false});
  to.set_omap(ref(kOrphans), cookie_key(place), cookie_key(object));
}

void ObjectFiles::drop_orphan(ObjectId object) {
  const auto orphan = orphans_.find(object);
  if (orphan == orphans_.end()) return;
  if (orphan->second.place < next_place_) free_places_.insert(orphan->second.place);
  orphans_.erase(orphan);
}

void ObjectFiles::forget(NodeId node) {
  const auto orphan = index_of(node) == 0 ? orphans_.find(object_of(node)) : orphans_.end();
  if (orphan == orphans_.end() || orphan->second.forgotten) return;
  orphan->second.forgotten = true;
  std::vector<ObjectId> one{orphan->first};
  background_.spawn(bury_all(std::move(one)));
}

// What fails here is tried again when the file system is closed or mounted.
Task<void> ObjectFiles::bury_all(std::vector<ObjectId> objects) {
  for (const ObjectId object : objects) {
    std::vector<ObjectId> one{object};
    const Locks locks = co_await lock(std::move(one));
    const FsStatus buried = co_await bury(object);
    if (!buried) co_return;
  }
}

// Removes what has no name, no handle, and nobody who knows it. Locked.
Task<FsStatus> ObjectFiles::bury(ObjectId object) {
  const auto orphan = orphans_.find(object);
  if (orphan == orphans_.end() || !orphan->second.forgotten || opened_.contains(object)) co_return FsStatus();
  const std::uint64_t place = orphan->second.place;
  const auto loaded = co_await load(node_of(0, object));
  if (!loaded && loaded.error().kind != FsErrorKind::stale) co_return std::unexpected(loaded.error());
  Transaction remove;
  remove.remove_omap(ref(kOrphans), cookie_key(place));
  if (loaded && loaded->inode.nlink == 0) {
    remove.remove(ref(object));
    charge(remove, loaded->inode, -static_cast<std::int64_t>(loaded->inode.allocated), -1);
  }
  const FsStatus removed = co_await apply(std::move(remove));
  if (removed) drop_orphan(object);
  co_return removed;
}

// A directory must not become its own descendant: from where it goes, up to the root.
Task<FsStatus> ObjectFiles::check_loop(ObjectId moved, ObjectId into) {
  for (ObjectId at = into; at != kRoot;) {
    if (at == moved) co_return failure(FsErrorKind::loop, "a directory cannot go into itself");
    const auto loaded = co_await load(node_of(0, at));
    if (!loaded) co_return std::unexpected(loaded.error());
    if (loaded->inode.parent == at) co_return FsStatus();
    at = loaded->inode.parent;
  }
  co_return moved == kRoot ? FsStatus(failure(FsErrorKind::busy, "the root stays")) : FsStatus();
}

Task<FsResult<NodeId>> ObjectFiles::rename(Caller, NodeId from, std::string name, NodeId to,
                                           std::string new_name, RenameFlags flags) {
  for (const std::string* one : {&name, &new_name}) {
    const FsStatus named = check_name(*one);
    if (!named) co_return std::unexpected(named.error());
  }
  if (is_snapshots_name(from, name) || is_snapshots_name(to, new_name))
    co_return failure(FsErrorKind::busy, "the snapshots have this name");
  // One move between directories at a time: the way up to the root stays as it is while it is looked at.
  Semaphore::Hold turn;
  if (from != to) turn = co_await moving_directories_.acquire();
  for (int attempt = 0; attempt < kTriesMax; ++attempt) {
    Renaming names{from, to, name, new_name, flags, {}, {}};
    const auto seen = co_await find(views_.front(), object_of(from), name);
    if (!seen) co_return std::unexpected(seen.error());
    if (!seen->entry) co_return failure(FsErrorKind::not_found, "there is no such name");
    const auto over = co_await find(views_.front(), object_of(to), new_name);
    if (!over) co_return std::unexpected(over.error());
    std::vector<ObjectId> all{object_of(from), object_of(to), seen->entry->object};
    if (over->entry) all.push_back(over->entry->object);
    const Locks locks = co_await lock(std::move(all));
    const auto source = co_await find(views_.front(), object_of(from), name);
    if (!source) co_return std::unexpected(source.error());
    const auto target = co_await find(views_.front(), object_of(to), new_name);
    if (!target) co_return std::unexpected(target.error());
    if (source->entry != seen->entry || target->entry != over->entry) continue;
    names.source = *source;
    names.target = *target;
    co_return co_await rename_locked(std::move(names));
  }
  co_return failure(FsErrorKind::busy, "the names change all the time");
}

Task<FsResult<NodeId>> ObjectFiles::rename_locked(Renaming names) {
  auto above = co_await load_directory(names.from);
  if (!above) co_return std::unexpected(above.error());
  auto below = co_await load_directory(names.to);
  if (!below) co_return std::unexpected(below.error());
  const ObjectId moved = names.source.entry->object;
  auto loaded = co_await load(node_of(0, moved));
  if (!loaded) co_return std::unexpected(loaded.error());
  const bool directory = is_directory(loaded->inode.mode);
  // Where a tree begins, its directory moves about in the tree around it as any other does.
  if (above->inode.tree != below->inode.tree)
    co_return failure(FsErrorKind::cross_tree, "the directory has another quota");
  if (directory && names.from != names.to) {
    const FsStatus free = co_await check_loop(moved, object_of(names.to));
    if (!free) co_return std::unexpected(free.error());
  }
  if (!names.target.entry) {
    if (names.flags.exchange) co_return failure(FsErrorKind::not_found, "there is nothing to exchange with");
    co_return co_await move_name(std::move(names), *above, *below, *loaded, std::nullopt);
  }
  if (names.flags.no_replace) co_return failure(FsErrorKind::exists, "the name is taken");
  const ObjectId other = names.target.entry->object;
  if (other == moved) co_return 0;  // two names of one file: POSIX wants nothing done
  auto replaced = co_await load(node_of(0, other));
  if (!replaced) co_return std::unexpected(replaced.error());
  const bool other_directory = is_directory(replaced->inode.mode);
  if (names.flags.exchange) {
    if (other_directory && names.from != names.to) {
      const FsStatus free = co_await check_loop(other, object_of(names.from));
      if (!free) co_return std::unexpected(free.error());
    }
    const FsStatus done = co_await exchange_names(std::move(names), *above, *below, *loaded, *replaced);
    if (!done) co_return std::unexpected(done.error());
    co_return 0;
  }
  if (directory && !other_directory)
    co_return failure(FsErrorKind::not_directory, "a directory over what is none");
  if (!directory && other_directory) co_return failure(FsErrorKind::is_directory, "over a directory");
  if (other_directory) {
    const FsStatus empty = co_await check_empty(other);
    if (!empty) co_return std::unexpected(empty.error());
  }
  co_return co_await move_name(std::move(names), *above, *below, *loaded, *replaced);
}

// Writes both directories' headers, one when they are one.
void ObjectFiles::put_parents(Transaction& to, const Renaming& names, Loaded& above, Loaded& below,
                              int above_links, int below_links) {
  const std::int64_t time = now();
  Loaded& first = above;
  Loaded& second = names.from == names.to ? above : below;
  first.inode.nlink = static_cast<std::uint32_t>(static_cast<int>(first.inode.nlink) + above_links);
  second.inode.nlink = static_cast<std::uint32_t>(static_cast<int>(second.inode.nlink) + below_links);
  first.inode.mtime = first.inode.ctime = second.inode.mtime = second.inode.ctime = time;
  put(to, object_of(names.from), first.inode);
  if (names.from != names.to) put(to, object_of(names.to), second.inode);
}

Task<FsResult<NodeId>> ObjectFiles::move_name(Renaming names, Loaded above, Loaded below, Loaded loaded,
                                              std::optional<Loaded> replaced) {
  const ObjectId moved = names.source.entry->object;
  const bool directory = is_directory(loaded.inode.mode);
  Transaction move;
  const std::uint64_t place = names.source.cookie;
  const std::uint64_t home = options_.name_hash(salt_, names.new_name);
  if (names.from == names.to && home <= place && place < names.target.cookie) {
    mark_place(move, object_of(names.from), place);  // the search for the new name comes by here
  } else {
    const FsStatus gone = co_await remove_entry(move, object_of(names.from), place);
    if (!gone) co_return std::unexpected(gone.error());
  }
  put_entry(move, object_of(names.to), names.target.cookie, moved, loaded.inode.mode, names.new_name);
  loaded.inode.ctime = now();
  if (directory) loaded.inode.parent = object_of(names.to);
  put(move, moved, loaded.inode);
  ObjectId other = 0;
  int below_links = directory ? 1 : 0;
  if (replaced) {
    other = names.target.entry->object;
    if (is_directory(replaced->inode.mode)) --below_links;
    const FsStatus taken = co_await take_name_away(move, other, *replaced);
    if (!taken) co_return std::unexpected(taken.error());
  }
  put_parents(move, names, above, below, directory ? -1 : 0, below_links);
  const FsStatus done = co_await apply(std::move(move));
  if (replaced) co_return name_is_gone(other, done);
  if (!done) co_return std::unexpected(done.error());
  co_return 0;
}

Task<FsStatus> ObjectFiles::exchange_names(Renaming names, Loaded above, Loaded below, Loaded loaded,
                                           Loaded other) {
  const ObjectId first = names.source.entry->object;
  const ObjectId second = names.target.entry->object;
  Transaction move;
  put_entry(move, object_of(names.from), names.source.cookie, second, other.inode.mode, names.name);
  put_entry(move, object_of(names.to), names.target.cookie, first, loaded.inode.mode, names.new_name);
  loaded.inode.ctime = other.inode.ctime = now();
  const int out = is_directory(loaded.inode.mode) ? 1 : 0;
  const int in = is_directory(other.inode.mode) ? 1 : 0;
  if (out) loaded.inode.parent = object_of(names.to);
  if (in) other.inode.parent = object_of(names.from);
  put(move, first, loaded.inode);
  put(move, second, other.inode);
  put_parents(move, names, above, below, in - out, out - in);
  co_return co_await apply(std::move(move));
}

}  // namespace cumulus
