#include "fs/fuse/session.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "fs/fuse/operations.h"
#include "objectstore/base/check.h"
#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {
namespace {

constexpr std::size_t kPayloadMax = 1u << 20;
constexpr std::size_t kRequestMax = kPayloadMax + 4096;  // libfuse's own room for a request's header
constexpr std::size_t kBuffersKept = 24;
constexpr unsigned kBurstMax = 64;  // requests taken in a row before others on the reactor have their turn

// A payload of at least this much stays in the buffer it came in; less is copied, so that small writes do not
// hold buffers of a megabyte.
constexpr std::size_t kKeepFrom = 64u << 10;
// Payloads that were received and not taken yet; at so much nothing more is received until some are.
constexpr std::size_t kHeldMax = 64u << 20;
constexpr Duration kHeldInterval = std::chrono::milliseconds(1);

// The kernel writes a node's dirty pages out and forgets its pages, all from `offset` on when `length` is 0,
// then returns: it may be waiting for our answers.
ssize_t invalidate(FuseChannel& channel, std::uint64_t node, std::int64_t offset, std::int64_t length) {
  struct {
    fuse_kernel::OutHeader header;
    fuse_kernel::InvalidateOut body;
  } message{{sizeof message, fuse_kernel::kNotifyInvalidateNode, 0}, {node, offset, length}};
  const iovec part{&message, sizeof message};
  return channel.send(&part, 1);
}

// The kernel waits for who works in the directory before it forgets the name.
void invalidate_name(FuseChannel& channel, std::uint64_t parent, std::string& name) {
  struct {
    fuse_kernel::OutHeader header;
    fuse_kernel::InvalidateEntryOut body;
  } message{{0, fuse_kernel::kNotifyInvalidateEntry, 0},
            {parent, static_cast<std::uint32_t>(name.size()), 0}};
  message.header.length = static_cast<std::uint32_t>(sizeof message + name.size() + 1);
  const iovec parts[] = {{&message, sizeof message}, {name.data(), name.size() + 1}};
  channel.send(parts, 2);
}

}  // namespace

