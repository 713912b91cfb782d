// FuseSession: one kernel connection, from INIT until the kernel lets go. Receives requests, has libfuse
// decode them, runs each as a Task (or answers at once), and knows what is in flight. Reactor thread; nothing
// here blocks.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "fs/file_system.h"
#include "fs/fuse/channel.h"
#include "fs/fuse/kernel_protocol.h"
#include "fs/fuse/libfuse.h"
#include "fs/fuse/mount_options.h"
#include "objectstore/io/adaptive_poll.h"
#include "objectstore/io/blocking_lane.h"
#include "objectstore/io/sync.h"

namespace cumulus {

class FuseSession {
 public:
  // What a mount is made of; all outlive the session. `lane` is where the kernel is asked to write out.
  struct Parts {
    Runtime& runtime;
    BlockingLane& lane;
    PosixFileSystem& files;
  };
  FuseSession(Parts parts, std::unique_ptr<FuseChannel> channel, MountOptions options);
  ~FuseSession();
  FuseSession(const FuseSession&) = delete;
  FuseSession& operator=(const FuseSession&) = delete;

  // Serves until the kernel lets go or abort(); returns when every call has ended.
  Task<void> serve();
  // Until the kernel has said INIT and was answered: false when the connection ended before.
  Task<bool> ready();
  // Has the kernel write out the dirty pages of every file that is open for writing, so that all that write()
  // or msync() returned before is in the file system. Must run beside serve().
  Task<Status> write_out();
  // The same for a range of one file; a length of 0 is to its end.
  Task<Status> write_out(std::uint64_t node, std::int64_t offset, std::int64_t length);
  // What the kernel knows and may be wrong: a node's attributes, and its pages if `pages`; with a name, that
  // name in this directory too.
  struct Stale {
    std::uint64_t node = 0;
    std::string name;
    bool pages = true;
  };
  // Has the kernel forget it, in the background.
  void forget_in_kernel(std::vector<Stale> stale);
  // What the kernel has asked for since the mount: all requests, and those of one kind.
  std::uint64_t requests() const { return requests_; }
  std::uint64_t requests_of(fuse_kernel::Opcode opcode) const { return requests_by_opcode_[opcode]; }
  // Ends the connection from our side: users of the mount get errors. The last resort.
  void abort();

  // --- for the operations ---
  PosixFileSystem& files() { return parts_.files; }
  Runtime& runtime() { return parts_.runtime; }
  TaskGroup& calls() { return calls_; }
  const MountOptions& options() const { return options_; }
  // The kernel cannot do without OPENDIR.
  bool opens_directories() const { return opens_directories_; }
  void set_opens_directories(bool yes) { opens_directories_ = yes; }
  // The kernel sends SETXATTR's longer form.
  bool long_setxattr() const { return (offered_flags_ & fuse_kernel::kSetXattrExt) != 0; }
  // What the kernel asks for in the request being processed. libfuse 3.14 does not know TMPFILE and STATX: it
  // is shown CREATE and GETATTR, which have the same form, and their operations look here.
  std::uint32_t opcode() const { return opcode_; }
  // The request being processed, whole; and its buffer, for who keeps its payload.
  ByteView request() const { return request_; }
  // Keeps the payload of the request being processed until it is let go, on any thread: its buffer, or a copy
  // of a small one, which `payload` then shows. Counted: see kHeldMax.
  std::shared_ptr<const void> keep_payload(ByteView& payload);
  std::shared_ptr<Buffer> read_buffer() { return pool_.acquire(); }
  // A node was opened for writing, or such a handle closed.
  void writer_opened(std::uint64_t node) { ++writers_[node]; }
  void writer_closed(std::uint64_t node);
  bool has_writer(std::uint64_t node) const { return writers_.contains(node); }
  // Memory for an answer that is sent before the next request is looked at.
  MutableByteView scratch(std::size_t size) { return scratch_.view(0, std::min(size, scratch_.size())); }

 private:
  static ssize_t send_for_libfuse(int, iovec* parts, int count, void* self);
  FuseChannel::Got receive();
  std::shared_ptr<const void> counted(std::shared_ptr<const void> owner, std::size_t bytes);
  Task<void> idle();
  Task<Status> write_out(std::vector<std::uint64_t> nodes, std::int64_t offset, std::int64_t length);
  Task<void> tell_stale(std::vector<Stale> stale);
  void told();
  void process(std::size_t size);
  void complete_init(iovec* parts, int count);

  Parts parts_;
  std::unique_ptr<FuseChannel> channel_;
  MountOptions options_;
  BufferPool pool_;
  std::shared_ptr<Buffer> buffer_;
  std::shared_ptr<std::atomic<std::size_t>> held_ = std::make_shared<std::atomic<std::size_t>>(0);
  ByteView request_;
  std::uint32_t opcode_ = 0;
  std::uint64_t requests_ = 0;
  std::array<std::uint64_t, fuse_kernel::kOpcodes> requests_by_opcode_{};
  Buffer scratch_;
  AdaptivePoll poll_;
  std::optional<std::uint64_t> init_unique_;
  std::uint64_t offered_flags_ = 0;
  bool opens_directories_ = true;
  bool ready_ = false;
  bool ended_ = false;
  bool aborting_ = false;
  unsigned telling_ = 0;  // notices to the kernel under way: it may be waiting for us before it takes them
  fuse_session* session_ = nullptr;
  std::unordered_map<std::uint64_t, std::uint32_t> writers_;  // open handles for writing, by node
  Signal changed_;
  TaskGroup calls_;
};

}  // namespace cumulus
