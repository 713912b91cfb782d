// Operations on what is in files.
#include <cerrno>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "fs/fuse/operations.h"
#include "fs/fuse/translate.h"

namespace cumulus {
namespace {

// An opened file that nobody took is closed again.
Task<void> answer_opened(Call call, NodeId node, HandleId handle, bool writes) {
  if (writes) call->session().writer_opened(node);
  if (call->opened(handle)) co_return;
  if (writes) call->session().writer_closed(node);
  static_cast<void>(co_await call->files().release(handle));  // nothing was written through it
}

Task<void> open(Call call, NodeId node, OpenFlags flags) {
  const auto handle = co_await call->files().open(node, flags);
  if (!handle) {
    call->failed(handle.error());
    co_return;
  }
  co_await answer_opened(std::move(call), node, *handle, flags.write);
}

void on_open(fuse_req_t request, fuse_ino_t node, fuse_file_info* info) {
  const OpenFlags flags = to_open_flags(info->flags);
  spawn(request, [=](Call call) { return open(std::move(call), node, flags); });
}

Task<void> release(Call call, NodeId node, HandleId handle, bool writes) {
  const FsStatus released = co_await call->files().release(handle);
  if (writes) call->session().writer_closed(node);
  call->finish(released);
}

void on_release(fuse_req_t request, fuse_ino_t node, fuse_file_info* info) {
  const bool writes = (info->flags & O_ACCMODE) != O_RDONLY;
  const HandleId handle = info->fh;
  spawn(request, [=](Call call) { return release(std::move(call), node, handle, writes); });
}

Task<void> read(Call call, HandleId handle, std::uint64_t offset, std::size_t size) {
  const std::shared_ptr<Buffer> buffer = call->session().read_buffer();
  const MutableByteView into = buffer->view(0, std::min(size, buffer->size()));
  const auto got = co_await call->files().read(handle, offset, into);
  if (got)
    call->bytes(into.first(*got));
  else
    call->failed(got.error());
}

void on_read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* info) {
  FuseSession& session = session_of(request);
  const HandleId handle = info->fh;
  const auto at = static_cast<std::uint64_t>(offset);
  const MutableByteView into = session.scratch(size);
  FsResult<std::size_t> answer = 0;
  if (session.files().try_read(handle, at, into, answer)) {
    if (answer)
      fuse_reply_buf(request, reinterpret_cast<const char*>(into.data()), *answer);
    else
      fuse_reply_err(request, to_errno(answer.error()));
    return;
  }
  spawn(request, [=](Call call) { return read(std::move(call), handle, at, size); });
}

Task<void> write(Call call, NodeId node, HandleId handle, std::uint64_t offset, ByteView data,
                 std::shared_ptr<const void> owner, bool kill) {
  call->changes(node, true);
  const auto put = co_await call->files().write(call->caller(), handle, offset, data, std::move(owner), kill);
  if (put)
    call->written(*put);
  else
    call->failed(put.error());
}

void on_write(fuse_req_t request, fuse_ino_t node, const char* payload, std::size_t size, off_t offset,
              fuse_file_info* info) {
  FuseSession& session = session_of(request);
  const HandleId handle = info->fh;
  const auto raw = body_of<fuse_kernel::WriteIn>(session);
  const bool kill = (raw.write_flags & fuse_kernel::kWriteKillSetId) != 0;
  ByteView data = view_of({payload, size});
  std::shared_ptr<const void> owner = session.keep_payload(data);
  spawn(request, [&](Call call) {
    return write(std::move(call), node, handle, static_cast<std::uint64_t>(offset), data, std::move(owner),
                 kill);
  });
}

Task<void> flush(Call call, HandleId handle) {
  const FsStatus flushed = co_await call->files().flush(handle);
  call->finish(flushed);
}

void on_flush(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  const HandleId handle = info->fh;
  spawn(request, [=](Call call) { return flush(std::move(call), handle); });
}

Task<void> fsync(Call call, NodeId node, HandleId handle) {
  const FsStatus synced = co_await call->files().fsync(node, handle);
  call->finish(synced);
}

void on_fsync(fuse_req_t request, fuse_ino_t node, int, fuse_file_info* info) {
  const HandleId handle = info->fh;
  spawn(request, [=](Call call) { return fsync(std::move(call), node, handle); });
}

Task<void> allocate(Call call, NodeId node, HandleId handle, AllocateMode mode, std::uint64_t offset,
                    std::uint64_t length) {
  call->changes(node, true);
  const FsStatus done = co_await call->files().allocate(call->caller(), handle, mode, offset, length);
  call->finish(done);
}

void on_fallocate(fuse_req_t request, fuse_ino_t node, int bits, off_t offset, off_t length,
                  fuse_file_info* info) {
  constexpr int kKnown = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  if ((bits & ~kKnown) != 0) {
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  AllocateMode mode;
  mode.keep_size = (bits & FALLOC_FL_KEEP_SIZE) != 0;
  mode.punch_hole = (bits & FALLOC_FL_PUNCH_HOLE) != 0;
  mode.zero_range = (bits & FALLOC_FL_ZERO_RANGE) != 0;
  const HandleId handle = info->fh;
  spawn(request, [=](Call call) {
    return allocate(std::move(call), node, handle, mode, static_cast<std::uint64_t>(offset),
                    static_cast<std::uint64_t>(length));
  });
}

// What an answer to lseek says to be a hole.
struct Hole {
  std::uint64_t from = 0;
  std::uint64_t to = INT64_MAX;
};

Task<FsResult<Hole>> hole_behind(PosixFileSystem& files, NodeId node, std::uint64_t offset, bool data,
                                 FsResult<std::uint64_t> found) {
  Hole hole{offset, INT64_MAX};
  if (!found && found.error().kind != FsErrorKind::beyond_end) co_return std::unexpected(found.error());
  if (found && data) {
    hole.to = *found;
  } else if (found) {
    hole.from = *found;
    const auto next = co_await files.seek(node, hole.from, true);
    if (!next && next.error().kind != FsErrorKind::beyond_end) co_return std::unexpected(next.error());
    if (next) hole.to = *next;
  }
  co_return hole;
}

// Where the answer says "hole" the kernel may hold pages that it has not written out: of a shared map, or of
// the write-back cache. Only a file that is open for writing has any.
Task<void> seek(Call call, NodeId node, std::uint64_t offset, bool data) {
  auto found = co_await call->files().seek(node, offset, data);
  while (call->session().has_writer(node) && offset < INT64_MAX) {
    const auto hole = co_await hole_behind(call->files(), node, offset, data, found);
    if (!hole || hole->from >= hole->to) break;
    const std::uint64_t length = hole->to == INT64_MAX ? 0 : hole->to - hole->from;
    const Status written = co_await call->session().write_out(node, static_cast<std::int64_t>(hole->from),
                                                              static_cast<std::int64_t>(length));
    if (!written) break;  // a page that nobody takes is told to who wrote it, by fsync and close
    auto again = co_await call->files().seek(node, offset, data);
    const bool same = again.has_value() == found.has_value() && (!again || *again == *found);
    found = std::move(again);
    if (same) break;
  }
  if (found)
    call->offset(*found);
  else
    call->failed(found.error());
}

void on_lseek(fuse_req_t request, fuse_ino_t node, off_t offset, int whence, fuse_file_info*) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  spawn(request, [=](Call call) {
    return seek(std::move(call), node, static_cast<std::uint64_t>(offset), whence == SEEK_DATA);
  });
}

Task<void> copy_range(Call call, HandleId from, std::uint64_t from_offset, NodeId node, HandleId to,
                      std::uint64_t to_offset, std::uint64_t length) {
  call->changes(node, true);
  const auto copied =
      co_await call->files().copy_range(call->caller(), from, from_offset, to, to_offset, length);
  if (copied)
    call->written(*copied);
  else
    call->failed(copied.error());
}

void on_copy_file_range(fuse_req_t request, fuse_ino_t, off_t from_offset, fuse_file_info* from,
                        fuse_ino_t node, off_t to_offset, fuse_file_info* to, std::size_t length, int) {
  constexpr std::size_t kCopyMax = 1u << 30;  // the answer has 32 bits; who gets less asks on
  const HandleId source = from->fh;
  const HandleId target = to->fh;
  spawn(request, [=](Call call) {
    return copy_range(std::move(call), source, static_cast<std::uint64_t>(from_offset), node, target,
                      static_cast<std::uint64_t>(to_offset), std::min(length, kCopyMax));
  });
}

}  // namespace

void add_data_operations(fuse_lowlevel_ops& table) {
  table.open = on_open;
  table.release = on_release;
  table.read = on_read;
  table.write = on_write;
  table.flush = on_flush;
  table.fsync = on_fsync;
  table.fallocate = on_fallocate;
  table.lseek = on_lseek;
  table.copy_file_range = on_copy_file_range;
}

}  // namespace cumulus
