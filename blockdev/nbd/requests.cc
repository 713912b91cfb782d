// What each request asks of the device. Memory's answers are given at once; the rest runs as tasks.
#include <algorithm>
#include <cstring>

#include "blockdev/nbd/connection.h"

namespace cumulus::nbd {
namespace {

constexpr std::size_t kBatchRequests = 64;
constexpr std::uint64_t kBatchBytes = 256u << 10;  // well inside one group of the log
constexpr std::uint64_t kReadNowMax = 128u << 10;
constexpr std::size_t kPartsMax = 256;     // a read of more pieces is sent as data
constexpr std::size_t kExtentsMax = 4096;  // of one answer to BLOCK_STATUS
// A range has a row in the index for each 256 KiB. One change of many makes that many at once, and one answer
// of many looks at as many.
constexpr std::uint64_t kClearStep = 1u << 30;
constexpr std::uint64_t kStatusMost = 256ull << 30;
constexpr std::uint64_t kStatusBlock = 4096;  // the grain of BLOCK_STATUS
constexpr std::size_t kChunkPrefix = 8;       // an offset before a chunk's data

bool is_zero(ByteView bytes) {
  return bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

bool is_change(Command command) {
  return command == Command::write || command == Command::trim || command == Command::write_zeroes;
}

struct Described {
  std::uint64_t length = 0;
  std::uint32_t flags = 0;
};

// Clients count in sectors and round a status up (qemu-img does): a block is a hole, zero or unchanged only
// when all of it is. `end` is the request's; a block that is not known to its end gets `careful`.
std::vector<Described> in_blocks(const std::vector<Described>& exact, std::uint64_t from, std::uint64_t end,
                                 bool changed) {
  std::vector<Described> all;
  const auto add = [&all](std::uint64_t length, std::uint32_t flags) {
    if (!all.empty() && all.back().flags == flags) {
      all.back().length += length;
    } else {
      all.push_back({length, flags});
    }
  };
  const std::uint32_t careful = changed ? 1 : 0;
  std::uint64_t at = from;
  std::uint64_t block_end = 0;  // of a block of several parts; 0: none
  std::uint64_t block_from = 0;
  std::uint32_t block_flags = 0;
  for (const Described& part : exact) {
    for (const std::uint64_t part_end = at + part.length; at < part_end;) {
      if (block_end != 0) {
        block_flags = changed ? block_flags | part.flags : block_flags & part.flags;
      } else if (at % kStatusBlock == 0 && part_end - at >= kStatusBlock) {
        const std::uint64_t whole = (part_end - at) / kStatusBlock * kStatusBlock;
        add(whole, part.flags);
        at += whole;
        continue;
      } else {
        block_from = at;
        block_end = std::min((at / kStatusBlock + 1) * kStatusBlock, end);
        block_flags = part.flags;
      }
      at = std::min(part_end, block_end);
      if (at != block_end) continue;
      add(block_end - block_from, block_flags);
      block_end = 0;
    }
  }
  if (block_end != 0) add(block_end - block_from, careful);
  return all;
}

}  // namespace

Code code_of(BlockFault fault, bool changes) {
  switch (fault) {
    case BlockFault::beyond_end:
      return changes ? Code::enospc : Code::einval;
    case BlockFault::read_only:
      return Code::eperm;
    case BlockFault::no_space:
      return Code::enospc;
    case BlockFault::closed:
      return Code::eshutdown;
    case BlockFault::bad_data:
    case BlockFault::unavailable:
      return Code::eio;
  }
  return Code::eio;
}

void Connection::begin_task(Task<void> task) {
  ++under_way_;
  tasks_.spawn(std::move(task));
}

void Connection::task_done() {
  --under_way_;
  send_soon();
}

void Connection::start(const Request& request, ByteView data, const std::shared_ptr<Buffer>& owner) {
  const Code code = check_request(request, shape_);
  if (code != Code::ok) return reply(request, code);
  switch (request.command) {
    case Command::read:
      if (!read_now(request)) begin_task(read_task(request));
      break;
    case Command::write:
    case Command::trim:
    case Command::write_zeroes:
      add_to_batch(request, data, owner);
      break;
    case Command::flush:
      if (device_->read_only()) return reply(request, Code::ok);
      begin_task(flush_task(request));
      break;
    case Command::cache:
      begin_task(cache_task(request));
      break;
    case Command::block_status:
      begin_task(status_task(request));
      break;
    case Command::disconnect:
      break;
  }
}

bool Connection::read_now(const Request& request) {
  if (request.length > kReadNowMax) return false;
  const std::size_t header = !shape_.structured ? kSimpleReplySize
                             : shape_.extended  ? kExtendedReplySize + kChunkPrefix
                                                : kStructuredReplySize + kChunkPrefix;
  std::uint8_t* to = reserve(header + request.length);
  const MutableByteView data(to + header, request.length);
  if (!device_->try_read(request.offset, data)) return false;
  if (!shape_.structured) {
    put_simple_reply(to, request.cookie, Code::ok);
    take(header + request.length);
    return true;
  }
  if ((request.flags & kDf) == 0 && is_zero(data)) {
    std::uint8_t* after = put_chunk(to, shape_.extended, kDone, Chunk::offset_hole, request, 12);
    after = store(after, request.offset);
    after = store(after, static_cast<std::uint32_t>(request.length));
    take(static_cast<std::size_t>(after - to));
    return true;
  }
  std::uint8_t* after =
      put_chunk(to, shape_.extended, kDone, Chunk::offset_data, request, kChunkPrefix + request.length);
  store(after, request.offset);
  take(header + request.length);
  return true;
}

Task<void> Connection::read_task(Request request) {
  const Semaphore::Hold of_client = co_await read_bytes_.acquire(request.length);
  Semaphore::Hold of_all;
  do {  // while it waits for its share, others may leave no room
    of_all.release();
    co_await output_room(request.length);
    if (broken_) co_return task_done();
    of_all = co_await shared_.memory->reads.acquire(request.length);
  } while (!has_output_room(request.length));
  std::shared_ptr<Buffer> buffer = request.length <= shared_.memory->buffers.buffer_size()
                                       ? shared_.memory->buffers.acquire()
                                       : std::make_shared<Buffer>(request.length);
  std::vector<BlockDevice::Extent> parts;
  const Code code = co_await read_parts(request, buffer, parts);
  if (code == Code::ok) {
    reply_data(request, std::move(buffer), parts);
  } else {
    reply(request, code);
  }
  task_done();
}

// Reads what is data; holes of a structured reply are only named.
Task<Code> Connection::read_parts(Request request, std::shared_ptr<Buffer> buffer,
                                  std::vector<BlockDevice::Extent>& parts) {
  if (shape_.structured && (request.flags & kDf) == 0 && request.length > kReadNowMax) {
    auto found = co_await device_->extents(request.offset, request.length);
    if (!found) co_return code_of(found.error(), false);
    if (found->size() <= kPartsMax) parts = std::move(*found);
  }
  if (parts.empty()) parts.push_back({request.length, BlockDevice::Allocation::data});
  std::size_t at = 0;
  for (const BlockDevice::Extent& part : parts) {
    if (part.kind == BlockDevice::Allocation::data) {
      const MutableByteView into = buffer->view(at, part.length);
      const BlockStatus done = co_await device_->read(request.offset + at, into);
      if (!done) co_return code_of(done.error(), false);
    }
    at += part.length;
  }
  co_return Code::ok;
}

void Connection::add_to_batch(const Request& request, ByteView data, std::shared_ptr<const void> owner) {
  if (request.command != Command::write && request.length > kClearStep)
    return begin_task(clear_task(request));
  const BlockStatus added =
      request.command == Command::write
          ? device_->add_write(batch_, request.offset, data, std::move(owner))
          : device_->add_zero(batch_, request.offset, request.length,
                              request.command == Command::write_zeroes && (request.flags & kNoHole) != 0);
  if (!added) return reply(request, code_of(added.error(), true));
  batched_.push_back(request);
  if (batch_.requests() >= kBatchRequests || batch_.data_bytes() >= kBatchBytes) commit_batch();
}

void Connection::commit_batch() {
  if (batched_.empty()) return;
  Room room = std::exchange(batch_room_, {});
  if (!room.here && !try_room(batch_.data_bytes(), room)) ++without_room_;
  begin_task(commit_task(std::exchange(batch_, BlockBatch()), std::exchange(batched_, {}), std::move(room)));
}

// For a batch of small writes.
bool Connection::try_room(std::uint64_t bytes, Room& room) {
  room.here = own_writes_.try_acquire(room.of_client, bytes) ||
              (write_bytes_.try_acquire(room.of_client, bytes) &&
               shared_.memory->small_writes.try_acquire(room.of_all, bytes));
  if (!room.here) room = {};
  return room.here;
}

Task<Connection::Room> Connection::room_for(std::uint64_t bytes) {
  Room room;
  room.of_client = co_await write_bytes_.acquire(bytes);
  room.of_all = co_await shared_.memory->small_writes.acquire(bytes);
  --without_room_;
  changed_.notify_all();
  co_return room;
}

Task<void> Connection::commit_task(BlockBatch batch, std::vector<Request> requests, Room room) {
  if (!room.here) room = co_await room_for(batch.data_bytes());
  auto done = co_await device_->commit(std::move(batch));
  room = {};  // the volume bounds what is accepted and not yet written
  if (done && shared_.reconnect_safe) {
    const BlockStatus written = co_await device_->make_written(*done);
    if (!written) done = std::unexpected(written.error());
  }
  bool fua = false;
  for (const Request& request : requests) {
    if (!done) {
      reply(request, code_of(done.error(), true));
    } else if ((request.flags & kFua) != 0) {
      fua = true;
    } else {
      reply(request, Code::ok);
    }
  }
  if (fua) {
    send_soon();
    const BlockStatus durable = co_await device_->make_durable(*done);
    const Code code = durable ? Code::ok : code_of(durable.error(), true);
    for (const Request& request : requests)
      if ((request.flags & kFua) != 0) reply(request, code);
  }
  task_done();
}

// A long TRIM or WRITE_ZEROES, step by step: each is one change, in the log before the next.
Task<void> Connection::clear_task(Request request) {
  const bool allocated = request.command == Command::write_zeroes && (request.flags & kNoHole) != 0;
  BlockStatus done;
  std::uint64_t at = 0;
  while (done && at < request.length && !broken_) {
    const std::uint64_t length = std::min(request.length - at, kClearStep);
    BlockBatch step;
    done = device_->add_zero(step, request.offset + at, length, allocated);
    if (!done) break;
    const auto committed = co_await device_->commit(std::move(step));
    if (!committed) {
      done = std::unexpected(committed.error());
      break;
    }
    at += length;
    const bool last = at == request.length;
    if (last && (request.flags & kFua) != 0) {
      done = co_await device_->make_durable(*committed);
    } else if (!last || shared_.reconnect_safe) {
      done = co_await device_->make_written(*committed);
    }
  }
  reply(request, done ? Code::ok : code_of(done.error(), true));
  task_done();
}

Task<void> Connection::flush_task(Request request) {
  const BlockStatus done = co_await device_->flush();
  reply(request, done ? Code::ok : code_of(done.error(), is_change(request.command)));
  task_done();
}

Task<void> Connection::cache_task(Request request) {
  const BlockStatus done = co_await device_->prefetch(request.offset, request.length);
  reply(request, done ? Code::ok : code_of(done.error(), false));
  task_done();
}

Task<void> Connection::status_task(Request request) {
  std::vector<Bytes> bodies;
  Code code = Code::ok;
  for (const Context& context : contexts_) {
    code = co_await status_of(context, request, bodies.emplace_back());
    if (code != Code::ok) break;
  }
  if (code != Code::ok) reply(request, code);
  for (std::size_t i = 0; code == Code::ok && i < bodies.size(); ++i) {
    const Bytes& body = bodies[i];
    std::uint8_t* to = reserve(kReplySizeMax + body.size());
    const std::uint8_t* from = to;
    to =
        put_chunk(to, shape_.extended, i + 1 == bodies.size() ? kDone : 0,
                  shape_.extended ? Chunk::block_status_extended : Chunk::block_status, request, body.size());
    to = std::copy(body.begin(), body.end(), to);
    take(static_cast<std::size_t>(to - from));
  }
  task_done();
}

Task<Code> Connection::status_of(Context context, Request request, Bytes& body) {
  const bool one = (request.flags & kReqOne) != 0;
  std::vector<Described> all;
  const auto add = [&all](std::uint64_t length, std::uint32_t flags) {
    if (!all.empty() && all.back().flags == flags) {
      all.back().length += length;
    } else {
      all.push_back({length, flags});
    }
  };
  const std::uint64_t length = std::min(request.length, kStatusMost);  // an answer may tell of less
  for (std::uint64_t at = 0; at < length && all.size() < kExtentsMax && !(one && all.size() > 1);) {
    if (broken_) co_return Code::eshutdown;
    const std::uint64_t from = request.offset + at;
    const std::uint64_t left = length - at;
    if (context.kind == Context::Kind::allocation) {
      const auto found = co_await device_->extents(from, left);
      if (!found) co_return code_of(found.error(), false);
      for (const BlockDevice::Extent& part : *found) {
        at += part.length;
        add(part.length, part.kind == BlockDevice::Allocation::data   ? 0
                         : part.kind == BlockDevice::Allocation::zero ? kStateZero
                                                                      : kStateHole | kStateZero);
      }
    } else {
      const auto found = co_await device_->changed_since(context.snapshot, from, left);
      if (!found) co_return code_of(found.error(), false);
      for (const BlockDevice::Changed& part : *found) {
        at += part.length;
        add(part.length, part.changed ? 1 : 0);
      }
    }
  }
  all =
      in_blocks(all, request.offset, request.offset + request.length, context.kind == Context::Kind::changed);
  all.resize(std::min(all.size(), one ? std::size_t{1} : kExtentsMax));
  append(body, context.id);
  if (shape_.extended) append(body, static_cast<std::uint32_t>(all.size()));
  for (const Described& part : all) {
    if (shape_.extended) {
      append(body, part.length);
      append(body, std::uint64_t{part.flags});
    } else {
      append(body, static_cast<std::uint32_t>(part.length));
      append(body, part.flags);
    }
  }
  co_return Code::ok;
}

}  // namespace cumulus::nbd
