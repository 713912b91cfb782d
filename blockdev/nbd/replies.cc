// Bytes out: small replies are written one after the other into a shared tail, large data goes from where it
// was read; all of one wake-up leave in one system call.
#include <algorithm>

#include "blockdev/nbd/connection.h"
#include "objectstore/base/check.h"
#include "objectstore/base/log.h"

namespace cumulus::nbd {
namespace {
// Whether there is room again, which other clients make too.
constexpr Duration kLookForRoom = std::chrono::milliseconds(200);
constexpr Duration kLookAgain = std::chrono::seconds(1);
}  // namespace

// `size` bytes in a row at the end of the output; take() what was filled before anything else is reserved.
std::uint8_t* Connection::reserve(std::size_t size) {
  if (output_.empty() && tail_ && tail_.use_count() == 1) tail_used_ = 0;
  if (!tail_ || tail_->size() - tail_used_ < size) {
    tail_ = shared_.memory->buffers.acquire();
    tail_used_ = 0;
  }
  CHECK(tail_->size() >= size);
  return tail_->data() + tail_used_;
}

void Connection::take(std::size_t size) {
  const Piece piece{tail_, tail_used_, tail_used_ + size};
  tail_used_ += size;
  put_piece(piece);
}

void Connection::put_piece(Piece piece) {
  if (broken_ || piece.from == piece.to) return;
  output_bytes_ += piece.to - piece.from;
  shared_.memory->untaken += piece.to - piece.from;
  if (!output_.empty() && output_.back().buffer == piece.buffer && output_.back().to == piece.from) {
    output_.back().to = piece.to;
  } else {
    output_.push_back(std::move(piece));
  }
}

void Connection::reply(const Request& request, Code code) {
  std::uint8_t* to = reserve(kReplySizeMax + 6);
  const std::uint8_t* from = to;
  const bool chunked =
      shape_.extended ||
      (shape_.structured && (request.command == Command::read || request.command == Command::block_status));
  if (!chunked) {
    to = put_simple_reply(to, request.cookie, code);
  } else if (code == Code::ok) {
    to = put_chunk(to, shape_.extended, kDone, Chunk::none, request, 0);
  } else {
    to = put_chunk(to, shape_.extended, kDone, Chunk::error, request, 6);
    to = store(to, static_cast<std::uint32_t>(code));
    to = store(to, std::uint16_t{0});
  }
  take(static_cast<std::size_t>(to - from));
}

void Connection::reply_data(const Request& request, std::shared_ptr<Buffer> buffer,
                            const std::vector<BlockDevice::Extent>& parts) {
  if (!shape_.structured) {
    std::uint8_t* to = reserve(kSimpleReplySize);
    put_simple_reply(to, request.cookie, Code::ok);
    take(kSimpleReplySize);
    put_piece({std::move(buffer), 0, request.length});
    return;
  }
  std::size_t at = 0;
  for (const BlockDevice::Extent& part : parts) {
    const bool last = at + part.length == request.length;
    const bool data = part.kind == BlockDevice::Allocation::data;
    std::uint8_t* to = reserve(kReplySizeMax + 12);
    const std::uint8_t* from = to;
    to = put_chunk(to, shape_.extended, last ? kDone : 0, data ? Chunk::offset_data : Chunk::offset_hole,
                   request, data ? 8 + part.length : 12);
    to = store(to, request.offset + at);
    if (!data) to = store(to, static_cast<std::uint32_t>(part.length));
    take(static_cast<std::size_t>(to - from));
    if (data) put_piece({buffer, at, at + part.length});
    at += part.length;
  }
}

// After what is ready now has run: many tasks that end together send together.
void Connection::send_soon() {
  if (send_posted_) return;
  send_posted_ = true;
  shared_.runtime.post([self = shared_from_this()] {
    self->send_posted_ = false;
    self->send_now();
  });
}

void Connection::send_now() {
  while (!output_.empty() && !sending_ && !broken_) {
    iovec parts[64];
    std::size_t count = 0;
    for (const Piece& piece : output_) {
      parts[count].iov_base = piece.buffer->data() + piece.from;
      parts[count].iov_len = piece.to - piece.from;
      if (++count == std::size(parts)) break;
    }
    const Stream::Moved moved = stream_->write_some({parts, count});
    if (moved.outcome == Stream::Outcome::closed) {
      stream_->shut();
      return broken();
    }
    taken(moved.bytes);
    for (std::size_t left = moved.bytes; left > 0;) {
      Piece& first = output_.front();
      const std::size_t part = std::min(left, first.to - first.from);
      first.from += part;
      left -= part;
      if (first.from == first.to) output_.pop_front();
    }
    if (moved.outcome == Stream::Outcome::moved) continue;
    sending_ = true;
    tasks_.spawn(send_when_writable());
  }
  if (changed_.has_waiters()) changed_.notify_all();
}

void Connection::taken(std::size_t bytes) {
  output_bytes_ -= bytes;
  shared_.memory->untaken -= bytes;
  progress_ += bytes;
  if (output_bytes_ > 0 && progress_ < shared_.limits.progress_min) return;
  progress_ = 0;
  slow_since_ = {};
}

// For the answer to a read of so many bytes.
bool Connection::has_output_room(std::uint64_t length) const {
  if (!shared_.memory->is_crowded()) return output_bytes_ <= shared_.limits.output_max;
  return output_bytes_ == 0 && length <= Memory::kHuge;
}

// Until clients, and this one, have taken enough of their answers for more, or this one is gone. Whoever
// takes none while it is to end is not waited for.
Task<void> Connection::output_room(std::uint64_t length) {
  TimePoint deadline = TimePoint::max();
  while (!broken_ && !has_output_room(length)) {
    if (!ending_) {
      co_await changed_.wait_until(shared_.runtime.now() + kLookForRoom);
      continue;
    }
    deadline = std::min(deadline, shared_.runtime.now() + shared_.limits.goodbye_max);
    const bool in_time = co_await changed_.wait_until(deadline);
    if (!in_time) cut();
  }
}

Task<void> Connection::send_when_writable() {
  if (slow_since_ == TimePoint()) slow_since_ = shared_.runtime.now();
  start_patience(slow_since_ + shared_.limits.payload_max);
  co_await stream_->wait(Stream::Outcome::wants_write);
  shared_.runtime.cancel_timer(patience_);
  sending_ = false;
  send_now();
}

// Nobody is cut off while there is room for what it does not take.
void Connection::start_patience(TimePoint until) {
  patience_ = shared_.runtime.start_timer(until, [this] {
    if (!shared_.memory->is_crowded()) return start_patience(shared_.runtime.now() + kLookAgain);
    log_warn("nbd client {}: takes no answers while memory is short; its connection is closed", peer_);
    cut();
  });
}

void Connection::broken() {
  broken_ = true;
  output_.clear();
  taken(output_bytes_);
  changed_.notify_all();
}

}  // namespace cumulus::nbd
