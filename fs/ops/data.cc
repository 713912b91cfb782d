// Bytes of files, and the handles through which they are reached.
#include <algorithm>

#include "fs/modes.h"
#include "fs/object_files.h"

namespace cumulus {
namespace {

// Times move in steps, as a kernel's do: a burst of writes changes the header once.
constexpr std::int64_t kTimeStep = 4'000'000;
constexpr std::int64_t kDay = 86'400'000'000'000;
constexpr std::uint64_t kAllocateStep = 1u << 30;  // of one transaction: a row for each chunk of it
constexpr std::uint64_t kWindow = 64u << 20;       // of a file, looked through at once
constexpr std::uint64_t kCopyStep = 64u << 20;     // cloned by one transaction
constexpr std::size_t kAccessedMax = 4096;
// After so many small writes with a sync behind each, the next is made durable while its caller comes back to
// ask.
constexpr unsigned kStepsToExpect = 3;
constexpr std::size_t kSmallWrite = 64u << 10;

std::unexpected<FsError> failure(FsErrorKind kind, const char* why) {
  return std::unexpected(FsError{kind, why});
}

}  // namespace

HandleId ObjectFiles::add_handle(NodeId node, OpenFlags flags) {
  const HandleId id = next_handle_++;
  handles_.emplace(id, Handle{node, flags});
  if (index_of(node) == 0) ++opened_[object_of(node)];
  return id;
}

FsResult<ObjectFiles::Handle> ObjectFiles::handle_of(HandleId handle) const {
  const auto found = handles_.find(handle);
  if (found == handles_.end()) return failure(FsErrorKind::stale, "no such handle");
  return found->second;
}

Task<FsResult<HandleId>> ObjectFiles::open(NodeId node, OpenFlags flags) {
  if (flags.write) {
    const FsStatus writable = check_writable(node);
    if (!writable) co_return std::unexpected(writable.error());
  }
  std::vector<ObjectId> one{object_of(node)};
  const Locks locks = co_await lock(std::move(one));
  const auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  if (is_directory(loaded->inode.mode)) co_return failure(FsErrorKind::is_directory, "a directory");
  co_return add_handle(node, flags);
}

Task<FsStatus> ObjectFiles::release(HandleId id) {
  const auto handle = handle_of(id);
  if (!handle) co_return std::unexpected(handle.error());
  if (index_of(handle->node) != 0) {
    handles_.erase(id);
    co_return FsStatus();
  }
  const ObjectId object = object_of(handle->node);
  std::vector<ObjectId> one{object};
  const Locks locks = co_await lock(std::move(one));
  handles_.erase(id);
  const auto opened = opened_.find(object);
  if (opened == opened_.end() || --opened->second > 0) co_return FsStatus();
  opened_.erase(opened);
  co_return co_await bury(object);
}

// relatime: when it is not after the last change, or a day old.
void ObjectFiles::note_read(NodeId node, const Inode& inode) {
  if (options_.read_only || index_of(node) != 0 || options_.access_times == AccessTimes::never) return;
  const std::int64_t time = now();
  const bool due = inode.atime <= inode.mtime || inode.atime <= inode.ctime || inode.atime + kDay <= time;
  if (options_.access_times == AccessTimes::relative ? !due : inode.atime + kTimeStep > time) return;
  if (accessed_.size() >= kAccessedMax || !accessed_.emplace(node, time).second) return;
  background_.spawn(update_access_time(node));
}

Task<void> ObjectFiles::update_access_time(NodeId node) {
  std::vector<ObjectId> one{object_of(node)};
  const Locks locks = co_await lock(std::move(one));
  const auto time = accessed_.find(node);
  if (time == accessed_.end()) co_return;
  auto loaded = co_await load(node);
  if (loaded) {
    loaded->inode.atime = std::max(loaded->inode.atime, time->second);
    Transaction set;
    put(set, object_of(node), loaded->inode);
    static_cast<void>(co_await apply(std::move(set)));  // an access time is not worth an error
  }
  accessed_.erase(node);
}

Task<FsResult<std::size_t>> ObjectFiles::read(HandleId id, std::uint64_t offset, MutableByteView into) {
  const auto handle = handle_of(id);
  if (!handle) co_return std::unexpected(handle.error());
  auto view = view_of_node(handle->node);
  if (!view) co_return std::unexpected(view.error());
  if (offset == 0) {
    const auto loaded = co_await load(handle->node);
    if (loaded) note_read(handle->node, loaded->inode);
  }
  const auto got = co_await volume_.read(std::move(*view), object_of(handle->node), offset, into);
  if (!got) co_return std::unexpected(error_from(got.error()));
  co_return *got;
}

bool ObjectFiles::try_read(HandleId id, std::uint64_t offset, MutableByteView into,
                           FsResult<std::size_t>& answer) {
  const auto found = handles_.find(id);
  if (found == handles_.end() || offset == 0 || index_of(found->second.node) >= views_.size()) return false;
  const NodeId node = found->second.node;
  Result<std::size_t> got = 0;
  if (!volume_.try_read(views_[index_of(node)], object_of(node), offset, into, got)) return false;
  if (got)
    answer = *got;
  else
    answer = std::unexpected(error_from(got.error()));
  return true;
}

// Bytes of the range that are not holes.
Task<FsResult<std::uint64_t>> ObjectFiles::allocated_in(ObjectId object, std::uint64_t offset,
                                                        std::uint64_t length) {
  std::uint64_t found = 0;
  const std::uint64_t end = offset + length;
  while (offset < end) {
    // Over what was never written in one stride: a sparse file may have 2^63 bytes of it.
    const auto written = co_await volume_.next_written(views_.front(), object, offset);
    if (!written) co_return std::unexpected(error_from(written.error()));
    if (!*written || **written >= end) break;
    offset = std::max(offset, **written);
    const std::uint64_t step = std::min(end - offset, kWindow);
    const auto stretches = co_await volume_.stretches(views_.front(), object, offset, step);
    if (!stretches) co_return std::unexpected(error_from(stretches.error()));
    for (const Volume::Stretch& one : *stretches) {
      if (one.kind != Volume::Stretch::Kind::hole) found += one.length;
    }
    offset += step;
  }
  co_return found;
}

Task<FsResult<std::size_t>> ObjectFiles::write(Caller caller, HandleId id, std::uint64_t offset,
                                               ByteView data, std::shared_ptr<const void> owner,
                                               bool kill_set_id) {
  const auto handle = handle_of(id);
  if (!handle) co_return std::unexpected(handle.error());
  const FsStatus writable = check_writable(handle->node);
  if (!writable) co_return std::unexpected(writable.error());
  if (offset > static_cast<std::uint64_t>(INT64_MAX) - data.size())
    co_return failure(FsErrorKind::too_big, "files have at most 2^63-1 bytes");
  const ObjectId object = object_of(handle->node);
  {
    std::vector<ObjectId> one{object};
    const Locks locks = co_await lock(std::move(one));
    auto loaded = co_await load(handle->node);
    if (!loaded) co_return std::unexpected(loaded.error());
    const Inode before = loaded->inode;
    Inode& inode = loaded->inode;
    const std::uint64_t end = offset + data.size();
    std::uint64_t fresh = end > loaded->size ? end - std::max(loaded->size, offset) : 0;
    if (inode.holes && offset < loaded->size) {
      const std::uint64_t inside = std::min(end, loaded->size) - offset;
      const auto had = co_await allocated_in(object, offset, inside);
      if (!had) co_return std::unexpected(had.error());
      fresh += inside - std::min(inside, *had);
    }
    if (offset > loaded->size) inode.holes = true;
    inode.allocated += fresh;
    const std::int64_t time = now();
    const bool due = inode.mtime + kTimeStep <= time || inode.mtime > time;
    if (due && !options_.kernel_keeps_times) inode.mtime = inode.ctime = time;
    if (kill_set_id) clear_set_ids(inode, caller);
    Transaction write;
    write.write_shared(ref(object), offset, data, std::move(owner));
    if (inode != before) put(write, object, inode);
    charge(write, inode, static_cast<std::int64_t>(fresh), 0);
    const FsStatus done = co_await apply(std::move(write));
    if (!done) {
      if (volume_.loss()) note_written(id, false);
      co_return std::unexpected(done.error());
    }
    note_written(id, true);
  }
  if (handle->flags.sync) {
    const Status flushed = co_await volume_.flush();
    if (!flushed) co_return std::unexpected(error_from(flushed.error()));
  } else {
    expect_sync(id, data.size());
  }
  co_return data.size();
}

void ObjectFiles::expect_sync(HandleId id, std::size_t written) {
  const auto found = handles_.find(id);
  if (found == handles_.end()) return;
  Handle& handle = found->second;
  if (++handle.writes_unsynced > 1) handle.syncs_in_step = 0;
  if (handle.syncs_in_step >= kStepsToExpect && written <= kSmallWrite) volume_.hasten();
}

void ObjectFiles::note_sync(HandleId id) {
  const auto found = handles_.find(id);
  if (found == handles_.end()) return;
  Handle& handle = found->second;
  handle.syncs_in_step = handle.writes_unsynced == 1 ? handle.syncs_in_step + 1 : 0;
  handle.writes_unsynced = 0;
}

// Whoever was told that something failed is owed nothing more.
void ObjectFiles::note_written(HandleId id, bool owed) {
  const auto found = handles_.find(id);
  if (found != handles_.end()) found->second.owed = owed;
}

Task<FsStatus> ObjectFiles::flush(HandleId id) {
  const auto handle = handle_of(id);
  if (!handle) co_return std::unexpected(handle.error());
  const std::optional<Error> loss = handle->owed ? volume_.loss() : std::nullopt;
  if (!loss) co_return FsStatus();
  note_written(id, false);
  FsError error = error_from(*loss);
  if (error.kind == FsErrorKind::read_only) error.kind = FsErrorKind::io;
  co_return std::unexpected(std::move(error));
}

Task<FsStatus> ObjectFiles::fsync(NodeId node, HandleId handle) {
  if (index_of(node) != 0 || options_.read_only) co_return FsStatus();
  note_sync(handle);
  const Status flushed = co_await volume_.flush();
  if (flushed) co_return FsStatus();
  if (volume_.loss()) note_written(handle, false);
  co_return std::unexpected(error_from(flushed.error()));
}

Task<FsStatus> ObjectFiles::allocate(Caller caller, HandleId id, AllocateMode mode, std::uint64_t offset,
                                     std::uint64_t length) {
  const auto handle = handle_of(id);
  if (!handle) co_return std::unexpected(handle.error());
  const FsStatus writable = check_writable(handle->node);
  if (!writable) co_return writable;
  if (length == 0) co_return failure(FsErrorKind::invalid, "an empty range");
  if (offset > static_cast<std::uint64_t>(INT64_MAX) - length)
    co_return failure(FsErrorKind::too_big, "files have at most 2^63-1 bytes");
  const auto before = co_await load(handle->node);
  if (!before) co_return std::unexpected(before.error());
  if (mode.punch_hole) {
    const std::uint64_t step = length / (before->inode.allocated / kFreeStep + 1) + 1;
    for (std::uint64_t at = 0; at < length; at += step) {
      const FsStatus punched =
          co_await allocate_step(caller, handle->node, mode, offset + at, std::min(step, length - at));
      if (!punched) co_return punched;
      note_written(id, true);
    }
    co_return FsStatus();
  }
  const std::uint64_t end = offset + length;
  const std::uint64_t reach = mode.keep_size ? std::min(end, before->size) : end;
  std::uint64_t at = mode.zero_range ? offset : std::max(offset, before->size);
  if (at >= reach) co_return co_await touch(caller, handle->node);
  const FsStatus room = co_await check_room(object_of(handle->node), at, reach - at);
  if (!room) co_return room;
  while (at < reach) {
    const std::uint64_t step = std::min(reach - at, kAllocateStep);
    const FsStatus done = co_await allocate_step(caller, handle->node, mode, at, step);
    if (!done) co_return done;
    note_written(id, true);
    at += step;
  }
  co_return FsStatus();
}

// What is asked for is so already: only the times tell.
Task<FsStatus> ObjectFiles::touch(Caller caller, NodeId node) {
  std::vector<ObjectId> one{object_of(node)};
  const Locks locks = co_await lock(std::move(one));
  auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  loaded->inode.mtime = loaded->inode.ctime = now();
  if (caller.uid != 0) clear_set_ids(loaded->inode, caller);
  Transaction set;
  put(set, object_of(node), loaded->inode);
  co_return co_await apply(std::move(set));
}

// Allocated zeros cost a row for each chunk: nobody gets more of them than there is room for.
Task<FsStatus> ObjectFiles::check_room(ObjectId object, std::uint64_t offset, std::uint64_t length) {
  const auto space = co_await statfs(node_of(0, object));
  if (!space) co_return std::unexpected(space.error());
  if (length <= space->bytes_free) co_return FsStatus();
  const auto loaded = co_await load(node_of(0, object));
  if (!loaded) co_return std::unexpected(loaded.error());
  const auto had = co_await allocated_in(object, offset, length);
  if (!had) co_return std::unexpected(had.error());
  if (length - *had <= space->bytes_free) co_return FsStatus();
  if (length - *had > quota_left(loaded->inode)) co_return failure(FsErrorKind::quota, "more than the quota");
  co_return failure(FsErrorKind::no_space, "more than there is room for");
}

Task<FsStatus> ObjectFiles::allocate_step(Caller caller, NodeId node, AllocateMode mode, std::uint64_t offset,
                                          std::uint64_t length) {
  const ObjectId object = object_of(node);
  std::vector<ObjectId> one{object};
  const Locks locks = co_await lock(std::move(one));
  auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  Inode& inode = loaded->inode;
  const std::uint64_t end = offset + length;
  const std::uint64_t inside = offset < loaded->size ? std::min(end, loaded->size) - offset : 0;
  std::uint64_t had = inside;
  if (inode.holes && inside > 0) {
    const auto counted = co_await allocated_in(object, offset, inside);
    if (!counted) co_return std::unexpected(counted.error());
    had = *counted;
  }
  Transaction change;
  std::int64_t delta = 0;
  if (mode.punch_hole) {
    if (inside > 0) {
      change.zero(ref(object), offset, inside, false, false);
      inode.holes = true;
    }
    delta = -static_cast<std::int64_t>(had);
  } else if (mode.zero_range) {
    const std::uint64_t reach = mode.keep_size ? inside : length;
    if (reach == 0) co_return FsStatus();
    change.zero(ref(object), offset, reach, true, !mode.keep_size);
    if (offset > loaded->size) inode.holes = true;
    delta = static_cast<std::int64_t>(reach - had);
  } else {
    // Reserved beyond the end, where nothing can be kept back; what lies inside keeps its bytes.
    if (mode.keep_size || end <= loaded->size) co_return FsStatus();
    const std::uint64_t from = std::max(offset, loaded->size);
    change.zero(ref(object), from, end - from, true, true);
    if (offset > loaded->size) inode.holes = true;
    delta = static_cast<std::int64_t>(end - from);
  }
  inode.allocated = static_cast<std::uint64_t>(
      std::max<std::int64_t>(0, static_cast<std::int64_t>(inode.allocated) + delta));
  inode.mtime = inode.ctime = now();
  if (caller.uid != 0) clear_set_ids(inode, caller);
  put(change, object, inode);
  charge(change, inode, delta, 0);
  co_return co_await apply(std::move(change));
}

Task<FsResult<std::uint64_t>> ObjectFiles::seek(NodeId node, std::uint64_t offset, bool data) {
  auto view = view_of_node(node);
  if (!view) co_return std::unexpected(view.error());
  const auto loaded = co_await load(node);
  if (!loaded) co_return std::unexpected(loaded.error());
  if (offset >= loaded->size) co_return failure(FsErrorKind::beyond_end, "past the end");
  if (!loaded->inode.holes) co_return data ? offset : loaded->size;
  while (offset < loaded->size) {
    const auto written = co_await volume_.next_written(*view, object_of(node), offset);
    if (!written) co_return std::unexpected(error_from(written.error()));
    const std::uint64_t next = std::min(written->value_or(loaded->size), loaded->size);
    if (next > offset && !data) co_return offset;
    offset = std::max(offset, next);
    if (offset == loaded->size) break;
    const std::uint64_t step = std::min(loaded->size - offset, kWindow);
    const auto stretches = co_await volume_.stretches(*view, object_of(node), offset, step);
    if (!stretches) co_return std::unexpected(error_from(stretches.error()));
    for (const Volume::Stretch& one : *stretches) {
      const bool is_data = one.kind == Volume::Stretch::Kind::data;
      if (is_data == data && one.offset + one.length > offset) co_return std::max(one.offset, offset);
    }
    offset += step;
  }
  if (data) co_return failure(FsErrorKind::beyond_end, "no data behind it");
  co_return loaded->size;
}

Task<FsResult<std::uint64_t>> ObjectFiles::copy_range(Caller caller, HandleId from, std::uint64_t from_offset,
                                                      HandleId to, std::uint64_t to_offset,
                                                      std::uint64_t length) {
  const auto source = handle_of(from);
  if (!source) co_return std::unexpected(source.error());
  const auto target = handle_of(to);
  if (!target) co_return std::unexpected(target.error());
  const FsStatus writable = check_writable(target->node);
  if (!writable) co_return std::unexpected(writable.error());
  if (index_of(source->node) != 0)
    co_return failure(FsErrorKind::cross_tree, "out of a snapshot: by reading and writing");
  const ObjectId object = object_of(target->node);
  std::uint64_t copied = 0;
  while (copied < length) {
    std::vector<ObjectId> both{object_of(source->node), object};
    const Locks locks = co_await lock(std::move(both));
    const auto origin = co_await load(source->node);
    if (!origin) co_return std::unexpected(origin.error());
    auto loaded = co_await load(target->node);
    if (!loaded) co_return std::unexpected(loaded.error());
    const std::uint64_t at = from_offset + copied;
    if (at >= origin->size) break;
    // What a copy within one file adds is not its source.
    if (copied == 0) length = std::min(length, origin->size - at);
    if (source->node == target->node && from_offset < to_offset + length && to_offset < from_offset + length)
      co_return failure(FsErrorKind::invalid, "the two ranges of one file overlap");
    const std::uint64_t step = std::min({length - copied, origin->size - at, kCopyStep});
    const std::uint64_t put_at = to_offset + copied;
    if (put_at > static_cast<std::uint64_t>(INT64_MAX) - step)
      co_return failure(FsErrorKind::too_big, "too far");
    Inode& inode = loaded->inode;
    const std::uint64_t inside = put_at < loaded->size ? std::min(put_at + step, loaded->size) - put_at : 0;
    std::uint64_t had = inside;
    std::uint64_t has = step;
    if (inode.holes && inside > 0) {
      const auto counted = co_await allocated_in(object, put_at, inside);
      if (!counted) co_return std::unexpected(counted.error());
      had = *counted;
    }
    if (origin->inode.holes) {
      const auto counted = co_await allocated_in(object_of(source->node), at, step);
      if (!counted) co_return std::unexpected(counted.error());
      has = *counted;
    }
    const auto delta = static_cast<std::int64_t>(has) - static_cast<std::int64_t>(had);
    inode.allocated = static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, static_cast<std::int64_t>(inode.allocated) + delta));
    if (origin->inode.holes || put_at > loaded->size) inode.holes = true;
    inode.mtime = inode.ctime = now();
    if (caller.uid != 0) clear_set_ids(inode, caller);
    Transaction clone;
    clone.clone_range(ref(object_of(source->node)), at, ref(object), put_at, step);
    put(clone, object, inode);
    charge(clone, inode, delta, 0);
    const FsStatus done = co_await apply(std::move(clone));
    if (done) note_written(to, true);
    if (!done && copied == 0) co_return std::unexpected(done.error());
    if (!done) break;
    copied += step;
  }
  co_return copied;
}

}  // namespace cumulus