FuseSession::FuseSession(Parts parts, std::unique_ptr<FuseChannel> channel, MountOptions options)
    : parts_(parts),
      channel_(std::move(channel)),
      options_(std::move(options)),
      pool_(kRequestMax, kBuffersKept),
      scratch_(kPayloadMax),
      poll_(parts.runtime),
      changed_(parts.runtime),
      calls_(parts.runtime) {
  char name[] = "cumulus";
  char option[] = "-o";
  char allow_root[] = "allow_root";  // libfuse refuses everybody but root and this user
  char* words[] = {name, option, allow_root, nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(options_.allow_root ? 3 : 1, words);
  session_ = fuse_session_new(&arguments, &fuse_operations(), sizeof(fuse_lowlevel_ops), this);
  fuse_opt_free_args(&arguments);
  CHECK(session_ != nullptr);
  fuse_custom_io io{};
  io.writev = send_for_libfuse;
  io.read = [](int, void*, std::size_t, void*) -> ssize_t { return -1; };  // receiving is the channel's
  // libfuse wants a descriptor to own, and never uses it when it has its calls made for it.
  const int unused = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  CHECK(unused >= 0 && fuse_session_custom_io(session_, &io, unused) == 0);
}

FuseSession::~FuseSession() { fuse_session_destroy(session_); }

Task<void> FuseSession::serve() {
  unsigned burst = 0;
  while (!ended_ && !(aborting_ && telling_ == 0)) {
    if (*held_ >= kHeldMax) {
      burst = 0;
      co_await parts_.runtime.sleep_for(kHeldInterval);
      continue;
    }
    const FuseChannel::Got got = receive();
    if (got == FuseChannel::Got::ended) break;
    if (got == FuseChannel::Got::nothing) {
      burst = 0;
      co_await idle();
    } else if (++burst == kBurstMax) {
      burst = 0;
      co_await parts_.runtime.yield();
    }
  }
  ended_ = true;
  changed_.notify_all();
  while (telling_ > 0) co_await changed_.wait();
  co_await calls_.join();
}

std::shared_ptr<const void> FuseSession::keep_payload(ByteView& payload) {
  if (payload.size() >= kKeepFrom) return counted(buffer_, kRequestMax);
  const auto copy = std::make_shared<Bytes>(payload.begin(), payload.end());
  payload = *copy;
  return counted(copy, copy->size());
}

std::shared_ptr<const void> FuseSession::counted(std::shared_ptr<const void> owner, std::size_t bytes) {
  *held_ += bytes;
  const void* const place = owner.get();
  const auto let_go = [held = held_, owner = std::move(owner), bytes](const void*) mutable {
    owner.reset();
    *held -= bytes;
  };
  return {place, let_go};
}

FuseChannel::Got FuseSession::receive() {
  if (!buffer_ || buffer_.use_count() > 1) buffer_ = pool_.acquire();
  std::size_t size = 0;
  const FuseChannel::Got got = channel_->receive(buffer_->view(), size);
  if (got == FuseChannel::Got::request) {
    poll_.arrived();
    process(size);
  }
  return got;
}

// A program that works file by file sends its next request some microseconds after the answer.
Task<void> FuseSession::idle() {
  if (poll_.again(calls_.running())) {
    co_await parts_.runtime.yield();
    co_return;
  }
  co_await channel_->wait();
  poll_.woke();
}

Task<bool> FuseSession::ready() {
  while (!ready_ && !ended_) co_await changed_.wait();
  co_return ready_;
}

void FuseSession::abort() {
  aborting_ = true;
  channel_->interrupt();
}

void FuseSession::process(std::size_t size) {
  request_ = buffer_->view(0, size);
  fuse_kernel::InHeader header;
  if (size < sizeof header) {
    log_error("the kernel sent a FUSE request of {} bytes: too short to be one", size);
    return;
  }
  std::memcpy(&header, request_.data(), sizeof header);
  if (header.opcode == fuse_kernel::kInit) {
    init_unique_ = header.unique;
    fuse_kernel::InitIn init{};
    std::memcpy(&init, request_.data() + sizeof header, std::min(size - sizeof header, sizeof init));
    offered_flags_ = init.flags | std::uint64_t{init.flags2} << 32;
  }
  opcode_ = header.opcode;
  ++requests_;
  if (opcode_ < requests_by_opcode_.size()) ++requests_by_opcode_[opcode_];
  if (opcode_ == fuse_kernel::kTmpFile) header.opcode = fuse_kernel::kCreate;
  if (opcode_ == fuse_kernel::kStatx) header.opcode = fuse_kernel::kGetattr;
  std::memcpy(buffer_->data(), &header, sizeof header);
  fuse_buf whole{};
  whole.mem = buffer_->data();
  whole.size = size;
  fuse_session_process_buf(session_, &whole);
  request_ = {};
}

ssize_t FuseSession::send_for_libfuse(int, iovec* parts, int count, void* self) {
  auto& session = *static_cast<FuseSession*>(self);
  if (session.init_unique_) session.complete_init(parts, count);
  const ssize_t sent = session.channel_->send(parts, count);
  if (sent >= 0) return 0;
  errno = static_cast<int>(-sent);
  // libfuse prints on standard error whatever else it is told; that nobody waits is all that concerns its
  // callers.
  if (errno != ENOENT) {
    if (!session.ended_) log_debug("{}", from_errno(errno, "answering the kernel").message());
    errno = ENOENT;
  }
  return -1;
}

// libfuse 3.14 does not know these flags: they are put into its answer when the kernel offers them.
void FuseSession::complete_init(iovec* parts, int count) {
  fuse_kernel::OutHeader header;
  std::memcpy(&header, parts[0].iov_base, sizeof header);
  if (header.unique != *init_unique_) return;
  init_unique_.reset();
  if (header.error == 0 && count > 1 && parts[1].iov_len >= sizeof(fuse_kernel::InitOut)) {
    fuse_kernel::InitOut init;
    std::memcpy(&init, parts[1].iov_base, sizeof init);
    const std::uint64_t wanted =
        fuse_kernel::kMaxPages | fuse_kernel::kHandleKillprivV2 | fuse_kernel::kSetXattrExt;
    init.flags |= static_cast<std::uint32_t>(offered_flags_ & wanted);
    if (init.max_pages == 0) init.max_pages = kPayloadMax / 4096;
    std::memcpy(parts[1].iov_base, &init, sizeof init);
  }
  ready_ = header.error == 0;
  changed_.notify_all();
}

void FuseSession::writer_closed(std::uint64_t node) {
  const auto found = writers_.find(node);
  if (found != writers_.end() && --found->second == 0) writers_.erase(found);
}

Task<Status> FuseSession::write_out() {
  std::vector<std::uint64_t> nodes;
  nodes.reserve(writers_.size());
  for (const auto& [node, handles] : writers_) nodes.push_back(node);
  co_return co_await write_out(std::move(nodes), 0, 0);
}

Task<Status> FuseSession::write_out(std::uint64_t node, std::int64_t offset, std::int64_t length) {
  if (!writers_.contains(node)) co_return Status();
  std::vector<std::uint64_t> one{node};
  co_return co_await write_out(std::move(one), offset, length);
}

Task<Status> FuseSession::write_out(std::vector<std::uint64_t> nodes, std::int64_t offset,
                                    std::int64_t length) {
  FuseChannel& channel = *channel_;
  ++telling_;
  const ssize_t failed = co_await parts_.lane.run([&channel, &nodes, &offset, &length] {
    ssize_t worst = 0;
    for (const std::uint64_t node : nodes) {
      const ssize_t result = invalidate(channel, node, offset, length);
      if (result != 0 && result != -ENOENT)
        worst = result;  // ENOENT: the kernel has forgotten it, so it is clean
    }
    return worst;
  });
  told();
  if (failed != 0 && !ended_)
    co_return fail(from_errno(static_cast<int>(-failed), "have the kernel write out a mount's pages"));
  co_return Status();
}

void FuseSession::forget_in_kernel(std::vector<Stale> stale) {
  if (!ended_ && !stale.empty()) calls_.spawn(tell_stale(std::move(stale)));
}

// What the kernel has forgotten itself it does not know wrongly: no answer matters.
Task<void> FuseSession::tell_stale(std::vector<Stale> stale) {
  FuseChannel& channel = *channel_;
  ++telling_;
  co_await parts_.lane.run([&channel, &stale] {
    for (Stale& one : stale) {
      if (!one.name.empty()) invalidate_name(channel, one.node, one.name);
      invalidate(channel, one.node, one.pages ? 0 : -1, 0);
    }
    return true;
  });
  told();
}

void FuseSession::told() {
  --telling_;
  changed_.notify_all();
  if (aborting_) channel_->interrupt();
}

}  // namespace cumulus
